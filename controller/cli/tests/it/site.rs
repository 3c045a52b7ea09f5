//! A home directory of its own for each test, and a way to type commands in it.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Credentials;
use muster_pki::testing::TestAuthority;
use muster_protocol::Timestamp;

/// A home directory that goes away with the test.
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file below the home directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes the user's config file with one context whose files lie in `files/`.
    pub(crate) fn with_context(&self, broker: &str, identity: &str) {
        let stem = identity.replace('/', "-");
        let text = format!(
            "[context.lab]\nbroker = [\"{broker}\"]\nca = \"files/ca.pem\"\ncrl = \"files/crl.pem\"\n\
             certificate = \"files/{stem}.pem\"\nkey = \"files/{stem}.key\"\n"
        );
        self.write(".config/muster/config.toml", &text);
    }

    /// Where the files of [`Self::with_context`] lie.
    pub(crate) fn files(&self) -> PathBuf {
        self.path(".config/muster/files")
    }

    /// Puts credentials of an authority where [`Self::with_context`] looks for them.
    pub(crate) fn install(&self, authority: &TestAuthority, credentials: &Credentials) {
        std::fs::create_dir_all(self.files()).unwrap();
        authority.write(credentials, &self.files()).unwrap();
    }

    /// The command, in this home and in no other surroundings.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(words).env_clear().env("HOME", self.directory.path()).env("PATH", "/usr/bin:/bin");
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// What the command printed and how it ended.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        self.shown(&self.command(words).output().unwrap())
    }

    /// The same as text for a snapshot: exit code, then each stream that is not empty.
    pub(crate) fn shown(&self, output: &Output) -> String {
        let mut shown = format!("exit {}\n", output.status.code().map_or("none".to_owned(), |code| code.to_string()));
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                let text = String::from_utf8(bytes.clone()).unwrap();
                write!(shown, "--- {name}\n{text}").unwrap();
            }
        }
        shown.replace(self.directory.path().to_str().unwrap(), "[HOME]")
    }

    /// Where the hosts of [`Self::with_context`] are remembered. The authority must be installed.
    pub(crate) fn remembered(&self) -> PathBuf {
        let trust = muster_pki::Trust::load(&self.files().join("ca.pem"), None).unwrap();
        self.path(".cache/muster/lab").join(&trust.authorities()[0].fingerprint()[..16])
    }

    pub(crate) fn home(&self) -> &Path {
        self.directory.path()
    }
}

/// A table with gaps of two spaces: its columns are as wide as this machine's names for directories.
pub(crate) fn narrow(table: &str) -> String {
    let line = |line: &str| {
        let words = line.split("  ").map(str::trim).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("  ") + "\n"
    };
    table.lines().map(line).collect()
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    Timestamp(SystemClock.now_ms())
}

/// A port on which nobody listens: it was free a moment ago.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Takes a snapshot, with ports, times and fingerprints made alike.
macro_rules! assert_screen {
    ($shown:expr, @$expected:literal) => {
        insta::with_settings!({filters => vec![
            (r"localhost:\d{4,5}", "localhost:[PORT]"),
            (r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:[PORT]"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(\.\d+)?Z", "[TIME]"),
            (r"certificate [0-9a-f]{6,64}", "certificate [HEX]"),
            (r"Muster CA [0-9a-f]{8}", "Muster CA [HEX]"),
            (r"made (now|\d+ \w+ ago)", "made [AGO]"),
        ]}, {
            insta::assert_snapshot!($shown, @$expected);
        });
    };
}
pub(crate) use assert_screen;
