//! Contexts: the first start, adding, choosing, showing, and files that are wrong.

use muster_pki::testing::TestAuthority;

use crate::site::{Site, assert_screen, narrow, now};

#[test]
fn the_first_start_says_what_to_do() {
    let site = Site::new();
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 2
    --- stderr
    error[no-context]: no context is configured: which broker, and as whom?
      looked  /etc/muster/config.toml does not exist
      looked  [HOME]/.config/muster/config.toml does not exist
      looked  MUSTER_BROKER is not set
      need    a broker's address, and from whoever keeps the CA a directory with
              ca.pem, user-YOU.pem and user-YOU.key (muster pki issue user/YOU --out DIR)
      or      muster dev  # to try it out: a broker, three agents and a context, all on this machine
      try     muster context add NAME --broker amqps://HOST --directory DIR
    ");
    assert_screen!(site.run(&["context", "list"]), @"
    exit 0
    --- stderr
    No context is configured. Add one: muster context add --help
    ");
    assert_screen!(site.run(&["doctor"]), @"
    exit 2
    --- stdout
    ✗ config       no context is configured: which broker, and as whom?
                   looked: /etc/muster/config.toml does not exist
                   looked: [HOME]/.config/muster/config.toml does not exist
                   looked: MUSTER_BROKER is not set
                   need: a broker's address, and from whoever keeps the CA a directory with
                   ca.pem, user-YOU.pem and user-YOU.key (muster pki issue user/YOU --out DIR)
                   do: muster context add NAME --broker amqps://HOST --directory DIR
    · not checked: key, certificate, revocation, names, network, login, permissions, agents, clocks, backlog, crls, policies
    ");
}

#[test]
fn what_the_first_start_proposes_works() {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    std::fs::create_dir(site.path("lea")).unwrap();
    authority.write(&lea, &site.path("lea")).unwrap();
    let words = ["context", "add", "lab", "--broker", "amqps://mq1.example.com", "--directory", "lea", "--production"];
    assert_screen!(site.run(&words), @"
    exit 0
    --- stderr
    Added context `lab` to [HOME]/.config/muster/config.toml
    Try it: muster doctor --context lab
    ");
    assert_screen!(narrow(&site.run(&["context", "show", "--origin"])), @"
    exit 0
    --- stdout
    KEY  VALUE  ORIGIN
    name  lab PRODUCTION
    broker  amqps://mq1.example.com:5671/muster  [HOME]/.config/muster/config.toml:2
    collective  main  default
    ca  [HOME]/lea/ca.pem  [HOME]/.config/muster/config.toml:3
    crl  [HOME]/lea/crl.pem  [HOME]/.config/muster/config.toml:4
    certificate  [HOME]/lea/user-lea.pem  [HOME]/.config/muster/config.toml:5
    key  [HOME]/lea/user-lea.key  [HOME]/.config/muster/config.toml:6
    confirm_above  50  default
    production  true  [HOME]/.config/muster/config.toml:7
    ddl_directory  none  default
    ");
    assert_screen!(site.run(&words), @"
    exit 2
    --- stderr
    error[bad-usage]: there is a context `lab` already
      from    [HOME]/.config/muster/config.toml:2
      try     muster context show lab --origin
    ");
    let other = [
        "context",
        "add",
        "dev",
        "--broker",
        "amqps://localhost:5679/dev",
        "--directory",
        "lea",
        "--collective",
        "dev",
    ];
    assert_eq!(site.command(&other).output().unwrap().status.code(), Some(0));
    assert_screen!(site.run(&["context", "show"]), @"
    exit 2
    --- stderr
    error[no-context]: several contexts are configured and none is chosen
      known   dev, lab
      or      add --context NAME to the command
      try     muster context use dev
    ");
    assert_screen!(site.run(&["context", "use", "deb"]), @"
    exit 2
    --- stderr
    error[unknown-context]: there is no context `deb`
      nearest  `dev`
      try      muster context use dev
    ");
    assert_screen!(site.run(&["context", "use", "dev"]), @"
    exit 0
    --- stderr
    Commands now go to dev
    ");
    assert_screen!(site.run(&["context", "list"]), @"
    exit 0
    --- stdout
    NAME            CURRENT  COLLECTIVE  BROKER
    dev             current  dev         amqps://localhost:[PORT]/dev
    lab PRODUCTION           main        amqps://mq1.example.com:5671/muster
    ");
    assert_screen!(site.run(&["context", "list", "--jsonl"]), @r#"
    exit 0
    --- stdout
    {"schema":"muster.contexts/v1","name":"dev","current":true,"broker":["amqps://localhost:[PORT]/dev"],"collective":"dev","production":false}
    {"schema":"muster.contexts/v1","name":"lab","current":false,"broker":["amqps://mq1.example.com:5671/muster"],"collective":"main","production":true}
    "#);
    assert_screen!(std::fs::read_to_string(site.path(".config/muster/config.toml")).unwrap()
        .replace(site.home().to_str().unwrap(), "[HOME]"), @r#"
    current = "dev"

    [context.lab]
    broker = ["amqps://mq1.example.com:5671/muster"]
    ca = "[HOME]/lea/ca.pem"
    crl = "[HOME]/lea/crl.pem"
    certificate = "[HOME]/lea/user-lea.pem"
    key = "[HOME]/lea/user-lea.key"
    production = true

    [context.dev]
    broker = ["amqps://localhost:[PORT]/dev"]
    collective = "dev"
    ca = "[HOME]/lea/ca.pem"
    crl = "[HOME]/lea/crl.pem"
    certificate = "[HOME]/lea/user-lea.pem"
    key = "[HOME]/lea/user-lea.key"
    "#);
}

#[test]
fn remarks_in_the_file_stay() {
    let site = Site::new();
    let path = site.write(
        "c.toml",
        "# mine\ncurrent = \"a\" # now\n\n[context.a] # first\nbroker = [\"amqps://a\"]\n[context.b]\n",
    );
    assert_eq!(site.command(&["--config", "c.toml", "context", "use", "b"]).output().unwrap().status.code(), Some(0));
    let expected = "# mine\ncurrent = \"b\"\n\n[context.a] # first\nbroker = [\"amqps://a\"]\n[context.b]\n";
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn variables_are_enough() {
    let site = Site::new();
    let variables = [
        ("MUSTER_BROKER", "amqps://mq1, amqps://mq2:5673/other"),
        ("MUSTER_CA", "ca.pem"),
        ("MUSTER_CERTIFICATE", "~/lea.pem"),
        ("MUSTER_KEY", "lea.key"),
        ("MUSTER_CONFIRM_ABOVE", "5"),
    ];
    let run = |more: &[(&str, &str)]| {
        let mut command = site.command(&["context", "show", "--origin"]);
        site.shown(&command.envs(variables).envs(more.iter().copied()).output().unwrap())
    };
    assert_screen!(narrow(&run(&[])), @"
    exit 0
    --- stdout
    KEY  VALUE  ORIGIN
    name  environment
    broker  amqps://mq1:5671/muster, amqps://mq2:5673/other  MUSTER_BROKER
    collective  main  default
    ca  ca.pem  MUSTER_CA
    crl  none  default
    certificate  [HOME]/lea.pem  MUSTER_CERTIFICATE
    key  lea.key  MUSTER_KEY
    confirm_above  5  MUSTER_CONFIRM_ABOVE
    production  false  default
    ddl_directory  none  default
    ");
    assert_screen!(run(&[("MUSTER_CONFIRM_ABOVE", "many")]), @"
    exit 2
    --- stderr
    error[bad-context]: context `environment`: `confirm_above` has a wrong value
      why     `many` is not a whole number, 0 or more
      from    MUSTER_CONFIRM_ABOVE
      try     muster context show --origin
    ");
    assert_screen!(run(&[("MUSTER_BROKER", "amqp://mq1")]), @"
    exit 2
    --- stderr
    error[bad-context]: context `environment`: `broker` has a wrong value
      why     `amqp://mq1` is not a broker address: Muster speaks to brokers over TLS only; write `amqps://HOST:PORT/VHOST`
      from    MUSTER_BROKER
      try     muster context show --origin
    ");
    assert_screen!(run(&[("MUSTER_KEY", "")]), @"
    exit 2
    --- stderr
    error[bad-context]: context `environment` is incomplete: `key` not set
      need    key (MUSTER_KEY): file with your private key, mode 0600
      try     muster context add --help
    ");
}

#[test]
fn flags_win_over_variables_and_variables_over_files() {
    let site = Site::new();
    site.write("c.toml", "current = \"a\"\n[context.a]\n[context.b]\n[context.c]\n");
    let chosen = |words: &[&str], variable: Option<&str>| {
        let mut command = site.command(&[words, &["--config", "c.toml", "context", "show"]].concat());
        let output = command.envs(variable.map(|name| ("MUSTER_CONTEXT", name))).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        said.split('`').nth(1).unwrap().to_owned()
    };
    assert_eq!(chosen(&[], None), "a");
    assert_eq!(chosen(&[], Some("b")), "b");
    assert_eq!(chosen(&["--context", "c"], Some("b")), "c");
}

#[test]
fn wrong_files_are_named_with_line_and_key() {
    let site = Site::new();
    let run = |text: &str| {
        site.write("c.toml", text);
        site.run(&["--config", "c.toml", "context", "show"])
    };
    assert_screen!(run("[context.a]\nbrokr = []\nproduction = \"yes\"\n"), @r#"
    exit 2
    --- stderr
    error[config-invalid]: the config file has wrong keys or values
      why     c.toml:2: unknown key `context.a.brokr`, did you mean `context.a.broker`?
      why     c.toml:3: `context.a.production` is "yes"; accepted: true or false
      try     muster explain config-invalid
    "#);
    assert_screen!(run("[context.a\n"), @"
    exit 2
    --- stderr
    error[config-syntax]: the config file is not valid TOML
      why     c.toml:1:11: not valid TOML: unclosed table, expected `]`
      try     muster explain config-syntax
    ");
    assert_screen!(run("[context.a]\nbroker = [\"mq1\"]\nca = \"x\"\ncertificate = \"x\"\nkey = \"x\"\n"), @"
    exit 2
    --- stderr
    error[bad-context]: context `a`: `broker` has a wrong value
      why     `mq1` is not a broker address: the scheme is missing; write `amqps://HOST:PORT/VHOST`
      from    c.toml:2
      try     muster --config c.toml context show --origin
    ");
    assert_screen!(run("[context.a]\nbroker = [\"amqps://mq1\"]\n"), @"
    exit 2
    --- stderr
    error[bad-context]: context `a` is incomplete: `ca`, `certificate`, `key` not set
      need    ca (MUSTER_CA): file with the CA's certificate
      need    certificate (MUSTER_CERTIFICATE): file with your certificate
      need    key (MUSTER_KEY): file with your private key, mode 0600
      try     muster --config c.toml context add --help
    ");
    assert_screen!(run("[context.a]\n[context.b]\n"), @"
    exit 2
    --- stderr
    error[no-context]: several contexts are configured and none is chosen
      known   a, b
      or      add --context NAME to the command
      try     muster --config c.toml context use a
    ");
    assert_screen!(site.run(&["--config", "missing.toml", "context", "show"]), @"
    exit 2
    --- stderr
    error[config-unreadable]: the config file cannot be used
      why     read configuration `missing.toml`
      why     No such file or directory (os error 2)
      try     muster explain config-unreadable
    ");
    assert_screen!(site.run(&["--config", "c.toml", "--context", "aa", "context", "show"]), @"
    exit 2
    --- stderr
    error[unknown-context]: there is no context `aa`
      chosen   by --context
      nearest  `a`
      try      muster --config c.toml context list
    ");
}
