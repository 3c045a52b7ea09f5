//! Everything a program can do wrong has an answer of its own.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Shelf, input, lab, output, told};
use crate::support::dies;

/// Runs the action of a shell script, which answers its activation check well.
async fn run(program: &str, limit: Duration) -> (String, Value, String) {
    let shelf = Shelf::new();
    let ddl = lab(json!({ "name": input("string") }), json!({ "text": output("string"), "pid": output("integer") }));
    shelf.put(&ddl, &format!("#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\n{program}\n"));
    let plugin = shelf.only().await;
    let (reply, streamed) = Call::new(&shelf, "try", json!({})).limit(limit).run(&plugin).await;
    shelf.is_clean();
    let (told, data) = told(&reply);
    (told, data, streamed)
}

async fn check(program: &str, expected: &str) -> (Value, String) {
    let (told, data, streamed) = run(program, Duration::from_secs(20)).await;
    assert_eq!(told, expected, "{program}\n{streamed}");
    (data, streamed)
}

#[tokio::test]
async fn a_program_that_ends_wrongly() {
    check("exit 0", "plugin-error the plugin ended well and wrote no reply").await;
    check("exit 7", "failed `lab` ended with exit code 7 and said nothing").await;
    check("echo 'no room' >&2; exit 7", "failed `lab` ended with exit code 7: no room").await;
    check("kill -SEGV $$", "signalled `lab` was ended by signal SIGSEGV").await;
    check("rm \"$CHORIA_EXTERNAL_REPLY\"", "plugin-error the plugin removed its reply file").await;
    // The request is the program's own; it may take it away.
    check("rm \"$CHORIA_EXTERNAL_REQUEST\"; echo text=a >>\"$MUSTER_OUTPUT\"", "ok").await;
    let pipe = "rm \"$CHORIA_EXTERNAL_REPLY\"; mkfifo \"$CHORIA_EXTERNAL_REPLY\"";
    check(pipe, "plugin-error the plugin put something that is not a file where its reply was").await;
    let link = "ln -sf /etc/passwd \"$CHORIA_EXTERNAL_REPLY\"";
    check(link, "plugin-error the plugin put something that is not a file where its reply was").await;
    let huge = "head -c 1200000 /dev/zero >\"$CHORIA_EXTERNAL_REPLY\"";
    check(huge, "limit-exceeded the plugin's reply is larger than 1048576 bytes").await;
    let garbage = "echo 'Traceback (most recent call last)' >\"$CHORIA_EXTERNAL_REPLY\"";
    let expected = "plugin-error the plugin's reply is not what the contract says (expected value at line 1 column 1); \
                    it begins with `Traceback (most recent call last)\\n`";
    check(garbage, expected).await;
}

#[tokio::test]
async fn garbage_that_is_only_printed_is_output() {
    let program = "printf '\\377\\000{\"statuscode\": 1'; echo text=good >>\"$MUSTER_OUTPUT\"";
    let (data, streamed) = check(program, "ok").await;
    assert_eq!((data, streamed.as_str()), (json!({ "text": "good" }), "\u{fffd}\0{\"statuscode\": 1"));
}

#[tokio::test]
async fn output_beyond_what_is_kept_still_streams() {
    let program = "head -c 3000000 /dev/zero | tr '\\0' x; echo text=good >>\"$MUSTER_OUTPUT\"";
    let (_, streamed) = check(program, "ok").await;
    assert_eq!(streamed.len(), 3_000_000);
}

#[tokio::test]
async fn a_reply_that_is_not_as_described() {
    let reply = |data: &str| format!("echo '{{\"statuscode\":0,\"data\":{data}}}' >\"$CHORIA_EXTERNAL_REPLY\"");
    let (data, streamed) = check(&reply(r#"{"text":"a","colour":"blue"}"#), "ok").await;
    assert_eq!(data, json!({ "text": "a", "colour": "blue" }));
    assert_eq!(streamed, "muster: the reply of action `try` has `colour`, not described\n");
    let expected = "plugin-error the plugin's reply does not fit its description: `pid` is not of type integer";
    check(&reply(r#"{"pid":"many"}"#), expected).await;
}

#[tokio::test]
async fn a_program_that_does_not_end_is_stopped_with_all_it_started() {
    let program = "trap '' TERM; (trap '' TERM; echo $$; sleep 600) & echo $!; while :; do sleep 1; done";
    let (told, _, streamed) = run(program, Duration::from_millis(800)).await;
    assert_eq!(told, "timed-out `lab` did not end within 800ms");
    for pid in streamed.lines() {
        dies(pid.parse().unwrap()).await;
    }

    let shelf = Shelf::new();
    shelf.put(&lab(json!({}), json!({})), "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\nsleep 600\n");
    let plugin = shelf.only().await;
    let call = Call::new(&shelf, "try", json!({}));
    let cancel = call.cancel.clone();
    let (reply, ()) = tokio::join!(async { call.run(&plugin).await.0 }, async { cancel.cancel() });
    assert_eq!(told_code(&reply), "cancelled");
    shelf.is_clean();
}

fn told_code(reply: &muster_plugin_api::ActionReply) -> &'static str {
    reply.as_ref().map_or_else(|failure| failure.code.code, |_| "ok")
}

#[tokio::test]
async fn children_left_behind_are_stopped_and_told_or_kept_where_the_description_says() {
    let leaves = "sleep 600 >/dev/null 2>&1 & echo pid=$! >>\"$MUSTER_OUTPUT\"";
    let (data, _) = check(leaves, "ok it left 1 process behind, which were stopped").await;
    dies(i32::try_from(data["pid"].as_i64().unwrap()).unwrap()).await;

    let shelf = Shelf::new();
    let mut ddl = lab(json!({}), json!({ "pid": output("integer") }));
    ddl["actions"][0]["muster"]["leave_behind"] = json!("keep");
    shelf.put(&ddl, &format!("#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\n{leaves}\n"));
    let plugin = shelf.only().await;
    let (reply, _) = Call::new(&shelf, "try", json!({})).run(&plugin).await;
    let (what, data) = told(&reply);
    assert_eq!(what, "ok");
    let pid = i32::try_from(data["pid"].as_i64().unwrap()).unwrap();
    assert!(crate::support::alive(pid).is_some(), "it was to live on");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_program_that_is_gone_or_cannot_start() {
    let shelf = Shelf::new();
    let folder = shelf.put(&lab(json!({}), json!({})), "#!/bin/sh\nexit 0\n");
    let plugin = shelf.only().await;
    crate::support::script(&folder.join("lab"), "#!/no/such/interpreter\n");
    let (reply, _) = Call::new(&shelf, "try", json!({})).run(&plugin).await;
    assert_eq!(
        told(&reply).0,
        "start-failed `lab` could not be started: its interpreter `/no/such/interpreter` does not exist"
    );
    std::fs::remove_file(folder.join("lab")).unwrap();
    let (reply, _) = Call::new(&shelf, "try", json!({})).run(&plugin).await;
    assert!(told(&reply).0.starts_with("not-activated the plugin is not run any more: "), "{reply:?}");
}

#[tokio::test]
async fn what_does_not_fit_into_the_environment_is_in_the_request_alone() {
    let shelf = Shelf::new();
    let ddl = lab(json!({ "name": input("string") }), json!({ "text": output("string") }));
    shelf.put(
        &ddl,
        "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\n\
         echo \"text=$MUSTER_INPUTS_OMITTED ${MUSTER_INPUT_NAME-unset} $(wc -c <\"$1\")\" >>\"$MUSTER_OUTPUT\"\n",
    );
    let plugin = shelf.only().await;
    let (reply, _) = Call::new(&shelf, "try", json!({ "name": "x".repeat(150_000) })).run(&plugin).await;
    let text = told(&reply).1["text"].as_str().unwrap().to_owned();
    let bytes: usize = text.strip_prefix("name unset ").expect(&text).parse().unwrap();
    assert!(bytes > 150_000, "{bytes}");
}
