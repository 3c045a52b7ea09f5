//! Plugins that are programs of their own: found, asked, run, and everything they can do wrong.

mod choria;
mod discovery;
mod endings;
mod users;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_plugin_api::{
    ActionContext, ActionReply, ActionRequest, CancellationToken, OutputReceiver, OutputSink, Plugin, conformance,
};
use muster_plugins::external::{External, discover};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::script;

/// A directory with plugins, as an administrator lays it out.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) folder: TempDir,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder }
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Puts a plugin of one folder there.
    pub(crate) fn put(&self, ddl: &Value, program: &str) -> PathBuf {
        let name = ddl["metadata"]["name"].as_str().unwrap();
        let folder = self.plugins().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.json")), ddl.to_string()).unwrap();
        script(&folder.join(name), program);
        folder
    }

    /// The only plugin, asked whether it can work.
    pub(crate) async fn only(&self) -> External {
        let discovery = discover(&[self.plugins()], &[].into());
        assert_eq!(discovery.problems, [], "there are problems");
        let [found] = <[_; 1]>::try_from(discovery.found).unwrap();
        External::new(found, &self.folder.path().join("plugin.d")).ask(&self.work()).await
    }

    /// Whether every call took its files away again.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.work()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub(crate) fn output(kind: &str) -> Value {
    json!({ "description": "What came of it", "display_as": "Result", "type": kind })
}

pub(crate) fn input(kind: &str) -> Value {
    json!({ "prompt": "Value", "description": "A value", "type": kind, "optional": true, "maxlength": 200_000 })
}

/// A plugin `lab` with an action `try` of these inputs and outputs.
pub(crate) fn lab(inputs: Value, outputs: Value) -> Value {
    json!({
        "metadata": {
            "name": "lab", "description": "A plugin for tests", "version": "1.2.3", "timeout": 20, "provider": "external",
        },
        "actions": [{
            "action": "try", "description": "Tries something", "input": inputs, "output": outputs,
            "muster": { "supports": { "cancel": true, "stream": true, "noop": true, "effective_user": true } },
        }],
    })
}

pub(crate) struct Call {
    pub(crate) request: ActionRequest,
    pub(crate) cancel: CancellationToken,
    work: PathBuf,
}

impl Call {
    pub(crate) fn new(shelf: &Shelf, action: &str, arguments: Value) -> Self {
        let request = conformance::sample_request(action, arguments).unwrap();
        Self { request, cancel: CancellationToken::new(), work: shelf.work() }
    }

    pub(crate) fn limit(mut self, time_limit: Duration) -> Self {
        self.request.time_limit = time_limit;
        self
    }

    /// Runs it and gives the answer with everything that was streamed.
    pub(crate) async fn run(self, plugin: &External) -> (ActionReply, String) {
        let host = conformance::FixedHost { work_directory: self.work, ..conformance::FixedHost::default() };
        let (output, receiver) = OutputSink::channel(4);
        let context = ActionContext { cancel: self.cancel, output, host: Arc::new(host) };
        let (reply, streamed) = tokio::join!(plugin.run(self.request, context), collect(receiver));
        (reply, streamed)
    }
}

async fn collect(mut receiver: OutputReceiver) -> String {
    let mut all = Vec::new();
    while let Some(piece) = receiver.recv().await {
        all.extend(piece.bytes);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// `ok MESSAGE` or `CODE MESSAGE`, and the data.
pub(crate) fn told(reply: &ActionReply) -> (String, Value) {
    match reply {
        Ok(ok) => (format!("ok {}", ok.message).trim_end().to_owned(), ok.data.clone()),
        Err(failure) => (format!("{} {}", failure.code.code, failure.message), failure.data.clone()),
    }
}

pub(crate) fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_few_lines_of_shell_are_a_plugin() {
    let shelf = Shelf::new();
    let ddl =
        lab(json!({ "name": input("string"), "times": input("integer") }), json!({ "greeting": output("string") }));
    shelf.put(
        &ddl,
        "#!/bin/sh\nset -eu\n[ \"$MUSTER_CALL\" = run ] || exit 0\necho working on it\n\
         echo \"greeting=$MUSTER_INPUT_NAME x $MUSTER_INPUT_TIMES on $MUSTER_HOST\" >>\"$MUSTER_OUTPUT\"\n",
    );
    let plugin = shelf.only().await;
    assert_eq!(plugin.activate(), Ok(()));
    let arguments = json!({ "name": "Lea $(id) `id` ; \"quoted\"", "times": 3 });
    let (reply, streamed) = Call::new(&shelf, "try", arguments).run(&plugin).await;
    let expected = json!({ "greeting": "Lea $(id) `id` ; \"quoted\" x 3 on web1.example.com" });
    assert_eq!(told(&reply), ("ok".to_owned(), expected));
    assert_eq!(streamed, "working on it\n");
    shelf.is_clean();

    let (reply, _) = Call::new(&shelf, "try", json!({ "name": "a\u{0}b", "times": 1 })).run(&plugin).await;
    assert_eq!(told(&reply).0, "invalid-argument input `name` has a NUL character, which no program can be given");
    let (reply, _) = Call::new(&shelf, "other", json!({})).run(&plugin).await;
    assert_eq!(told(&reply).0, "unknown-action there is no action `other`");
}

#[tokio::test]
async fn secrets_are_in_the_request_alone() {
    let shelf = Shelf::new();
    let ddl = lab(json!({ "name": input("string"), "token": input("string") }), json!({ "found": output("string") }));
    // Looks for the secret wherever another user of the host could.
    let program = "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\n\
        grep -q hunter2 \"$CHORIA_EXTERNAL_REQUEST\" || echo 'not in the request' >&2\n\
        if tr '\\0' '\\n' </proc/$$/environ | grep hunter2; then echo 'in the environment' >&2; fi\n\
        if tr '\\0' '\\n' </proc/$$/cmdline | grep hunter2; then echo 'in the arguments' >&2; fi\n\
        grep -q hunter2 \"$CHORIA_EXTERNAL_FACTS\" && echo 'in the facts' >&2\n\
        echo \"found=$(stat -c '%a %a' \"$CHORIA_EXTERNAL_REQUEST\" \"$(dirname \"$CHORIA_EXTERNAL_REQUEST\")\" | tr '\\n' ' ')\" >>\"$MUSTER_OUTPUT\"\n";
    shelf.put(&ddl, program);
    let plugin = shelf.only().await;
    let mut call = Call::new(&shelf, "try", json!({ "name": "a", "token": "hunter2" }));
    call.request.secrets = ["token".to_owned()].into();
    let (reply, streamed) = call.run(&plugin).await;
    assert_eq!((told(&reply).1, streamed.as_str()), (json!({ "found": "600 600 700 700 " }), ""));
}

#[tokio::test]
async fn options_that_the_action_does_not_have_are_refused() {
    let shelf = Shelf::new();
    let mut ddl = lab(json!({}), json!({ "noop": output("string") }));
    shelf.put(&ddl, "#!/bin/sh\necho \"noop=$MUSTER_NOOP\" >>\"$MUSTER_OUTPUT\"\n");
    let plugin = shelf.only().await;
    let mut call = Call::new(&shelf, "try", json!({}));
    call.request.noop = true;
    assert_eq!(told(&call.run(&plugin).await.0).1, json!({ "noop": "1" }));

    ddl["actions"][0]["muster"] = json!({});
    let shelf = Shelf::new();
    shelf.put(&ddl, "#!/bin/sh\necho \"noop=$MUSTER_NOOP\" >>\"$MUSTER_OUTPUT\"\n");
    let plugin = shelf.only().await;
    let mut call = Call::new(&shelf, "try", json!({}));
    call.request.noop = true;
    assert_eq!(told(&call.run(&plugin).await.0).0, "unsupported-option action `try` does not support noop");
    let mut call = Call::new(&shelf, "try", json!({}));
    call.request.effective_user = Some("nobody".to_owned());
    assert_eq!(
        told(&call.run(&plugin).await.0).0,
        "unsupported-option action `try` does not support an effective user"
    );
}

#[tokio::test]
async fn an_activation_check_has_the_last_word() {
    #[track_caller]
    fn check(program: &str) -> impl Future<Output = Result<(), String>> {
        let shelf = Shelf::new();
        shelf.put(&lab(json!({}), json!({})), &format!("#!/bin/sh\n{program}\n"));
        async move { shelf.only().await.activate().map_err(|not| not.why) }
    }
    let reply = |json: &str| format!("echo '{json}' >\"$CHORIA_EXTERNAL_REPLY\"");
    assert_eq!(check("exit 0").await, Ok(()));
    assert_eq!(check(&reply(r#"{"activate":true}"#)).await, Ok(()));
    assert_eq!(check(&reply(r#"{"activate":false}"#)).await, Err("it says that it is not for this host".to_owned()));
    assert_eq!(check("echo 'no printer here' >&2; exit 1").await, Err("no printer here".to_owned()));
    assert_eq!(check("exit 3").await, Err("its activation check ended with exit code 3".to_owned()));
    assert_eq!(
        check("kill -9 $$").await,
        Err("its activation check failed: `lab` was ended by signal SIGKILL".to_owned())
    );
    assert!(check(&reply("maybe")).await.unwrap_err().contains("is not what the contract says"));
    assert_eq!(check("sleep 600").await, Err("its activation check failed: `lab` did not end within 5s".to_owned()));
    assert_eq!(
        check("[ \"$MUSTER_CALL $CHORIA_EXTERNAL_PROTOCOL\" = 'activate io.choria.mcorpc.external.v1.activation_request' ]").await,
        Ok(())
    );
}

#[tokio::test]
async fn a_plugin_can_be_held_to_the_whole_contract() {
    let shelf = Shelf::new();
    let mut ddl = lab(json!({ "name": input("string") }), json!({ "greeting": output("string") }));
    ddl["actions"][0]["muster"]["supports"]["effective_user"] = json!(false);
    shelf.put(&ddl, "#!/bin/sh\necho \"greeting=hello ${MUSTER_INPUT_NAME:-you}\" >>\"$MUSTER_OUTPUT\"\n");
    let plugin = shelf.only().await;
    let samples = [conformance::Sample::succeeds("try", json!({ "name": "Lea" }))];
    crate::support::conforms(conformance::check(&plugin, &samples).await);
}
