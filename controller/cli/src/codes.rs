//! The codes with which the command line itself ends. `muster explain` shows them together with
//! those of the protocol. A code is never renamed or reused.

use muster_protocol::Code;

/// Codes of the command line, in the order of the exit codes they usually come with.
pub(crate) const OWN: &[Code] = &[
    Code {
        code: "unexpected",
        summary: "something happened that should not",
        explanation: "A bug, or a system that is out of something. The lines below the error say what was tried. Exit code 1.",
    },
    Code {
        code: "file",
        summary: "a file cannot be read or written",
        explanation: "The message names the file and what the system said. Look at its permissions and at the disk. Exit code 1.",
    },
    Code {
        code: "bad-usage",
        summary: "the words of the command line do not fit",
        explanation: "A command, flag or value is unknown or missing. The nearest known word is proposed and never executed. `--help` behind any command shows examples. Exit code 2.",
    },
    Code {
        code: "unknown-code",
        summary: "there is no such error code",
        explanation: "`muster explain` without a code lists all of them. Exit code 2.",
    },
    Code {
        code: "bad-definitions",
        summary: "the broker's definitions or settings cannot be read",
        explanation: "`muster broker check` reads what `rabbitmqctl export_definitions` and `rabbitmqctl environment --formatter json` write. What it was given is something else or was cut. Exit code 2.",
    },
    Code {
        code: "rabbitmqctl",
        summary: "RabbitMQ's control program did not work",
        explanation: "`muster broker` asks the broker through `rabbitmqctl`, which has to run on the broker's machine as root or as the user rabbitmq. Elsewhere, export there and give the file with --definitions. Exit code 7.",
    },
];

/// Every code that can be explained: the command line's, then those of hosts and of the protocol.
pub(crate) fn all() -> impl Iterator<Item = &'static Code> {
    OWN.iter().chain(muster_pki::CODES).chain(muster_protocol::code::ALL)
}
