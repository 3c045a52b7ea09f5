//! `muster pki`: the certificate authority, enrolment and revocation.
//!
//! Each verb builds an answer ([`answer`]) with `muster_pki`, and the answer is printed as lines, a table or JSON.

mod answer;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand, ValueEnum};
use muster_pki::authority::{Authority, InitOptions, Record, RecordState, Selection};
use muster_pki::profile::{AUTHORITY_DAYS_DEFAULT, Order};
use muster_pki::request::{self, Request};
use muster_pki::{Certificate, PkiError, Reason, crl};
use muster_protocol::{GroupName, HostName, Identity, Timestamp};

use self::answer::{AuthorityView, CertificateView, CrlView, FilesView, RequestView, Shown};
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Printer, word};

/// Where an authority lives unless somebody says otherwise.
const DIRECTORY_DEFAULT: &str = "/etc/muster/ca";

/// Verbs of `pki`, and where the authority lives.
#[derive(Debug, Args)]
pub(crate) struct PkiArguments {
    /// Directory of the certificate authority.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MUSTER_CA_DIR",
        hide_env = true,
        default_value = DIRECTORY_DEFAULT
    )]
    ca_dir: PathBuf,
    #[command(subcommand)]
    verb: PkiVerb,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum PkiVerb {
    /// Make a new certificate authority.
    #[command(before_help = "Examples:\n  \
        muster pki init\n  \
        muster pki init --ca-dir ./ca --name 'Example CA' --days 1825")]
    Init(InitArguments),
    /// Make a key and a certificate here, for somebody who cannot make the key.
    #[command(before_help = "Examples:\n  \
        muster pki issue user/lea --group ops --out ./lea\n  \
        muster pki issue broker/mq1.example.com --dns mq.example.com --out ./mq1")]
    Issue(IssueArguments),
    /// Make a key and a certificate request, on the machine that keeps the key.
    #[command(before_help = "Examples:\n  \
        muster pki request host/web1.example.com --out /etc/muster/tls\n  \
        muster pki request host/web1.example.com --key web1.key --out ./renewal")]
    Request(RequestArguments),
    /// Sign a certificate request that a host made.
    #[command(before_help = "Examples:\n  \
        muster pki sign host-web1.example.com.csr --out ./web1\n  \
        muster pki sign host-web1.example.com.csr --identity host/web1.example.com --renew --out ./web1")]
    Sign(SignArguments),
    /// Take a certificate back and sign a new revocation list.
    #[command(before_help = "Examples:\n  \
        muster pki revoke host/web1.example.com --reason cessation-of-operation\n  \
        muster pki revoke 4f3a91c2 --reason key-compromise")]
    Revoke(RevokeArguments),
    /// List every certificate ever issued.
    #[command(before_help = "Examples:\n  muster pki list\n  muster pki list --state valid --json")]
    List(ListArguments),
    /// Show a certificate, request or revocation list.
    #[command(before_help = "Examples:\n  \
        muster pki show ca\n  \
        muster pki show user/lea\n  \
        muster pki show ./host-web1.csr")]
    Show(ShowArguments),
    /// Write out a certificate. Private keys are not kept by the authority.
    #[command(before_help = "Examples:\n  \
        muster pki export ca --out ca.pem\n  \
        muster pki export user/lea --encoding bundle")]
    Export(ExportArguments),
    /// Sign a new revocation list, also when nothing was revoked.
    #[command(before_help = "Examples:\n  muster pki crl\n  muster pki crl --out /etc/muster/crl.pem --days 60")]
    Crl(CrlArguments),
    /// Send a revocation list to every agent of the context's bus.
    #[command(
        before_help = "Examples:\n  muster pki publish /etc/muster/ca/crl.pem\n  muster pki publish crl.pem --context prod"
    )]
    Publish(publish::PublishArguments),
}

#[derive(Debug, Args)]
struct InitArguments {
    /// Beginning of the authority's name; digits of its key follow.
    #[arg(long, default_value = "Muster CA")]
    name: String,
    /// Lifetime of the authority.
    #[arg(long, value_name = "N", default_value_t = AUTHORITY_DAYS_DEFAULT)]
    days: u32,
    /// Days until the revocation list wants to be renewed.
    #[arg(long, value_name = "N", default_value_t = crl::CRL_DAYS_DEFAULT)]
    crl_days: u32,
}

/// What the authority decides about a certificate.
#[derive(Debug, Args)]
struct ContentArguments {
    /// Group of a user or service; may be repeated.
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<GroupName>,
    /// Further DNS name of a broker; may be repeated.
    #[arg(long, value_name = "NAME")]
    dns: Vec<HostName>,
    /// IP address of a broker; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// The broker is a site's, and logs in at the central one.
    #[arg(long)]
    link: bool,
    /// Lifetime in days [default: 825 for hosts and brokers, 365 for users and services].
    #[arg(long, value_name = "N")]
    days: Option<u32>,
    /// Allow a second certificate beside the one in force.
    #[arg(long)]
    renew: bool,
    /// Directory for the files; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct IssueArguments {
    /// Who: host/NAME, user/NAME, service/NAME or broker/NAME.
    #[arg(value_name = "KIND/NAME")]
    identity: Identity,
    #[command(flatten)]
    content: ContentArguments,
}

#[derive(Debug, Args)]
struct RequestArguments {
    /// Who this machine would like to be.
    #[arg(value_name = "KIND/NAME")]
    identity: Identity,
    /// Directory for the key and the request; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Use this key instead of making a new one.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SignArguments {
    /// The request.
    #[arg(value_name = "FILE")]
    request: PathBuf,
    /// The identity that the operator means; without it the program asks.
    #[arg(long, value_name = "KIND/NAME")]
    identity: Option<Identity>,
    /// Sign for `--identity` even if the request asks for another.
    #[arg(long = "override", requires = "identity")]
    overrule: bool,
    #[command(flatten)]
    content: ContentArguments,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    /// An identity (all its certificates in force) or the beginning of a serial.
    #[arg(value_name = "KIND/NAME|SERIAL")]
    what: String,
    /// Why.
    #[arg(long, default_value = "unspecified", value_parser = reasons())]
    reason: Reason,
    /// Days until the revocation list wants to be renewed.
    #[arg(long, value_name = "N", default_value_t = crl::CRL_DAYS_DEFAULT)]
    crl_days: u32,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Only certificates in this state.
    #[arg(long, value_enum)]
    state: Option<StateFilter>,
}

/// What `list --state` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateFilter {
    Valid,
    Expired,
    Revoked,
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// `ca`, an identity, the beginning of a serial, or a file.
    #[arg(value_name = "ca|KIND/NAME|SERIAL|FILE")]
    what: String,
}

#[derive(Debug, Args)]
struct ExportArguments {
    /// `ca`, an identity or the beginning of a serial.
    #[arg(value_name = "ca|KIND/NAME|SERIAL")]
    what: String,
    /// Form of what is written.
    #[arg(long, value_enum, default_value_t)]
    encoding: Encoding,
    /// File to write instead of standard output; must not exist.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `export --encoding` takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Encoding {
    /// The certificate in PEM.
    #[default]
    Pem,
    /// The certificate in DER.
    Der,
    /// The certificate and the authority's in PEM.
    Bundle,
}

#[derive(Debug, Args)]
struct CrlArguments {
    /// File to write as well; an older list of the same authority is replaced.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Days until the list wants to be renewed.
    #[arg(long, value_name = "N", default_value_t = crl::CRL_DAYS_DEFAULT)]
    days: u32,
}

fn reasons() -> impl clap::builder::TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str)).try_map(|text| text.parse::<Reason>())
}

/// Runs a verb of `pki`.
pub(crate) fn run(arguments: &PkiArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    match &arguments.verb {
        PkiVerb::Publish(publish) => crate::block_on(publish::run(publish, invocation)),
        verb => run_at(&arguments.ca_dir, verb, &invocation.printer, invocation.now()),
    }
}

/// The verbs that need nothing but files.
fn run_at(directory: &Path, verb: &PkiVerb, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    file_verb(directory, verb, printer, now).map_err(|mut failure| {
        // The library proposes commands and does not know which authority was meant here.
        for hint in &mut failure.hints {
            if hint.starts_with("muster pki ") && !hint.contains(" --ca-dir ") {
                // A remark may follow the command.
                let end = hint.find("  # ").unwrap_or(hint.len());
                hint.insert_str(end, &at(directory));
            }
        }
        // What was issued was issued somewhere: a new authority knows nothing of it.
        if failure.code == "no-authority" && !matches!(verb, PkiVerb::Issue(_) | PkiVerb::Sign(_)) {
            failure.hints.retain(|hint| !hint.starts_with("muster pki init"));
        }
        failure
    })
}

fn file_verb(directory: &Path, verb: &PkiVerb, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    match verb {
        PkiVerb::Init(init) => self::init(directory, init, printer, now),
        PkiVerb::Issue(issue) => self::issue(directory, issue, printer, now),
        PkiVerb::Request(request) => self::request(request, printer),
        PkiVerb::Sign(sign) => self::sign(directory, sign, printer, now),
        PkiVerb::Revoke(revoke) => self::revoke(directory, revoke, printer, now),
        PkiVerb::List(list) => self::list(directory, list, printer, now),
        PkiVerb::Show(show) => self::show(directory, &show.what, printer, now),
        PkiVerb::Export(export) => self::export(directory, export, printer, now),
        PkiVerb::Crl(crl) => self::crl(directory, crl, printer, now),
        PkiVerb::Publish(_) => unreachable!("the bus is asked before the files are"),
    }
}

fn init(directory: &Path, arguments: &InitArguments, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    let options = InitOptions { name: arguments.name.clone(), days: arguments.days, crl_days: arguments.crl_days };
    let authority = Authority::init(directory, &options, now).map_err(failure)?;
    Shown::authority("init", AuthorityView::new(&authority, now).map_err(failure)?).print(printer);
    printer.note(format!(
        "`{}` is what everybody trusts: keep it offline, keep a backup",
        directory.join("ca.key").display()
    ));
    printer.note(format!("next: muster pki issue user/NAME --group GROUP --out DIR{}", at(directory)));
    Ok(ExitCode::Success)
}

fn issue(directory: &Path, arguments: &IssueArguments, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    let mut authority = Authority::open(directory, now).map_err(failure)?;
    let order = arguments.content.order(arguments.identity.clone());
    let (record, files) = authority.issue_into(&order, &arguments.content.out, now).map_err(failure)?;
    Shown::issued("issue", &record, FilesView::delivered(files), now).print(printer);
    printer.note("the key was made here: carry it over a safe way, and leave no copy");
    after(&authority, &order, &record, printer, now)
}

fn request(arguments: &RequestArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let created =
        request::create_into(&arguments.identity, arguments.key.as_deref(), &arguments.out).map_err(failure)?;
    let name = created.request.display().to_string();
    let view =
        RequestView { identity: Some(arguments.identity.clone()), key_fingerprint: created.key_fingerprint.clone() };
    Shown::requested(view, FilesView::requested(created)).print(printer);
    printer.note("the key stays here; carry the request to the authority and compare the key's fingerprint there");
    printer.note(format!("next, where the authority is: muster pki sign {name} --out DIR"));
    Ok(ExitCode::Success)
}

fn sign(directory: &Path, arguments: &SignArguments, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    let mut authority = Authority::open(directory, now).map_err(failure)?;
    let object = format!("request `{}`", arguments.request.display());
    let bytes = read(&arguments.request)?;
    let request = Request::read(&bytes, &object).map_err(failure)?;
    let identity = confirmed(arguments, &request, printer)?;
    let order = arguments.content.order(identity);
    let (record, files) =
        authority.sign_request_into(&request, &order, &arguments.content.out, now).map_err(failure)?;
    Shown::issued("sign", &record, FilesView::delivered(files), now).print(printer);
    after(&authority, &order, &record, printer, now)
}

/// The identity that the operator stands for: said by flag, or typed after looking at the request.
fn confirmed(arguments: &SignArguments, request: &Request, printer: &Printer) -> Result<Identity, Failure> {
    let requested = request.identity();
    if let Some(meant) = &arguments.identity {
        let differs = requested.is_some_and(|requested| requested != meant);
        if differs && !arguments.overrule {
            let error = PkiError::OtherIdentity {
                requested: requested.cloned().map(Box::new),
                expected: Box::new(meant.clone()),
            };
            return Err(failure(error));
        }
        return Ok(meant.clone());
    }
    let fingerprint = request.public_key().fingerprint();
    let missing = |what: &str| {
        let asked = requested.map_or("no identity".to_owned(), Identity::short);
        let proposal = requested.map_or("KIND/NAME".to_owned(), Identity::short);
        Failure::new(ExitCode::NotConfirmed, "not-confirmed", what)
            .why("asks for", asked)
            .why("key", fingerprint.clone())
            .hint(format!(
                "muster pki sign {} --identity {proposal} --out {}",
                arguments.request.display(),
                arguments.content.out.display()
            ))
    };
    let Some(requested) = requested else {
        return Err(missing("the request names no identity; nothing was signed"));
    };
    printer.note(format!("the request asks for {}", requested.short()));
    printer.note(format!("its key has the fingerprint {fingerprint}"));
    match printer.ask("type the identity to sign it:") {
        Some(answer) if answer == requested.short() || answer == requested.to_string() => Ok(requested.clone()),
        Some(_) => Err(missing("that is not what the request asks for; nothing was signed")),
        None => Err(missing("nobody is there to confirm the identity; nothing was signed")),
    }
}

/// What is said after a certificate was made.
fn after(
    authority: &Authority,
    order: &Order,
    record: &Record,
    printer: &Printer,
    now: Timestamp,
) -> Result<ExitCode, Failure> {
    if record.not_after == authority.certificate().not_after() {
        printer.warning("the certificate ends with its authority, earlier than asked");
    }
    let in_force = authority.list().iter().filter(|other| other.identity == order.identity);
    let others = in_force.filter(|other| other.serial != record.serial && other.state(now) == RecordState::Valid);
    for other in others {
        let same = if other.key_fingerprint == record.key_fingerprint { "the same key" } else { "another key" };
        printer.note(format!(
            "certificate {} of {}, with {same}, stays in force until it ends or is revoked",
            other.short_serial(),
            order.identity.short()
        ));
    }
    Ok(ExitCode::Success)
}

fn revoke(
    directory: &Path,
    arguments: &RevokeArguments,
    printer: &Printer,
    now: Timestamp,
) -> Result<ExitCode, Failure> {
    let mut authority = Authority::open(directory, now).map_err(failure)?;
    let selection = match arguments.what.contains('/') {
        true => Selection::Identity(identity(&arguments.what)?),
        false => Selection::Serial(arguments.what.clone()),
    };
    let revoked = authority.revoke(&selection, arguments.reason, arguments.crl_days, now).map_err(failure)?;
    let certificates = revoked.iter().map(|record| CertificateView::of_record(record, now)).collect();
    Shown::revoked(certificates, CrlView::new(&authority.crl().map_err(failure)?.1, now)).print(printer);
    say_what_takes_access(directory, printer);
    Ok(ExitCode::Success)
}

/// A list is in force where it has arrived, and a broker may know users instead.
fn say_what_takes_access(directory: &Path, printer: &Printer) {
    let path = |path: &Path| word(&path.display().to_string());
    let (place, list) = (path(directory), path(&directory.join("crl.pem")));
    printer.note("This alone takes no access away. What does:");
    printer.note(
        "  1. the broker logs the identity out. The embedded one looks at the file of its `pki.crl` every second",
    );
    let of_dev = super::dev::list_of(directory);
    match &of_dev {
        Some(own) => {
            printer.note("     and closes the identity's connections:");
            printer.note(format!("     cp {list} {}", path(own)));
        }
        None => {
            printer
                .note("     and closes the identity's connections; where the package `muster-broker` has that file:");
            printer.note(format!("     scp {list} BROKER:/etc/muster/broker/crl.pem"));
            printer.note("     RabbitMQ reads no list; its user is deleted, and its connections are closed with it:");
            printer.note(format!("     muster broker config --ca-dir {place} --out DIR --import --prune"));
        }
    }
    printer.note("  2. every running agent stops to believe it:");
    printer.note(format!("     {}", printer.command(&format!("muster pki publish {list}"))));
    if of_dev.is_some() {
        // The copy above is what they read.
        return;
    }
    printer
        .note("  3. the same for agents installed later, and for the contexts of users: copy the list to their `crl`");
    printer.note(format!("     scp {list} HOST:/etc/muster/pki/crl.pem"));
}

/// The flag that leads a command to this authority, where it is not the usual one.
fn at(directory: &Path) -> String {
    if directory == Path::new(DIRECTORY_DEFAULT) {
        String::new()
    } else {
        format!(" --ca-dir {}", word(&directory.display().to_string()))
    }
}

fn list(directory: &Path, arguments: &ListArguments, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    let authority = Authority::open(directory, now).map_err(failure)?;
    let wanted = |record: &&Record| match arguments.state {
        None => true,
        Some(StateFilter::Valid) => record.state(now) == RecordState::Valid,
        Some(StateFilter::Expired) => record.state(now) == RecordState::Expired,
        Some(StateFilter::Revoked) => record.state(now) == RecordState::Revoked,
    };
    let mut records: Vec<&Record> = authority.list().iter().filter(wanted).collect();
    records.sort_by(|one, other| one.identity.cmp(&other.identity).then(one.issued_at.cmp(&other.issued_at)));
    let items: Vec<_> = records.into_iter().map(|record| CertificateView::of_record(record, now)).collect();
    printer.list(answer::SCHEMA, "certificates", &items, &answer::table(&items, printer));
    if items.is_empty() {
        printer
            .note(format!("no certificate to show; make one: muster pki issue user/NAME --out DIR{}", at(directory)));
    }
    let authority = AuthorityView::new(&authority, now).map_err(failure)?;
    authority.warnings().into_iter().for_each(|warning| printer.warning(warning));
    Ok(ExitCode::Success)
}

fn show(directory: &Path, what: &str, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    let path = Path::new(what);
    if what != "ca" && (path.is_file() || is_path(what)) {
        show_file(path, now)?.print(printer);
        return Ok(ExitCode::Success);
    }
    let authority = Authority::open(directory, now).map_err(failure)?;
    if what == "ca" {
        let view = AuthorityView::new(&authority, now).map_err(failure)?;
        let warnings = view.warnings();
        Shown::authority("show", view).print(printer);
        warnings.into_iter().for_each(|warning| printer.warning(warning));
        return Ok(ExitCode::Success);
    }
    let record = find(&authority, what, now)?;
    let certificate = authority.export(record).map_err(failure)?;
    Shown::certificate(CertificateView::of_record(record, now).with_names(&certificate)).print(printer);
    Ok(ExitCode::Success)
}

/// Whether this cannot be meant as anything but a file, there or not.
fn is_path(what: &str) -> bool {
    let usual = ["pem", "csr", "crl", "key", "der", "crt", "cer"];
    let extension = Path::new(what).extension().and_then(|extension| extension.to_str());
    let begins = ["/", "./", "../", "~"].iter().any(|start| what.starts_with(start));
    begins || what.parse::<Identity>().is_err() && extension.is_some_and(|extension| usual.contains(&extension))
}

/// Finds out what a file holds by its PEM label; DER is tried as each in turn.
fn show_file(path: &Path, now: Timestamp) -> Result<Shown, Failure> {
    let bytes = read(path)?;
    let has = |label: &str| bytes.windows(label.len()).any(|window| window == label.as_bytes());
    let object = |kind: &str| format!("{kind} `{}`", path.display());
    if has("PRIVATE KEY-----") {
        return Err(Failure::usage(format!("`{}` holds a private key, which is not shown", path.display()))
            .hint("show the certificate beside it"));
    }
    let certificate = || Certificate::load(path).map(|it| Shown::certificate(CertificateView::of_file(&it, now)));
    let request = || {
        let request = Request::read(&bytes, &object("request"))?;
        Ok(Shown::request(RequestView {
            identity: request.identity().cloned(),
            key_fingerprint: request.public_key().fingerprint(),
        }))
    };
    let list = || {
        crl::inspect(&bytes, &object("revocation list")).map(|info| Shown::crl("show", CrlView::new(&info, now), None))
    };
    let shown: Result<Shown, PkiError> =
        if has("BEGIN CERTIFICATE REQUEST-----") || has("BEGIN NEW CERTIFICATE REQUEST-----") {
            request()
        } else if has("BEGIN X509 CRL-----") {
            list()
        } else if has("BEGIN CERTIFICATE-----") {
            certificate()
        } else {
            certificate().or_else(|first| request().or_else(|_| list()).map_err(|_: PkiError| first))
        };
    shown.map_err(failure)
}

fn export(
    directory: &Path,
    arguments: &ExportArguments,
    printer: &Printer,
    now: Timestamp,
) -> Result<ExitCode, Failure> {
    let authority = Authority::open(directory, now).map_err(failure)?;
    let certificate = match arguments.what.as_str() {
        "ca" => authority.certificate().clone(),
        what => authority.export(find(&authority, what, now)?).map_err(failure)?,
    };
    let bytes = match arguments.encoding {
        Encoding::Pem => certificate.to_pem().into_bytes(),
        Encoding::Der => certificate.der().to_vec(),
        Encoding::Bundle if arguments.what == "ca" => certificate.to_pem().into_bytes(),
        Encoding::Bundle => (certificate.to_pem() + &authority.certificate().to_pem()).into_bytes(),
    };
    if let Some(path) = &arguments.out {
        muster_pki::create_public_file(path, &bytes).map_err(failure)?;
        printer.note(format!("wrote `{}`", path.display()));
        return Ok(ExitCode::Success);
    }
    if printer.format().is_json() {
        Shown::certificate(CertificateView::of_file(&certificate, now).with_pem(&certificate)).print(printer);
        return Ok(ExitCode::Success);
    }
    match String::from_utf8(bytes) {
        Ok(text) if arguments.encoding != Encoding::Der => printer.verbatim(&text),
        _ => return Err(Failure::usage("DER is not text: it needs a file to go to").hint("add --out FILE")),
    }
    Ok(ExitCode::Success)
}

fn crl(directory: &Path, arguments: &CrlArguments, printer: &Printer, now: Timestamp) -> Result<ExitCode, Failure> {
    let mut authority = Authority::open(directory, now).map_err(failure)?;
    let info = authority.renew_crl(arguments.days, now).map_err(failure)?;
    if let Some(path) = &arguments.out {
        authority.write_crl(path).map_err(failure)?;
    }
    let path = arguments.out.clone().unwrap_or_else(|| directory.join("crl.pem"));
    Shown::crl("crl", CrlView::new(&info, now), Some(path)).print(printer);
    Ok(ExitCode::Success)
}

impl ContentArguments {
    fn order(&self, identity: Identity) -> Order {
        Order {
            groups: self.groups.iter().cloned().collect(),
            dns_names: self.dns.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
            ip_addresses: self.ip.iter().copied().collect(),
            link: self.link,
            days: self.days,
            renew: self.renew,
            ..Order::new(identity)
        }
    }
}

fn find<'a>(authority: &'a Authority, what: &str, now: Timestamp) -> Result<&'a Record, Failure> {
    if what.contains('/') {
        return authority.show(&identity(what)?, now).map_err(failure);
    }
    authority.by_serial(what).map_err(|error| match error {
        PkiError::BadValue { .. } => {
            Failure::usage(format!("`{what}` is neither `ca`, an identity, a serial nor a file"))
                .hint("muster pki list")
        }
        error => failure(error),
    })
}

fn identity(text: &str) -> Result<Identity, Failure> {
    text.parse().map_err(|error: muster_protocol::NameError| {
        Failure::usage(format!("`{text}` is no identity"))
            .because(&error)
            .hint("KIND/NAME, such as host/web1.example.com")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    muster_pki::read_file(path).map_err(failure)
}

/// Gives an error of the PKI its place among the exit codes and its way out.
pub(super) fn failure(error: PkiError) -> Failure {
    let exit = match &error {
        PkiError::Read { source, .. } | PkiError::Write { source, .. } => ExitCode::of_file_error(source),
        PkiError::IndexDamaged { .. } | PkiError::Locked { .. } | PkiError::Build { .. } | PkiError::Tls { .. } => {
            ExitCode::Unexpected
        }
        PkiError::OtherIdentity { .. } => ExitCode::NotConfirmed,
        _ => ExitCode::Usage,
    };
    let what = match &error {
        PkiError::Read { .. } | PkiError::Write { .. } | PkiError::Build { .. } | PkiError::Tls { .. } => {
            format!("cannot {error}")
        }
        _ => error.to_string(),
    };
    let mut failure = Failure::new(exit, error.code(), what);
    if let Some(source) = std::error::Error::source(&error) {
        failure = failure.because(source);
    }
    error.remedies().into_iter().rev().fold(failure, Failure::hint)
}
