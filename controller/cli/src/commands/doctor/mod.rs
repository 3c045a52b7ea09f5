//! `muster doctor`: everything between this terminal and the hosts, checked in the order in which it is needed.

mod agents;
mod agreement;
mod backlog;
mod identity;
mod network;

use clap::Args;
use serde::Serialize;

use crate::context::{self, Context, Files, Locations};
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Style, Text};
use crate::remembered;

/// Columns of a check's name.
const NAME_WIDTH: usize = 13;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  muster doctor\n  muster doctor --context staging\n  muster doctor --json")]
pub(crate) struct DoctorArguments {}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warning,
    Failed,
    NotChecked,
}

impl Status {
    /// The word that programs read.
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotChecked => "not_checked",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found.
    what: String,
    /// Details, one a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// The exit code that it calls for.
    #[serde(skip)]
    exit: ExitCode,
}

impl Check {
    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, what: what.into(), why: Vec::new(), remedy: None, exit: ExitCode::Success }
    }

    fn warning(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Warning, remedy: Some(remedy.into()), ..Self::ok(name, what) }
    }

    fn failed(name: &'static str, failure: &Failure) -> Self {
        Self {
            status: Status::Failed,
            why: failure.why.iter().map(|(label, text)| format!("{label}: {text}")).collect(),
            // Doctor itself is no remedy here.
            remedy: failure.hints.iter().rev().find(|hint| !hint.starts_with("muster doctor")).cloned(),
            exit: failure.exit,
            // A check sends nothing that anybody would miss.
            ..Self::ok(name, failure.what.trim_end_matches("; nothing was sent"))
        }
    }

    fn not_checked(name: &'static str) -> Self {
        Self { status: Status::NotChecked, ..Self::ok(name, "not checked") }
    }
}

/// All checks, in order.
const NAMES: [&str; 13] = [
    "config",
    "key",
    "certificate",
    "revocation",
    "names",
    "network",
    "login",
    "permissions",
    "agents",
    "clocks",
    "backlog",
    "crls",
    "policies",
];

/// Prints each check as it ends, and remembers it.
struct Report<'a> {
    invocation: &'a Invocation,
    checks: Vec<Check>,
}

impl Report<'_> {
    fn add(&mut self, check: Check) {
        let printer = &self.invocation.printer;
        if !printer.format().is_for_programs() {
            lines(&check, printer.ascii()).into_iter().for_each(|line| printer.line(line));
        }
        self.checks.push(check);
    }

    /// Remembers what could not be checked any more, and says so in one line.
    fn add_unchecked(&mut self) {
        let left: Vec<&'static str> = NAMES.into_iter().filter(|name| !self.has(name)).collect();
        let printer = &self.invocation.printer;
        if !left.is_empty() && !printer.format().is_for_programs() {
            let line = Text::styled(Style::Dim, printer.glyph("·", "~"));
            printer.line(line.dim(format!(" not checked: {}", left.join(", "))));
        }
        self.checks.extend(left.into_iter().map(Check::not_checked));
    }

    fn has(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name)
    }
}

fn lines(check: &Check, ascii: bool) -> Vec<Text> {
    let (style, unicode, plain) = match check.status {
        Status::Ok => (Style::Good, "✓", "+"),
        Status::Warning => (Style::Warning, "!", "!"),
        Status::Failed => (Style::Bad, "✗", "x"),
        Status::NotChecked => (Style::Dim, "·", "~"),
    };
    let head = Text::styled(style, if ascii { plain } else { unicode }).plain(" ").plain(check.name);
    let head = head.pad_to(NAME_WIDTH + 2);
    let mut lines = vec![head.plain(&check.what)];
    let indented = || Text::new().pad_to(NAME_WIDTH + 2);
    lines.extend(check.why.iter().flat_map(|why| why.lines()).map(|line| indented().dim(line)));
    lines.extend(check.remedy.iter().map(|remedy| indented().plain("do: ").push(Style::Accent, remedy)));
    lines
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    context: Option<&'a str>,
    healthy: bool,
    exit_code: u8,
    checks: &'a [Check],
}

/// Checks everything.
pub(crate) async fn run(_arguments: &DoctorArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let mut report = Report { invocation, checks: Vec::new() };
    let context = match config(invocation) {
        Ok((context, check)) => {
            report.add(check);
            Some(context)
        }
        Err(failure) => {
            report.add(Check::failed("config", &failure));
            None
        }
    };
    if let Some(context) = &context {
        examine(context, &mut report).await;
    }
    report.add_unchecked();
    let printer = &invocation.printer;
    let exit = ExitCode::choose(report.checks.iter().map(|check| check.exit));
    if printer.format().is_json() {
        let document = Document {
            context: context.as_ref().map(|context| context.name.as_str()),
            healthy: exit == ExitCode::Success,
            exit_code: exit.number(),
            checks: &report.checks,
        };
        printer.document("muster.doctor/v1", &document);
    } else if printer.format().is_for_programs() {
        let columns = ["name", "status", "what", "remedy"].map(crate::output::Column::new);
        let mut table = crate::output::Table::new(columns);
        for check in &report.checks {
            let status = check.status.word();
            table.row([
                check.name.into(),
                status.into(),
                (&check.what).into(),
                check.remedy.clone().unwrap_or_default().into(),
            ]);
        }
        printer.table(&table);
    }
    Ok(exit)
}

fn config(invocation: &Invocation) -> Result<(Context, Check), Failure> {
    let variables = context::variables();
    let locations = Locations::detect(&invocation.selection, &variables);
    let files = Files::read(&locations)?;
    let choice = context::choose(&invocation.selection, &variables, &files, &locations)?;
    let context = context::resolve(&choice, &variables, &files)?;
    let mark = if context.production { ", PRODUCTION" } else { "" };
    let what = format!("context `{}`{mark}, chosen by {}", context.name, choice.origin);
    Ok((context, Check::ok("config", what)))
}

/// From the files to the hosts; each step needs the one before.
async fn examine(context: &Context, report: &mut Report<'_>) {
    let now = report.invocation.now();
    let Some(login) = identity::check(context, now, report) else { return };
    if !network::reach(context, report).await {
        return;
    }
    let own = login.trust.crl_info();
    let Some(mut session) = network::log_in(context, login, report).await else { return };
    let mut cache = remembered::hosts(context, now);
    agents::check(context, &mut session.controller, &mut cache, &own, report).await;
    // What was learnt on the way is a by-product.
    drop(cache.save());
    session.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_what_to_do() {
        let failure = Failure::new(ExitCode::Unreachable, "broker-unreachable", "no broker answers")
            .why("mq1:5671", "connection refused")
            .hint("start the broker")
            .hint("muster doctor");
        let checks = [
            Check::ok("key", "mode 0600"),
            Check::warning("certificate", "12 days left", "muster pki issue"),
            Check::failed("network", &failure),
        ];
        let shown = |ascii: bool| {
            let all = checks.iter().flat_map(|check| lines(check, ascii));
            all.map(|line| line.to_plain()).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(shown(false), @"
        ✓ key          mode 0600
        ! certificate  12 days left
                       do: muster pki issue
        ✗ network      no broker answers
                       mq1:5671: connection refused
                       do: start the broker
        ");
        insta::assert_snapshot!(shown(true).lines().next().unwrap_or_default(), @"+ key          mode 0600");
        assert_eq!(ExitCode::choose(checks.iter().map(|check| check.exit)), ExitCode::Unreachable);
    }
}
