//! MCollective's filters.

use muster_protocol::expr::mco::{McoFilters, translate};

fn filters(option: &str, given: &[&str]) -> McoFilters {
    let given = given.iter().map(|text| (*text).to_owned()).collect();
    let mut filters = McoFilters::default();
    match option {
        "-F" => filters.facts = given,
        "-C" => filters.classes = given,
        "-A" => filters.agents = given,
        "-I" => filters.identities = given,
        _ => filters.compound = given,
    }
    filters
}

#[track_caller]
fn check(option: &str, given: &str, expected: &str) {
    let expression =
        translate(&filters(option, &[given])).unwrap_or_else(|error| panic!("{}", error.error.render(given)));
    assert_eq!(expression.as_str(), expected);
}

#[track_caller]
fn refused(option: &str, given: &str, expected: &str) {
    let error = translate(&filters(option, &[given])).expect_err(given);
    assert_eq!(error.option, option);
    assert_eq!(error.error.render(given), expected, "\n{}\n", error.error.render(given));
    assert_eq!(error.to_string(), format!("translate the MCollective filter {option} `{given}`"));
}

#[test]
fn facts() {
    check("-F", "os=Debian", r#"os = "Debian""#);
    check("-F", "os==Debian", r#"os = "Debian""#);
    check("-F", "os = Debian GNU/Linux ", r#"os = "Debian GNU/Linux""#);
    check("-F", "os!=Debian", r#"os != "Debian""#);
    check("-F", "cpus=4", r#"cpus = "4""#);
    check("-F", "virtual=true", r#"virtual = "true""#);
    check("-F", "cpus>=4", "cpus >= 4");
    check("-F", "cpus=>4", "cpus >= 4");
    check("-F", "cpus<=4", "cpus <= 4");
    check("-F", "cpus=<4", "cpus <= 4");
    check("-F", "cpus > 4", "cpus > 4");
    check("-F", "cpus<4", "cpus < 4");
    check("-F", "release>3.0.13", r#"release > "3.0.13""#);
    check("-F", "name=/^web/", r#"fact.name ~ "^web""#);
    check("-F", "os=~/^Deb/", r#"os ~ "^Deb""#);
    check("-F", "os=~^Deb", r#"os ~ "^Deb""#);
    check("-F", "os!=/^Deb/", r#"os !~ "^Deb""#);
    check("-F", "path=/var/lib", r#"path = "/var/lib""#);
    check("-F", "os.release.major=12", r#"os.release.major = "12""#);
    check("-F", "disks.0.size>5", "disks[0].size > 5");
    check("-F", "mountpoints./.size>5", r#"mountpoints."/".size > 5"#);
    check("-F", "class=x", r#"fact.class = "x""#);
    check("-F", "empty=''", r#"empty = """#);
}

#[test]
fn classes_agents_and_identities() {
    check("-C", "apache::ssl", r#"class = "apache::ssl""#);
    check("-C", "/^apache/", r#"class ~ "^apache""#);
    check("-A", "package", r#"plugin = "package""#);
    check("-A", "/^p/", r#"plugin ~ "^p""#);
    check("-I", "web1.example.com", r#"name = "web1.example.com""#);
    check("-I", r"/^web\d+/", r#"name ~ "^web\\d+""#);
}

#[test]
fn compound_filters() {
    check("-S", "apache", r#"class = "apache""#);
    check("-S", "/apache/", r#"class ~ "apache""#);
    check("-S", "env=prod and apache", r#"env = "prod" and class = "apache""#);
    check(
        "-S",
        "((customer=acme and env=staging) or env=development) and /apache/",
        r#"(customer = "acme" and env = "staging" or env = "development") and class ~ "apache""#,
    );
    check("-S", "not env=prod and !apache", r#"not env = "prod" and not class = "apache""#);
    check("-S", "!(a=1 or b=2)", r#"not (a = "1" or b = "2")"#);
    check("-S", "a=1 && b>=2 || c", r#"a = "1" and b >= 2 or class = "c""#);
    check("-S", "name=~/^web/ and os = Debian", r#"fact.name ~ "^web" and os = "Debian""#);
    check("-S", r#"package("openssl").version=3.0.13"#, r#"package("openssl").version = "3.0.13""#);
    check("-S", "fstat('/etc/rc').md5=/baa3/", r#"fstat("/etc/rc").md5 ~ "baa3""#);
    check("-S", "resource('File[/srv]').managed", r#"resource("File[/srv]").managed = true"#);
    check("-S", "not package(vim)", r#"not has(package("vim"))"#);
    check("-S", "f(1, 'a b').x>2", r#"f(1, "a b").x > 2"#);
    check("-S", "android or orchid", r#"class = "android" or class = "orchid""#);
}

#[test]
fn several_filters_all_hold_but_any_identity_does() {
    let given = McoFilters {
        facts: vec!["os=Debian".into(), "cpus>3".into()],
        classes: vec!["web".into()],
        agents: vec!["package".into()],
        identities: vec!["web1".into(), "/^web2/".into()],
        compound: vec!["a=1 or b=2".into()],
    };
    assert_eq!(
        translate(&given).unwrap().as_str(),
        concat!(
            r#"os = "Debian" and cpus > 3 and class = "web" and plugin = "package" and (name = "web1" or name ~ "^web2")"#,
            r#" and (a = "1" or b = "2")"#
        )
    );
    assert_eq!(translate(&McoFilters::default()).unwrap().as_str(), "true");
}

#[test]
fn errors_point_into_the_filter() {
    refused("-F", "os", "os\n  ^ expected an operator after the name; as in `os=Debian`");
    refused("-F", "os=", "os=\n   ^ expected a value after `=`");
    refused("-S", "a= and b", "a= and b\n       ^ expected the end of the filter");
    refused("-F", "=x", "=x\n^ expected the name of a fact; as in `os=Debian`");
    refused(
        "-F",
        "os=~/(/",
        "os=~/(/\n    ^^^ the regular expression is not valid: found open group without closing ')'",
    );
    refused(
        "-F",
        "os~=x",
        "os~=x\n  ^^ `~=` is not an operator of MCollective; there are =, ==, !=, >=, <=, >, < and =~",
    );
    refused("-F", "a..b=1", "a..b=1\n^^^^ `a..b` has an empty part");
    refused("-C", "", "\n^ the filter is empty");
    refused("-C", "/x", "/x\n^^ the regular expression is not closed; it needs a `/` at its end");
    refused("-C", "/x/ y", "/x/ y\n    ^ expected the end of the filter");
    refused("-S", "(a", "(a\n^ this `(` is never closed");
    refused("-S", "a b", "a b\n  ^ expected the end of the filter");
    refused("-S", "a and", "a and\n     ^ expected a fact, a class, a data call or `(`");
    refused("-S", "f(", "f(\n  ^ expected a value in the call of `f`");
    refused("-S", "f(1 2)", "f(1 2)\n    ^ expected `,` or `)` in the call of `f`");
    let deep = "(".repeat(200);
    assert_eq!(
        translate(&filters("-S", &[&deep])).unwrap_err().error.message,
        "the filter nests deeper than 64 levels"
    );
    let deep = "!".repeat(200);
    assert!(translate(&filters("-S", &[&deep])).is_err());
    assert!(translate(&filters("-F", &[&format!("a={}", "x".repeat(9_000))])).is_err());
}

proptest::proptest! {
    #[test]
    fn any_filter_ends_in_an_expression_or_an_error(
        option in proptest::sample::select(vec!["-F", "-C", "-A", "-I", "-S"]), given in "\\PC{0,24}|[a(). =<>!~/\"']{0,16}",
    ) {
        if let Err(error) = translate(&filters(option, &[&given])) {
            assert!(error.error.column >= 1 && error.error.length >= 1);
        }
    }
}
