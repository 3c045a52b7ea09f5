//! Running one program of `facts.d`.

use std::path::Path;
use std::time::Duration;

use muster_plugin_api::CancellationToken;
use muster_plugins::process::{End, Program};

/// Its standard output, if it ended well and in time. It runs in a session of its own, all of which
/// is stopped with it.
pub(super) async fn run(path: &Path, timeout: Duration, output_bytes_max: usize) -> Result<String, String> {
    let program = Program::new(path, timeout).output_bytes_max(output_bytes_max);
    let run = program.run(&CancellationToken::new()).await;
    match run.end {
        End::Exited(0) => {}
        End::Exited(code) => {
            let said = run.stderr.first_line().map_or_else(String::new, |line| format!(": {line}"));
            return Err(format!("ended with exit code {code}{said}"));
        }
        End::StartFailed(error) => return Err(format!("could not be started: {error}")),
        End::Signalled(signal) => return Err(format!("was ended by signal {signal}")),
        End::TimedOut => return Err(format!("did not end within {} ms and was stopped", timeout.as_millis())),
        End::Cancelled => return Err("was stopped".to_owned()),
    }
    if run.stdout.is_truncated() {
        return Err(format!("wrote {} bytes; at most {output_bytes_max} are allowed", run.stdout.total_bytes));
    }
    String::from_utf8(run.stdout.bytes).map_err(|_| "wrote something that is not UTF-8".to_owned())
}
