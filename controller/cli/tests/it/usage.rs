//! Help, unknown words, colours, closed pipes.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::site::{Site, assert_screen};

#[test]
fn help_has_examples_first() {
    assert_screen!(Site::new().run(&["--help"]), @r#"
    exit 0
    --- stdout
    Ask, find and run on many hosts at once

    Examples:
      muster ping -t 'role = web'
      muster run package.status name=openssl -t 'os.family = "Debian"'
      muster doctor

    Usage: muster [OPTIONS] <COMMAND>

    Commands:
      ping        See which hosts answer, and how fast
      find        See which hosts match a target
      run         Run an action of a plugin on hosts
      approve     Sign a pending command of somebody else, once you have seen what
                  it is
      send        Send a pending command of yours, and show what comes of it
      pending     List, show, merge and discard pending commands
      watch       Attach to a request again, until its end
      cancel      Stop a request on its hosts
      request     List what was asked from here lately
      host        List hosts, show what they are and have
      plugin      List what can be run, show what it takes
      context     Choose, show and add contexts: which broker, as whom
      broker      Write what a broker needs, and check a running one
      pki         Keep a certificate authority and issue certificates
      dev         Run a bus, a certificate authority and three agents on this
                  machine
      doctor      Check everything between here and the hosts, and say what to do
      explain     Explain an error code, or list all of them
      completion  Set up completion for a shell
      help        Print this message or the help of the given subcommand(s)

    Options:
      -V, --version  Print version

    Global options:
          --context <NAME>   Use this context of the config file
          --config <FILE>    Read this config file only
          --format <FORMAT>  Form of the data on standard output [possible values:
                             table, wide, json, jsonl, names, csv]
          --json             Short for `--format json`
          --jsonl            Short for `--format jsonl`
          --names            Short for `--format names`
          --color <WHEN>     When to colour [possible values: auto, always, never]
          --ascii            Only ASCII glyphs
      -q, --quiet            Neither remarks nor progress
      -v, --verbose...       Say more; twice for still more
      -h, --help             Print this help

    More: docs/book/src/cli.md#muster
    "#);
    assert_screen!(Site::new().run(&["host", "list", "--help"]), @"
    exit 0
    --- stdout
    List the hosts that answer, and those that are remembered

    Examples:
      muster host list
      muster host list -t 'os.family = Debian' --format wide
      muster host list --cached --names

    Usage: muster host list [OPTIONS]

    Options:
      -t, --target <QUERY>  Only hosts on which this expression is true
          --cached          Ask nobody: list what is remembered from earlier
                            commands

    Global options:
          --context <NAME>   Use this context of the config file
          --config <FILE>    Read this config file only
          --format <FORMAT>  Form of the data on standard output [possible values:
                             table, wide, json, jsonl, names, csv]
          --json             Short for `--format json`
          --jsonl            Short for `--format jsonl`
          --names            Short for `--format names`
          --color <WHEN>     When to colour [possible values: auto, always, never]
          --ascii            Only ASCII glyphs
      -q, --quiet            Neither remarks nor progress
      -v, --verbose...       Say more; twice for still more
      -h, --help             Print this help

    More: docs/book/src/cli.md#muster-host
    ");
}

#[test]
fn every_command_has_examples_and_a_page() {
    let site = Site::new();
    let pages = include_str!("../../../../docs/book/src/cli.md");
    let mut left = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let output = site.command(&words).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{path:?}");
        assert!(help.contains("\nExamples:\n"), "{path:?} shows no examples");
        let anchor = path.first().map_or("muster".to_owned(), |noun| format!("muster-{noun}"));
        assert!(help.contains(&format!("More: docs/book/src/cli.md#{anchor}\n")), "{path:?} names no page");
        if let [noun] = path.as_slice() {
            assert!(pages.contains(&format!("\n## muster {noun}\n")), "no chapter on `muster {noun}`");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{path:?} is wider than 80 columns:\n{help}");
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for line in commands.filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" {
                left.push(path.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} commands were found");
}

#[test]
fn nothing_asked_is_help_but_no_success() {
    let output = Site::new().command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: muster"));
}

#[test]
fn unknown_words_are_never_executed() {
    let site = Site::new();
    assert_screen!(site.run(&["explian", "replayed"]), @"
    exit 2
    --- stderr
    error[bad-usage]: there is no command `explian`
      nearest  `explain`
      usage    muster [OPTIONS] <COMMAND>
      try      muster explain --help
    ");
    assert_screen!(site.run(&["plugin", "lst"]), @"
    exit 2
    --- stderr
    error[bad-usage]: there is no command `lst`
      nearest  `list`
      usage    muster plugin [OPTIONS] <COMMAND>
      try      muster plugin list --help
    ");
    assert_screen!(site.run(&["exp", "replayed"]), @"
    exit 2
    --- stderr
    error[bad-usage]: there is no command `exp`
      nearest  `explain`
      usage    muster [OPTIONS] <COMMAND>
      try      muster explain --help
    ");
    assert_screen!(site.run(&["explain", "--fromat", "json"]), @"
    exit 2
    --- stderr
    error[bad-usage]: there is no flag or argument `--fromat` here
      nearest  `--format`
      usage    muster explain --format <FORMAT> [CODE]
      try      muster explain --help
    ");
    assert_screen!(site.run(&["explain", "--format", "xml"]), @"
    exit 2
    --- stderr
    error[bad-usage]: `--format <FORMAT>` cannot be `xml`
      takes   table, wide, json, jsonl, names, csv
      try     muster explain --help
    ");
    assert_screen!(site.run(&["explain", "--json", "--names"]), @r#"
    exit 2
    --- stdout
    {
      "schema": "muster.error/v1",
      "kind": "error",
      "code": "bad-usage",
      "what": "`--json` cannot be used with `--names`",
      "why": [
        {
          "label": "usage",
          "text": "muster explain --json [CODE]"
        }
      ],
      "hints": [
        "muster explain --help"
      ],
      "exit_code": 2
    }
    --- stderr
    error[bad-usage]: `--json` cannot be used with `--names`
      usage   muster explain --json [CODE]
      try     muster explain --help
    "#);
    // A flag before the verb that takes it.
    assert_screen!(site.run(&["dev", "--dir", "my bus", "status"]), @"
    exit 2
    --- stderr
    error[bad-usage]: `--dir <DIR>` cannot stand before `status`
      usage   muster dev [OPTIONS]
      try     muster dev status --dir 'my bus'
    ");
    assert_screen!(site.run(&["dev", "--agents", "2", "status"]), @"
    exit 2
    --- stderr
    error[bad-usage]: `--agents <N>` cannot stand before `status`
      usage   muster dev [OPTIONS]
      try     muster dev status --help
    ");
    assert_screen!(site.run(&["dev", "stop"]), @"
    exit 2
    --- stderr
    error[bad-usage]: there is no command `stop`
      usage   muster dev [OPTIONS]
      note    Ctrl-C stops it where it runs, and so does SIGTERM to the process that the status names
      try     muster dev status
    ");
    assert_screen!(site.run(&["plugin", "show"]), @"
    exit 2
    --- stderr
    error[bad-usage]: missing: `<PLUGIN[.ACTION]>`
      usage   muster plugin show <PLUGIN[.ACTION]>
      try     muster plugin show --help
    ");
    // An empty variable of a script, before anything is read or reached.
    let nobody = site.run(&["run", "shell.run", "command=id", "--all", "--effective-user", ""]);
    assert!(nobody.starts_with("exit 2\n") && nobody.contains("leave --effective-user out"), "{nobody}");
    assert_screen!(site.run(&["ping", "--reply-timeout", "soon", "--all"]), @"
    exit 2
    --- stderr
    error[bad-usage]: `--reply-timeout <TIME>` cannot be `soon`
      why     `soon` is not a time such as 500ms, 10s, 2m or 1h (at most 24h)
      try     muster ping --help
    ");
}

#[test]
fn errors_are_documents_too() {
    assert_screen!(Site::new().run(&["explian", "--json"]), @r#"
    exit 2
    --- stdout
    {
      "schema": "muster.error/v1",
      "kind": "error",
      "code": "bad-usage",
      "what": "there is no command `explian`",
      "why": [
        {
          "label": "nearest",
          "text": "`explain`"
        },
        {
          "label": "usage",
          "text": "muster [OPTIONS] <COMMAND>"
        }
      ],
      "hints": [
        "muster explain --help"
      ],
      "exit_code": 2
    }
    --- stderr
    error[bad-usage]: there is no command `explian`
      nearest  `explain`
      usage    muster [OPTIONS] <COMMAND>
      try      muster explain --help
    "#);
    assert_screen!(Site::new().run(&["explain", "nothing", "--jsonl"]), @r#"
    exit 2
    --- stdout
    {"schema":"muster.error/v1","kind":"error","code":"unknown-code","what":"there is no code `nothing`","why":[{"label":"nearest","text":"`not-running`"}],"hints":["muster explain not-running"],"exit_code":2}
    --- stderr
    error[unknown-code]: there is no code `nothing`
      nearest  `not-running`
      try      muster explain not-running
    "#);
}

#[test]
fn no_target_is_an_error() {
    for verb in ["ping", "find"] {
        let output = Site::new().command(&[verb]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("error[no-target]: "), "{verb}");
    }
    assert_screen!(Site::new().run(&["run", "package.status", "name=bash"]), @r#"
    exit 2
    --- stderr
    error[no-target]: no target is given, and none never means all hosts
      or      muster run package.status name=bash --all
      or      muster run package.status name=bash -H web1.example.com,web2.example.com
      try     muster run package.status name=bash -t 'os.family = "Debian"'
    "#);
}

#[test]
fn colour_is_for_those_who_want_it() {
    let site = Site::new();
    let colored = |words: &[&str], variables: &[(&str, &str)]| {
        let output = site.command(words).envs(variables.iter().copied()).output().unwrap();
        output.stdout.contains(&0x1b) || output.stderr.contains(&0x1b)
    };
    // Not a terminal, so not without being asked.
    assert!(!colored(&["explain"], &[]));
    assert!(colored(&["explain", "--color", "always"], &[("NO_COLOR", "1")]));
    assert!(colored(&["explain", "nothing", "--color=always"], &[]));
    assert!(!colored(&["explain", "nothing", "--color", "never"], &[]));
    // Programs get none, whatever is asked.
    assert!(!colored(&["explain", "--color", "always", "--format", "csv"], &[]));
    assert!(!colored(&["explain", "--color", "always", "--json"], &[]));
}

#[test]
fn ascii_has_no_other_character() {
    let output = Site::new().command(&["plugin", "show", "package.status", "--ascii"]).output().unwrap();
    assert!(output.stdout.is_ascii(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let site = Site::new();
    let words = ["explain", "--format", "wide"];
    let mut child = site.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("CODE"), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn standard_output_that_is_full_is_an_error() {
    let check = |words: &[&str]| {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Site::new().command(words).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("error[output]: standard output cannot be written"), "{words:?}: {said}");
        assert!(said.contains("No space left on device") && said.contains("\n  try "), "{words:?}: {said}");
    };
    check(&["explain"]);
    check(&["explain", "--json"]);
    check(&["explain", "no-match", "--jsonl"]);
    check(&["plugin", "list", "--json"]);
    check(&["plugin", "show", "package.status"]);
    check(&["context", "list", "--json"]);
    check(&["doctor", "--json"]);
    check(&["completion", "bash"]);
    check(&["--help"]);
    check(&["--version"]);
}

#[test]
fn nothing_is_cut_in_a_pipe() {
    let site = Site::new();
    let shown = |columns: &str| site.command(&["explain"]).env("COLUMNS", columns).output().unwrap().stdout;
    assert_eq!(String::from_utf8(shown("40")).unwrap(), String::from_utf8(shown("400")).unwrap());
    assert!(!String::from_utf8(shown("40")).unwrap().contains('…'));
}
