//! `script`: runs a script that is part of the command.
//!
//! The script is laid into a file that only the user it runs as can read, given to its interpreter by
//! path, and taken away again at the end. It is the interpreter that is executed, so a directory
//! mounted `noexec` does no harm. Secrets go to standard input and nowhere else.

mod line;
mod store;

use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, NotActivated, Plugin};
use muster_protocol::code;
use muster_protocol::ddl::Ddl;
use serde_json::{Map, Value};

use crate::digest::sha256_hex;
use crate::execution::{Circumstances, absolute_path, argument_text, invalid};
use crate::process::is_executable;
use crate::reply;
use line::Interpreter;
use store::Store;

/// Largest script, in bytes. What is larger is a package.
const SCRIPT_BYTES_MAX: usize = 384 * 1024;

/// Most arguments of a script.
const ARGUMENTS_MAX: usize = 1_024;

/// Where scripts are put while they run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptSettings {
    /// A directory that everybody may pass through and nobody but root may list or change. It is made if it is
    /// not there. Default `/run/muster`.
    pub directory: PathBuf,
}

impl Default for ScriptSettings {
    fn default() -> Self {
        Self { directory: PathBuf::from("/run/muster") }
    }
}

/// The plugin `script`.
#[derive(Debug)]
pub struct Script {
    settings: ScriptSettings,
}

impl Script {
    /// The plugin, with these settings.
    #[must_use]
    pub fn new(settings: ScriptSettings) -> Self {
        Self { settings }
    }

    async fn run(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let Some(script) = request.text("body") else {
            return Err(ActionFailure::unknown_action(&request.action));
        };
        if script.len() > SCRIPT_BYTES_MAX {
            let why = format!("the script has {} bytes, more than {SCRIPT_BYTES_MAX}", script.len());
            return Err(ActionFailure::new(&code::LIMIT_EXCEEDED, why));
        }
        let interpreter = interpreter(request, script)?;
        let arguments = arguments(request)?;
        let input = match (request.text("stdin"), request.text("secret_input")) {
            (Some(_), Some(_)) => return Err(invalid("secret_input", "cannot be given together with `stdin`")),
            (given, secret) => given.or(secret),
        };
        let circumstances = Circumstances::of(request, context).await?;
        let more = Map::from_iter([
            ("interpreter".to_owned(), Value::from(interpreter.path.display().to_string())),
            ("sha256".to_owned(), Value::from(sha256_hex(script.as_bytes()))),
        ]);
        if request.noop {
            let what = format!("a script of {} bytes with {}", script.len(), interpreter.path.display());
            return circumstances.would_run(&what, more);
        }
        let store =
            Store::open(&self.settings.directory).map_err(|error| cannot_store(&self.settings.directory, &error))?;
        let name = format!("script-{}-{}", std::process::id(), request.request_id);
        let stored = store.put(&name, script.as_bytes(), circumstances.user());
        let stored = stored.map_err(|error| cannot_store(&self.settings.directory, &error))?;

        let mut program = circumstances.program(&interpreter.path, request, context);
        if let Some(argument) = &interpreter.argument {
            program = program.argument(argument);
        }
        program = program.argument(stored.path()).arguments(arguments);
        if let Some(input) = input {
            program = program.stdin(input);
        }
        let run = program.run(&context.cancel).await;
        drop(stored);
        circumstances.answer(&run, &program, more)
    }
}

fn cannot_store(directory: &Path, error: &std::io::Error) -> ActionFailure {
    ActionFailure::failed(format!("the script cannot be laid into `{}`: {error}", directory.display()))
}

/// What runs the script: what the caller says, what the script's first line says, or a shell.
fn interpreter(request: &ActionRequest, script: &str) -> Result<Interpreter, ActionFailure> {
    let interpreter = match request.text("interpreter") {
        Some(wanted) => Interpreter { path: absolute_path("interpreter", wanted)?, argument: None },
        None => match line::interpreter(script).map_err(|why| invalid("body", why))? {
            Some(interpreter) => interpreter,
            None => Interpreter { path: PathBuf::from("/bin/sh"), argument: None },
        },
    };
    if !is_executable(&interpreter.path) {
        let why = format!("the interpreter `{}` is not a program of this host", interpreter.path.display());
        return Err(ActionFailure::new(&code::START_FAILED, why));
    }
    Ok(interpreter)
}

fn arguments(request: &ActionRequest) -> Result<Vec<&str>, ActionFailure> {
    let given = request.arguments.get("arguments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if given.len() > ARGUMENTS_MAX {
        let why = format!("input `arguments` has {} elements, more than {ARGUMENTS_MAX}", given.len());
        return Err(ActionFailure::new(&code::LIMIT_EXCEEDED, why));
    }
    let text = |value: &'_ Value| value.as_str().map(str::len);
    if given.iter().any(|value| text(value).is_none()) {
        return Err(invalid("arguments", "takes a list of texts"));
    }
    given.iter().filter_map(Value::as_str).map(|text| argument_text("arguments", text)).collect()
}

impl Plugin for Script {
    fn ddl(&self) -> &Ddl {
        reply::description("script")
    }

    fn activate(&self) -> Result<(), NotActivated> {
        let directory = &self.settings.directory;
        let checked = store::check(directory);
        checked.map_err(|error| {
            NotActivated::new(format!("scripts cannot be laid into `{}`: {error}", directory.display()))
        })
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            self.run(&request, &context).await
        })
    }
}
