use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::flow_log::{CaptureWindow, TrafficType};
use crate::text::{Id, WholeNumber};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only deserialised")]
struct Root {
    path: String,
    window: Option<Spanned<CaptureWindow>>,
    #[serde(default)]
    capture: Table<Capture>,
    #[serde(default)]
    flow_log: Vec<Spanned<Table<Log>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only deserialised")]
struct Capture {
    priority: Option<WholeNumber<1, 65535>>,
    on: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only deserialised")]
struct Log {
    id: Id,
    traffic_type: Option<TrafficType>,
    fields: Option<Vec<Spanned<String>>>,
    destination: Option<Spanned<Table<Destination>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only deserialised")]
struct Destination {
    r#type: String,
}

fn error(text: &str) -> InputError {
    Document::new(text, "agent.toml")
        .parse::<Root>()
        .expect_err(text)
}

/// TOML, the key that the error must name, and the whole sentence.
const CASES: &[(&str, Option<&str>, &str)] = &[
    // Missing keys.
    (
        "",
        Some("path"),
        "agent.toml:1: `path` is missing: it must stand at the top of the file",
    ),
    (
        "\n[capture]\n",
        Some("path"),
        "agent.toml:1: `path` is missing: it must stand at the top of the file",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\n\n[[flow-log]]\n",
        Some("id"),
        "agent.toml:5: `id` is missing: `[[flow-log]]` needs it",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\ndestination = {}",
        Some("type"),
        "agent.toml:4: `type` is missing: `destination` needs it",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\n[flow-log.destination]\n",
        Some("type"),
        "agent.toml:4: `type` is missing: `[flow-log.destination]` needs it",
    ),
    // Unknown keys.
    (
        "path = 'x'\nwindw = '1m'",
        Some("windw"),
        "agent.toml:2: `windw` is not known here: allowed are path, window, capture and flow-log",
    ),
    (
        "path = 'x'\r\n[capture]\r\n\"prio\\n, expected `\" = 1",
        Some("prio\\n, expected `"),
        "agent.toml:3: `prio\\n, expected `` is not known here: allowed are priority and on",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\ndestination = {type = 'file',\n size = 1 }",
        Some("size"),
        "agent.toml:5: `size` is not known here: allowed is type",
    ),
    (
        "path = 'x'\n[capture.x]\ny = 1",
        Some("x"),
        "agent.toml:2: `x` is not known here: allowed are priority and on",
    ),
    // Wrong values.
    (
        "path = 'x'\nwindow = \"7m\"",
        Some("window"),
        "agent.toml:2: `window` is \"7m\": allowed are 1m, 5m and 10m",
    ),
    (
        "path = 'x'\nwindow = '', expected x'",
        Some("window"),
        "agent.toml:2: `window` is not TOML at column 12: ",
    ),
    (
        "path='x'\nwindow=', expected x'",
        Some("window"),
        "agent.toml:2: `window` is ', expected x': allowed are 1m, 5m and 10m",
    ),
    (
        "path = 'x'\nwindow = \"\"\"7\nm\"\"\"",
        Some("window"),
        "agent.toml:2: `window` is \"\"\"7 m\"\"\": allowed are 1m, 5m and 10m",
    ),
    (
        "path = 'x'\ncapture.priority = 65536",
        Some("priority"),
        "agent.toml:2: `priority` is 65536: allowed are whole numbers from 1 to 65535",
    ),
    (
        "path = 'x'\n[capture]\npriority = -1",
        Some("priority"),
        "agent.toml:3: `priority` is -1: allowed are whole numbers from 1 to 65535",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\n[[flow-log]]\nid = 'b'\ntraffic-type = 'all'",
        Some("traffic-type"),
        "agent.toml:6: `traffic-type` is 'all': allowed are All, Allow and Drop",
    ),
    (
        "path = 'x'\nwindow = '0123456789012345678901234567890123456789012345678901234567890123456789'",
        Some("window"),
        "agent.toml:2: `window` is '01234567890123456789012345678901234567890123456789012345678…: allowed are 1m, 5m and 10m",
    ),
    // Wrong types.
    (
        "path = 1",
        Some("path"),
        "agent.toml:1: `path` is 1: allowed is text in quotes",
    ),
    (
        "\u{feff}path = [1]",
        Some("path"),
        "agent.toml:1: `path` is [1]: allowed is text in quotes",
    ),
    (
        "[path]\nx = 1",
        Some("path"),
        "agent.toml:1: `path` is a table: allowed is text in quotes",
    ),
    (
        "[[path]]\nx = 1",
        Some("path"),
        "agent.toml:1: `path` is a list of tables: allowed is text in quotes",
    ),
    (
        "path.x = 1",
        Some("path"),
        "agent.toml:1: `path` is a table: allowed is text in quotes",
    ),
    (
        "path = 'x'\nwindow = 7",
        Some("window"),
        "agent.toml:2: `window` is 7: allowed are 1m, 5m and 10m",
    ),
    (
        "path = 'x'\nwindow = { m = 7 }",
        Some("window"),
        "agent.toml:2: `window` is { m = 7 }: allowed are 1m, 5m and 10m",
    ),
    (
        "path = 'x'\n[capture]\non = 'yes'",
        Some("on"),
        "agent.toml:3: `on` is 'yes': allowed are true and false",
    ),
    (
        "path = 'x'\n[capture]\npriority = 1.5",
        Some("priority"),
        "agent.toml:3: `priority` is 1.5: allowed are whole numbers from 1 to 65535",
    ),
    (
        "path = 'x'\n[capture]\npriority = 99999999999999999999",
        Some("priority"),
        "agent.toml:3: `priority` is 99999999999999999999: allowed are whole numbers from 1 to 65535",
    ),
    (
        "path = 'x'\ncapture = 3",
        Some("capture"),
        "agent.toml:2: `capture` is 3: allowed is a table",
    ),
    (
        "path = 'x'\ncapture = [3, true]",
        Some("capture"),
        "agent.toml:2: `capture` is [3, true]: allowed is a table",
    ),
    (
        "path = 'x'\n[[capture]]\non = true",
        Some("capture"),
        "agent.toml:2: `capture` is a list of tables: allowed is a table",
    ),
    (
        "path = 'x'\nflow-log = 3",
        Some("flow-log"),
        "agent.toml:2: `flow-log` is 3: allowed is a list",
    ),
    (
        "path = 'x'\n[flow-log]\nid = 'a'",
        Some("flow-log"),
        "agent.toml:2: `flow-log` is a table: allowed is a list",
    ),
    (
        "path = 'x'\nflow-log = [3]",
        Some("flow-log"),
        "agent.toml:2: `flow-log` is 3: allowed is a table",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\nfields = ['b',\n 3]",
        Some("fields"),
        "agent.toml:5: `fields` is 3: allowed is text in quotes",
    ),
    (
        "path = 'x'\n[[flow-log]]\nid = 'a'\ndestination = 'stdout'",
        Some("destination"),
        "agent.toml:4: `destination` is 'stdout': allowed is a table",
    ),
    // Not TOML.
    (
        "path = 'x'\npath = 'y'",
        Some("path"),
        "agent.toml:2: `path` is given twice: allowed is once",
    ),
    (
        "path = 'x'\n[capture]\n\n[capture]",
        Some("capture"),
        "agent.toml:4: `capture` is given twice: allowed is once",
    ),
    (
        "path = x",
        Some("path"),
        "agent.toml:1: `path` is not TOML at column 8: string values must be quoted",
    ),
    (
        "path = 'x'\nwindow =\n",
        Some("window"),
        "agent.toml:2: `window` is not TOML at column 9: ",
    ),
    (
        "path = 'x\nwindow = 3",
        Some("path"),
        "agent.toml:1: `path` is not TOML at column ",
    ),
    (
        "path = 'x'\n[[flow-log]\n",
        None,
        "agent.toml:2: this is not TOML at column ",
    ),
    (
        "path = 'x'\n\n\nwindow",
        None,
        "agent.toml:4: this is not TOML at column 7: ",
    ),
    (
        "path = 'x'\nwindow = '1m' [capture]",
        Some("window"),
        "agent.toml:2: `window` is not TOML at column ",
    ),
];

#[test]
fn errors_name_line_key_and_what_is_allowed() {
    for &(text, key, sentence) in CASES {
        let error = error(text);
        // What the TOML parser says further is its own affair.
        let said = error.to_string();
        assert!(
            said == sentence || said.contains("is not TOML") && said.starts_with(sentence),
            "{text}\n{said}\n{sentence}"
        );
        assert_eq!(error.key(), key, "{text}");
    }
}

#[test]
fn errors_found_later_read_alike() {
    let text =
        "path = 'x'\n[[flow-log]]\nid = 'a'\nfields = ['b', \"c\"]\n[[flow-log]]\nid = 'b'\n";
    let document = Document::new(text, "agent.toml");
    let root: Root = document.parse().unwrap();
    let fields = root.flow_log[0].get_ref().0.fields.as_ref().unwrap();
    let error = document.refuse(&fields[1].span(), "allowed are x and y");
    assert_eq!(
        error.to_string(),
        "agent.toml:4: `fields` is \"c\": allowed are x and y"
    );
    assert_eq!(
        (error.file(), error.line(), error.key()),
        ("agent.toml", 4, Some("fields"))
    );
    let error = document.refuse(&root.flow_log[1].span(), "allowed is one");
    assert_eq!(
        error.to_string(),
        "agent.toml:5: `flow-log` is a list of tables: allowed is one"
    );
    let error = document.missing(&root.flow_log[1].span(), "path", "a file needs it");
    assert_eq!(
        error.to_string(),
        "agent.toml:5: `path` is missing: a file needs it"
    );
}

#[test]
fn a_file_name_cannot_break_the_line() {
    let error = Document::new("", "a\nb.toml").parse::<Root>().unwrap_err();
    assert!(error.to_string().starts_with("a\\nb.toml:1: "), "{error}");
}

fn is_one_line_with_a_place(text: &str) -> bool {
    Document::new(text, "agent.toml")
        .parse::<Root>()
        .err()
        .is_none_or(|error| {
            let lines = text.split('\n').count();
            let said = error.to_string();
            !said.chars().any(char::is_control) && (1..=lines).contains(&error.line())
        })
}

proptest! {
    #[test]
    fn any_text_gives_one_line(text in any::<String>()) {
        prop_assert!(is_one_line_with_a_place(&text));
    }

    /// Nearly right TOML, to come further than random characters do.
    #[test]
    fn any_damage_gives_one_line(at in 0..90_usize, length in 0..10_usize, with in "[\\[\\]{}=,.'\"\n#\\\\a1 \u{7f}é]{0,3}") {
        let good = "path = 'x'\nwindow = \"1m\"\ncapture = { on = true }\n[[flow-log]]\nid = 'a'\nfields = ['b']\n";
        let at = at.min(good.len());
        let end = (at + length).min(good.len());
        let text = format!("{}{with}{}", &good[..at], &good[end..]);
        prop_assert!(is_one_line_with_a_place(&text), "{}", text);
    }
}
