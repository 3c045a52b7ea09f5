//! Plugins that are programs of their own, in any language.
//!
//! # The data and how it flows
//!
//! [`discover`] finds descriptions with their programs in directories. Each becomes an [`External`],
//! which is asked once whether it can work here ([`External::ask`]). An action runs the program
//! with a request in a file; what the program prints is the action's output, what it writes into
//! the reply's file is its answer.
//!
//! # The contract
//!
//! It is that of Choria's external agents, so that those run unchanged: the files are named in
//! `CHORIA_EXTERNAL_REQUEST`, `_REPLY`, `_FACTS` and `_CONFIG`, the kind of request in
//! `CHORIA_EXTERNAL_PROTOCOL`, and request, reply and kind are the three arguments. Muster adds
//! variables (`MUSTER_*`), the inputs among them, and a reply of lines ([`lines`]), so that a shell
//! needs no JSON. `docs/plugins/external.md` has it all.
//!
//! # Invariants
//!
//! - A program that somebody else than root or the agent's user could change does not run.
//! - A secret is in the request's file only, which only the user who runs the program can read.
//! - Whatever the program does, there is one answer, and it says what happened.

mod discover;
mod environment;
mod exchange;
pub(crate) mod fuzzing;
mod lines;
mod reply;
mod trusted;

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugin_api::{
    ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, CancellationToken, HostView, NotActivated,
    Plugin, check_options,
};
use muster_protocol::ddl::{Action, Ddl};
use muster_protocol::{Identity, Timestamp, code};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::process::{EffectiveUser, GRACE_DEFAULT, LeaveBehind, Program, Run};
use exchange::Exchange;

pub use discover::{Discovery, Found, PLUGINS_MAX, PROVIDER, Problem, Why, check_description, discover, read};
pub use environment::{shared_variables, variable};
pub use trusted::Distrust;

/// The kinds of request, with the schemas of their files.
const REQUEST: (&str, &str) =
    ("io.choria.mcorpc.external.v1.rpc_request", "https://choria.io/schemas/mcorpc/external/v1/rpc_request.json");
const ACTIVATION: (&str, &str) = (
    "io.choria.mcorpc.external.v1.activation_request",
    "https://choria.io/schemas/mcorpc/external/v1/activation_request.json",
);

/// How long an activation check may take. Choria gives 2 seconds; an interpreter on a host that has just
/// started needs more.
pub const ACTIVATION_LIMIT: Duration = Duration::from_secs(5);

/// Time that ending a session takes beyond the polite part.
const STOP_EXTRA: Duration = Duration::from_secs(4);

/// Output that is kept for a message about a failure, in bytes of each stream. All of it is streamed.
const KEPT_BYTES: usize = 16 * 1024;

/// A plugin that is a program of its own.
#[derive(Debug)]
pub struct External {
    found: Found,
    /// The plugin's own configuration, which need not exist.
    configuration: PathBuf,
    activation: Result<(), NotActivated>,
}

/// The request's file.
#[derive(Debug, Serialize)]
struct RpcRequest<'a> {
    #[serde(rename = "$schema")]
    schema: &'a str,
    protocol: &'a str,
    agent: &'a str,
    action: &'a str,
    requestid: String,
    senderid: String,
    callerid: String,
    collective: String,
    ttl: u64,
    msgtime: i64,
    data: &'a Map<String, Value>,
}

/// The request's file of an activation check.
#[derive(Debug, Serialize)]
struct ActivationRequest<'a> {
    #[serde(rename = "$schema")]
    schema: &'a str,
    protocol: &'a str,
    agent: &'a str,
}

/// What becomes of processes that an action's program leaves behind: `muster.leave_behind` of the
/// description, `stop` where it says nothing. `None` for another word.
fn leave_behind(action: &Action) -> Option<LeaveBehind> {
    match action.muster.other.get("leave_behind") {
        None | Some(Value::Null) => Some(LeaveBehind::Stop),
        Some(Value::String(word)) if word == "stop" => Some(LeaveBehind::Stop),
        Some(Value::String(word)) if word == "keep" => Some(LeaveBehind::Keep),
        Some(_) => None,
    }
}

/// How long a program that is told to stop may take: what the description allows the whole action, less the
/// time to end those who do not listen.
fn grace(action: &Action) -> Duration {
    let whole = action.muster.stop_grace_s.map_or(GRACE_DEFAULT, Duration::from_secs);
    whole.saturating_sub(STOP_EXTRA).max(GRACE_DEFAULT)
}

impl External {
    /// A plugin that was found. `configuration_directory` holds a file `NAME.cfg` or `NAME` for plugins that
    /// have a configuration of their own. Until it is [asked](External::ask) it counts as able to work.
    #[must_use]
    pub fn new(found: Found, configuration_directory: &Path) -> Self {
        let name = found.ddl.name().as_str();
        let with_ending = configuration_directory.join(format!("{name}.cfg"));
        let configuration = if with_ending.is_file() { with_ending } else { configuration_directory.join(name) };
        Self { found, configuration, activation: Ok(()) }
    }

    /// Runs the activation check and remembers its answer.
    #[must_use]
    pub async fn ask(self, work_directory: &Path) -> Self {
        let activation = self.check_activation(work_directory).await;
        Self { activation: activation.map_err(NotActivated::new), ..self }
    }

    /// Where it was found.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    async fn check_activation(&self, work_directory: &Path) -> Result<(), String> {
        let (protocol, schema) = ACTIVATION;
        let request = ActivationRequest { schema, protocol, agent: self.ddl().name().as_str() };
        let request = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let files = self.exchange(work_directory, None, request, b"{}".to_vec()).await?;
        let program = self
            .program(&files, protocol, ACTIVATION_LIMIT)
            .variable("MUSTER_CALL", "activate")
            .grace(Duration::from_millis(500));
        let run = program.run(&CancellationToken::new()).await;
        let exit_code =
            exit_code(&run, &program).map_err(|failure| format!("its activation check failed: {failure}"))?;
        let said = run.stderr.first_line().or_else(|| run.stdout.first_line());
        let reply = read_file(files.reply(), None).await;
        files.remove().await;
        reply::activation(reply, exit_code, said)
    }

    async fn exchange(
        &self,
        work_directory: &Path,
        user: Option<EffectiveUser>,
        request: Vec<u8>,
        facts: Vec<u8>,
    ) -> Result<Exchange, String> {
        let work_directory = work_directory.to_owned();
        let write = move || Exchange::new(&work_directory, user.as_ref(), &request, &facts);
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.map_err(|_| "the thread that writes the request panicked".to_owned())?;
        written.map_err(|error| format!("the request's files cannot be written: {error}"))
    }

    fn program(&self, files: &Exchange, protocol: &str, time_limit: Duration) -> Program {
        let home = self.found.executable.parent().unwrap_or(Path::new("/"));
        Program::new(&self.found.executable, time_limit)
            .argument(files.request())
            .argument(files.reply())
            .argument(protocol)
            .working_directory(files.directory())
            .output_bytes_max(KEPT_BYTES)
            .variable("CHORIA_EXTERNAL_REQUEST", files.request())
            .variable("CHORIA_EXTERNAL_REPLY", files.reply())
            .variable("CHORIA_EXTERNAL_FACTS", files.facts())
            .variable("CHORIA_EXTERNAL_CONFIG", &self.configuration)
            .variable("CHORIA_EXTERNAL_PROTOCOL", protocol)
            .variable("MUSTER_OUTPUT", files.output())
            .variable("MUSTER_PLUGIN", self.ddl().name().as_str())
            .variable("MUSTER_PLUGIN_DIRECTORY", home)
            .variable("TMPDIR", files.directory())
    }

    async fn call(&self, request: ActionRequest, context: ActionContext) -> ActionReply {
        let action =
            self.ddl().action(&request.action).ok_or_else(|| ActionFailure::unknown_action(&request.action))?;
        check_options(action, request.noop, request.effective_user.as_deref())?;
        self.still_trusted().await?;
        let inputs = environment::inputs(action, &request.arguments, &request.secrets).map_err(|input| {
            let message = format!("input `{input}` has a NUL character, which no program can be given");
            ActionFailure::new(&code::INVALID_ARGUMENT, message)
        })?;
        let user = match &request.effective_user {
            Some(name) => Some(EffectiveUser::find(name).await?),
            None => None,
        };
        let (protocol, _) = REQUEST;
        let host = context.host.as_ref();
        let message = self.request(&request, host)?;
        let facts = serde_json::to_vec(host.facts().as_ref()).map_err(|error| {
            ActionFailure::new(&code::PLUGIN_ERROR, format!("the facts cannot be written: {error}"))
        })?;
        let files = self.exchange(host.work_directory(), user.clone(), message, facts).await;
        let files = files.map_err(|why| ActionFailure::new(&code::START_FAILED, why))?;

        let mut program = self
            .program(&files, protocol, request.time_limit)
            .stream_to(context.output.clone())
            .leave_behind(leave_behind(action).unwrap_or_default())
            .grace(grace(action))
            .variable("MUSTER_CALL", "run")
            .variable("MUSTER_ACTION", action.name.as_str())
            .variable("MUSTER_REQUEST_ID", request.request_id.to_string())
            .variable("MUSTER_CALLER", request.caller.to_string())
            .variable("MUSTER_HOST", host.host().as_str())
            .variable("MUSTER_NOOP", if request.noop { "1" } else { "0" })
            .variable("MUSTER_EFFECTIVE_USER", request.effective_user.as_deref().unwrap_or_default())
            .variable("MUSTER_TIME_LIMIT_MS", request.time_limit.as_millis().to_string())
            .variable("MUSTER_INPUTS_OMITTED", inputs.omitted.join(" "));
        for (name, value) in &inputs.variables {
            program = program.variable(name, value);
        }
        if let Some(user) = user {
            program = program.user(user);
        }
        let run = program.run(&context.cancel).await;
        let (reply, remark) = match exit_code(&run, &program) {
            Ok(exit_code) => {
                let failure = run.failure(&program, exit_code);
                let (reply, output) =
                    (read_file(files.reply(), files.owner()).await, read_file(files.output(), files.owner()).await);
                reply::answer(action, reply::Answer { reply, output, exit_code, failure })
            }
            Err(failure) => (Err(self.explain(failure, &request)), None),
        };
        files.remove().await;
        if let Some(remark) = remark {
            // Whoever watches sees it; the answer stands.
            let line = format!("muster: {remark}\n").into_bytes();
            context.output.write(muster_protocol::OutputStream::Stderr, line).await;
        }
        with_left_behind(reply, &run, leave_behind(action))
    }

    fn request(&self, request: &ActionRequest, host: &dyn HostView) -> Result<Vec<u8>, ActionFailure> {
        let (protocol, schema) = REQUEST;
        let collective = host.inventory().collectives.first().map(ToString::to_string).unwrap_or_default();
        let Timestamp(now_ms) = host.now();
        let message = RpcRequest {
            schema,
            protocol,
            agent: self.ddl().name().as_str(),
            action: request.action.as_str(),
            requestid: request.request_id.to_string(),
            senderid: sender(&request.caller),
            callerid: request.caller.to_string(),
            collective,
            ttl: request.time_limit.as_secs().max(1),
            msgtime: now_ms.div_euclid(1000),
            data: &request.arguments,
        };
        let message = serde_json::to_vec(&message);
        message
            .map_err(|error| ActionFailure::new(&code::PLUGIN_ERROR, format!("the request cannot be written: {error}")))
    }

    /// Somebody may have opened the files to others since they were found.
    async fn still_trusted(&self) -> Result<(), ActionFailure> {
        let (executable, description) = (self.found.executable.clone(), self.found.description.clone());
        let look = move || {
            let folder = executable.parent().unwrap_or(Path::new("/"));
            trusted::directory_itself(folder)?;
            trusted::file_itself(&executable)?;
            trusted::file_itself(&description)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let looked =
            looked.map_err(|_| ActionFailure::new(&code::PLUGIN_ERROR, "looking at the plugin's files failed"))?;
        looked.map_err(|why| ActionFailure::new(&code::NOT_ACTIVATED, format!("the plugin is not run any more: {why}")))
    }

    /// A program that another user cannot reach looks as if it were not there.
    fn explain(&self, failure: ActionFailure, request: &ActionRequest) -> ActionFailure {
        match &request.effective_user {
            Some(user) if *failure.code == code::START_FAILED => {
                let program = self.found.executable.display();
                let message = format!("{failure}; user `{user}` must be able to reach `{program}`");
                ActionFailure { message, ..failure }
            }
            _ => failure,
        }
    }
}

impl Plugin for External {
    fn ddl(&self) -> &Ddl {
        &self.found.ddl
    }

    fn activate(&self) -> Result<(), NotActivated> {
        self.activation.clone()
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(self.call(request, context))
    }
}

/// The exit code of a program that ended by itself, whatever it printed.
fn exit_code(run: &Run, program: &Program) -> Result<i32, ActionFailure> {
    match run.end {
        crate::process::End::Exited(code) => Ok(code),
        _ => run.exit_code(program),
    }
}

async fn read_file(path: PathBuf, owner: Option<u32>) -> exchange::Written {
    let read = tokio::task::spawn_blocking(move || Exchange::read(&path, owner)).await;
    read.unwrap_or_else(|_| exchange::Written::Unreadable("the thread that reads it panicked".to_owned()))
}

/// Choria names the controller's machine there, which Muster does not know.
fn sender(caller: &Identity) -> String {
    caller.short()
}

fn with_left_behind(reply: ActionReply, run: &Run, meant: Option<LeaveBehind>) -> ActionReply {
    if run.left_behind == 0 || meant == Some(LeaveBehind::Keep) {
        return reply;
    }
    let processes = if run.left_behind == 1 { "process" } else { "processes" };
    let note = format!("it left {} {processes} behind, which were stopped", run.left_behind);
    let joined = |message: String| if message.is_empty() { note.clone() } else { format!("{message}; {note}") };
    match reply {
        Ok(ok) => {
            let message = joined(ok.message.clone());
            Ok(ok.with_message(message))
        }
        Err(failure) => {
            let message = joined(failure.message.clone());
            Err(ActionFailure { message, ..failure })
        }
    }
}
