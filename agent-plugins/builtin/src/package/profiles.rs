//! What the plugin watches as a whole: all installed packages, and all repositories.

use muster_plugin_api::Profile;
use muster_protocol::limits::PROFILE_BYTES_MAX;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::entry::Entry;
use super::repositories::Repository;

/// What a profile holds beside its rows, in bytes, generously.
const FRAME_BYTES: usize = 1024;

/// The profile `packages`: one short row for each package. Where they do not fit, the first ones by name, and how
/// many there are; the digest is always that of all.
pub(super) fn packages(provider: &str, entries: &[Entry]) -> Profile {
    let mut rows: Vec<[&str; 4]> =
        entries.iter().map(|entry| [entry.name.as_str(), &entry.full, &entry.arch, &entry.status]).collect();
    rows.sort_unstable();
    let digest = digest(&json!([provider, rows]));
    let count = rows.len();
    let mut bytes = FRAME_BYTES;
    // Quotes, commas and brackets of a row are 14 bytes; names and versions are never escaped.
    rows.retain(|row| {
        bytes += row.iter().map(|text| text.len()).sum::<usize>() + 14;
        bytes <= PROFILE_BYTES_MAX
    });
    let data = json!({
        "provider": provider,
        "count": count,
        "listed": rows.len(),
        "columns": ["name", "version", "arch", "status"],
        "packages": rows,
    });
    Profile { name: "packages", digest, data }
}

/// The profile `repositories`. Where they do not fit, the first ones, and how many there are.
pub(super) fn repositories(repositories: &[Repository], problems: &[String]) -> Profile {
    let digest = digest(&json!([repositories, problems]));
    let mut bytes = FRAME_BYTES + problems.iter().map(|problem| problem.len() * 2 + 3).sum::<usize>();
    let listed = repositories.iter().take_while(|repository| {
        bytes += serde_json::to_string(repository).map_or(PROFILE_BYTES_MAX, |text| text.len() + 1);
        bytes <= PROFILE_BYTES_MAX
    });
    let listed: Vec<_> = listed.collect();
    let data = json!({
        "count": repositories.len(),
        "listed": listed.len(),
        "repositories": listed,
        "problems": problems,
    });
    Profile { name: "repositories", digest, data }
}

fn digest(value: &Value) -> String {
    let hash = Sha256::digest(value.to_string().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::entry::INSTALLED;
    use super::*;

    fn entries(count: usize, version: &str) -> Vec<Entry> {
        let entry = |number: usize| Entry {
            name: format!("a-package-with-a-usual-name-{number:06}"),
            ensure: version.to_owned(),
            installed: true,
            version: version.to_owned(),
            release: None,
            epoch: None,
            arch: "amd64".to_owned(),
            status: INSTALLED.to_owned(),
            full: version.to_owned(),
            stamp: number.to_string(),
        };
        (0..count).rev().map(entry).collect()
    }

    #[test]
    fn a_usual_host_fits_and_the_order_does_not_matter() {
        let mut packages_there = entries(3000, "1.2.3-4");
        let profile = packages("dpkg", &packages_there);
        assert_eq!((&profile.data["count"], &profile.data["listed"]), (&json!(3000), &json!(3000)));
        packages_there.reverse();
        assert_eq!(packages("dpkg", &packages_there), profile);
        assert_ne!(packages("dpkg", &entries(3000, "1.2.3-5")).digest, profile.digest);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let profile = packages("dpkg", &entries(20_000, "1.2.3-4"));
        let text = profile.data.to_string();
        assert!(text.len() <= PROFILE_BYTES_MAX && text.len() > PROFILE_BYTES_MAX / 2, "{}", text.len());
        let listed = profile.data["packages"].as_array().unwrap().len();
        assert_eq!((&profile.data["count"], &profile.data["listed"]), (&json!(20_000), &json!(listed)));
        // A change beyond the cut still changes the digest.
        let mut more = entries(20_000, "1.2.3-4");
        more[0].full = "9".to_owned();
        assert_ne!(packages("dpkg", &more).digest, profile.digest);
    }

    #[test]
    fn repositories_are_cut_too() {
        let repository = Repository {
            file: "/etc/apt/sources.list".to_owned(),
            name: "deb".to_owned(),
            uri: format!("https://example.com/{}", "x".repeat(2000)),
            suite: Some("stable".to_owned()),
            components: vec!["main".to_owned()],
            enabled: true,
        };
        let profile = repositories(&vec![repository; 1000], &["a problem".to_owned()]);
        assert!(profile.data.to_string().len() <= PROFILE_BYTES_MAX);
        assert!(profile.data["listed"].as_u64().unwrap() < 1000 && profile.data["count"] == json!(1000));
    }
}
