//! Where the agent's program is.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::output::{ExitCode, Failure, word};

/// Its name.
const NAME: &str = "musterd";

/// Finds it: where somebody said, else beside this program, else on the search path.
///
/// # Errors
/// It is nowhere.
pub(super) fn find(named: Option<&Path>, own: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        let named = std::path::absolute(named).map_err(|error| Failure::file("find", named, &error))?;
        return match is_program(&named) {
            true => Ok(named),
            false => Err(missing(format!("`{}` is no program", named.display())).hint("muster dev --musterd FILE")),
        };
    }
    let beside = own.and_then(Path::parent).map(|folder| folder.join(NAME));
    let on_path = path.map(std::env::split_paths).into_iter().flatten().filter(|folder| folder.is_absolute());
    let all: Vec<PathBuf> = beside.into_iter().chain(on_path.map(|folder| folder.join(NAME))).collect();
    if let Some(found) = all.iter().find(|program| is_program(program)) {
        return Ok(found.clone());
    }
    let failure = missing("the agent's program `musterd` is not to be found");
    let failure = match all.first() {
        Some(beside) => failure.why("looked", format!("{}, then on the search path", beside.display())),
        None => failure.why("looked", "on the search path"),
    };
    Err(failure.hint("put musterd beside muster").hint("muster dev --musterd FILE"))
}

fn missing(what: impl Into<String>) -> Failure {
    Failure::new(ExitCode::Usage, "no-musterd", what)
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// How a shell finds this program again: by its name where that leads to it, else by its path.
pub(super) fn command_word(own: &Path, path: Option<&OsStr>) -> String {
    let name = own.file_name().unwrap_or(OsStr::new("muster"));
    let first = path.map(std::env::split_paths).into_iter().flatten().map(|folder| folder.join(name));
    let found = first.into_iter().find(|program| is_program(program));
    let same = |one: &Path, other: &Path| matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other);
    match found {
        Some(found) if same(&found, own) => name.to_string_lossy().into_owned(),
        _ => word(&own.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_agent_is_beside_muster_or_on_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = at("two").into_os_string();
        let find = |named: Option<&Path>| super::find(named, Some(&at("one/muster")), Some(&path));
        let failure = find(None).unwrap_err();
        assert_eq!(failure.code, "no-musterd");
        assert!(failure.why[0].1.contains("one/musterd"), "{failure:?}");
        program(&at("two/musterd"));
        assert_eq!(find(None).unwrap(), at("two/musterd"));
        program(&at("one/musterd"));
        assert_eq!(find(None).unwrap(), at("one/musterd"));
        program(&at("three/agent"));
        assert_eq!(find(Some(&at("three/agent"))).unwrap(), at("three/agent"));
        std::fs::write(at("text"), "").unwrap();
        assert_eq!(find(Some(&at("text"))).unwrap_err().code, "no-musterd");
    }

    #[test]
    fn a_command_that_is_shown_can_be_typed() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("bin of mine/muster");
        program(&own);
        let path = own.parent().unwrap().as_os_str();
        assert_eq!(command_word(&own, Some(path)), "muster");
        assert_eq!(command_word(&own, None), format!("'{}'", own.display()));
    }
}
