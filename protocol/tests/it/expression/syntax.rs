//! What is read, and the one way in which it is written.

use muster_protocol::expr::{Decimal, Expression, Literal, Operand, Path, Segment};

#[track_caller]
fn check(source: &str, canonical: &str) {
    let expression = match Expression::parse(source) {
        Ok(expression) => expression,
        Err(error) => panic!("{}", error.render(source)),
    };
    assert_eq!(expression.to_string(), canonical);
    let again = Expression::parse(canonical).expect("canonical text parses");
    assert_eq!(again, expression, "canonical text means the same");
    assert_eq!(again.as_str(), canonical, "canonical text prints as itself");
}

#[test]
fn every_operator_has_one_form() {
    check("role=web", r#"role = "web""#);
    check("role == web", r#"role = "web""#);
    check("role!=web", r#"role != "web""#);
    check("cpus<4", "cpus < 4");
    check("cpus <= 4", "cpus <= 4");
    check("cpus>4", "cpus > 4");
    check("cpus>= 4", "cpus >= 4");
    check("name~db", r#"name ~ "db""#);
    check("name !~ db", r#"name !~ "db""#);
}

#[test]
fn texts_are_quoted_bare_raw_or_slashed() {
    check(r#"a = "b c""#, r#"a = "b c""#);
    check("a = 'b\\c'", r#"a = "b\\c""#);
    check(r#"a = 'say "hi"'"#, r#"a = "say \"hi\"""#);
    check(r#"a = "\u{e9}\n\t\"\\""#, r#"a = "é\n\t\"\\""#);
    check("a = \"\u{202e}\u{7}\"", r#"a = "\u{202e}\u{7}""#);
    check(r"name ~ /^db\d+\/x$/", r#"name ~ "^db\\d+/x$""#);
    check("class = apache::mod::ssl", r#"class = "apache::mod::ssl""#);
    check("path = /var/lib-2/a.b", r#"path = "/var/lib-2/a.b""#);
    check("a = ''", r#"a = """#);
}

#[test]
fn words_are_taken_for_what_they_look_like() {
    check("a = true", "a = true");
    check("a = \"true\"", "a = \"true\"");
    check("a = -3", "a = -3");
    check("a = 5.10", "a = 5.10");
    check("a = 3.0.13", r#"a = "3.0.13""#);
    check("a = 1:2.3-4", r#"a = "1:2.3-4""#);
    check("a = deadbeef", r#"a = "deadbeef""#);
    check("a = -", r#"a = "-""#);
}

#[test]
fn patterns_lists_and_presence() {
    check("name like web-*", r#"name like "web-*""#);
    check("name not  like web-?", r#"name not like "web-?""#);
    check("a like 12", r#"a like "12""#);
    check("dc in [ams1,fra2 , 3]", r#"dc in ["ams1", "fra2", 3]"#);
    check("dc not in [ams1]", r#"dc not in ["ams1"]"#);
    check("dc in[ams1]", r#"dc in ["ams1"]"#);
    check("has( os.family )", "has(os.family)");
    check("name !~ 'x'", r#"name !~ "x""#);
}

#[test]
fn not_binds_before_and_before_or() {
    check("a=1 or b=2 and not c=3", "a = 1 or b = 2 and not c = 3");
    check("(a=1 or b=2) and c=3", "(a = 1 or b = 2) and c = 3");
    check("a=1 or (b=2 and c=3)", "a = 1 or b = 2 and c = 3");
    check("((a=1)) and (b=2 and (c=3))", "a = 1 and b = 2 and c = 3");
    check("not (a=1 and b=2)", "not (a = 1 and b = 2)");
    check("not (a=1)", "not a = 1");
    check("not not a=1", "not not a = 1");
    check("true", "true");
    check("not false or\n\ttrue", "not false or true");
}

#[test]
fn paths_reach_into_facts() {
    check("os.release.major = 12", "os.release.major = 12");
    check("disks[0].size > 5", "disks[0].size > 5");
    check(r#"mountpoints."/var".size > 5"#, r#"mountpoints."/var".size > 5"#);
    check(r#"a."plain" = 1"#, "a.plain = 1");
    check("x.in = 1 and x.not = 2", "x.in = 1 and x.not = 2");
    check("fact.name = x", r#"fact.name = "x""#);
    check(r#"fact."odd name" = x"#, r#"fact."odd name" = "x""#);
    check("a-b_c = 1", "a-b_c = 1");
    check("notable = 1 and order = 2 and inside = 3", "notable = 1 and order = 2 and inside = 3");
}

#[test]
fn data_calls_are_operands() {
    check(r#"package("openssl").version < "3.0.13""#, r#"package("openssl").version < "3.0.13""#);
    check("package( openssl ).version < 3.0.13", r#"package("openssl").version < "3.0.13""#);
    check("has(package(vim))", r#"has(package("vim"))"#);
    check("f() = 1", "f() = 1");
    check("f(1, true, 'x')[0].y = 1", r#"f(1, true, "x")[0].y = 1"#);
}

#[test]
fn calls_and_paths_can_be_listed() {
    let source = r#"package("a").version = 1 or not (has(os.family) and x = 2 and package("b").status = "ok")"#;
    let expression = Expression::parse(source).unwrap();
    let calls: Vec<String> = expression.calls().map(|call| call.canonical()).collect();
    assert_eq!(calls, [r#"package("a")"#, r#"package("b")"#]);
    let paths: Vec<String> = expression.paths().map(ToString::to_string).collect();
    assert_eq!(paths, ["os.family", "x"]);
}

#[test]
fn a_fact_is_reached_under_its_own_name_whatever_it_is() {
    let name = |text: &str| Segment::Name(text.to_owned());
    for (segments, expected) in [
        (vec![name("os"), name("family")], "os.family"),
        (vec![name("name")], "fact.name"),
        (vec![name("fact")], "fact.fact"),
        (vec![name("odd name")], r#"fact."odd name""#),
        (vec![name("and"), Segment::Index(1)], "fact.and[1]"),
    ] {
        let path = Path::fact(segments).unwrap();
        assert_eq!(path.to_string(), expected);
        let expression = Expression::parse(&format!("{path} = 1")).unwrap();
        assert_eq!(expression.paths().collect::<Vec<_>>(), [&path]);
    }
    assert!(Path::fact(vec![]).is_err());
    assert!(Path::new(vec![name("not")]).is_err());
    assert!(Path::new(vec![name("fact")]).is_err());
    assert!(Path::new(vec![Segment::Index(0)]).is_err());
}

#[test]
fn expressions_join() {
    let parse = |text: &str| Expression::parse(text).unwrap();
    let joined = Expression::all_of([parse("a = 1 or b = 2"), parse("c = 3 and d = 4")]).unwrap();
    assert_eq!(joined.as_str(), "(a = 1 or b = 2) and c = 3 and d = 4");
    assert_eq!(Expression::all_of([]).unwrap(), Expression::always());
    assert_eq!(Expression::all_of([parse("a = 1")]).unwrap(), parse("a=1"));
    let long = parse(&format!("a = \"{}\"", "x".repeat(5_000)));
    assert!(Expression::all_of([long.clone(), long]).is_err());
}

#[test]
fn literals_and_operands_are_ordinary_values() {
    assert_eq!(Literal::from_word("12"), Literal::Number(Decimal::from(12)));
    assert_eq!(Literal::from_word("x"), Literal::text("x"));
    assert!(Decimal::parse("1.").is_none() && Decimal::parse("--1").is_none() && Decimal::parse("").is_none());
    let path = Path::new(vec![Segment::Name("a".to_owned())]).unwrap();
    assert_eq!(Operand::from(path).to_string(), "a");
}
