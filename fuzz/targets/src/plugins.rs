//! What other programs print, and what plugins answer.

use std::cmp::Ordering;

use muster_plugins::fuzzing::{self, Reader};
use muster_protocol::ddl::Ddl;

use crate::Target;
use crate::input::Input;

/// Lets one of several readers take the text; the first byte chooses it, as `a` for the first.
fn choose(readers: &[Reader], input: &[u8]) {
    let mut input = Input(input);
    let number = usize::from(input.byte().wrapping_sub(b'a'));
    let (_, read) = readers[number % readers.len()];
    read(&input.rest_text());
}

/// Output and files of package managers.
pub(crate) const PACKAGE_MANAGERS: Target = Target {
    name: "package-managers",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/package-managers/"],
    words: &[
        "Inst ",
        "Remv ",
        "Purg ",
        "Conf ",
        " [",
        "] (",
        "\tinstalled\t",
        "install ok installed",
        "\t.\n",
        "(none)",
        "<solvable ",
        "edition=\"",
        "<to-install>",
        "(1/2) Upgrading ",
        " -> ",
        "Transaction Summary",
        " replacing ",
        "Upgrading:\n",
        "Obsoleting",
        "P:",
        "V:",
        "C:Q1",
        "Types: deb\n",
        "URIs: ",
        "Signed-By:",
        "[main]\n",
        "baseurl=",
        "https://user:secret@",
        "enabled=0",
        "@edge ",
    ],
    run: |input| choose(fuzzing::PACKAGE_READERS, input),
};

/// The order of versions: three texts. It is one: it turns around, and what is before the next is before the one after.
/// Two further pieces are states of dpkg's database.
pub(crate) const PACKAGE_VERSIONS: Target = Target {
    name: "package-versions",
    bytes_max: 512,
    seeds: &["fuzz/seeds/package-versions/"],
    words: &["1:", "~", "^", "-r1", "_rc4", "_p", "_alpha", "+deb12u1", "00", "99999999999999999999"],
    run: package_versions,
};

fn package_versions(input: &[u8]) {
    let mut input = Input(input);
    let (a, b, c) = (input.text(), input.text(), input.text());
    for (name, order) in fuzzing::VERSION_ORDERS {
        let [ab, ba, bc, ac] = [order(&a, &b), order(&b, &a), order(&b, &c), order(&a, &c)];
        assert_eq!(ab, ba.reverse(), "{name}: {a:?} {b:?}");
        assert_eq!(order(&a, &a), Ordering::Equal, "{name}: {a:?}");
        if ab == bc {
            assert_eq!(ac, ab, "{name}: {a:?} {b:?} {c:?}");
        }
        if ab == Ordering::Equal {
            assert_eq!(ac, bc, "{name}: {a:?} {b:?} {c:?}");
        }
    }
    fuzzing::diff(&input.text(), &input.text());
}

/// Answers of service managers; `z`: a message of the system bus, raw.
pub(crate) const SERVICE_MANAGERS: Target = Target {
    name: "service-managers",
    bytes_max: 2048,
    seeds: &["fuzz/seeds/service-managers/", "z=agent-plugins/builtin/tests/recorded/job-removed.dbus"],
    words: &[
        "LoadState=loaded\n",
        "ActiveState=active\n",
        "Id=x.service\n",
        "ActiveEnterTimestamp=Fri 2026-11-20 08:15:00 UTC\n",
        "ExecMainStatus=",
        "\"__REALTIME_TIMESTAMP\":\"",
        "\"MESSAGE\":[",
        "### BEGIN INIT INFO\n",
        "# Provides:",
    ],
    run: |input| match input.split_first() {
        Some((b'z', message)) => fuzzing::bus_message(message),
        _ => choose(fuzzing::SERVICE_READERS, input),
    },
};

/// Puppet's files.
pub(crate) const PUPPET: Target = Target {
    name: "puppet",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/puppet/"],
    words: &[
        "[main]\n",
        "[agent]\n",
        "vardir=",
        "$vardir",
        "${statedir}",
        "--- !ruby/object:Puppet::Transaction::Report\n",
        "resource_statuses:\n",
        "changed: true\n",
        "&1 ",
        "*1",
        "version:\n  config: ",
        "time:\n  last_run: ",
        "File[/etc/motd]",
        "btime ",
        ") S 1 ",
    ],
    run: |input| choose(fuzzing::PUPPET_READERS, input),
};

/// `/proc/PID/stat`.
pub(crate) const PROCESS_TABLE: Target = Target {
    name: "process-table",
    bytes_max: 512,
    seeds: &["fuzz/seeds/process-table/"],
    words: &[") S ", " -1 "],
    run: |input| fuzzing::process_table(&String::from_utf8_lossy(input)),
};

/// Answers of plugins that are programs: the exit code, then the reply and the lines as pieces; an empty piece is a
/// file that was not written.
pub(crate) const PLUGIN_REPLY: Target = Target {
    name: "plugin-reply",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/plugin-reply/"],
    words: &[
        "\"statuscode\":",
        "\"statusmsg\":\"",
        "\"data\":{",
        "\"activate\":true",
        "text=",
        "number=",
        "list=",
        "list<<END\n",
        ".message=",
        "\nEND\n",
        "\"text\":",
        "\"hash\":{",
        "1e400",
        "-0",
    ],
    run: plugin_reply,
};

fn plugin_reply(input: &[u8]) {
    static DDL: std::sync::LazyLock<Ddl> = std::sync::LazyLock::new(|| {
        Ddl::parse(include_str!("../../seeds/reply-description.json")).expect("the description is one")
    });
    let mut input = Input(input);
    let exit_code = i32::from(input.choice(b"\0\x01\x02\x7f"));
    let (reply, lines) = (input.piece(), input.piece());
    let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    let (reply, lines) = (some(reply), some(lines));
    fuzzing::external_answer(&DDL.actions[0], reply.as_deref(), lines.as_deref(), exit_code);
}
