//! `muster approve FILE`: shows somebody else's pending command, whole, and signs it.
//!
//! What is shown is what is signed: the bytes are read once, checked as a host would check them, shown, and signed from
//! memory. A file that is changed meanwhile only means that the signature does not fit it any more, which is noticed.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use muster_client::{Approval, Pending};
use muster_pki::Credentials;

use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Format, Printer, Text, number};
use crate::pending::{SCHEMA, Store, View, failure, shown_in_part, store};
use crate::session::Login;
use crate::target::quoted;

/// Arguments of `approve`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster approve restart.pending\n  \
    muster approve restart.pending --signature-only bob.approval\n  \
    muster approve restart.pending --expect 3 --json")]
pub(crate) struct ApproveArguments {
    /// The pending command: its file, some characters of its id, or `last`.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: String,
    /// Leave the file as it is, and write the signature alone to another one, for its caller to merge.
    #[arg(long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub(crate) signature_only: Option<PathBuf>,
    /// Show values at any length, and each host on a line.
    #[arg(long)]
    pub(crate) full: bool,
    /// Sign without a question, but only if it is for exactly so many hosts.
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<usize>,
    /// Sign without a question.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Shows and signs.
///
/// # Errors
/// No such file; hosts would not believe it; it has expired; these credentials cannot approve it; not confirmed.
pub(crate) fn run(arguments: &ApproveArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let context = invocation.context()?;
    let login = Login::load(&context, invocation.now())?;
    let catalogue = Catalogue::load(Some(&context))?;
    approve(arguments, invocation, &context, &login, &catalogue, &Store::of_user())
}

pub(crate) fn approve(
    arguments: &ApproveArguments,
    invocation: &Invocation,
    context: &Context,
    login: &Login,
    catalogue: &Catalogue,
    store: &Store,
) -> Result<ExitCode, Failure> {
    let printer = &invocation.printer;
    let path = store.find(&arguments.file)?;
    let now = invocation.now();
    let failed = |error| failure(&error, Some(&path));
    let pending = store::load(&path, &login.trust, now)?;
    pending.check_approver(&login.credentials, now).map_err(failed)?;
    if arguments.signature_only.is_none() {
        // Not after somebody has read all of it.
        store::check_owner(&path)?;
    }
    let command = pending.command();
    let action = catalogue.action(&format!("{}.{}", command.plugin, command.action)).ok().map(|(_, action)| action);
    let view = View::of(&pending, &path, action, context, now);
    let asks = !arguments.yes && arguments.expect.is_none();
    let mut warnings = view.warnings.clone();
    if !arguments.full {
        warnings.extend(shown_in_part(&view.arguments));
    }
    show(view.lines(now, arguments.full), &warnings, asks, printer);
    confirm(arguments, &pending, &login.credentials, printer)?;
    let approvals = pending.approve(&login.credentials, invocation.now()).map_err(failed)?;
    let (signed, out) = match &arguments.signature_only {
        Some(out) => {
            store::create(out, &Approval::to_bytes(&approvals))?;
            let mut signed = pending;
            signed.add(&approvals, &login.trust, invocation.now()).map_err(failed)?;
            (signed, out.clone())
        }
        None => {
            let add = |there: &mut Pending| there.add(&approvals, &login.trust, invocation.now()).map_err(failed);
            (store::update(&path, &login.trust, invocation.now(), add)?.0, path.clone())
        }
    };
    let mut view = View::of(&signed, &out, action, context, now);
    view.kind = "approved";
    match printer.format() {
        Format::Json | Format::Jsonl => printer.document(SCHEMA, &view),
        Format::Names | Format::Csv | Format::Table | Format::Wide => {}
    }
    let (me, caller) = (login.credentials.identity().short(), signed.caller().short());
    let file = quoted(&out.display().to_string());
    let signatures = number::counted(signed.signers().len(), "signature", "signatures");
    match &arguments.signature_only {
        Some(_) => {
            printer.note(format!("signed as {me}; the signature alone is in {file}"));
            printer.note(format!("  {caller} sends it with:  muster send {} {file}", quoted(&arguments.file)));
        }
        None => {
            printer.note(format!("signed as {me}; {file} has {signatures} now"));
            printer.note(format!("  {caller} sends it with:  muster send {file}"));
        }
    }
    Ok(ExitCode::Success)
}

/// Shows what would be signed. With `--json` the document comes once it is signed; who is asked before is shown it
/// beside the question, `--quiet` or not: nobody signs what he was not shown.
fn show(lines: Vec<Text>, warnings: &[String], asks: bool, printer: &Printer) {
    let is_json = printer.format().is_json();
    for line in lines {
        match is_json {
            false => printer.line(line),
            true if asks => printer.warned(line),
            true => {}
        }
    }
    if asks || !is_json {
        warnings.iter().for_each(|warning| printer.warning(warning));
    }
}

/// Lets the approver say yes. Nothing has been signed at this point.
///
/// # Errors
/// Exit 9: another number of hosts than expected, or nobody confirmed.
fn confirm(
    arguments: &ApproveArguments,
    pending: &Pending,
    credentials: &Credentials,
    printer: &Printer,
) -> Result<(), Failure> {
    let count = pending.hosts().len();
    let hosts = number::counted(count, "host", "hosts");
    if let Some(expected) = arguments.expect {
        if expected == count {
            return Ok(());
        }
        let what = format!("it is for {hosts}, not {}; nothing was signed", number::count(expected));
        return Err(Failure::new(ExitCode::NotConfirmed, "plan-changed", what)
            .hint(format!("muster pending show {}", quoted(&arguments.file))));
    }
    if arguments.yes {
        return Ok(());
    }
    let question = Text::from("type the number of hosts (")
        .strong(count.to_string())
        .plain(format!(") to sign this as {}, anything else to stop:", credentials.identity().short()));
    match printer.ask(question) {
        Some(answer) if answer.replace([',', ' '], "") == count.to_string() => Ok(()),
        Some(_) => Err(Failure::new(ExitCode::NotConfirmed, "not-confirmed", "not confirmed; nothing was signed")),
        None => {
            let what = format!("a signature for {hosts}, and nobody is there to confirm; nothing was signed");
            Err(Failure::new(ExitCode::NotConfirmed, "not-confirmed", what)
                .hint("the same command with --yes")
                .hint(format!("the same command with --expect {count}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture::printer;
    use crate::output::{Settings, Surroundings};

    /// Before, `approve --json` at a terminal asked for the number of hosts and showed nothing else.
    #[test]
    fn nobody_is_asked_to_sign_what_he_was_not_shown() {
        let check = |format: Format, asks: bool, out: &str, err: &str| {
            let settings = Settings { format, quiet: true, ..Settings::default() };
            let (printer, data, remarks) = printer(settings, Surroundings::default());
            show(vec![Text::from("action shell.run")], &["look twice".to_owned()], asks, &printer);
            assert_eq!((data.text().as_str(), remarks.text().as_str()), (out, err), "{format:?}, asks: {asks}");
        };
        let (action, warning) = ("action shell.run\n", "warning: look twice\n");
        for asks in [true, false] {
            check(Format::Table, asks, action, warning);
        }
        for format in [Format::Json, Format::Jsonl] {
            check(format, true, "", &format!("{action}{warning}"));
            check(format, false, "", "");
        }
    }
}
