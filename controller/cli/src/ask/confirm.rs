//! The guard in front of many hosts: say the number, or nothing is sent.

use super::follow::Stop;
use crate::output::{ExitCode, Failure, Printer, number};

/// What has to be known to decide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard<'a> {
    /// How many hosts will be hit.
    pub(crate) count: usize,
    /// Up to how many need no confirmation.
    pub(crate) confirm_above: usize,
    /// Whether the action changes nothing.
    pub(crate) read_only: bool,
    /// `--expect N`.
    pub(crate) expect: Option<usize>,
    /// The name of the context.
    pub(crate) context: &'a str,
}

/// Lets the command through, asks, or refuses. Nothing has been sent at this point.
///
/// # Errors
/// Exit 9: the number is another than expected, or nobody confirmed it.
pub(crate) async fn confirm(guard: &Guard<'_>, printer: &Printer, stop: &mut Stop) -> Result<(), Failure> {
    if let Some(expected) = guard.expect {
        return match expected == guard.count {
            true => Ok(()),
            false => Err(another_number(guard, expected)),
        };
    }
    if guard.read_only || guard.count <= guard.confirm_above {
        return Ok(());
    }
    let hosts = number::counted(guard.count, "host", "hosts");
    let question = format!("type the number of hosts ({}) to go on, anything else to stop:", guard.count);
    let answer = match printer.prompt(question) {
        true => {
            stop.unless(line_of_stdin()).await.map_err(|stopped| stopped.failure("the confirmation was awaited"))?
        }
        false => None,
    };
    match answer {
        Some(answer) if answer.replace([',', ' '], "") == guard.count.to_string() => Ok(()),
        Some(_) => Err(Failure::new(ExitCode::NotConfirmed, "not-confirmed", "not confirmed; nothing was sent")),
        None => Err(Failure::new(
            ExitCode::NotConfirmed,
            "not-confirmed",
            format!("{hosts} are more than {}, and nobody is there to confirm; nothing was sent", guard.confirm_above),
        )
        .why("limit", format!("confirm_above = {} in context `{}`", guard.confirm_above, guard.context))
        .hint(format!("the same command with --expect {}", guard.count))),
    }
}

/// Reads a line without keeping anybody else waiting. A thread that reads standard input cannot be
/// stopped, so it is left behind; it ends with the program.
async fn line_of_stdin() -> Option<String> {
    let (answer, read) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let line =
            std::io::stdin().read_line(&mut line).ok().filter(|bytes| *bytes > 0).map(|_| line.trim().to_owned());
        // Nobody listens any more after an interrupt.
        drop(answer.send(line));
    });
    // The end of standard input is an answer too: not confirmed.
    Some(read.await.ok().flatten().unwrap_or_default())
}

fn another_number(guard: &Guard<'_>, expected: usize) -> Failure {
    let hosts = number::counted(guard.count, "host matches", "hosts match");
    Failure::new(
        ExitCode::NotConfirmed,
        "plan-changed",
        format!("{hosts}, not {}; nothing was sent", number::count(expected)),
    )
    .hint("the same command with --dry-run")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Settings, Surroundings, Text, capture};

    async fn decide(count: usize, confirm_above: usize, read_only: bool, expect: Option<usize>) -> Result<(), String> {
        let (printer, _, _) = capture::printer(Settings::default(), Surroundings::default());
        let guard = Guard { count, confirm_above, read_only, expect, context: "main" };
        let mut stop = Stop::when(std::future::pending(), None);
        confirm(&guard, &printer, &mut stop).await.map_err(|failure| {
            assert_eq!(failure.exit, ExitCode::NotConfirmed);
            failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
        })
    }

    #[tokio::test]
    async fn many_hosts_need_a_word() {
        assert_eq!(decide(50, 50, false, None).await, Ok(()));
        assert_eq!(decide(51, 50, true, None).await, Ok(()), "looking needs no confirmation");
        assert_eq!(decide(51, 50, false, Some(51)).await, Ok(()));
        insta::assert_snapshot!(decide(1_051, 50, false, None).await.unwrap_err(), @r"
        error[not-confirmed]: 1,051 hosts are more than 50, and nobody is there to confirm; nothing was sent
          limit   confirm_above = 50 in context `main`
          try     the same command with --expect 1051
        ");
        insta::assert_snapshot!(decide(1, 50, true, Some(2)).await.unwrap_err(), @r"
        error[plan-changed]: 1 host matches, not 2; nothing was sent
          try     the same command with --dry-run
        ");
    }
}
