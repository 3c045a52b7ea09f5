use super::*;

const DESCRIPTION: &str = r#"
[center]
addresses = ["mq1.example.com", "mq2.example.com:5673"]

[[site]]
name = "ams1"
broker = "mq.ams1.example.com"
hosts = ["*.ams1.example.com", "backup.example.com"]
collectives = ["main", "europe"]

[[site]]
name = "fra2"
broker = "mq.fra2.example.com"
hosts = ["*.fra2.example.com"]
"#;

#[test]
fn each_broker_learns_who_belongs_to_it() {
    let sites = Sites::parse(DESCRIPTION).unwrap();
    assert_eq!(sites.names().collect::<Vec<_>>(), ["center", "ams1", "fra2"]);
    let roles = ["center", "ams1", "fra2"].map(|name| sites.role(name).unwrap());
    for (who, expected) in [
        ("host/web1.ams1.example.com", [false, true, false]),
        ("host/a.b.ams1.example.com", [false, true, false]),
        ("host/backup.example.com", [false, true, false]),
        ("host/db1.fra2.example.com", [false, false, true]),
        ("host/db1.example.com", [true, false, false]),
        // The domain's own name, and one that only ends alike.
        ("host/ams1.example.com", [true, false, false]),
        ("host/web1.xams1.example.com", [true, false, false]),
        ("host/x.backup.example.com", [true, false, false]),
        ("user/lea", [true, true, true]),
        ("service/jobs", [true, true, true]),
        ("broker/mq.ams1.example.com", [true, false, false]),
        ("broker/mq.example.com", [false, false, false]),
    ] {
        let identity: Identity = who.parse().unwrap();
        assert_eq!(roles.each_ref().map(|role| role.admits(&identity)), expected, "{who}");
        assert_eq!(Role::Alone.admits(&identity), !who.starts_with("broker/"), "{who}");
    }
    let Role::Site { center, .. } = &roles[1] else { panic!("{:?}", roles[1]) };
    let addresses: Vec<String> = center.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["mq1.example.com:5671", "mq2.example.com:5673"]);
    assert_eq!(roles.each_ref().map(Role::cluster_name), [None, Some("ams1"), Some("fra2")]);
}

#[test]
fn what_is_written_is_read() {
    let sites = Sites::parse(DESCRIPTION).unwrap();
    assert_eq!(Sites::parse(&toml::to_string(&sites).unwrap()).unwrap(), sites);
    // A centre alone is how everybody begins.
    assert!(Sites::parse("[center]\naddresses = [\"mq.example.com\"]\n").is_ok());
}

#[test]
fn a_wrong_description_says_what_is_wrong() {
    #[track_caller]
    fn check(from: &str, to: &str, expected: &str) {
        let text = DESCRIPTION.replace(from, to);
        assert_ne!(text, DESCRIPTION, "the test changes something");
        let error = Sites::parse(&text).unwrap_err();
        let mut shown = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            shown = format!("{shown}: {source}");
        }
        assert!(shown.contains(expected), "{shown}");
        assert_eq!((error.code(), error.is_transient()), ("bad-sites", false));
    }
    check("\"fra2\"", "\"ams1\"", "site `ams1` is there twice");
    check("\"fra2\"", "\"center\"", "has the name of the centre");
    check("mq.fra2", "mq.ams1", "sites `ams1` and `fra2` both have the broker `mq.ams1.example.com`");
    check("\"*.fra2.example.com\"", "", "site `fra2` has 0 entries in `hosts`");
    let many: Vec<String> = (0..65).map(|number| format!("\"h{number}\"")).collect();
    check("\"*.fra2.example.com\"", &many.join(","), "has 65 entries in `hosts`; 1 to 64 are allowed");
    check("*.fra2.example.com", "*.example.com", "of site `ams1` and `*.example.com` of site `fra2` overlap");
    check("*.fra2.example.com", "x.ams1.example.com", "overlap");
    check("*.fra2.example.com", "*.backup.example.com.ams1.example.com", "overlap");
    check("*.fra2.example.com", "*.FRA2.example.com", "host name `FRA2.example.com` has `F` at column 1");
    check("*.fra2.example.com", "web.*.example.com", "has `*`");
    check("collectives", "collective", "unknown field `collective`");
    check("mq2.example.com:5673", "mq2.example.com:0", "has no port from 1 to 65535");
    check("[\"mq1.example.com\", \"mq2.example.com:5673\"]", "[]", "`center.addresses` has 0 entries");
    check("name = \"fra2\"", "name = \"fra/2\"", "site name `fra/2` has `/`");
}

#[test]
fn an_unknown_site_is_answered_with_those_there_are() {
    let error = Sites::parse(DESCRIPTION).unwrap().role("lon3").unwrap_err();
    assert_eq!(error.to_string(), "there is no site `lon3`; there are `center`, `ams1`, `fra2`");
    assert_eq!(error.code(), "unknown-site");
}
