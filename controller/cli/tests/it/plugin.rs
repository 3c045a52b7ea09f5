//! `muster plugin`, as far as it needs no broker.

use crate::site::{Site, assert_screen};

#[test]
fn what_is_built_in_is_described() {
    let site = Site::new();
    assert_screen!(site.run(&["plugin", "list"]), @"
    exit 0
    --- stdout
    NAME     VERSION  ACTIONS                         DESCRIPTION
    host     1.0.0    ping, status, inventory, facts  The host as its agent knows it: whether it answers, what it has, how the agent is doing
    package  1.0.0    status                          Software packages of the operating system, through dpkg or rpm
    puppet   1.0.0    status                          The Puppet agent on the host, read from the files it keeps
    service  1.0.0    status                          Services of the operating system, through systemd or SysV init scripts
    ");
    assert_screen!(site.run(&["plugin", "show", "service"]), @"
    exit 0
    --- stdout
    service 1.0.0: Services of the operating system, through systemd or SysV init scripts
    by The Muster authors, Apache-2.0 OR MIT

    ACTION          EFFECT  DESCRIPTION
    service.status  reads   Whether a service runs, since when, and whether it starts at boot
    --- stderr

    More: muster plugin show service.status
    ");
    assert_screen!(site.run(&["plugin", "show", "service.status"]), @r#"
    exit 0
    --- stdout
    service.status: Whether a service runs, since when, and whether it starts at boot
    reads · time limit 30 s · --noop, cancel
    needs a running systemd, or init scripts in /etc/init.d

    Example: muster run service.status name=NAME -t 'os.family = Debian'

      name (string, required)
          Name of the service; with systemd also a unit of another type, such as fstrim.timer
          takes text that fits `[A-Za-z0-9_][A-Za-z0-9_.@:\\-]*`, at most 255 characters

    GIVES          TYPE     DESCRIPTION
    name           string   The name that was asked for
    status         string   running, stopped, failed, starting, stopping, reloading, unknown, or absent if the host has no such service
    enabled        boolean  Whether it starts at boot; null where the question does not apply
    enabled_state  string   The same in the service manager's word: enabled, disabled, static, masked, ...
    pid            integer  Main process; null if there is none or it is not known
    since_ms       integer  When it entered its state, in milliseconds since 1970 (UTC); null if that is not known
    state          string   The service manager's own words: active/running, or the exit code of the init script
    unit           string   The unit or init script that the name stands for
    provider       string   The service manager that was asked: systemd or sysv
    "#);
    assert_screen!(site.run(&["plugin", "list", "--names"]), @"
    exit 0
    --- stdout
    host
    package
    puppet
    service
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
    let site = Site::new();
    assert_screen!(site.run(&["plugin", "show", "pakage"]), @"
    exit 2
    --- stderr
    error[unknown-plugin]: there is no plugin `pakage` here
      nearest  `package`
      try      muster plugin list
    ");
    assert_screen!(site.run(&["plugin", "show", "package.stats"]), @"
    exit 2
    --- stderr
    error[unknown-action]: plugin `package` has no action `stats`
      has      status
      nearest  `status`
      try      muster plugin show package
    ");
    assert_screen!(site.run(&["run", "package", "-H", "web1"]), @"
    exit 2
    --- stderr
    error[bad-usage]: `package` is not an action: write PLUGIN.ACTION
      has     status
      try     muster plugin show package
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
