//! Programs that run as another user. Root alone can do that, so the tests need root.

use serde_json::json;

use super::{Call, Shelf, lab, mode, output, told};

#[tokio::test]
async fn the_user_can_read_the_request_and_nobody_else_can() {
    assert!(nix::unistd::geteuid().is_root(), "this test has to run as root, to become another user");
    let shelf = Shelf::new();
    let ddl =
        lab(json!({}), json!({ "user": output("string"), "request": output("string"), "home": output("string") }));
    shelf.put(
        &ddl,
        "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\n\
         cat \"$CHORIA_EXTERNAL_REQUEST\" \"$CHORIA_EXTERNAL_FACTS\" >/dev/null || exit 1\n\
         { echo \"user=$(id -un) $MUSTER_EFFECTIVE_USER\"; echo \"request=$(stat -c %U:%a \"$1\")\"; echo \"home=$(stat -c %U:%a .)\"; } >>\"$MUSTER_OUTPUT\"\n",
    );
    let plugin = shelf.only().await;
    let call = || {
        let mut call = Call::new(&shelf, "try", json!({}));
        call.request.effective_user = Some("nobody".to_owned());
        call
    };
    mode(shelf.folder.path(), 0o700);
    let (reply, _) = call().run(&plugin).await;
    let message = told(&reply).0;
    assert!(message.starts_with("start-failed `lab` could not be started: "), "{message}");
    assert!(message.contains("; user `nobody` must be able to reach `"), "{message}");
    mode(shelf.folder.path(), 0o755);
    let (reply, streamed) = call().run(&plugin).await;
    let expected = json!({ "user": "nobody nobody", "request": "nobody:600", "home": "nobody:700" });
    assert_eq!((told(&reply), streamed.as_str()), (("ok".to_owned(), expected), ""));

    let mut call = call();
    call.request.effective_user = Some("no-such-user".to_owned());
    assert_eq!(told(&call.run(&plugin).await.0).0, "unknown-user \"no-such-user\" is not a user of this host");
}

/// What root would read for it, the program may not choose.
#[tokio::test]
async fn a_user_cannot_put_another_directory_in_the_place_of_the_call() {
    assert!(nix::unistd::geteuid().is_root(), "this test has to run as root, to become another user");
    let shelf = Shelf::new();
    mode(shelf.folder.path(), 0o755);
    let ddl = lab(json!({}), json!({ "moved": output("string"), "where": output("string") }));
    shelf.put(
        &ddl,
        "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\n\
         here=$(dirname \"$MUSTER_OUTPUT\")\n\
         if mv \"$here\" \"$here.away\" 2>/dev/null; then moved=yes; else moved=no; fi\n\
         printf 'moved=%s\\nwhere=%s\\n' $moved \"$here\" >>\"$MUSTER_OUTPUT\"\n",
    );
    let plugin = shelf.only().await;
    let mut call = Call::new(&shelf, "try", json!({}));
    call.request.effective_user = Some("nobody".to_owned());
    let (reply, _) = call.run(&plugin).await;
    let data = reply.unwrap().data;
    assert_eq!(data["moved"], "no");
    let here = std::path::Path::new(data["where"].as_str().unwrap());
    assert!(!here.exists() && !here.parent().unwrap().exists(), "{here:?} is left");
}
