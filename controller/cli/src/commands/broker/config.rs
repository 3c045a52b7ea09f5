//! `muster broker config`: writes the files a broker starts with, and imports them on request.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use muster_broker_config::{
    CENTER, Definitions, FILE_CONF, FILE_DEFINITIONS, FILE_PLUGINS, LinkedSite, Purpose, Role, Site, definitions,
    enabled_plugins, rabbitmq_conf,
};
use muster_daemon::write_atomic;
use muster_protocol::Identity;
use muster_protocol::routing::QUEUE_UPLINK;
use serde::Serialize;

use super::Members;
use super::check::unreadable;
use super::control::Control;
use crate::output::number::counted;
use crate::output::{ExitCode, Failure, Printer, Style, Text};

/// Mode of the files: the broker reads them as another user, and none holds a secret.
const MODE: u32 = 0o644;

/// Arguments of `broker config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    /// Directory for the files; made if it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    members: Members,
    /// Address for AMQP over TLS; may be repeated. Without it every address, port 5671.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "import")]
    listen: Vec<SocketAddr>,
    /// Path of the CA's certificate on the broker's machine.
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    ca: Option<PathBuf>,
    /// Path of the broker's certificate on the broker's machine.
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    certificate: Option<PathBuf>,
    /// Path of the broker's private key on the broker's machine.
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    key: Option<PathBuf>,
    /// Path of the definitions on the broker's machine.
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    definitions: Option<PathBuf>,
    /// Address of RabbitMQ's management interface, which is off without this.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "import")]
    management: Option<SocketAddr>,
    /// For a trial beside other programs: low marks for memory and disk.
    #[arg(long, conflicts_with = "import")]
    private: bool,
    /// Replace a rabbitmq.conf or enabled_plugins that is there and says something else.
    #[arg(long, conflicts_with = "import")]
    force: bool,
    /// Write definitions.json only, and import it into the running broker, without a restart.
    #[arg(long)]
    import: bool,
    /// With --import: also delete users of ours that have no valid certificate in the CA directory.
    #[arg(long, requires_all = ["import", "ca_dir"])]
    prune: bool,
    #[command(flatten)]
    control: Control,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    /// The broker's name, where the files of several are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<String>,
    /// Brokers of sites that have no certificate in force, and so no user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without_link: Vec<Identity>,
    directory: PathBuf,
    files: Vec<&'static str>,
    /// Files that say something else than what was generated, and stay as they were.
    kept: Vec<Kept>,
    virtual_host: String,
    users: usize,
    imported: bool,
    /// Users that were deleted from the running broker.
    deleted: Vec<String>,
}

/// A file that was left alone, and how it differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Kept {
    file: &'static str,
    /// Its lines that would not be generated.
    only_there: Vec<String>,
    /// Lines that would be generated and are not in it.
    only_generated: Vec<String>,
}

impl Kept {
    /// Compares what lies at a path with what was generated; `None` if nothing is there, or the same.
    fn compare(file: &'static str, path: &Path, generated: &str) -> Result<Option<Self>, Failure> {
        let there = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", path, &error)),
        };
        let missing = |from: &str, other: &str| -> Vec<String> {
            let known: BTreeSet<&str> = other.lines().map(str::trim_end).collect();
            let lines = from.lines().map(str::trim_end).filter(|line| !line.is_empty() && !known.contains(line));
            lines.map(str::to_owned).collect()
        };
        let (only_there, only_generated) = (missing(&there, generated), missing(generated, &there));
        // The order of lines and empty ones mean nothing to the broker.
        let same = only_there.is_empty() && only_generated.is_empty();
        Ok((!same).then_some(Self { file, only_there, only_generated }))
    }
}

/// Writes the files. What an administrator may have changed, or another call has chosen, is not undone.
pub(super) fn run(arguments: &ConfigArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    if arguments.import {
        arguments.members.role()?;
    }
    let mut all = Vec::new();
    for (name, role) in arguments.members.roles()? {
        let out = name.as_ref().map_or_else(|| arguments.out.clone(), |name| arguments.out.join(name));
        all.push(write(arguments, name, role, out)?);
    }
    match all.as_slice() {
        [written] if written.broker.is_none() => show(written, printer),
        several if printer.format().is_for_programs() => {
            printer.document("muster.broker_configs/v1", &serde_json::json!({ "brokers": several }));
        }
        several => several.iter().for_each(|written| show(written, printer)),
    }
    Ok(ExitCode::Success)
}

/// Writes the files of one broker into `out`, and imports them on request.
fn write(arguments: &ConfigArguments, name: Option<String>, role: Role, out: PathBuf) -> Result<Written, Failure> {
    let site = site(arguments, role)?;
    let definitions = definitions(&site);
    std::fs::create_dir_all(&out).map_err(|error| Failure::file("create", &out, &error))?;
    let mut files = vec![(FILE_DEFINITIONS, definitions.to_json())];
    let mut kept = Vec::new();
    if !arguments.import {
        for (name, text) in [(FILE_CONF, rabbitmq_conf(&site)), (FILE_PLUGINS, enabled_plugins(&site))] {
            let differs = match arguments.force {
                true => None,
                false => Kept::compare(name, &out.join(name), &text)?,
            };
            match differs {
                Some(differs) => kept.push(differs),
                None => files.push((name, text)),
            }
        }
        files.push(("README", readme(&site, &definitions, arguments.control.node.as_deref())));
    }
    for (name, text) in &files {
        let path = out.join(name);
        write_atomic(&path, MODE, text.as_bytes()).map_err(|error| Failure::file("write", &path, error.io()))?;
    }
    if arguments.import {
        // Without a file it reads standard input; `-` is in its help, but 3.10 takes it for a file.
        arguments.control.run(&["import_definitions"], &definitions.to_json())?;
    }
    let deleted = if arguments.prune { prune(&arguments.control, &definitions, &site.vhost)? } else { Vec::new() };
    Ok(Written {
        broker: name,
        without_link: without_link(&site),
        directory: out,
        files: files.iter().map(|(name, _)| *name).collect(),
        kept,
        virtual_host: site.vhost,
        users: definitions.users.len(),
        imported: arguments.import,
        deleted,
    })
}

/// At the centre: brokers of sites that nobody has issued a certificate for, so that they cannot be linked.
fn without_link(site: &Site) -> Vec<Identity> {
    let Role::Center(sites) = &site.role else { return Vec::new() };
    sites.iter().map(LinkedSite::identity).filter(|broker| !site.identities.contains(broker)).collect()
}

fn site(arguments: &ConfigArguments, role: Role) -> Result<Site, Failure> {
    let identities = arguments.members.identities()?;
    if identities.is_empty() {
        return Err(Failure::usage("nobody would be able to log in")
            .why("given", "neither a CA directory with valid certificates nor an identity")
            .hint("muster broker config --ca-dir DIR --out DIR"));
    }
    let mut site = Site { vhost: arguments.members.vhost.clone(), role, ..Site::new(identities) };
    if !arguments.listen.is_empty() {
        site.listen.clone_from(&arguments.listen);
    }
    for (given, place) in [
        (&arguments.ca, &mut site.certificate.ca),
        (&arguments.certificate, &mut site.certificate.certificate),
        (&arguments.key, &mut site.certificate.key),
        (&arguments.definitions, &mut site.definitions),
    ] {
        if let Some(given) = given {
            place.clone_from(given);
        }
    }
    if arguments.private {
        site.purpose = Purpose::Private;
    }
    site.management = arguments.management;
    Ok(site)
}

/// Deletes users of ours that are not expected. One that also works in another virtual host only loses
/// its permissions here: another CA may vouch for it there.
fn prune(control: &Control, expected: &Definitions, vhost: &str) -> Result<Vec<String>, Failure> {
    let exported = control.run(&["export_definitions", "-"], "")?;
    let actual = Definitions::parse(&exported).map_err(|error| unreadable("definitions", &error))?;
    let mut deleted = Vec::new();
    for user in actual.users.into_iter().map(|user| user.name) {
        if !user.starts_with("muster:") || expected.users.iter().any(|known| known.name == user) {
            continue;
        }
        let works = |here: bool| actual.permissions.iter().any(|it| it.user == user && (it.vhost == vhost) == here);
        if !works(false) {
            control.run(&["delete_user", &user], "")?;
            deleted.push(user);
        } else if works(true) {
            control.run(&["clear_permissions", "-p", vhost, &user], "")?;
            deleted.push(user);
        }
    }
    Ok(deleted)
}

fn show(written: &Written, printer: &Printer) {
    for kept in &written.kept {
        let path = written.directory.join(kept.file);
        printer.warning(format!("{} is kept as it is, and differs from what these words say:", path.display()));
        let lines = |mark: &'static str, lines: &[String]| -> Vec<String> {
            lines.iter().map(|line| format!("  {mark} {line}")).collect()
        };
        for line in lines("there:    ", &kept.only_there).into_iter().chain(lines("generated:", &kept.only_generated)) {
            printer.warned(line);
        }
        printer.warned("  give the flags it was written with, or --force to replace it");
    }
    for broker in &written.without_link {
        printer.warning(format!("{} has no certificate in force, so its site cannot be linked", broker.short()));
        printer.warned(format!("  muster pki issue {} --link --out DIR, then this again", broker.short()));
    }
    if printer.format().is_for_programs() {
        printer.document("muster.broker_config/v1", written);
        return;
    }
    for file in &written.files {
        printer.line(written.directory.join(file).display().to_string());
    }
    let users = counted(written.users, "user", "users");
    let imported = if written.imported { ", imported into the running broker" } else { "" };
    printer.note(format!("{users} in virtual host {}{imported}", written.virtual_host));
    for user in &written.deleted {
        printer.note(format!("{user} may no longer log in"));
    }
    if !written.imported {
        let readme = written.directory.join("README").display().to_string();
        printer.note(Text::from("The next commands are in ").push(Style::Accent, readme));
    }
}

/// The next commands, with this site's paths.
fn readme(site: &Site, definitions: &Definitions, node: Option<&str>) -> String {
    let show = |path: &Path| path.display().to_string();
    let certificate = &site.certificate;
    let folder = |path: &Path| path.parent().map_or_else(|| "/".to_owned(), show);
    let mut text = String::from("Generated by `muster broker config`; see docs/book/src/broker.md.\n\n");
    let mut add = |line: &str| writeln!(text, "{line}").expect("writing to a string succeeds");
    add(&format!(
        "These files make a RabbitMQ (3.10 to 4.x) the broker of virtual host {} with {}.",
        site.vhost,
        counted(definitions.users.len(), "user", "users")
    ));
    add("Nothing in them is secret. On the broker's machine, as root:\n");
    add("A new broker");
    let folders = [&site.definitions, &certificate.ca, &certificate.certificate, &certificate.key];
    let folders: BTreeSet<String> = folders.into_iter().map(|path| folder(path)).collect();
    add(&format!("  install -d {}", folders.into_iter().collect::<Vec<_>>().join(" ")));
    add(&format!("  install -m 644 {FILE_DEFINITIONS} {}", show(&site.definitions)));
    add(&format!("  install -m 644 {FILE_CONF} {FILE_PLUGINS} /etc/rabbitmq/"));
    add("  with the files that `muster pki issue broker/NAME --out DIR` wrote into DIR:");
    add(&format!("  install -m 644 DIR/ca.pem {}", show(&certificate.ca)));
    add(&format!("  install -m 644 DIR/broker-NAME.pem {}", show(&certificate.certificate)));
    add(&format!("  install -m 400 DIR/broker-NAME.key {}", show(&certificate.key)));
    add(&format!("  chown rabbitmq: {}", show(&certificate.key)));
    add("  systemctl restart rabbitmq-server");
    add("  rabbitmqctl delete_user guest        (only if this broker ran before)\n");
    let node = node.map(|node| format!(" --node {node}")).unwrap_or_default();
    let more = match &site.role {
        Role::Alone => String::new(),
        Role::Center(_) => format!(" --sites sites.toml --broker {CENTER}"),
        Role::Site { site, .. } => format!(" --sites sites.toml --broker {}", site.name),
    };
    links(&site.role, &node, &site.vhost, &mut add);
    add("A running broker gets new hosts and users without a restart");
    add(&format!("  muster broker config --ca-dir CA_DIR --vhost {}{more}{node} --out . --import      or", site.vhost));
    add(&format!("  rabbitmqctl{node} import_definitions {FILE_DEFINITIONS}"));
    add(&format!("  install -m 644 {FILE_DEFINITIONS} {}   (read at the next start)\n", show(&site.definitions)));
    add("An import never deletes. A revoked certificate's user has to go, which also closes its connections");
    add(&format!("  rabbitmqctl{node} delete_user 'muster:host/NAME'\n"));
    add("Look whether everything is as it should be");
    add(&format!("  muster broker check --ca-dir CA_DIR --vhost {}{more}{node}", site.vhost));
    text
}

/// What else is to be known about a broker that is linked to others.
fn links(role: &Role, node: &str, vhost: &str, add: &mut impl FnMut(&str)) {
    match role {
        Role::Alone => {}
        Role::Center(sites) => {
            add("The centre: import here first, then at the sites. It knows the sites");
            for site in sites {
                let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
                add(&format!(
                    "  {}, whose broker is {}, with {}",
                    site.name,
                    site.identity().short(),
                    hosts.join(", ")
                ));
            }
            add("What waits for each site");
            add(&format!("  rabbitmqctl{node} list_queues -p {vhost} name messages | grep federation\n"));
        }
        Role::Site { site, center } => {
            let addresses: Vec<String> = center.addresses.iter().map(ToString::to_string).collect();
            add(&format!(
                "Site {}, linked to {}. It connects to the centre, never the other way.",
                site.name,
                addresses.join(", ")
            ));
            add("Its certificate has to be for a link:");
            add(&format!("  muster pki issue {} --link --out DIR", site.identity().short()));
            add("Whether the link is up, and what waits for it");
            add(&format!("  rabbitmqctl{node} eval 'rabbit_federation_status:status().'"));
            add(&format!("  rabbitmqctl{node} eval 'rabbit_shovel_status:status().'"));
            add(&format!("  rabbitmqctl{node} list_queues -p {vhost} name messages | grep {QUEUE_UPLINK}\n"));
        }
    }
}
