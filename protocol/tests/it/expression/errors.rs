//! Every error says where, what was expected and, where something is near, what to write.

use muster_protocol::expr::Expression;

/// `marked` is the source followed by a line with carets under what is wrong and the message.
#[track_caller]
fn check(source: &str, rendered: &str) {
    let error = Expression::parse(source).expect_err(source);
    assert_eq!(error.render(source), rendered, "\n{}\n", error.render(source));
    assert!(!error.message.ends_with('.'));
    assert!(error.length > 0 && error.column > 0);
    assert_eq!(error.code().code, "bad-target");
    assert!(!error.is_transient());
}

#[test]
fn operators_of_other_languages() {
    check("a = 1 && b = 2", "a = 1 && b = 2\n      ^^ expected `and` or `or`, not `&&`; did you mean `and`?");
    check("a = 1 || b = 2", "a = 1 || b = 2\n      ^^ expected `and` or `or`, not `||`; did you mean `or`?");
    check("a = 1, b = 2", "a = 1, b = 2\n     ^ expected `and` or `or`, not `,`; did you mean `and`?");
    check("name =~ /x/", "name =~ /x/\n     ^^ `=~` is not an operator; did you mean `~`?");
    check("a => 1", "a => 1\n  ^^ `=>` is not an operator; did you mean `>=`?");
    check("a <> 1", "a <> 1\n  ^^ `<>` is not an operator; did you mean `!=`?");
    check("a === 1", "a === 1\n  ^^^ `===` is not an operator; did you mean `=`?");
    check("a contains 1", "a contains 1\n  ^^^^^^^^ `contains` is not an operator; did you mean `=`?");
    check("a lik x", "a lik x\n  ^^^ `lik` is not an operator; did you mean `like`?");
    check("a LIKE x", "a LIKE x\n  ^^^^ `LIKE` is not an operator; did you mean `like`?");
    check("!a = 1", "!a = 1\n^ expected a condition; did you mean `not`?");
    check("NOT a = 1", "NOT a = 1\n^^^ `NOT` is not a word of the language; did you mean `not`?");
    check("a = 1 AND b = 2", "a = 1 AND b = 2\n      ^^^ expected `and` or `or`, not `AND`; did you mean `and`?");
    check("a = 1 adn b = 2", "a = 1 adn b = 2\n      ^^^ expected `and` or `or`, not `adn`; did you mean `and`?");
    check(
        "a frobs 1",
        "a frobs 1\n  ^^^^^ expected an operator after `a`, not `frobs`; such as `=`, `!=`, `<`, `~`, `like` or `in`",
    );
    check("a = b = c", "a = b = c\n      ^ expected `and` or `or`, not `=`; a condition has one operator");
}

#[test]
fn half_a_condition() {
    check("", "\n^ the expression is empty");
    check("web1", "web1\n^^^^ `web1` alone is not a condition; compare it, as in `web1 = true`, or ask `has(web1)`");
    check("a and b = 1", "a and b = 1\n^ `a` alone is not a condition; compare it, as in `a = true`, or ask `has(a)`");
    check("os.family =", "os.family =\n           ^ expected a value after `=`");
    check("a = 1 and", "a = 1 and\n         ^ expected a condition here");
    check("and a = 1", "and a = 1\n^^^ expected a condition before `and`");
    check(
        "a = and",
        "a = and\n    ^^^ expected a value after `=`, but `and` is a word of the language; as a value it is written `\"and\"`",
    );
    check(
        "\"Debian\" = os",
        "\"Debian\" = os\n^ a condition begins with the name of a fact; the value goes to the right; an unusual name is written `fact.\"name\"`",
    );
    check("5 < cpus", "5 < cpus\n^ a condition begins with the name of a fact; the value goes to the right");
    check("os. = 1", "os. = 1\n   ^ expected a name after the `.`");
    check(
        "a.0 = 1",
        "a.0 = 1\n  ^ expected a name after the `.`; a place in a list is written `[0]`, a name with a digit in front `.\"0\"`",
    );
    check("a[x] = 1", "a[x] = 1\n ^ expected the place in a list here; as in `disks[0]`");
    check("fact = 1", "fact = 1\n^^^^ `fact.` needs the name of a fact behind it");
    check("not.x = 1", "not.x = 1\n   ^ expected a condition, not `.`");
}

#[test]
fn brackets() {
    check("(a = 1", "(a = 1\n^ this `(` is never closed");
    check("a = 1)", "a = 1)\n     ^ this `)` closes nothing");
    check(
        "(a = 1 b = 2)",
        "(a = 1 b = 2)\n       ^ expected `and` or `or`, not `b`; a value with spaces is put into quotes",
    );
    check("()", "()\n ^ expected a condition, not `)`");
    check("a in b", "a in b\n     ^ expected a list after `in`; as in `dc in [ams1, fra2]`");
    check("a in (b)", "a in (b)\n     ^ expected a list after `in`; as in `dc in [ams1, fra2]`");
    check("a in []", "a in []\n     ^^ the list is empty");
    check("a in [b", "a in [b\n     ^ this `[` is never closed");
    check("a in [b c]", "a in [b c]\n        ^ expected `,` or `]` in the list");
    check("a = [b]", "a = [b]\n    ^ expected a value after `=`; a list goes with `in`");
    check("has os", "has os\n    ^ expected `(` after `has`; as in `has(os.family)`");
    check("has(os = 1)", "has(os = 1)\n       ^ expected `)` after the name; `has` only asks whether there is a value");
    check("package(\"x\"", "package(\"x\"\n           ^ expected `,` or `)` in the call of `package`");
}

#[test]
fn texts_and_patterns() {
    check("a = \"b", "a = \"b\n    ^^ the text is not closed; it needs a `\"` at its end");
    check("a = 'b", "a = 'b\n    ^^ the text is not closed; it needs a `'` at its end");
    check(
        r#"a ~ "\d""#,
        "a ~ \"\\d\"\n     ^^ `\\d` is not an escape; a backslash is written `\\\\`, or put the text into single quotes",
    );
    check(
        r#"a = "\u{110000}""#,
        "a = \"\\u{110000}\"\n     ^^^^^^^^^^ this is not a character; write `\\u{` hexadecimal digits `}`",
    );
    check(
        "name = web-*",
        "name = web-*\n       ^^^^^ `=` compares exactly, it knows no patterns; did you mean `like web-*`?",
    );
    check(
        "name ~ '('",
        "name ~ '('\n       ^^^ the regular expression is not valid: found open group without closing ')'",
    );
    check("name ~ /x", "name ~ /x\n       ^^ the regular expression is not closed; it needs a `/` at its end");
    check(
        "name ~ ^x",
        "name ~ ^x\n       ^ expected a value after `~`; a value with this character is put into quotes",
    );
}

#[test]
fn numbers() {
    check("a > true", "a > true\n    ^^^^ `>` needs a number, a version or a text; true and false have no order");
    check(
        "a > 1e5",
        "a > 1e5\n    ^^^ `1e5` is not how a number is written; write digits, with a point and digits for a fraction, or put it into quotes",
    );
    check(
        "a > .5",
        "a > .5\n    ^ expected a value after `>`; a number begins with a digit or `-`; anything else is put into quotes",
    );
}

#[test]
fn columns_count_characters() {
    let error = Expression::parse("a = \"äöü\" && b = 1").unwrap_err();
    assert_eq!((error.column, error.length), (11, 2));
    assert_eq!(error.to_string(), "column 11: expected `and` or `or`, not `&&`; did you mean `and`?");
}

#[test]
fn long_and_many_lined_sources_are_cut_to_the_place() {
    check("a = 1\nand b =\n", "and b =\n       ^ expected a value after `=`");
    check("a = 1\nand\tb ^ 2\nor c = 3", "and b ^ 2\n      ^ `^` is not an operator");
    check(
        "a = \"\u{202e}\" x",
        "a = \"?\" x\n        ^ expected `and` or `or`, not `x`; a value with spaces is put into quotes",
    );
    let long = format!("{} and b ^ 1 and {}", vec!["a = 1"; 30].join(" and "), vec!["c = 1"; 30].join(" and "));
    let rendered = Expression::parse(&long).unwrap_err().render(&long);
    let lines: Vec<&str> = rendered.lines().collect();
    assert!(lines[0].starts_with("...") && lines[0].ends_with("...") && lines[0].len() < 130, "{rendered}");
    assert_eq!(lines[0].as_bytes()[lines[1].find('^').unwrap()], b'^', "{rendered}");
}
