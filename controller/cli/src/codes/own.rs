//! Codes of the command line itself, in the order of the exit codes they come with.

use muster_protocol::Code;

/// The rows.
pub(super) const CODES: &[Code] = &[
    Code {
        code: "unexpected",
        summary: "something happened that should not",
        explanation: "A bug, or a system that is out of something. The lines below the error say what was tried. Exit code 1.",
    },
    Code {
        code: "output",
        summary: "standard output cannot be written",
        explanation: "The disk that it goes to may be full. What was printed is not whole; what the command did, it did, so look before you repeat it. A reader that closes a pipe early is no error. Exit code 1.",
    },
    Code {
        code: "file",
        summary: "a file that was named cannot be read or written",
        explanation: "The message names the file and what the system said. Look at the spelling, the permissions and the disk. Exit code 2; 1 if the disk is full or broken.",
    },
    Code {
        code: "dev-agent",
        summary: "an agent of `muster dev` did not come up",
        explanation: "Its process ended instead of connecting. What its log got since the start is shown, at most its last lines; the whole of it is `log` in the agent's directory. After a change of its files, `musterd check-config --config FILE` says what is wrong in them; `muster dev reset` begins anew. Everything was stopped again. Exit code 1.",
    },
    Code {
        code: "dev-not-connected",
        summary: "agents of `muster dev` run and cannot connect to the broker",
        explanation: "They were given --connect-timeout, and the lines below say for each agent what it said last. With --broker URL the broker has to run there, believe the authority of the directory (`DIR/ca`), and know its identities: `muster broker config --ca-dir DIR/ca --out DIR --import` on the broker's machine does both. Everything was stopped again. Exit code 7.",
    },
    Code {
        code: "dev-check",
        summary: "a command of `muster dev --check` did not do what it should",
        explanation: "The lines below show the command with what was expected and what was found. Agents whose files were changed may rightly say something else than fresh ones: try it with another --dir. Exit code 1.",
    },
    Code {
        code: "bad-usage",
        summary: "the words of the command line do not fit",
        explanation: "A command, flag or value is unknown or missing. The nearest known word is proposed and never executed. `--help` behind any command shows examples. Exit code 2.",
    },
    Code {
        code: "secret-on-command-line",
        summary: "a secret was typed as a word of the command line",
        explanation: "Words of a command line can be read by every user of the machine while the program runs, and stay in the shell's history. An input that the action's description marks as secret is taken from a file (NAME=@FILE, best with mode 0600), from standard input (NAME=-), or typed at the terminal, where it is not shown: leave it out or write NAME=-. Change the secret that was typed. Nothing was sent. Exit code 2.",
    },
    Code {
        code: "dev-running",
        summary: "`muster dev` runs already in this directory",
        explanation: "One directory is one authority with its agents, and two programs cannot run them. `muster dev status` says where the first one is; --dir starts a second one beside it. Nothing was changed. Exit code 2.",
    },
    Code {
        code: "dev-directory",
        summary: "the directory of `muster dev` cannot be used",
        explanation: "It is not empty and was not made by `muster dev`, belongs to somebody else, lies where others could put other files, was made by a newer version, or its path is too long for sockets. The message says which. --dir names another one. Nothing was changed. Exit code 2.",
    },
    Code {
        code: "no-musterd",
        summary: "the agent's program is not to be found",
        explanation: "`muster dev` runs agents and looks for their program `musterd` where --musterd says, else beside `muster` itself, else on the search path. Exit code 2.",
    },
    Code {
        code: "ambiguous-request",
        summary: "several requests fit what was typed",
        explanation: "A request is named by its whole id, by at least four characters of its beginning or its end, or by `last`. `muster request list` shows them. Exit code 2.",
    },
    Code {
        code: "no-request",
        summary: "no request that was made from here is meant",
        explanation: "What was asked from here lately is kept in $XDG_STATE_HOME/muster/requests.jsonl (else below ~/.local/state), each context for itself, at most 1,000 requests. A request that was made elsewhere, or longer ago, can be named by its whole id together with a target. Exit code 2; 4 for `last` where there is none.",
    },
    Code {
        code: "incomplete-output",
        summary: "some bytes of the output never came",
        explanation: "A report was lost on the way, so what `--raw` wrote is not whole although the action succeeded. `muster watch REQUEST --raw` fetches it again, as long as the host keeps it. Exit code 1.",
    },
    Code {
        code: "no-context",
        summary: "no context is configured or chosen",
        explanation: "A context says which broker to ask, and as whom. `muster context add` makes one from a broker's address and the directory that `muster pki issue` wrote; `muster context use` chooses one of several. MUSTER_BROKER, MUSTER_CA, MUSTER_CERTIFICATE and MUSTER_KEY do without a file. To try Muster out, `muster dev` runs a broker and agents on this machine and makes a context for them. Exit code 2.",
    },
    Code {
        code: "unknown-context",
        summary: "there is no context of this name",
        explanation: "`muster context list` shows those that exist. The name may have come from --context, from MUSTER_CONTEXT or from `current` in the config file; the message says which. Exit code 2.",
    },
    Code {
        code: "bad-context",
        summary: "the context lacks a value or has a wrong one",
        explanation: "A context needs `broker`, `ca`, `certificate` and `key`. `muster context show --origin` says for each value which file and line, variable or flag it came from. Exit code 2.",
    },
    Code {
        code: "no-home",
        summary: "there is no place for the config file",
        explanation: "Neither HOME nor XDG_CONFIG_HOME is set. Set one of them, or name the file with --config. Exit code 2.",
    },
    Code {
        code: "config-unreadable",
        summary: "a config file cannot be read",
        explanation: "The message names the file and what the system said. A file that was named with --config or MUSTER_CONFIG must exist. Exit code 2.",
    },
    Code {
        code: "config-syntax",
        summary: "a config file is not valid TOML",
        explanation: "The message names the line and the column. Texts stand in quotes, lists in brackets, and a context's name in `[context.NAME]`. Exit code 2.",
    },
    Code {
        code: "config-invalid",
        summary: "a config file has wrong keys or values",
        explanation: "The message names each key with its file and line, what is there, and what would be accepted. Exit code 2.",
    },
    Code {
        code: "no-target",
        summary: "no target is given",
        explanation: "A command that reaches hosts needs a target: an expression (-t), names (-H) or everybody (--all). None never means all. Exit code 2.",
    },
    Code {
        code: "bad-hosts",
        summary: "the list of hosts cannot be read",
        explanation: "Names are separated by commas, may hold ranges such as web-[1-9], and come from a file with @FILE or from standard input with a dash. Host names are lower case. Exit code 2.",
    },
    Code {
        code: "bad-input",
        summary: "an input of the action has a wrong value",
        explanation: "`muster plugin show PLUGIN.ACTION` lists what each input takes. Nothing was sent. Exit code 2.",
    },
    Code {
        code: "bad-description",
        summary: "a file is not a plugin description",
        explanation: "Every *.json file in the context's `ddl_directory` must be a description (DDL) as the chapter on plugins defines it. The message says what is wrong with this one. Exit code 2.",
    },
    Code {
        code: "bad-definitions",
        summary: "the broker's definitions cannot be understood",
        explanation: "`muster broker check` reads what `rabbitmqctl export_definitions` writes. The file is cut short, or is of another kind. Exit code 2.",
    },
    Code {
        code: "bad-sites",
        summary: "the description of the sites cannot be used",
        explanation: "The file given with `--sites` is not TOML, has a key or a name that is none, or sites that cannot be told apart: two with one name or broker, or whose hosts overlap. The message says which. Exit code 2.",
    },
    Code {
        code: "unknown-site",
        summary: "the description has no such site",
        explanation: "`--broker` takes `center` or the name of a site in the file given with `--sites`. The message lists them. Exit code 2.",
    },
    Code {
        code: "unknown-code",
        summary: "there is no such error code",
        explanation: "`muster explain` without a code lists all of them. Exit code 2.",
    },
    Code {
        code: "unknown-fact",
        summary: "the host has no such fact",
        explanation: "`muster host facts NAME` lists all facts of a host. Paths are written with dots, elements of lists counted from 0. Exit code 2.",
    },
    Code {
        code: "no-match",
        summary: "no host matches the target",
        explanation: "Every host decides for itself whether it matches, and none did, or none answered in time. `muster find` shows who matches; the message names the part of the target that no known host fulfils. Exit code 4.",
    },
    Code {
        code: "no-such-host",
        summary: "no agent has connected under this name",
        explanation: "The broker has no queue for the host: its agent never connected, was away for longer than a day, or the name is misspelt. `muster host list` shows the names that answer. Exit code 4.",
    },
    Code {
        code: "no-reply",
        summary: "the host does not answer",
        explanation: "The question was sent and no answer came in time. The agent may be stopped, cut off or busy; nothing is known about what it did. Or the host does not accept your certificate: one that is revoked or expired is refused with that reason, but one of another CA than the host trusts is a stranger's and gets no answer at all. Where all hosts are silent, look at that first. `systemctl status musterd` and `journalctl -u musterd` there say more. Exit code 5.",
    },
    Code {
        code: "rabbitmqctl",
        summary: "the broker's own tool did not work",
        explanation: "`muster broker` asks a running RabbitMQ through rabbitmqctl, which works on the broker's machine, as root or as the user rabbitmq. Or give it the definitions as a file. Exit code 7.",
    },
    Code {
        code: "dev-not-running",
        summary: "`muster dev` does not run",
        explanation: "Nobody holds the directory that was looked at: $XDG_STATE_HOME/muster/dev (else below ~/.local/state), or the one of --dir. `muster dev` starts it. Exit code 7.",
    },
    Code {
        code: "no-such-queue",
        summary: "the embedded broker has no such queue",
        explanation: "`muster broker status --list queues` shows all of them. Exit code 4.",
    },
    Code {
        code: "broker-refused",
        summary: "the embedded broker does not do what it was asked",
        explanation: "The line `said` has its reason, such as a queue that belongs to a connection; then everything stays as it was. Exit code 3; 2 if it is a configuration that cannot be read again.",
    },
    Code {
        code: "broker-not-yours",
        summary: "the embedded broker is another user's, and you are not root",
        explanation: "`muster broker status` and the other commands reach a running broker through a socket in its `state_dir`. Only root and the user that the broker runs as are answered, whoever can reach the socket. Exit code 8.",
    },
    Code {
        code: "not-logged-in",
        summary: "the files that say who you are, are not there",
        explanation: "Your certificate and key are the login; there is no password. Whoever keeps the CA issues them with `muster pki issue user/NAME --out DIR`, or signs your `muster pki request`. The context then names the files. Exit code 8.",
    },
    Code {
        code: "not-confirmed",
        summary: "the confirmation is missing; nothing was sent",
        explanation: "An action that changes something on more hosts than `confirm_above` of the context needs the number of hosts typed, or --expect N where nobody can type. Exit code 9.",
    },
    Code {
        code: "plan-changed",
        summary: "another number of hosts matches than was expected; nothing was sent",
        explanation: "--expect N guards against a target that has grown or shrunk since it was looked at. Look again with --dry-run. Exit code 9.",
    },
    Code {
        code: "no-pending",
        summary: "there is no such pending command",
        explanation: "It is named by its file, by some characters of its id, or `last`, where it lies in the directory that `muster pending list` shows. Exit code 2; 4 for `last` where none is.",
    },
    Code {
        code: "ambiguous-pending",
        summary: "several pending commands have an id like this",
        explanation: "Type more characters of the id, or the name of the file. Exit code 2.",
    },
    Code {
        code: "foreign-file",
        summary: "the file belongs to another user of this machine",
        explanation: "To change a file it is replaced, and then its owner could not read it any more. Approve a copy and give that back, or give back your signatures alone: `muster approve FILE --signature-only OUT`. Exit code 2.",
    },
    Code {
        code: "waited-enough",
        summary: "the time of --wait-for was over",
        explanation: "The command stopped waiting. Hosts that were asked go on. Exit code 10.",
    },
    Code {
        code: "unread",
        summary: "nobody reads the output any more",
        explanation: "Whatever read the output has closed it, as `head` does after its lines, before anything was sent. Nothing was sent. Where hosts had been asked already they go on, and `muster watch` shows them. Exit code 10.",
    },
    Code {
        code: "ctrl-c",
        summary: "stopped by the operator",
        explanation: "Ctrl-C ends the waiting, never the work: hosts that were asked go on. Exit code 130.",
    },
];
