//! Names of services: what is accepted, and which unit or script a name stands for.

use muster_plugin_api::ActionFailure;
use muster_protocol::code;

/// Longest name of a unit (systemd's `UNIT_NAME_MAX` is 256 with its end).
const NAME_BYTES_MAX: usize = 255;

/// Every type of unit that systemd has.
const UNIT_TYPES: &[&str] =
    &["service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"];

/// Types of units that are started and stopped here. The others are the state of the host itself: starting
/// `poweroff.target` or stopping a mount is not what a permission for services is meant to give.
const RUN_TYPES: &[&str] = &["service", "socket", "timer", "path"];

/// Refuses what is no name of a service, whatever a description has let through: no option, no path, no control
/// character, nothing that a service manager takes for a pattern.
pub(super) fn check(name: &str) -> Result<(), ActionFailure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@:\\-".contains(c);
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 255 characters"
    } else if !name.chars().next().is_some_and(first) {
        "it does not begin with a letter, a digit or `_`"
    } else if !name.chars().all(allowed) {
        "it has other characters than letters, digits and `_.@:\\-`"
    } else if has_no_instance(name) {
        "it is a template, which needs an instance: name@INSTANCE"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(60).collect();
    Err(ActionFailure::new(&code::INVALID_ARGUMENT, format!("{shown:?} is no name of a service: {why}")))
}

fn has_no_instance(name: &str) -> bool {
    let stem = name.rsplit_once('.').filter(|(_, kind)| UNIT_TYPES.contains(kind)).map_or(name, |(stem, _)| stem);
    stem.ends_with('@')
}

/// The unit that a name stands for: a service, unless the name ends in another type.
pub(super) fn unit(name: &str) -> String {
    if unit_type(name).is_some() { name.to_owned() } else { format!("{name}.service") }
}

fn unit_type(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, kind)| kind).filter(|kind| UNIT_TYPES.contains(kind))
}

/// The init script that a name stands for: `.service` may be written there too. Names of other units stand for none.
pub(super) fn script(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".service").unwrap_or(name);
    let is_directory = name.chars().all(|c| c == '.');
    (!is_directory && unit_type(name).is_none()).then_some(name)
}

/// Refuses to change units that are not services.
pub(super) fn check_change(name: &str) -> Result<(), ActionFailure> {
    match unit_type(name) {
        Some(kind) if !RUN_TYPES.contains(&kind) => Err(ActionFailure::new(
            &code::INVALID_ARGUMENT,
            format!("`{name}` is a {kind}; this plugin changes units of the types {} only", RUN_TYPES.join(", ")),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_accepted() {
        for name in
            ["ssh", "ssh.service", "getty@tty1", "a@b.service", "9p", "_x", "dbus-org.freedesktop.login1", "a\\x2db"]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn attacks_and_mistakes_are_refused() {
        let long = "a".repeat(256);
        for name in [
            "",
            "x; rm -rf /",
            "--no-block",
            "-H host",
            "-Hhost",
            "a\nb",
            "a\0b",
            "../../etc/passwd",
            "@",
            "a/b",
            "/bin/sh",
            ".",
            "..",
            "x y",
            "*",
            "ss?",
            "[a]",
            "é",
            "$(id)",
            "`id`",
            "x@",
            "x@.service",
            "x@.timer",
            "-",
            "\u{202e}x",
            &long,
        ] {
            assert_eq!(check(name).unwrap_err().code.code, "invalid-argument", "{name:?}");
        }
    }

    #[test]
    fn units_and_scripts_of_names() {
        assert_eq!((unit("ssh").as_str(), script("ssh")), ("ssh.service", Some("ssh")));
        assert_eq!((unit("ssh.service").as_str(), script("ssh.service")), ("ssh.service", Some("ssh")));
        assert_eq!((unit("fstrim.timer").as_str(), script("fstrim.timer")), ("fstrim.timer", None));
        assert_eq!((unit("apache2.4").as_str(), script("apache2.4")), ("apache2.4.service", Some("apache2.4")));
        assert_eq!(unit("a@b.c"), "a@b.c.service");
    }

    #[test]
    fn only_services_and_their_like_are_changed() {
        for name in ["ssh", "ssh.service", "a.socket", "a.timer", "a.path", "a.b"] {
            assert_eq!(check_change(name), Ok(()), "{name}");
        }
        for name in ["poweroff.target", "home.mount", "x.automount", "system.slice", "x.scope", "x.swap", "x.device"] {
            assert_eq!(check_change(name).unwrap_err().code.code, "invalid-argument", "{name}");
        }
    }
}
