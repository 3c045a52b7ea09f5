//! Agents written to Choria's published contract for external agents, and to nothing of Muster's.

use std::fs;

use muster_plugin_api::Plugin as _;
use serde_json::json;

use super::{Call, Shelf, input, lab, output, told};

/// Reads everything the contract names and hands it back, after it has held the three ways of naming
/// the files against each other.
const PYTHON: &str = r#"#!/usr/bin/python3
import json, os, sys

request_file, reply_file, protocol = sys.argv[1:4]
assert request_file == os.environ["CHORIA_EXTERNAL_REQUEST"]
assert reply_file == os.environ["CHORIA_EXTERNAL_REPLY"]
assert protocol == os.environ["CHORIA_EXTERNAL_PROTOCOL"]
with open(request_file) as file:
    request = json.load(file)
assert request["protocol"] == protocol
reply = {"statuscode": 0, "statusmsg": "OK", "data": {}}
if protocol == "io.choria.mcorpc.external.v1.activation_request":
    assert request["$schema"] == "https://choria.io/schemas/mcorpc/external/v1/activation_request.json"
    reply = {"activate": request["agent"] == "lab"}
elif request["data"].get("fail"):
    reply = {"statuscode": 4, "statusmsg": "that is not a colour", "data": {"text": "red"}}
else:
    assert request["$schema"] == "https://choria.io/schemas/mcorpc/external/v1/rpc_request.json"
    with open(os.environ["CHORIA_EXTERNAL_FACTS"]) as file:
        facts = json.load(file)
    config = open(os.environ["CHORIA_EXTERNAL_CONFIG"]).read().strip()
    reply["data"] = {"request": request, "family": facts["os"]["family"], "config": config, "cwd": os.getcwd()}
    print("stdout is logged", file=sys.stdout)
    print("stderr is logged too", file=sys.stderr)
with open(reply_file, "w") as file:
    json.dump(reply, file)
"#;

const PERL: &str = r#"#!/usr/bin/perl
use strict;
use warnings;
use JSON::PP;

sub slurp { local $/; open my $file, '<', shift or die $!; return decode_json(<$file>) }
my $request = slurp($ENV{CHORIA_EXTERNAL_REQUEST});
my $reply = $request->{protocol} =~ /activation/
    ? { activate => JSON::PP::true }
    : { statuscode => 0, statusmsg => 'OK', data => { text => scalar reverse $request->{data}{name} } };
open my $file, '>', $ENV{CHORIA_EXTERNAL_REPLY} or die $!;
print $file encode_json($reply);
close $file or die $!;
"#;

const SHELL: &str = r#"#!/bin/sh
case "$CHORIA_EXTERNAL_PROTOCOL" in
  *activation_request) echo '{"activate": true}' >"$CHORIA_EXTERNAL_REPLY" ;;
  *) echo '{"statuscode": 0, "statusmsg": "OK", "data": {"text": "from a shell"}}' >"$CHORIA_EXTERNAL_REPLY" ;;
esac
"#;

#[tokio::test]
async fn an_agent_in_python_sees_what_choria_would_show_it() {
    let shelf = Shelf::new();
    let any = output("any");
    let ddl = lab(
        json!({ "name": input("string"), "fail": input("boolean") }),
        json!({ "request": any, "family": any, "config": any, "cwd": any, "text": any }),
    );
    shelf.put(&ddl, PYTHON);
    fs::create_dir(shelf.folder.path().join("plugin.d")).unwrap();
    fs::write(shelf.folder.path().join("plugin.d/lab.cfg"), "colour = blue\n").unwrap();
    let plugin = shelf.only().await;
    assert_eq!(plugin.activate(), Ok(()));
    let (reply, streamed) = Call::new(&shelf, "try", json!({ "name": "a" })).run(&plugin).await;
    let (message, mut data) = told(&reply);
    assert_eq!(message, "ok", "{streamed}");
    let cwd = data["cwd"].take();
    assert!(cwd.as_str().unwrap().starts_with(shelf.work().to_str().unwrap()), "{cwd}");
    let request_id = data["request"]["requestid"].take();
    assert_eq!(request_id.as_str().map(str::len), Some(36), "{request_id}");
    let expected = json!({
        "request": {
            "$schema": "https://choria.io/schemas/mcorpc/external/v1/rpc_request.json",
            "protocol": "io.choria.mcorpc.external.v1.rpc_request",
            "agent": "lab",
            "action": "try",
            "requestid": null,
            "senderid": "user/conformance",
            "callerid": "muster:user/conformance",
            "collective": "main",
            "ttl": 30,
            "msgtime": 1_795_219_200,
            "data": { "name": "a" },
        },
        "family": "Debian",
        "config": "colour = blue",
        "cwd": null,
    });
    assert_eq!(data, expected);
    assert!(streamed.contains("stdout is logged\n") && streamed.contains("stderr is logged too\n"), "{streamed}");

    let (reply, _) = Call::new(&shelf, "try", json!({ "fail": true })).run(&plugin).await;
    assert_eq!(told(&reply), ("invalid-argument that is not a colour".to_owned(), json!({ "text": "red" })));
    shelf.is_clean();
}

#[tokio::test]
async fn agents_in_perl_and_shell() {
    for (program, expected) in [(PERL, "nucelrac"), (SHELL, "from a shell")] {
        let shelf = Shelf::new();
        shelf.put(&lab(json!({ "name": input("string") }), json!({ "text": output("string") })), program);
        let plugin = shelf.only().await;
        assert_eq!(plugin.activate(), Ok(()));
        let (reply, streamed) = Call::new(&shelf, "try", json!({ "name": "carlecun" })).run(&plugin).await;
        assert_eq!(told(&reply), ("ok".to_owned(), json!({ "text": expected })), "{streamed}");
    }
}
