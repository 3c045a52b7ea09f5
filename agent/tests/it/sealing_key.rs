//! The key for secret arguments lies in a file that only the agent reads.

use std::os::unix::fs::PermissionsExt as _;

use muster_agent::sealing_key::load_or_create;
use muster_daemon::RealDisk;

#[test]
fn a_key_is_kept_and_only_for_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealing.key");
    let made = load_or_create(&RealDisk, &path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(load_or_create(&RealDisk, &path).unwrap().public(), made.public());
    assert!(!format!("{made:?}").contains(std::fs::read_to_string(&path).unwrap().lines().nth(1).unwrap()));

    let good = std::fs::read_to_string(&path).unwrap();
    let other = folder.path().join("other.key");
    load_or_create(&RealDisk, &other).unwrap();
    let public = std::fs::read_to_string(&other).unwrap().lines().nth(2).unwrap().to_owned();
    let mixed = format!("{}\n{public}\n", good.lines().take(2).collect::<Vec<_>>().join("\n"));
    for (content, expected) in
        [("", "begin"), ("muster sealing key 1\nAAAA\nAAAA\n", "32 bytes"), (mixed.as_str(), "halves")]
    {
        std::fs::write(&path, content).unwrap();
        let error = load_or_create(&RealDisk, &path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content, "a damaged key is left alone");
    }
    std::fs::write(&path, good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(load_or_create(&RealDisk, &path).is_err());
}
