//! A search by DataFusion finds what the naive evaluator finds, over random logs.
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixture::{Fixture, batch};
use crate::log_service::query::search::naive::{NaiveLog, finds};
use crate::log_service::query::search::{Bound, Comparison, Condition, Number, Pattern, Search};
use crate::log_service::types::Log;

fn one_of(values: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(values).prop_map(str::to_owned).boxed()
}

/// Values that logs and searches have in common, so that many searches find something.
fn value_of(key: &str) -> BoxedStrategy<String> {
    match key {
        "srcport" | "dstport" => one_of(&["0", "22", "80", "443", "1024", "65535", "080", "http"]),
        "packets" | "bytes" => one_of(&[
            "0",
            "1",
            "2",
            "10",
            "9007199254740993",
            "9223372036854775807",
            "-1",
            "9223372036854775808",
        ]),
        "srcaddr" | "dstaddr" => one_of(&[
            "10.0.0.1",
            "10.0.1.1",
            "192.168.0.1",
            "8.8.8.8",
            "fd00::1",
            "fd00::2",
            "::ffff:10.0.0.1",
            "host",
        ]),
        "action" => one_of(&["ACCEPT", "REJECT", "login"]),
        "direction" => one_of(&["in", "out"]),
        "eni-id" => one_of(&["eni-1", "eni-2", "eni-11", "eni_1", "eni%1", "ENI-1"]),
        "message" => one_of(&[
            "hello world",
            "Hello, World!",
            "user=alice",
            "a_b",
            "",
            "1.5",
            "22",
            "hello",
        ]),
        _ => one_of(&["0.5", "-1", "22", "1e3", "NaN", "none", "9007199254740993"]),
    }
}

const KEYS: [&str; 9] = [
    "srcport",
    "packets",
    "bytes",
    "srcaddr",
    "action",
    "direction",
    "eni-id",
    "message",
    "latency",
];

fn log() -> impl Strategy<Value = (u32, Vec<(String, String)>)> {
    let fields: Vec<_> = KEYS
        .iter()
        .map(|key| {
            prop::option::weighted(0.7, value_of(key))
                .prop_map(|value| value.map(|value| ((*key).to_owned(), value)))
        })
        .collect();
    (0_u32..10, fields).prop_map(|(time, fields)| (time, fields.into_iter().flatten().collect()))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => Just("eni_id".to_owned()), 1 => Just("absent".to_owned())]
}

fn pattern(key: &str) -> impl Strategy<Value = Pattern> + use<> {
    let exact = value_of(key).prop_map(Pattern::Exact);
    let block = one_of(&[
        "10.0.0.0/8",
        "10.0.0.0/24",
        "fd00::/64",
        "::/0",
        "accept",
        "Reject",
        "IN",
        "world",
        "HELLO",
        "fd00:0::1",
    ]);
    let wildcard = one_of(&[
        "e*",
        "eni-?",
        "eni_*",
        "eni%*",
        "1*",
        "h?llo",
        "10.0.*",
        "A*T",
        "2?",
        "w*d",
        "hello*world",
    ]);
    prop_oneof![4 => exact, 1 => block.prop_map(Pattern::Exact), 2 => wildcard.prop_map(Pattern::Wildcard)]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        prop::sample::select(
            &[
                0,
                1,
                2,
                22,
                23,
                443,
                -1,
                9_007_199_254_740_992,
                i64::MAX,
                i64::MIN
            ][..]
        )
        .prop_map(Number::Integer),
        prop::sample::select(
            &[
                0.5,
                1.0,
                22.5,
                -0.5,
                1e18,
                1e300,
                -1e300,
                9_007_199_254_740_992.0,
                9_223_372_036_854_775_808.0,
                -9_223_372_036_854_775_808.0
            ][..]
        )
        .prop_map(Number::Decimal),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let numeric = || {
        prop::sample::select(
            &[
                "srcport", "packets", "bytes", "latency", "message", "__time__",
            ][..],
        )
        .prop_map(str::to_owned)
    };
    let comparison = prop::sample::select(
        &[
            Comparison::Greater,
            Comparison::GreaterOrEqual,
            Comparison::Less,
            Comparison::LessOrEqual,
            Comparison::Equal,
        ][..],
    );
    let bound =
        || (number(), any::<bool>()).prop_map(|(number, included)| Bound { number, included });
    prop_oneof![
        3 => key().prop_flat_map(|key| pattern(&key).prop_map(move |pattern| Condition::Field(key.clone(), pattern))),
        2 => key().prop_flat_map(|key| pattern(&key)).prop_map(Condition::Anywhere),
        1 => key().prop_map(Condition::Present),
        2 => (numeric(), comparison, number()).prop_map(|(key, comparison, number)| Condition::Compare(key, comparison, number)),
        1 => (numeric(), bound(), bound()).prop_map(|(key, low, high)| Condition::Between(key, low, high)),
    ]
}

fn search() -> impl Strategy<Value = Search> {
    condition()
        .prop_map(Search::Where)
        .prop_recursive(3, 10, 3, |inner| {
            prop_oneof![
                inner
                    .clone()
                    .prop_map(|search| Search::Not(Box::new(search))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Search::All),
                prop::collection::vec(inner, 2..4).prop_map(Search::Any),
            ]
        })
}

proptest! {
    // Each case runs several searches: starting one is what takes time.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_search_finds_what_it_means(
        logs in prop::collection::vec(log(), 1..200),
        searches in prop::collection::vec(search(), 12),
        in_file in 0_usize..200,
    ) {
        let sent: Vec<Log> = logs.iter().map(|(time, contents)| Log { time: *time, time_ns: None, contents: contents.clone() }).collect();
        let naive: Vec<NaiveLog> = logs.into_iter().map(|(time, contents)| {
            NaiveLog { time, topic: "flow_log".to_owned(), source: "host-1".to_owned(), contents }
        }).collect();
        let fixture = Fixture::new(&[batch(sent)], in_file);
        for search in searches {
            let expected: BTreeSet<usize> = (0..naive.len()).filter(|index| finds(&search, &naive[*index])).collect();
            let found: BTreeSet<usize> = fixture.table(&format!("{search} | SELECT __seq__")).iter().map(|number| number.parse().unwrap()).collect();
            prop_assert_eq!(found, expected, "{}", search);
        }
    }
}
