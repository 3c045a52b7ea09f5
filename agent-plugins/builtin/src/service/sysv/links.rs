//! Links in the directories of the runlevels: which services the boot starts.
//!
//! They belong to `update-rc.d` on Debian and its children, to `chkconfig` on Red Hat and SUSE. Where there is neither,
//! the links are made here, from the script's LSB header.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use muster_plugin_api::ActionFailure;

use super::super::ServicePaths;
use super::super::manager::Bounds;
use crate::process::{LeaveBehind, Program, find_program};

/// The runlevels in which a host does its work; a service is enabled if one of them starts it.
const RUNLEVELS: &[&str] = &["rc2.d", "rc3.d", "rc4.d", "rc5.d", "rcS.d"];

/// The runlevels of a script that names none.
const DEFAULT_START: &str = "2 3 4 5";

/// Its place in the order where nobody computes one from the dependencies: after the base, before the last ones.
const START_ORDER: u8 = 50;

/// A link `S20name` or `K80name`.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    starts: bool,
    order: u8,
}

impl Link {
    fn parse(file: &str, name: &str) -> Option<Self> {
        let (kind, rest) = file.split_at_checked(1)?;
        let (order, rest) = rest.split_at_checked(2)?;
        let starts = match kind {
            "S" => true,
            "K" => false,
            _ => return None,
        };
        let is_order = order.bytes().all(|b| b.is_ascii_digit());
        (is_order && rest == name).then(|| Self { starts, order: order.parse().unwrap_or_default() })
    }
}

fn links(level: &Path, name: &str) -> Vec<(PathBuf, Link)> {
    let entries = fs::read_dir(level).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), Link::parse(entry.file_name().to_str()?, name)?))).collect()
}

/// Whether a link `S??name` starts it in one of the runlevels.
pub(in super::super) fn is_enabled(runlevels: &Path, name: &str) -> bool {
    RUNLEVELS.iter().flat_map(|level| links(&runlevels.join(level), name)).any(|(_, link)| link.starts)
}

/// A keyword of the header between `### BEGIN INIT INFO` and `### END INIT INFO`.
pub(in super::super) fn header<'a>(script: &'a str, keyword: &str) -> Option<&'a str> {
    let block = script.split_once("### BEGIN INIT INFO")?.1;
    let block = block.split_once("### END INIT INFO").map_or(block, |(block, _)| block);
    let value =
        |line: &'a str| line.trim_start().strip_prefix('#')?.trim_start().strip_prefix(keyword)?.strip_prefix(':');
    block.lines().find_map(value).map(str::trim)
}

/// Makes the boot start a script, or not any more.
pub(super) async fn set_enabled(
    paths: &ServicePaths,
    enabled: bool,
    script: &Path,
    bounds: Bounds<'_>,
) -> Result<(), ActionFailure> {
    let name = script.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let word = |enabled_word, disabled_word| if enabled { enabled_word } else { disabled_word };
    if let Some(update) = find_program("update-rc.d", &paths.programs) {
        // `enable` only turns links around that are there; `defaults` makes them, and leaves those alone that are.
        if enabled {
            run(&update, &[name, "defaults"], bounds).await?;
        }
        return run(&update, &[name, word("enable", "disable")], bounds).await;
    }
    if let Some(chkconfig) = find_program("chkconfig", &paths.programs) {
        run(&chkconfig, &["--add", name], bounds).await?;
        return run(&chkconfig, &[name, word("on", "off")], bounds).await;
    }
    by_hand(&paths.runlevels, enabled, script, name)
        .map_err(|error| ActionFailure::failed(format!("the links of `{name}` cannot be changed: {error}")))
}

async fn run(path: &Path, words: &[&str], bounds: Bounds<'_>) -> Result<(), ActionFailure> {
    let program = Program::new(path, bounds.left()).arguments(words).leave_behind(LeaveBehind::Stop);
    let run = program.run(bounds.cancel).await;
    match run.exit_code(&program)? {
        0 => Ok(()),
        code => Err(run.failure(&program, code)),
    }
}

/// Turns start links into stop links, or the other way round, and makes missing ones.
fn by_hand(runlevels: &Path, enabled: bool, script: &Path, name: &str) -> io::Result<()> {
    let text = String::from_utf8_lossy(&fs::read(script)?).into_owned();
    let levels = header(&text, "Default-Start").filter(|levels| !levels.is_empty()).unwrap_or(DEFAULT_START);
    for level in levels.split_ascii_whitespace().filter(|level| level.len() == 1) {
        let directory = runlevels.join(format!("rc{level}.d"));
        if !directory.is_dir() {
            continue;
        }
        let mut order = START_ORDER;
        for (path, link) in links(&directory, name) {
            order = if link.starts == enabled { link.order } else { 100_u8.saturating_sub(link.order).min(99) };
            fs::remove_file(path)?;
        }
        let kind = if enabled { 'S' } else { 'K' };
        symlink(Path::new("../init.d").join(name), directory.join(format!("{kind}{order:02}{name}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links() {
        assert_eq!(Link::parse("S20web", "web"), Some(Link { starts: true, order: 20 }));
        assert_eq!(Link::parse("K01web", "web"), Some(Link { starts: false, order: 1 }));
        for file in ["S01webs", "Sxxweb", "D20web", "S2web", "", "S", "é01web"] {
            assert_eq!(Link::parse(file, "web"), None, "{file}");
        }
    }

    #[test]
    fn the_header_of_a_script() {
        let script = "#!/bin/sh\n# Default-Start: 9\n### BEGIN INIT INFO\n# Provides: web\n# Default-Start:     2 3\n\
            # Short-Description: serves: pages\n### END INIT INFO\n# Default-Stop: 0\n";
        assert_eq!(header(script, "Default-Start"), Some("2 3"));
        assert_eq!(header(script, "Short-Description"), Some("serves: pages"));
        assert_eq!((header(script, "Default-Stop"), header("#!/bin/sh\n", "Provides")), (None, None));
    }

    #[test]
    fn links_by_hand_are_turned_around() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["init.d", "rc2.d", "rc3.d", "rc5.d"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let script = root.path().join("init.d/web");
        fs::write(&script, "#!/bin/sh\n### BEGIN INIT INFO\n# Default-Start: 2 3 4\n### END INIT INFO\n").unwrap();
        symlink("../init.d/web", root.path().join("rc3.d/K80web")).unwrap();
        let all = || {
            let mut found = Vec::new();
            for level in ["rc2.d", "rc3.d", "rc5.d"] {
                found.extend(links(&root.path().join(level), "web").iter().map(|(path, _)| {
                    assert!(fs::metadata(path).is_ok(), "the link leads to the script");
                    format!("{level}/{}", path.file_name().unwrap().to_str().unwrap())
                }));
            }
            found
        };
        by_hand(root.path(), true, &script, "web").unwrap();
        assert_eq!(all(), ["rc2.d/S50web", "rc3.d/S20web"]);
        assert!(is_enabled(root.path(), "web"));
        by_hand(root.path(), true, &script, "web").unwrap();
        assert_eq!(all(), ["rc2.d/S50web", "rc3.d/S20web"]);
        by_hand(root.path(), false, &script, "web").unwrap();
        assert_eq!(all(), ["rc2.d/K50web", "rc3.d/K80web"]);
        assert!(!is_enabled(root.path(), "web"));
    }
}
