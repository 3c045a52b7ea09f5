//! `shell`: runs a text as a shell's command.
//!
//! The text is the caller's, whole and signed; nothing is put into it here. Who may run it is the policy's
//! matter, and the plugin is off until the host's administrator enables it.

use std::fs;
use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, Plugin};
use muster_protocol::ddl::Ddl;
use serde_json::{Map, Value};

use crate::execution::{Circumstances, absolute_path, argument_text, invalid};
use crate::reply;

/// The shell that every Unix has.
const SHELL_DEFAULT: &str = "/bin/sh";

/// Which shells there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellSettings {
    /// The file that lists the shells a caller may choose (shells(5)). `/bin/sh` needs no line in it.
    pub shells_file: PathBuf,
}

impl Default for ShellSettings {
    fn default() -> Self {
        Self { shells_file: PathBuf::from("/etc/shells") }
    }
}

/// The plugin `shell`.
#[derive(Debug)]
pub struct Shell {
    settings: ShellSettings,
}

impl Shell {
    /// The plugin, with these settings.
    #[must_use]
    pub fn new(settings: ShellSettings) -> Self {
        Self { settings }
    }

    fn shell(&self, request: &ActionRequest) -> Result<PathBuf, ActionFailure> {
        let Some(wanted) = request.text("shell") else { return Ok(SHELL_DEFAULT.into()) };
        let path = absolute_path("shell", wanted)?;
        let listed = fs::read_to_string(&self.settings.shells_file).unwrap_or_default();
        if path == Path::new(SHELL_DEFAULT) || lists(&listed, wanted) {
            return Ok(path);
        }
        let file = self.settings.shells_file.display();
        Err(invalid("shell", &format!("is neither `{SHELL_DEFAULT}` nor listed in `{file}`")))
    }

    async fn run(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let Some(command) = request.text("command") else {
            return Err(ActionFailure::unknown_action(&request.action));
        };
        let command = as_command(argument_text("command", command)?);
        let shell = self.shell(request)?;
        let circumstances = Circumstances::of(request, context).await?;
        let more = Map::from_iter([("shell".to_owned(), Value::from(shell.display().to_string()))]);
        if request.noop {
            let shown: String = command.trim().chars().take(200).collect();
            return circumstances.would_run(&format!("{} -c {shown:?}", shell.display()), more);
        }
        let program = circumstances.program(&shell, request, context).arguments(["-c", command.as_str()]);
        let program = match request.text("stdin") {
            Some(input) => program.stdin(input),
            None => program,
        };
        let run = program.run(&context.cancel).await;
        circumstances.answer(&run, &program, more)
    }
}

/// Some shells read further options after `-c`. A blank before the text makes it a command for all of them.
fn as_command(text: &str) -> String {
    if text.starts_with(['-', '+']) { format!(" {text}") } else { text.to_owned() }
}

/// Whether a file of the form of `/etc/shells` has that very path on a line of its own.
fn lists(file: &str, path: &str) -> bool {
    let mut lines = file.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.any(|line| !line.is_empty() && line == path)
}

impl Plugin for Shell {
    fn ddl(&self) -> &Ddl {
        reply::description("shell")
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            self.run(&request, &context).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_shells() {
        let file = "# shells\n/bin/bash\n  /usr/bin/fish  # friendly\n#/bin/evil\n\n";
        for path in ["/bin/bash", "/usr/bin/fish"] {
            assert!(lists(file, path), "{path}");
        }
        for path in ["/bin/evil", "/bin", "", "/bin/bash ", "/bin/bas", "# shells"] {
            assert!(!lists(file, path), "{path}");
        }
    }

    #[test]
    fn a_command_is_never_an_option() {
        assert_eq!(as_command("-oFoo"), " -oFoo");
        assert_eq!(as_command("+x"), " +x");
        assert_eq!(as_command("echo -n"), "echo -n");
    }
}
