//! Which files are plugins, and which are not trusted to be.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use muster_plugins::external::{Discovery, discover};
use muster_protocol::PluginName;
use serde_json::{Value, json};

use super::{Shelf, lab, mode};
use crate::support::script;

const PROGRAM: &str = "#!/bin/sh\nexit 0\n";

fn look(shelf: &Shelf) -> Discovery {
    let reserved: BTreeSet<PluginName> = ["package".parse().unwrap()].into();
    discover(&[shelf.folder.path().join("not-there"), shelf.plugins()], &reserved)
}

fn named(name: &str, provider: &str) -> Value {
    let mut ddl = lab(json!({}), json!({}));
    ddl["metadata"]["name"] = json!(name);
    ddl["metadata"]["provider"] = json!(provider);
    ddl
}

fn names(discovery: &Discovery) -> Vec<&str> {
    discovery.found.iter().map(|found| found.ddl.name().as_str()).collect()
}

fn write(folder: &Path, file: &str, ddl: &Value) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(file), ddl.to_string()).unwrap();
}

#[test]
fn every_layout_is_found() {
    let shelf = Shelf::new();
    let root = shelf.plugins();
    write(&root, "flat.json", &named("flat", "external"));
    script(&root.join("flat"), PROGRAM);
    shelf.put(&named("nested", ""), PROGRAM);
    let choria = root.join("mcollective/agent");
    write(&choria, "helloworld.json", &named("helloworld", "external"));
    fs::write(choria.join("helloworld.ddl"), "metadata :name => 'helloworld'").unwrap();
    script(&choria.join("helloworld"), PROGRAM);
    // Compiled for several platforms.
    let platform = if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" };
    write(&choria, "compiled.json", &named("compiled", "external"));
    fs::create_dir(choria.join("compiled")).unwrap();
    script(&choria.join("compiled").join(format!("compiled-{platform}")), PROGRAM);
    write(&choria.join("inside"), "inside.json", &named("inside", "external"));
    script(&choria.join("inside").join(format!("inside-{platform}")), PROGRAM);
    // Agents in Ruby and Go lie beside them and are nobody's problem.
    write(&choria, "puppet.json", &named("puppet", "ruby"));
    fs::write(choria.join("puppet.rb"), "").unwrap();
    // Neither are files that have nothing to do with plugins, and what is hidden.
    fs::write(root.join("README"), "").unwrap();
    write(&root.join(".incoming"), ".incoming.json", &json!({}));
    fs::create_dir(root.join("empty")).unwrap();

    let discovery = look(&shelf);
    assert_eq!(discovery.problems, []);
    assert_eq!(names(&discovery), ["compiled", "flat", "helloworld", "inside", "nested"]);
    let program = |name: &str| {
        let found = discovery.found.iter().find(|found| found.ddl.name().as_str() == name).unwrap();
        found.executable.strip_prefix(fs::canonicalize(&root).unwrap()).unwrap().display().to_string()
    };
    assert_eq!(program("flat"), "flat");
    assert_eq!(program("nested"), "nested/nested");
    assert_eq!(program("compiled"), format!("mcollective/agent/compiled/compiled-{platform}"));
    assert_eq!(program("inside"), format!("mcollective/agent/inside/inside-{platform}"));
}

/// Lays out one plugin `bad` wrongly beside a good one, and says what must be complained about.
#[track_caller]
fn check(break_it: impl FnOnce(&Shelf), expected: &str) {
    let shelf = Shelf::new();
    shelf.put(&named("good", "external"), PROGRAM);
    shelf.put(&named("bad", "external"), PROGRAM);
    break_it(&shelf);
    let discovery = look(&shelf);
    assert_eq!(names(&discovery), ["good"], "the good one is not hindered: {:?}", discovery.problems);
    let [problem] = discovery.problems.as_slice() else { panic!("{:?}", discovery.problems) };
    let text = problem.to_string().replace(&fs::canonicalize(shelf.plugins()).unwrap().display().to_string(), "DIR");
    assert!(text.contains(expected), "{text}");
    assert_eq!((problem.code().code, problem.is_transient()), ("plugin-error", false));
}

#[test]
fn a_broken_plugin_is_named_and_hinders_nobody() {
    let bad = |shelf: &Shelf| shelf.plugins().join("bad");
    check(|shelf| fs::write(bad(shelf).join("bad.json"), "{").unwrap(), "the description is malformed: ");
    check(|shelf| fs::write(bad(shelf).join("bad.json"), [0xff]).unwrap(), "it is not UTF-8");
    check(|shelf| write(&bad(shelf), "bad.json", &named("worse", "external")), "so the file has to be `worse.json`");
    check(|shelf| write(&bad(shelf), "bad.json", &named("bad", "golang")), "its provider is `golang`");
    check(
        |shelf| fs::remove_file(bad(shelf).join("bad")).unwrap(),
        "there is no program for it: neither `DIR/bad/bad` nor",
    );
    check(|shelf| mode(&bad(shelf).join("bad"), 0o644), "`DIR/bad/bad` is not executable: chmod +x DIR/bad/bad");
    check(
        |shelf| {
            let mut ddl = named("bad", "external");
            ddl["muster"] = json!({ "data": [{ "name": "disk" }] });
            write(&bad(shelf), "bad.json", &ddl);
        },
        "it describes data queries",
    );
    check(
        |shelf| {
            let mut ddl = named("bad", "external");
            ddl["actions"][0]["muster"] = json!({ "leave_behind": "maybe" });
            write(&bad(shelf), "bad.json", &ddl);
        },
        "`leave_behind` of action `try` is neither `stop` nor `keep`",
    );
    check(
        |shelf| {
            fs::remove_dir_all(bad(shelf)).unwrap();
            shelf.put(&named("package", "external"), PROGRAM);
        },
        "`package` is the name of a built-in plugin, or a word of policies",
    );
    check(
        |shelf| {
            fs::remove_dir_all(bad(shelf)).unwrap();
            write(&shelf.plugins(), "good.json", &named("good", "external"));
            script(&shelf.plugins().join("good-other"), PROGRAM);
        },
        "plugin `good` is in",
    );
}

#[test]
fn what_others_could_change_is_not_run() {
    let bad = |shelf: &Shelf| shelf.plugins().join("bad");
    check(|shelf| mode(&bad(shelf), 0o777), "others can write `DIR/bad` (mode 0777): chmod go-w DIR/bad");
    check(|shelf| mode(&bad(shelf).join("bad"), 0o775), "others can write `DIR/bad/bad` (mode 0775)");
    check(|shelf| mode(&bad(shelf).join("bad.json"), 0o646), "others can write `DIR/bad/bad.json` (mode 0646)");
    check(
        |shelf| std::os::unix::fs::chown(bad(shelf).join("bad"), Some(65_534), None).unwrap(),
        "`DIR/bad/bad` belongs to user 65534, not to root or the agent's user",
    );
    check(
        |shelf| {
            let outside = shelf.folder.path().join("elsewhere");
            script(&outside, PROGRAM);
            fs::remove_file(bad(shelf).join("bad")).unwrap();
            symlink(outside, bad(shelf).join("bad")).unwrap();
        },
        "`DIR/bad/bad` leads out of its directory, to `",
    );
    check(
        |shelf| {
            let outside = shelf.folder.path().join("elsewhere");
            fs::rename(bad(shelf), &outside).unwrap();
            symlink(outside, bad(shelf)).unwrap();
        },
        "`DIR/bad/bad.json` leads out of its directory, to `",
    );
    // A link that stays inside is fine.
    let shelf = Shelf::new();
    shelf.put(&named("good", "external"), PROGRAM);
    let folder = shelf.plugins().join("good");
    fs::rename(folder.join("good"), folder.join("good-1.0")).unwrap();
    symlink("good-1.0", folder.join("good")).unwrap();
    assert_eq!((names(&look(&shelf)), look(&shelf).problems), (vec!["good"], vec![]));
}

#[test]
fn a_directory_that_others_could_change_is_not_used_at_all() {
    let shelf = Shelf::new();
    shelf.put(&named("good", "external"), PROGRAM);
    mode(&shelf.plugins(), 0o777);
    let discovery = look(&shelf);
    assert_eq!(names(&discovery), Vec::<&str>::new());
    assert!(discovery.problems[0].to_string().contains("others can write"), "{:?}", discovery.problems);
    mode(&shelf.plugins(), 0o755);
    // Nor one whose parent lets others put another in its place.
    mode(shelf.folder.path(), 0o777);
    assert_eq!(names(&look(&shelf)), Vec::<&str>::new());
    // The sticky bit keeps everybody from that but the parent's owner.
    mode(shelf.folder.path(), 0o1777);
    assert_eq!(names(&look(&shelf)), ["good"]);
    std::os::unix::fs::chown(shelf.folder.path(), Some(65_534), None).unwrap();
    assert_eq!(names(&look(&shelf)), Vec::<&str>::new());
    std::os::unix::fs::chown(shelf.folder.path(), Some(0), None).unwrap();
    mode(shelf.folder.path(), 0o700);
    assert_eq!(names(&look(&shelf)), ["good"]);
}

#[tokio::test]
async fn a_program_that_was_opened_to_others_since_does_not_run() {
    let shelf = Shelf::new();
    let folder = shelf.put(&lab(json!({}), json!({})), PROGRAM);
    let plugin = shelf.only().await;
    mode(&folder.join("lab"), 0o777);
    let (reply, _) = super::Call::new(&shelf, "try", json!({})).run(&plugin).await;
    let told = super::told(&reply).0;
    assert!(told.starts_with("not-activated the plugin is not run any more: others can write `"), "{told}");
}
