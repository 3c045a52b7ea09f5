//! Whether a package manager was refused by the system for want of rights, which no waiting changes.
//!
//! Some of them say so in words that are also those of a lock that somebody else holds, so this is asked first.

use crate::process::Run;

/// What package managers say to an ordinary user, in the words of C: all of them run in it.
const WORDS: &[&str] = &[
    // apt and dpkg.
    "are you root?",
    "requires superuser privilege",
    // dnf and yum.
    "has to be run with superuser privileges",
    "You need to be root to perform this command",
    // zypper.
    "Root privileges are required",
];

/// Beginnings of what rpm and apk say, where they end in that they are not permitted.
const LOCKS: &[&str] = &["can't create transaction lock", "Unable to lock database", "Failed to open apk database"];

/// The line in which a run says that it has too few rights.
pub(super) fn denied(run: &Run) -> Option<String> {
    let (stderr, stdout) = (run.stderr.text(), run.stdout.text());
    stderr
        .lines()
        .chain(stdout.lines())
        .find(|line| is_denial(line))
        .map(|line| line.trim().chars().take(400).collect())
}

fn is_denial(line: &str) -> bool {
    let of_lock = || line.contains("Permission denied") && LOCKS.iter().any(|words| line.contains(words));
    // apt warns of files that it goes on without.
    let of_apt = || line.starts_with("E: ") && line.contains("(13: Permission denied)");
    WORDS.iter().any(|words| line.contains(words)) || of_lock() || of_apt()
}

/// Says what a denied run needs, and who ran it.
pub(super) fn explained(line: &str, user: u32) -> String {
    match user {
        0 => format!("the system denied it to root as well: {line}"),
        user => format!("changing packages needs root, and this agent runs as user {user}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_not_a_held_lock() {
        for (line, expected) in [
            ("E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)", true),
            ("E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?", true),
            ("E: Could not open lock file /var/lib/apt/lists/lock - open (13: Permission denied)", true),
            ("E: List directory /var/lib/apt/lists/partial is missing. - Acquire (13: Permission denied)", true),
            ("dpkg: error: requested operation requires superuser privilege", true),
            (
                "Error: This command has to be run with superuser privileges (under the root user on most systems).",
                true,
            ),
            (
                "The requested operation requires superuser privileges. Please log in as a user with elevated rights",
                true,
            ),
            ("You need to be root to perform this command.", true),
            ("error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Permission denied)", true),
            ("Root privileges are required to run this command.", true),
            ("ERROR: Unable to lock database: Permission denied", true),
            ("ERROR: Failed to open apk database: Permission denied", true),
            ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 12 (apt-get)", false),
            (
                "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
                false,
            ),
            ("E: Unable to lock directory /var/lib/apt/lists/", false),
            ("dpkg: error: dpkg frontend lock was locked by another process with pid 12", false),
            ("ERROR: Unable to lock database: Resource temporarily unavailable", false),
            (
                "error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)",
                false,
            ),
            ("W: Unable to read /etc/apt/sources.list.d/x.list - open (13: Permission denied)", false),
            ("cp: cannot create regular file '/x': Permission denied", false),
        ] {
            assert_eq!(is_denial(line), expected, "{line}");
        }
        assert!(explained("x", 1000).contains("needs root, and this agent runs as user 1000: x"));
        assert!(explained("x", 0).contains("denied it to root as well"));
    }
}
