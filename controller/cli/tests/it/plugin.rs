//! `muster plugin`, as far as it needs no broker.

use crate::site::{Site, assert_screen};

/// A plugin whose description only this file decides.
const BACKUP: &str = r#"{"metadata":{"name":"backup","description":"Backups","author":"Lea","license":"MIT",
    "version":"2.1.0","timeout":90},
    "actions":[{"action":"start","description":"Starts one","input":{"kind":{"type":"list","list":["full","diff"],
    "description":"How much"}},"output":{"id":{"description":"Its number","type":"integer"}}},
    {"action":"status","description":"How the last one went","input":{},"output":{},"muster":{"read_only":true}}]}"#;

fn with_backup() -> Site {
    let site = Site::new();
    site.write("plugins/backup.json", BACKUP);
    site.write(
        ".config/muster/config.toml",
        "[context.x]\nbroker = [\"amqps://mq\"]\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\nddl_directory = \"../../plugins\"\n",
    );
    site
}

#[test]
fn what_is_built_in_is_described() {
    let site = Site::new();
    // All of them, by name; what each says of itself is its own affair.
    let names: Vec<&str> = muster_plugin_api::builtin_ddls().iter().map(|ddl| ddl.name().as_str()).collect();
    let listed = site.run(&["plugin", "list", "--names"]);
    assert_eq!(listed, format!("exit 0\n--- stdout\n{}\n", names.join("\n")));
    let table = site.run(&["plugin", "list"]);
    assert!(table.starts_with("exit 0\n--- stdout\nNAME "), "{table}");
    for name in names {
        assert!(table.contains(&format!("\n{name} ")), "{name}: {table}");
    }
    // A plugin's actions, and one with all its parts.
    let shown = site.run(&["plugin", "show", "host"]);
    assert!(shown.contains("\nhost.ping ") && shown.ends_with("More: muster plugin show host.ping\n"), "{shown}");
    assert_screen!(site.run(&["plugin", "show", "host.facts"]), @r#"
    exit 0
    --- stdout
    host.facts: Facts: all of them, those named, or those below a path
    reads · time limit 5 s · --noop, cancel

    Example: muster run host.facts -t 'os.family = Debian'

      names (array, optional)
          Paths of facts, such as os.family; elements of lists are counted from 0, as in disks.0.size
          takes a list; each element is text that fits `[^.\x00-\x1f\x7f]+(\.[^.\x00-\x1f\x7f]+)*`, at most 256 characters
      prefix (string, optional)
          A path; everything below it is returned
          takes text that fits `[^.\x00-\x1f\x7f]+(\.[^.\x00-\x1f\x7f]+)*`, at most 256 characters

    GIVES    TYPE   DESCRIPTION
    facts    hash   The facts: nested as the host keeps them, or path to value where `names` or `prefix` was given
    missing  array  Those asked for that the host does not have
    "#);
}

#[test]
fn a_description_is_shown_with_everything_one_has_to_know() {
    let site = with_backup();
    assert_screen!(site.run(&["plugin", "show", "backup"]), @"
    exit 0
    --- stdout
    backup 2.1.0: Backups
    by Lea, MIT

    ACTION         EFFECT   DESCRIPTION
    backup.start   changes  Starts one
    backup.status  reads    How the last one went
    --- stderr

    More: muster plugin show backup.start
    ");
    assert_screen!(site.run(&["plugin", "show", "backup.start"]), @"
    exit 0
    --- stdout
    backup.start: Starts one
    changes · time limit 90 s

    Example: muster run backup.start kind=full -t 'os.family = Debian'

      kind (list, required)
          How much
          takes full or diff

    GIVES  TYPE     DESCRIPTION
    id     integer  Its number
    ");
}

#[test]
fn documents_hold_the_whole_description() {
    let site = Site::new();
    let json = |words: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&site.command(words).output().unwrap().stdout).unwrap()
    };
    let plugin = json(&["plugin", "show", "package", "--json"]);
    assert_eq!(
        (&plugin["schema"], &plugin["plugin"]["metadata"]["name"]),
        (&"muster.plugin/v1".into(), &"package".into())
    );
    let action = json(&["plugin", "show", "package.status", "--json"]);
    assert_eq!(action["schema"], "muster.action/v1");
    assert_eq!(action["action"]["input"]["name"]["type"], "string");
    assert!(action["timeout_s"].as_u64().unwrap() > 0);
}

#[test]
fn unknown_plugins_and_actions_have_a_nearest_name() {
    let site = with_backup();
    assert_screen!(site.run(&["plugin", "show", "backp"]), @"
    exit 2
    --- stderr
    error[unknown-plugin]: there is no plugin `backp` here
      nearest  `backup`
      try      muster plugin list
    ");
    assert_screen!(site.run(&["plugin", "show", "backup.stats"]), @"
    exit 2
    --- stderr
    error[unknown-action]: plugin `backup` has no action `stats`
      has      start, status
      nearest  `status`
      try      muster plugin show backup
    ");
    assert_screen!(site.run(&["run", "backup", "-H", "web1"]), @"
    exit 2
    --- stderr
    error[bad-usage]: `backup` is not an action: write PLUGIN.ACTION
      has     start, status
      try     muster plugin show backup
    ");
}

#[test]
fn a_directory_adds_descriptions() {
    let site = Site::new();
    let ddl = r#"{"metadata":{"name":"backup","description":"Backups","version":"2.1.0"},
        "actions":[{"action":"start","description":"Starts one","input":{"kind":{"type":"list","list":["full","diff"],
        "description":"How much"}},"output":{}}]}"#;
    site.write("plugins/backup.json", ddl);
    site.write("config.toml", "[context.x]\nbroker = [\"amqps://mq\"]\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\nddl_directory = \"plugins\"\n");
    assert_screen!(site.run(&["--config", "config.toml", "plugin", "show", "backup.start"]), @"
    exit 0
    --- stdout
    backup.start: Starts one
    changes · time limit 10 s

    Example: muster run backup.start kind=full -t 'os.family = Debian'

      kind (list, required)
          How much
          takes full or diff
    ");
    site.write("plugins/broken.json", "{");
    assert_screen!(site.run(&["--config", "config.toml", "plugin", "list"]), @"
    exit 2
    --- stderr
    error[bad-description]: `plugins/broken.json` is not a plugin description
      why     the description is malformed: EOF while parsing an object at line 1 column 1
      try     muster explain bad-description
    ");
}
