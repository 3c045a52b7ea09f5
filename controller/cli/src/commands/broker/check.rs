//! `muster broker check`: holds a running broker against what is generated.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use muster_broker_config::{
    Definitions, DefinitionsError, Environment, Finding, Severity, Site, check, check_environment, definitions,
};
use muster_protocol::Identity;
use serde::Serialize;

use super::Members;
use super::control::Control;
use crate::output::{ExitCode, Failure, Printer, Style, Text};

/// Arguments of `broker check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    members: Members,
    /// Look at this file from `rabbitmqctl export_definitions` (`-`: standard input) instead of asking the broker.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "rabbitmqctl"])]
    definitions: Option<PathBuf>,
    /// With --definitions: also look at this file from `rabbitmqctl environment --formatter json`.
    #[arg(long, value_name = "FILE", requires = "definitions")]
    environment: Option<PathBuf>,
    #[command(flatten)]
    control: Control,
}

/// What was found, worst first.
#[derive(Debug, Serialize)]
struct Report {
    virtual_host: String,
    users: usize,
    /// Whether the users were compared with a CA or a list; otherwise those of the broker were believed.
    users_compared: bool,
    /// Whether listeners, TLS and logins were looked at too.
    settings_checked: bool,
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

/// Compares and reports.
pub(super) fn run(arguments: &CheckArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let (actual, environment) = match &arguments.definitions {
        Some(file) => {
            let environment = arguments.environment.as_deref().map(read).transpose()?;
            (read(file)?, environment)
        }
        None => {
            let exported = arguments.control.run(&["export_definitions", "-"], "")?;
            (exported, Some(arguments.control.run(&["environment", "--formatter", "json"], "")?))
        }
    };
    let actual = Definitions::parse(&actual).map_err(|error| unreadable("definitions", &error))?;
    let environment = environment.as_deref().map(Environment::parse).transpose();
    let environment = environment.map_err(|error| unreadable("settings", &error))?;
    let report = report(&arguments.members, &actual, environment.as_ref())?;
    show(&report, printer);
    Ok(if report.errors > 0 { ExitCode::HostFailed } else { ExitCode::Success })
}

fn report(members: &Members, actual: &Definitions, environment: Option<&Environment>) -> Result<Report, Failure> {
    let mut identities = members.identities()?;
    let users_compared = !identities.is_empty();
    if !users_compared {
        // Nobody said who should be there: take the users for granted and check what they may do.
        let ours = actual.users.iter().filter(|user| user.name.starts_with("muster:"));
        identities.extend(ours.filter_map(|user| user.name.parse::<Identity>().ok()));
    }
    let role = members.role()?;
    let expected = definitions(&Site { vhost: members.vhost.clone(), role, ..Site::new(identities) });
    let mut findings = environment.map(check_environment).unwrap_or_default();
    findings.extend(check(actual, &expected));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    Ok(Report {
        virtual_host: members.vhost.clone(),
        users: expected.users.len(),
        users_compared,
        settings_checked: environment.is_some(),
        errors,
        warnings: findings.len() - errors,
        findings,
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let result = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    result.map_err(|error| Failure::file("read", path, &error))?;
    Ok(text)
}

pub(super) fn unreadable(what: &str, error: &DefinitionsError) -> Failure {
    Failure::new(ExitCode::Usage, "bad-definitions", format!("the broker's {what} cannot be understood"))
        .because(error)
        .hint("rabbitmqctl export_definitions definitions.json")
}

fn show(report: &Report, printer: &Printer) {
    if printer.format().is_for_programs() {
        printer.document("muster.broker_check/v1", report);
        return;
    }
    for finding in &report.findings {
        let (glyph, style) = match finding.severity {
            Severity::Error => (printer.glyph("✗", "x"), Style::Bad),
            Severity::Warning => (printer.glyph("!", "!"), Style::Warning),
        };
        printer.line(Text::styled(style, format!("{glyph} {}", finding.code)).plain("  ").strong(&finding.subject));
        printer.line(Text::from("    ").plain(&finding.what));
        printer.line(Text::from("    ").dim("try ").push(Style::Accent, &finding.remedy));
    }
    let count = |number: usize, one: &str| if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") };
    let users = count(report.users, "user");
    if report.findings.is_empty() {
        let glyph = printer.glyph("✓", "+");
        let line = format!("{glyph} virtual host {} is as generated for {users}", report.virtual_host);
        printer.line(Text::styled(Style::Good, line));
    } else {
        let (errors, warnings) = (count(report.errors, "error"), count(report.warnings, "warning"));
        printer.line(format!("{errors}, {warnings} in virtual host {} with {users}", report.virtual_host));
    }
    if !report.users_compared {
        printer.note("Who may log in was not compared with anything; give --ca-dir or --identity.");
    }
    if !report.settings_checked {
        printer.note("Listeners, TLS and logins were not looked at; give --environment, or run it on the broker.");
    }
}
