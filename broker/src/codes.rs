//! The stable codes of this crate's errors, explained, for `muster explain`.

use muster_protocol::Code;

/// One row per code, in the order in which an operator meets them.
pub const CODES: &[Code] = &[
    Code {
        code: "broker-cannot-listen",
        summary: "the embedded broker cannot listen on an address",
        explanation: "Somebody else has the port, or the machine does not have the address. `ss -ltnp` shows who listens; `listen` in the broker's configuration, or --listen, says where the broker is to. Exit code 2.",
    },
    Code {
        code: "broker-file-unreadable",
        summary: "a file that the embedded broker needs cannot be used",
        explanation: "A list of members, a revocation list or a certificate is missing, damaged, or can be written by others than root and the broker's own user. The message says which and what to do. Exit code 2.",
    },
    Code {
        code: "journal-unusable",
        summary: "the journal of the embedded broker cannot be read or written",
        explanation: "It lies in `journal` in the broker's `state_dir` and holds what survives a restart. The message has the system's words; look at the disk. Exit code 2.",
    },
    Code {
        code: "journal-in-use",
        summary: "another broker uses the journal",
        explanation: "Two brokers cannot share a directory of state. `muster broker status` shows the one that runs. Exit code 2.",
    },
    Code {
        code: "journal-exposed",
        summary: "others can enter the directory of the journal",
        explanation: "Messages lie in it. Only the broker's own user may enter it: chmod go= DIRECTORY. Exit code 2.",
    },
    Code {
        code: "journal-newer-format",
        summary: "the journal was written by a newer version",
        explanation: "An older program does not touch it. Start the newer one again, or give this one another `state_dir`. Exit code 2.",
    },
    Code {
        code: "journal-unreadable",
        summary: "the journal holds something that this program cannot read back",
        explanation: "Damage is counted and kept aside; this is more than that, and nothing was changed. Give the broker another `state_dir` and keep the old one for whoever looks into it. Exit code 2.",
    },
    Code {
        code: "journal-no-thread",
        summary: "the journal's thread cannot be started",
        explanation: "The system has no room for another thread. Exit code 2.",
    },
    Code {
        code: "control-socket",
        summary: "the control socket of the embedded broker cannot be made or used",
        explanation: "`muster broker status` and the other commands reach a running broker through it. It lies in `state_dir` unless `control` says otherwise; its path may have 107 bytes, and nobody but root and the broker's user may be able to write on the way to it. Exit code 2 for the broker, 7 for whoever asks.",
    },
    Code {
        code: "control-socket-taken",
        summary: "the control socket is another broker's, or something else",
        explanation: "Two brokers cannot share it. Give this one another `state_dir` or `control`. Exit code 2.",
    },
    Code {
        code: "no-broker-here",
        summary: "no embedded broker listens at the control socket",
        explanation: "None runs on this machine with this configuration. Name the configuration of the one that runs with --config, or start one with `muster broker run`. RabbitMQ is asked with `muster broker check`. Exit code 7.",
    },
    Code {
        code: "broker-no-answer",
        summary: "the embedded broker does not answer at its control socket",
        explanation: "Only root and the broker's own user are answered. If you are one of them, the broker hangs: its log says more. Exit code 7.",
    },
];
