//! `muster broker config`: writes the files a broker starts with, and imports them on request.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use muster_broker_config::{
    Definitions, FILE_CONF, FILE_DEFINITIONS, FILE_PLUGINS, Purpose, Site, definitions, enabled_plugins, rabbitmq_conf,
};
use muster_daemon::write_atomic;
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
    let site = site(arguments)?;
    let definitions = definitions(&site);
    std::fs::create_dir_all(&arguments.out).map_err(|error| Failure::file("create", &arguments.out, &error))?;
    let mut files = vec![(FILE_DEFINITIONS, definitions.to_json())];
    let mut kept = Vec::new();
    if !arguments.import {
        for (name, text) in [(FILE_CONF, rabbitmq_conf(&site)), (FILE_PLUGINS, enabled_plugins(&site))] {
            let differs = match arguments.force {
                true => None,
                false => Kept::compare(name, &arguments.out.join(name), &text)?,
            };
            match differs {
                Some(differs) => kept.push(differs),
                None => files.push((name, text)),
            }
        }
        files.push(("README", readme(&site, &definitions, arguments.control.node.as_deref())));
    }
    for (name, text) in &files {
        let path = arguments.out.join(name);
        write_atomic(&path, MODE, text.as_bytes()).map_err(|error| Failure::file("write", &path, error.io()))?;
    }
    if arguments.import {
        // Without a file it reads standard input; `-` is in its help, but 3.10 takes it for a file.
        arguments.control.run(&["import_definitions"], &definitions.to_json())?;
    }
    let deleted = if arguments.prune { prune(&arguments.control, &definitions, &site.vhost)? } else { Vec::new() };
    let written = Written {
        directory: arguments.out.clone(),
        files: files.iter().map(|(name, _)| *name).collect(),
        kept,
        virtual_host: site.vhost,
        users: definitions.users.len(),
        imported: arguments.import,
        deleted,
    };
    show(&written, printer);
    Ok(ExitCode::Success)
}

fn site(arguments: &ConfigArguments) -> Result<Site, Failure> {
    let identities = arguments.members.identities()?;
    if identities.is_empty() {
        return Err(Failure::usage("nobody would be able to log in")
            .why("given", "neither a CA directory with valid certificates nor an identity")
            .hint("muster broker config --ca-dir DIR --out DIR"));
    }
    let mut site = Site { vhost: arguments.members.vhost.clone(), ..Site::new(identities) };
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
    add("A running broker gets new hosts and users without a restart");
    add(&format!("  muster broker config --ca-dir CA_DIR --vhost {}{node} --out . --import      or", site.vhost));
    add(&format!("  rabbitmqctl{node} import_definitions {FILE_DEFINITIONS}"));
    add(&format!("  install -m 644 {FILE_DEFINITIONS} {}   (read at the next start)\n", show(&site.definitions)));
    add("An import never deletes. A revoked certificate's user has to go, which also closes its connections");
    add(&format!("  rabbitmqctl{node} delete_user 'muster:host/NAME'\n"));
    add("Look whether everything is as it should be");
    add(&format!("  muster broker check --ca-dir CA_DIR --vhost {}{node}", site.vhost));
    text
}
