//! What the agent refuses at its start, and how it says so.
use std::path::Path;

use flowlog_tests::{
    agent::{AgentPlan, AgentProcess, Direction, Outcome, conserved},
    lab::skip_unless_root,
};

use crate::{
    AGENT,
    wire::{Wire, long_window, start, stop},
};

/// The exit code of a configuration or inventory that is to be mended: `EX_USAGE` of sysexits.h.
const EXIT_CONFIGURATION: i32 = 64;

/// Asserts that the agent refused to start: with this code, nothing on standard output, and this one line on standard error.
#[track_caller]
fn assert_refused(outcome: &Outcome, code: i32, line: &str) {
    assert_eq!(outcome.stderr, format!("flowlog-agent: {line}"));
    assert_eq!(outcome.code(), Some(code));
    assert_eq!(outcome.lines, [""; 0]);
    assert!(outcome.records.is_empty());
}

/// Starts an agent on files that it has to refuse; `spoil` writes them.
fn refused(spoil: impl FnOnce(&AgentProcess)) -> (AgentProcess, Outcome) {
    // The first start, on a configuration that is well, is stopped before it has done anything worth mentioning.
    let mut agent = AgentProcess::start(AGENT, &AgentPlan::default()).expect("an agent");
    agent.kill().expect("killed");
    spoil(&agent);
    agent.restart().expect("started");
    let outcome = agent.wait().expect("an end by itself");
    (agent, outcome)
}

/// `text` as the plan has it with `from` replaced, and the line of the replacement, from 1.
fn spoilt(text: &str, from: &str, to: &str) -> (String, usize) {
    let line = text.lines().position(|line| line.contains(from));
    (text.replacen(from, to, 1), line.expect("the part") + 1)
}

#[test]
fn a_bad_configuration_ends_with_code_64_and_one_sentence() {
    if skip_unless_root("a_bad_configuration_ends_with_code_64_and_one_sentence") {
        return;
    }
    let plan = AgentPlan {
        extra: "# the end".to_owned(),
        ..AgentPlan::default()
    };
    for (from, to, sentence) in [
        (
            "attach = \"auto\"",
            "attach = \"maybe\"",
            "`attach` is \"maybe\": allowed are auto, tcx and clsact",
        ),
        (
            "traffic-type = \"All\"",
            "traffic-type = 7",
            "`traffic-type` is 7: allowed are All, Allow and Drop",
        ),
        (
            "on-exit = \"detach\"",
            "on-exit = \"detach\"\non-exit = \"stay\"",
            "`on-exit` is given twice: allowed is once",
        ),
    ] {
        let mut line = 0;
        let (agent, outcome) = refused(|agent| {
            let (text, at) = spoilt(&agent.config_of(&plan), from, to);
            line = at + to.matches('\n').count();
            agent.write_config(&text).expect("written");
        });
        let place = agent.config_path();
        let expected = format!("{}:{line}: {sentence}", place.display());
        assert_refused(&outcome, EXIT_CONFIGURATION, &expected);
    }
}

#[test]
fn an_unknown_key_is_refused_with_those_that_are_known() {
    if skip_unless_root("an_unknown_key_is_refused_with_those_that_are_known") {
        return;
    }
    let (agent, outcome) = refused(|agent| {
        let text = agent.config_of(&AgentPlan::default());
        let text = text.replacen("[capture]", "[capture]\natach = \"tcx\"", 1);
        agent.write_config(&text).expect("written");
    });
    let place = format!("flowlog-agent: {}:", agent.config_path().display());
    assert!(outcome.stderr.starts_with(&place), "{}", outcome.stderr);
    assert!(
        outcome
            .stderr
            .contains(": `atach` is not known here: allowed are attach, "),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.code(), Some(EXIT_CONFIGURATION));
}

#[test]
fn a_bad_inventory_ends_with_code_64_and_one_sentence() {
    if skip_unless_root("a_bad_inventory_ends_with_code_64_and_one_sentence") {
        return;
    }
    let wire = Wire::new();
    let [left, right] = wire.enis().map(|eni| eni.to_string());
    let text = format!("{left}{right}");
    let twice = format!("{left}{left}");
    let second = left.lines().count() + 2;
    let hook = left.lines().position(|line| line.starts_with("hook"));
    let hook = hook.expect("a hook") + 1;
    for (text, line, sentence) in [
        (
            text.replacen("\"tc\"", "\"ebpf\"", 1),
            hook,
            "`hook` is \"ebpf\": allowed are tc and xdp".to_owned(),
        ),
        (
            twice,
            second,
            "`eni-id` is \"eni-left\": allowed is one entry for each eni-id, and line 2 has this one already".to_owned(),
        ),
    ] {
        let (agent, outcome) = refused(|agent| agent.write_inventory(&text).expect("written"));
        let expected = format!("{}:{line}: {sentence}", agent.inventory_path().display());
        assert_refused(&outcome, EXIT_CONFIGURATION, &expected);
    }
}

#[test]
fn missing_files_end_with_code_64_and_one_sentence() {
    if skip_unless_root("missing_files_end_with_code_64_and_one_sentence") {
        return;
    }
    let paths: [fn(&AgentProcess) -> std::path::PathBuf; 2] =
        [AgentProcess::config_path, AgentProcess::inventory_path];
    for path in paths {
        let (agent, outcome) = refused(|agent| {
            std::fs::remove_file(path(agent)).expect("removed");
        });
        let line = format!(
            "{} cannot be read: No such file or directory (os error 2)",
            path(&agent).display()
        );
        assert_refused(&outcome, EXIT_CONFIGURATION, &line);
    }
}

#[test]
fn a_second_agent_is_refused_and_does_not_disturb_the_first() {
    if skip_unless_root("a_second_agent_is_refused_and_does_not_disturb_the_first") {
        return;
    }
    let wire = Wire::new();
    let mut first = start(&long_window(wire.enis()), &["eni-left", "eni-right"]);
    let mut sent = wire.flood(100, 10);
    let mut second = first.start_second().expect("started");
    let outcome = second.wait().expect("an end by itself");
    let line = format!(
        "another flowlog-agent (process {}) is running on this host: it holds {}",
        first.pid().expect("it runs"),
        first.folder().join("agent.lock").display()
    );
    assert_refused(&outcome, 1, &line);
    sent += wire.flood(200, 10);
    let records = stop(&mut first).records;
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
}

#[test]
fn a_pin_path_off_the_bpf_file_system_is_refused() {
    if skip_unless_root("a_pin_path_off_the_bpf_file_system_is_refused") {
        return;
    }
    let (agent, outcome) = refused(|agent| {
        let text = agent.config_of(&AgentPlan::default());
        let here = agent.folder().join("pins");
        let text = text.replace(
            &agent.pin_path().display().to_string(),
            &here.display().to_string(),
        );
        agent.write_config(&text).expect("written");
    });
    assert_eq!(outcome.code(), Some(1), "{}", outcome.stderr);
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("it is not on a BPF file system (mount -t bpf)"),
        "{}",
        outcome.stderr
    );
    assert!(
        !Path::new(&agent.folder().join("pins")).exists(),
        "a folder is left behind"
    );
}
