//! Programs as other users, against the users this machine has. Needs root, as the agent does.

use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use muster_plugins::process::{EffectiveUser, End, Program};

use super::{LONG, run, shell};

fn id(arguments: &[&str]) -> Vec<u32> {
    let output = Command::new("id").args(arguments).output().unwrap();
    numbers(&String::from_utf8(output.stdout).unwrap())
}

fn numbers(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Names of all users, from the file that every Linux has.
fn names() -> Vec<String> {
    let file = fs::read_to_string("/etc/passwd").unwrap();
    file.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn every_user_of_this_machine_has_the_groups_that_id_says() {
    let names = names();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let user = EffectiveUser::resolve(&name).unwrap();
        let mut groups = user.groups.clone();
        groups.sort_unstable();
        assert_eq!((user.name.as_str(), vec![user.uid]), (name.as_str(), id(&["-u", &name])));
        assert_eq!((vec![user.gid], groups), (id(&["-g", &name]), id(&["-G", &name])), "{name}");
        // A second way to write the same user would be one around a rule about the name.
        assert_eq!(EffectiveUser::resolve(&user.uid.to_string()).unwrap_err().code.code, "unknown-user", "{name}");
    }
}

#[test]
fn who_is_not_a_user_is_refused() {
    for name in [
        "",
        "no-such-user",
        "-u",
        "--",
        "-oFoo",
        "root\n",
        "ro\0ot",
        "root; id",
        "root:x",
        "../root",
        "+0",
        "~root",
        "0",
        "00",
        "0x0",
        "ROOT",
        " 0",
        "4000000000",
        "4294967295",
        "4294967296",
        "-1",
        "\u{1b}[0m",
        &"x".repeat(10_000),
    ] {
        let failure = EffectiveUser::resolve(name).unwrap_err();
        assert_eq!(failure.code.code, "unknown-user", "{name:?}: {failure}");
        assert!(!failure.message.contains(|character: char| character.is_control()), "{failure:?}");
    }
}

#[tokio::test]
async fn a_program_runs_as_the_user_with_groups_and_environment() {
    // Whoever has most groups shows most.
    let users = names().into_iter().map(|name| EffectiveUser::resolve(&name).unwrap()).filter(|user| user.uid != 0);
    let user = users.max_by_key(|user| user.groups.len()).unwrap();
    let text = "id -u; id -ru; id -g; id -G; umask; grep -E '^(Cap(Prm|Eff)|NoNewPrivs)' /proc/self/status";
    let run_ = run(&shell(text, LONG).user(user.clone())).await;
    let said = run_.stdout.text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], [user.uid.to_string(), user.uid.to_string(), user.gid.to_string()], "{run_:?}");
    let mut groups = user.groups.clone();
    groups.sort_unstable();
    assert_eq!(numbers(lines[3]), groups);
    let rest = ["0022", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t0"];
    assert_eq!(lines[4..], rest);

    let nobody = EffectiveUser::resolve("nobody").unwrap();
    let run_ = run(&Program::new("/usr/bin/env", LONG).user(nobody.clone()).without_variable("TZ")).await;
    let mut variables: Vec<_> = run_.stdout.text().lines().map(str::to_owned).collect();
    variables.sort();
    let expected = [
        format!("HOME={}", nobody.home.display()),
        "LC_ALL=C".to_owned(),
        "LOGNAME=nobody".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("SHELL={}", nobody.shell.display()),
        "USER=nobody".to_owned(),
    ];
    assert_eq!(variables, expected);
}

#[tokio::test]
async fn there_is_no_way_back_to_root() {
    let nobody = EffectiveUser::resolve("nobody").unwrap();
    let run_ = run(&shell("cat /etc/shadow", LONG).user(nobody.clone())).await;
    assert!(matches!(run_.end, End::Exited(1)), "{run_:?}");
    assert_eq!(run_.stdout.total_bytes, 0);
    assert!(run_.stderr.text().contains("Permission denied"), "{run_:?}");
}

#[tokio::test]
async fn the_directory_is_one_that_the_user_can_enter() {
    let nobody = EffectiveUser::resolve("nobody").unwrap();
    assert!(!nobody.home.exists(), "the test counts on `nobody` having no home");
    let run_ = run(&shell("pwd", LONG).user(nobody.clone())).await;
    assert_eq!(run_.stdout.text(), "/\n");
    let root = EffectiveUser::own().await.unwrap();
    let run_ = run(&shell("pwd", LONG).user(root.clone())).await;
    assert_eq!(run_.stdout.text().trim(), root.home.to_str().unwrap());

    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = shell("pwd", LONG).user(nobody.clone()).working_directory(directory.path());
    let failure = run(&program).await.exit_code(&program).unwrap_err();
    assert_eq!(failure.code.code, "start-failed");
    assert!(failure.message.contains("user `nobody` may not"), "{failure}");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run_ = run(&program).await;
    assert_eq!(run_.stdout.text().trim(), directory.path().canonicalize().unwrap().to_str().unwrap());
}

#[tokio::test]
async fn a_program_that_the_user_may_not_run_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    crate::support::script(&path, "#!/bin/sh\nid\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let program = Program::new(&path, LONG).user(EffectiveUser::resolve("nobody").unwrap());
    let failure = run(&program).await.exit_code(&program).unwrap_err();
    assert_eq!(failure.code.code, "start-failed");
}

#[tokio::test]
async fn no_open_file_is_inherited() {
    let secret = tempfile::tempfile().unwrap();
    // A copy without the mark "close on exec", as a careless library makes them.
    let copy = nix::unistd::dup(&secret).unwrap();
    let flags = fs::read_to_string(format!("/proc/self/fdinfo/{}", copy.as_raw_fd())).unwrap();
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    assert_eq!(u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000, 0, "the copy has the mark");
    let run_ = run(&shell("for fd in /proc/$$/fd/*; do echo ${fd##*/}; done", LONG)).await;
    let open: Vec<_> =
        run_.stdout.text().lines().map(str::to_owned).filter(|fd| fd.parse::<i32>().unwrap() > 2).collect();
    // The shell itself may keep one of its own above 9.
    assert!(!open.contains(&copy.as_raw_fd().to_string()), "{open:?}");
    nix::unistd::close(copy.into_raw_fd()).unwrap();
}
