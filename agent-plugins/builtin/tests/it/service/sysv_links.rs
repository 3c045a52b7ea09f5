//! Who starts at boot: links by hand, Debian's update-rc.d in namespaces of its own, chkconfig as recorded.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use muster_plugins::Service;
use serde_json::json;
use tempfile::TempDir;

use super::nowhere;
use crate::support::{run, script};

const WEB: &str = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: web\n# Required-Start:\n# Required-Stop:\n\
    # Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n# Short-Description: Serves pages\n### END INIT INFO\n\
    [ \"$1\" = status ] && exit 3\n";

fn host() -> (TempDir, Service) {
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "run", "init.d", "rc0.d", "rc1.d", "rc2.d", "rc3.d", "rc4.d", "rc5.d", "rc6.d", "rcS.d"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    script(&root.path().join("init.d/web"), WEB);
    let plugin = Service::new(nowhere(root.path()));
    (root, plugin)
}

fn links(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for level in ["rc0.d", "rc2.d", "rc3.d"] {
        let entries = fs::read_dir(root.join(level)).unwrap().flatten();
        found.extend(entries.map(|entry| format!("{level}/{}", entry.file_name().to_str().unwrap())));
    }
    found
}

async fn there_and_back(root: &Path, plugin: &Service) {
    let act = async |action: &str| run(plugin, action, json!({ "name": "web" })).await.unwrap().data;
    for _ in 0..2 {
        let data = act("enable").await;
        assert_eq!(
            (&data["changed"], &data["before"]["enabled"], &data["after"]["enabled"]),
            (&json!(true), &json!(false), &json!(true))
        );
        assert_eq!(act("enable").await["changed"], json!(false));
        assert!(links(root).iter().any(|link| link.starts_with("rc2.d/S")), "{:?}", links(root));
        let data = act("disable").await;
        assert_eq!((&data["after"]["enabled"], &data["after"]["enabled_state"]), (&json!(false), &json!("disabled")));
        assert!(!links(root).iter().any(|link| link.contains("/S")), "{:?}", links(root));
    }
}

#[tokio::test]
async fn links_by_hand() {
    let (root, plugin) = host();
    there_and_back(root.path(), &plugin).await;
    assert_eq!(links(root.path()), ["rc2.d/K50web", "rc3.d/K50web"]);
}

#[tokio::test]
async fn enabled_means_a_start_link_of_exactly_that_name() {
    let (root, plugin) = host();
    for (link, enabled) in
        [("rc2.d/K01web", false), ("rc2.d/S01webs", false), ("rc2.d/Sxxweb", false), ("rc3.d/S20web", true)]
    {
        symlink(root.path().join("init.d/web"), root.path().join(link)).unwrap();
        let data = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
        assert_eq!(data["enabled"], json!(enabled), "{link}");
    }
}

/// The real program knows only `/etc`: it runs where the directories of the test are mounted there.
#[tokio::test]
async fn debian_update_rc_d() {
    let program = Path::new("/usr/sbin/update-rc.d");
    assert!(program.exists(), "update-rc.d is missing; this test needs: apt-get install init-system-helpers");
    let (root, plugin) = host();
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -ec '\
           mount --make-rprivate /; for d in init.d rc0.d rc1.d rc2.d rc3.d rc4.d rc5.d rc6.d rcS.d; do mount --bind {root}/$d /etc/$d; done; \
           exec update-rc.d \"$@\"' sh \"$@\"\n",
        root = root.path().display()
    );
    script(&root.path().join("bin/update-rc.d"), &text);
    there_and_back(root.path(), &plugin).await;
    assert!(links(root.path()).iter().any(|link| link.starts_with("rc0.d/K")), "it also stops at shutdown");
}

/// The words of chkconfig as its manual has them; there is none for Debian.
#[tokio::test]
async fn recorded_chkconfig() {
    let (root, plugin) = host();
    let text = format!(
        "#!/bin/sh\ncd {root} && echo \"$*\" >> said\ncase \"$*\" in\n\
         '--add web') for l in 2 3; do [ -e rc$l.d/*web ] || ln -s ../init.d/web rc$l.d/K20web; done ;;\n\
         'web on') for l in 2 3; do rm -f rc$l.d/???web; ln -s ../init.d/web rc$l.d/S80web; done ;;\n\
         'web off') for l in 2 3; do rm -f rc$l.d/???web; ln -s ../init.d/web rc$l.d/K20web; done ;;\n\
         *) echo \"error reading information on service\" >&2; exit 1 ;;\nesac\n",
        root = root.path().display()
    );
    script(&root.path().join("bin/chkconfig"), &text);
    there_and_back(root.path(), &plugin).await;
    let said = fs::read_to_string(root.path().join("said")).unwrap();
    assert!(said.starts_with("--add web\nweb on\n--add web\nweb off\n"), "{said}");
}

#[tokio::test]
async fn a_program_that_fails_is_told() {
    let (root, plugin) = host();
    script(&root.path().join("bin/update-rc.d"), "#!/bin/sh\necho 'insserv rejected the script header' >&2\nexit 1\n");
    let failure = run(&plugin, "enable", json!({ "name": "web" })).await.unwrap_err();
    assert_eq!(failure.message, "`update-rc.d` ended with exit code 1: insserv rejected the script header");
    assert_eq!(failure.data["after"]["enabled"], json!(false));
}
