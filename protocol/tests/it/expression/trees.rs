//! Laws over random trees and random text.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::expr::{
    Call, Comparison, Decimal, Expression, Glob, HostScope, Literal, Node, Operand, Path, Pattern, Segment,
};
use muster_protocol::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX, EXPRESSION_PATTERNS_MAX, PATH_SEGMENTS_MAX,
};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<bool>().prop_map(Literal::Boolean),
        any::<i64>().prop_map(|number| Literal::Number(Decimal::from(number))),
        "-?[0-9]{1,4}(\\.[0-9]{1,3})?".prop_map(|text| Literal::Number(Decimal::parse(&text).unwrap())),
        "\\PC{0,8}".prop_map(Literal::Text),
        any::<String>().prop_map(|text| Literal::Text(text.chars().take(8).collect())),
        "(true|not|and|12|1\\.2\\.3|web-[*])".prop_map(Literal::Text),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    prop_oneof![
        4 => "[a-z][a-z0-9_-]{0,4}".prop_map(Segment::Name),
        1 => "\\PC{0,4}".prop_map(Segment::Name),
        1 => any::<u32>().prop_map(Segment::Index),
    ]
}

fn operand() -> impl Strategy<Value = Operand> {
    let fields = || prop::collection::vec(segment(), 0..4);
    prop_oneof![
        3 => ("[a-z_][a-z0-9_-]{0,6}|\\PC{1,3}", fields()).prop_map(|(root, rest)| {
            let segments = std::iter::once(Segment::Name(root)).chain(rest).collect();
            Operand::Path(Path::fact(segments).unwrap())
        }),
        1 => ("q[a-z0-9_]{0,6}", prop::collection::vec(literal(), 0..3), fields()).prop_map(|(function, arguments, fields)| {
            Operand::Call { call: Call::new(function, arguments).unwrap(), fields }
        }),
    ]
}

fn ordered() -> impl Strategy<Value = Literal> {
    literal().prop_filter("booleans have no order", |literal| !matches!(literal, Literal::Boolean(_)))
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let literals = || prop::collection::vec(literal(), 1..4);
    let pattern =
        || "[a-z^$.\"\\\\d/ ]{0,6}".prop_filter_map("not a regular expression", |text| Pattern::new(text).ok());
    prop_oneof![
        literal().prop_map(Comparison::Equal),
        literal().prop_map(Comparison::NotEqual),
        ordered().prop_map(Comparison::Less),
        ordered().prop_map(Comparison::LessOrEqual),
        ordered().prop_map(Comparison::Greater),
        ordered().prop_map(Comparison::GreaterOrEqual),
        pattern().prop_map(Comparison::Matches),
        pattern().prop_map(Comparison::NotMatches),
        "\\PC{0,6}".prop_map(|text| Comparison::Like(Glob::new(text))),
        "\\PC{0,6}".prop_map(|text| Comparison::NotLike(Glob::new(text))),
        literals().prop_map(Comparison::In),
        literals().prop_map(Comparison::NotIn),
    ]
}

fn tree() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Node::Constant),
        1 => operand().prop_map(Node::Has),
        6 => (operand(), comparison()).prop_map(|(operand, comparison)| Node::compare(operand, comparison)),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::and),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::or),
            inner.prop_map(Node::negated),
        ]
    })
}

fn facts() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        "[0-9a-c.~:-]{0,6}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    });
    prop::collection::btree_map("[a-c]", value, 0..4).prop_map(|map| map.into_iter().collect())
}

/// Words and signs of the language in any order: nearer to the grammar than random characters.
fn soup() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "and", "or", "not", "(", ")", "[", "]", "in", "like", "has", "has(", "=", "==", "!=", "<", "~", "!~", "a",
        "a.b", "a.", "fact", "\"x", "\"x\"", "'", "/x/", "5", "5.", "-", "true", ",", "f(", "f(1)", "*", "\\", "\u{0}",
        "ä", "\n", "&&", "!", ".\"q\"", "[0]",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

/// Parses whatever it is: an error has to point into the text, an expression to read back.
fn check_total(source: &str) -> Result<(), TestCaseError> {
    match Expression::parse(source) {
        Err(error) => {
            prop_assert!(error.column >= 1 && error.length >= 1);
            prop_assert!(error.column + error.length <= source.chars().count() + 2, "{error:?} in {source:?}");
            prop_assert!(error.render(source).lines().count() == 2, "{}", error.render(source));
        }
        Ok(expression) => {
            let again = Expression::parse(expression.as_str());
            prop_assert_eq!(again.as_ref(), Ok(&expression));
            prop_assert_eq!(again.unwrap().to_string(), expression.to_string());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_tree_prints_as_text_that_parses_to_it(tree in tree()) {
        let expression = Expression::from_node(tree.clone());
        prop_assert!(expression.is_ok(), "{}\n{}", tree, expression.unwrap_err());
        let expression = expression.unwrap();
        prop_assert_eq!(expression.root(), &tree);
        prop_assert_eq!(&Expression::parse(&tree.to_string()).unwrap(), &expression);
    }

    #[test]
    fn any_text_ends_in_an_expression_or_an_error(source in "\\PC{0,64}") {
        check_total(&source)?;
    }

    #[test]
    fn any_characters_end_in_an_expression_or_an_error(source in any::<String>()) {
        check_total(&source)?;
    }

    #[test]
    fn any_words_end_in_an_expression_or_an_error(source in soup()) {
        check_total(&source)?;
    }

    #[test]
    fn a_broken_expression_ends_in_an_error(tree in tree(), cut in any::<prop::sample::Index>(), extra in soup()) {
        let text = tree.to_string();
        let cut = cut.index(text.chars().count() + 1);
        let start: String = text.chars().take(cut).collect();
        check_total(&start)?;
        check_total(&format!("{start} {extra}"))?;
    }

    #[test]
    fn negated_operators_are_negations(
        path in "[a-c](\\.[a-c]){0,2}", facts in facts(), text in "[0-9a-c.]{1,3}", number in -9i64..9,
    ) {
        let (classes, plugins, collectives, calls) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let name = "h".parse().unwrap();
        let scope = HostScope {
            name: &name, facts: &facts, classes: &classes, plugins: &plugins, collectives: &collectives, calls: &calls,
        };
        let truth = |source: String| Expression::parse(&source).unwrap().evaluate(&scope);
        for literal in [format!("{text:?}"), number.to_string(), "true".to_owned()] {
            prop_assert_eq!(truth(format!("{path} != {literal}")), !truth(format!("{path} = {literal}")));
            prop_assert_eq!(truth(format!("{path} not in [{literal}]")), !truth(format!("{path} in [{literal}]")));
            prop_assert_eq!(truth(format!("{path} in [{literal}]")), truth(format!("{path} = {literal}")));
            prop_assert_eq!(truth(format!("{path} not like {literal}")), !truth(format!("{path} like {literal}")));
            prop_assert_eq!(truth(format!("{path} !~ {literal}")), !truth(format!("{path} ~ {literal}")));
        }
    }

    #[test]
    fn de_morgan_holds(left in tree(), right in tree(), facts in facts()) {
        let (classes, plugins, collectives, calls) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let name = "h".parse().unwrap();
        let scope = HostScope {
            name: &name, facts: &facts, classes: &classes, plugins: &plugins, collectives: &collectives, calls: &calls,
        };
        let truth = |node: Node| Expression::from_node(node).unwrap().evaluate(&scope);
        let both = Node::negated(Node::and([left.clone(), right.clone()]));
        let either = Node::or([Node::negated(left), Node::negated(right)]);
        prop_assert_eq!(truth(both), truth(either));
    }
}

#[track_caller]
fn refused(source: &str, expected: &str) {
    let error = Expression::parse(source).expect_err("over the limit");
    assert_eq!(error.message, expected);
}

#[test]
fn depth_is_bounded_before_the_stack_is() {
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expression::parse(&nested(EXPRESSION_DEPTH_MAX)).is_ok());
    refused(&nested(EXPRESSION_DEPTH_MAX + 1), "the expression nests deeper than 64 levels");
    refused(&"(".repeat(EXPRESSION_BYTES_MAX), "the expression nests deeper than 64 levels");
    refused(&"not ".repeat(2_000), "the expression nests deeper than 64 levels");
    refused(&"not(".repeat(2_000), "the expression nests deeper than 64 levels");
    let mixed = format!("{}a = 1{}", "not (".repeat(32), ")".repeat(32));
    assert!(Expression::parse(&mixed).is_ok());
    refused(&format!("not {mixed}"), "the expression nests deeper than 64 levels");
}

#[test]
fn size_is_bounded() {
    refused(&" ".repeat(EXPRESSION_BYTES_MAX + 1), "the expression has 8193 bytes; at most 8192 are allowed");
    let many = vec!["a=1"; EXPRESSION_NODES_MAX + 1].join(" or ");
    assert_eq!(many.len(), 7_171);
    refused(&many, "the expression has more than 1024 parts");
    let list = vec!["1"; EXPRESSION_NODES_MAX + 1].join(",");
    refused(&format!("a in [{list}]"), "the expression has more than 1024 parts");
    let grows = format!("a in [{}]", vec!["bcdefg"; 1_000].join(","));
    refused(&grows, "the expression has 10005 bytes in its canonical form; at most 8192 are allowed");
    let patterns = vec!["a~b"; EXPRESSION_PATTERNS_MAX + 1].join(" or ");
    refused(&patterns, "the expression has more than 32 patterns");
    let path = vec!["a"; PATH_SEGMENTS_MAX + 1].join(".");
    refused(&format!("{path} = 1"), "the path has more than 32 segments");
    assert!(Expression::parse("a ~ '(a{1000}){1000}'").is_err());
}

#[test]
fn a_tree_out_of_form_is_refused() {
    let leaf = || Node::Constant(true);
    for tree in [
        Node::And(vec![leaf()]),
        Node::Or(vec![]),
        Node::And(vec![Node::And(vec![leaf(), leaf()]), leaf()]),
        Node::compare(Path::fact(vec![Segment::Name("a".into())]).unwrap(), Comparison::Less(Literal::Boolean(true))),
        Node::compare(Path::fact(vec![Segment::Name("a".into())]).unwrap(), Comparison::In(vec![])),
    ] {
        assert!(Expression::from_node(tree.clone()).is_err(), "{tree:?}");
    }
}
