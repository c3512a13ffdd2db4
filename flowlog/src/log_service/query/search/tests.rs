use proptest::prelude::*;

use super::parse::Parsed;
use super::*;
use crate::log_service::query::QueryError;

fn search(query: &str) -> Search {
    parse(query)
        .unwrap_or_else(|error| panic!("{query}: {error}"))
        .search
}

fn field(key: &str, value: &str) -> Search {
    Search::Where(Condition::Field(
        key.to_owned(),
        Pattern::Exact(value.to_owned()),
    ))
}

fn word(value: &str) -> Search {
    Search::Where(Condition::Anywhere(Pattern::Exact(value.to_owned())))
}

fn compare(key: &str, comparison: Comparison, number: i64) -> Search {
    Search::Where(Condition::Compare(
        key.to_owned(),
        comparison,
        Number::Integer(number),
    ))
}

fn between(key: &str, low: (i64, bool), high: (i64, bool)) -> Search {
    let bound = |(number, included)| Bound {
        number: Number::Integer(number),
        included,
    };
    Search::Where(Condition::Between(key.to_owned(), bound(low), bound(high)))
}

#[test]
fn the_reference_s_queries() {
    let cases = [
        ("", Search::Everything),
        ("  ", Search::Everything),
        ("*", Search::Everything),
        (
            "action:REJECT and dstport:22",
            Search::All(vec![field("action", "REJECT"), field("dstport", "22")]),
        ),
        (
            "action: REJECT dstport :22",
            Search::All(vec![field("action", "REJECT"), field("dstport", "22")]),
        ),
        (
            "a or b and not c",
            Search::Any(vec![
                word("a"),
                Search::All(vec![word("b"), Search::Not(Box::new(word("c")))]),
            ]),
        ),
        (
            "(a OR b) AND c",
            Search::All(vec![Search::Any(vec![word("a"), word("b")]), word("c")]),
        ),
        (
            "a not b",
            Search::All(vec![word("a"), Search::Not(Box::new(word("b")))]),
        ),
        ("direction:in", field("direction", "in")),
        ("packets > 10", compare("packets", Comparison::Greater, 10)),
        (
            "packets>=10",
            compare("packets", Comparison::GreaterOrEqual, 10),
        ),
        ("packets <-1", compare("packets", Comparison::Less, -1)),
        (
            "packets <= 10",
            compare("packets", Comparison::LessOrEqual, 10),
        ),
        (
            "eni-id:a dstport=22",
            Search::All(vec![
                field("eni-id", "a"),
                compare("dstport", Comparison::Equal, 22),
            ]),
        ),
        (
            "dstport in [1 1024]",
            between("dstport", (1, true), (1024, true)),
        ),
        (
            "dstport IN (1 1024]",
            between("dstport", (1, false), (1024, true)),
        ),
        (
            "dstport in [ 1 1024 )",
            between("dstport", (1, true), (1024, false)),
        ),
        (
            "latency > 1.5",
            Search::Where(Condition::Compare(
                "latency".to_owned(),
                Comparison::Greater,
                Number::Decimal(1.5),
            )),
        ),
        ("__topic__: flow_log", field("__topic__", "flow_log")),
        ("srcaddr: fd00::1", field("srcaddr", "fd00::1")),
        ("srcaddr: ::1", field("srcaddr", "::1")),
        ("srcaddr: 10.0.0.0/8", field("srcaddr", "10.0.0.0/8")),
        ("\"and\"", word("and")),
        (
            "\"a key\": \"a \\\"value\\\" \\\\ *\"",
            field("a key", "a \"value\" \\ *"),
        ),
        (
            "eni-id: *",
            Search::Where(Condition::Present("eni-id".to_owned())),
        ),
        (
            "eni-id:eni-1*",
            Search::Where(Condition::Field(
                "eni-id".to_owned(),
                Pattern::Wildcard("eni-1*".to_owned()),
            )),
        ),
        (
            "e?i*",
            Search::Where(Condition::Anywhere(Pattern::Wildcard("e?i*".to_owned()))),
        ),
        (
            "index android",
            Search::All(vec![word("index"), word("android")]),
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(search(query), expected, "{query}");
    }
}

#[test]
fn the_sql_begins_after_the_first_bar_that_is_not_quoted() {
    for (query, sql) in [
        ("* | SELECT 1", Some(" SELECT 1")),
        ("| SELECT 1", Some(" SELECT 1")),
        ("\"a|b\" or c|SELECT '|'", Some("SELECT '|'")),
        ("a", None),
        ("a |", Some("")),
    ] {
        let parsed = parse(query).unwrap();
        assert_eq!(parsed.sql.map(|at| &query[at..]), sql, "{query}");
    }
}

#[test]
fn errors_have_the_position_and_what_was_expected() {
    for (query, error) in [
        (
            "action:",
            "character 8: expected a value, which does not begin with * or ?; found the end of the query",
        ),
        (
            "action: and b",
            "character 9: expected a value, which does not begin with * or ?; found `and`",
        ),
        (
            "action:*CEPT",
            "character 8: expected a value, which does not begin with * or ?; found `*CEPT`",
        ),
        (
            "a and",
            "character 6: expected a word, a key, not or (; found the end of the query",
        ),
        (
            "a or or b",
            "character 6: expected a word, a key, not or (; found `or`",
        ),
        (
            "(a or b",
            "character 8: expected and, or or ); found the end of the query",
        ),
        (
            "a)",
            "character 2: expected and, or, | or the end of the query; found `)`",
        ),
        (
            "ä \"b",
            "character 5: expected the closing quote; found the end of the query",
        ),
        (
            "\"a\\b\"",
            "character 4: expected \" or \\ after \\; found `b\"`",
        ),
        (
            "packets > many",
            "character 11: expected a number, from -2^63 to 2^63 - 1; found `many`",
        ),
        (
            "packets > 9223372036854775808",
            "character 11: expected a number, from -2^63 to 2^63 - 1; found `9223372036854775808`",
        ),
        (
            "action > 1",
            "character 8: expected : and a value, for the field is no number; found `>`",
        ),
        ("dstport in 1 2", "character 12: expected [ or (; found `1`"),
        (
            "dstport in [1 2",
            "character 16: expected ] or ); found the end of the query",
        ),
        (
            "e*: a",
            "character 3: expected a key without * and ?; found `:`",
        ),
        (
            "fd00::1",
            "character 5: expected one colon; an address with :: is to be in quotes; found `::1`",
        ),
        (
            "*a",
            "character 2: expected a space: a word does not begin with *; found `a`",
        ),
        (
            "?a",
            "character 1: expected a word, a key, not or (; found `?a`",
        ),
        (
            "a, b",
            "character 2: expected and, or, | or the end of the query; found `,`",
        ),
    ] {
        let found = parse(query).expect_err(query);
        assert!(matches!(found, QueryError::Wrong(_)), "{query}");
        assert_eq!(found.to_string(), error, "{query}");
    }
}

#[test]
fn limits() {
    let conditions = |count: usize| vec!["a"; count].join(" ");
    assert!(parse(&conditions(MAX_CONDITIONS)).is_ok());
    assert_eq!(
        parse(&conditions(MAX_CONDITIONS + 1))
            .unwrap_err()
            .to_string(),
        "the search has 31 conditions: allowed are 30"
    );
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(
        parse(&nested(MAX_DEPTH + 1))
            .unwrap_err()
            .to_string()
            .contains("at most 30 parentheses")
    );
    assert!(parse(&"not ".repeat(10_000)).is_err());
    let long = |octets: usize| format!("x{}", " ".repeat(octets - 1));
    assert!(parse(&long(MAX_QUERY_BYTES)).is_ok());
    assert!(parse(&long(MAX_QUERY_BYTES + 1)).is_err());
    for search in ["", "key: ", "not not key: ", "a and ", "a or key: "] {
        let with = |octets: usize| format!("{search}{}", "x".repeat(octets));
        assert!(parse(&with(MAX_VALUE_BYTES)).is_ok());
        assert!(parse(&with(MAX_VALUE_BYTES + 1)).is_err());
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9._-]{1,6}", "(?i:and|or|not|in)", any::<String>()]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::Integer),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(Number::Decimal),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        text().prop_map(Pattern::Exact),
        "[a-z0-9./-][a-z0-9]{0,3}[*?][a-z*?]{0,3}".prop_map(Pattern::Wildcard),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let numeric = || {
        prop_oneof![
            Just("dstport".to_owned()),
            Just("bytes".to_owned()),
            "x[ :a-z]{0,5}"
        ]
    };
    let comparison = prop_oneof![
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual),
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Equal),
    ];
    let bound =
        || (number(), any::<bool>()).prop_map(|(number, included)| Bound { number, included });
    prop_oneof![
        pattern().prop_map(Condition::Anywhere),
        (text(), pattern()).prop_map(|(key, pattern)| Condition::Field(key, pattern)),
        text().prop_map(Condition::Present),
        (numeric(), comparison, number())
            .prop_map(|(key, comparison, number)| Condition::Compare(key, comparison, number)),
        (numeric(), bound(), bound())
            .prop_map(|(key, low, high)| Condition::Between(key, low, high)),
    ]
}

fn searches() -> impl Strategy<Value = Search> {
    let leaf = prop_oneof![1 => Just(Search::Everything), 9 => condition().prop_map(Search::Where)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|search| Search::Not(Box::new(search))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Search::All),
            prop::collection::vec(inner, 2..4).prop_map(Search::Any),
        ]
    })
    .prop_filter("within the limit", |search| {
        search.conditions() <= MAX_CONDITIONS
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(search in searches()) {
        let written = search.to_string();
        prop_assume!(written.len() <= MAX_QUERY_BYTES);
        let parsed = parse(&written);
        prop_assert!(parsed.is_ok(), "{}: {}", written, parsed.unwrap_err());
        prop_assert_eq!(parsed.unwrap(), Parsed { search, sql: None }, "{}", written);
    }

    #[test]
    fn any_text_is_parsed_or_refused_at_a_place_in_it(query in "(?s)(and|or|not|in|[ ()\"\\\\:*?<>=\\[\\]|a1.-]|.){0,40}") {
        match parse(&query) {
            Ok(parsed) => prop_assert_eq!(parse(&parsed.search.to_string()).unwrap().search, parsed.search),
            Err(QueryError::Wrong(wrong)) => {
                prop_assert!(wrong.position.is_some_and(|position| (1..=query.chars().count() + 1).contains(&position)), "{wrong:?}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn words_are_matched_as_defined(text in "[aB ,.]{0,8}", exact in "[Ab ,]{0,4}", glob in "[ab][ab*?]{0,4}") {
        for pattern in [Pattern::Exact(exact.clone()), Pattern::Wildcard(glob.clone())] {
            let log = naive::NaiveLog { time: 0, topic: String::new(), source: String::new(), contents: vec![("k".to_owned(), text.clone())] };
            let expected = naive::finds(&Search::Where(Condition::Field("k".to_owned(), pattern.clone())), &log);
            prop_assert_eq!(word::Matcher::new(&pattern).matches(&text), expected, "{:?} in {:?}", pattern, text);
        }
    }
}

#[test]
fn a_hostile_pattern_ends() {
    let pattern = Pattern::Wildcard(format!("a{}b", "*a".repeat(40)));
    assert!(!word::Matcher::new(&pattern).matches(&"a".repeat(20_000)));
}
