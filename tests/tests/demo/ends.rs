//! The demo's records, and its end.
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use flowlog_tests::lab::skip_unless_root;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ENIS: [&str; 3] = ["eni-app", "eni-db", "eni-web"];

fn demo(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_flowlog-lab"))
        .args([
            "demo",
            "--agent",
            env!("CARGO_BIN_EXE_flowlog-agent-under-test"),
        ])
        .args(["--window", "2s", "--output", "json"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo")
}

/// What is there of the demo of this process id: namespaces, pins.
fn left_of(pid: u32) -> Vec<String> {
    let namespaces = (format!("fl{pid}-"), "/run/netns");
    let pins = (format!("flowlog-lab-{pid}"), "/sys/fs/bpf");
    [namespaces, pins]
        .into_iter()
        .flat_map(|(prefix, folder)| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(move |name| name.starts_with(&prefix))
        })
        .collect()
}

/// ENI and protocol of a line of JSON.
fn read(line: &str) -> (String, Option<u64>) {
    let record: serde_json::Value = serde_json::from_str(line).expect("a record");
    let eni = record["eni-id"].as_str().expect("an ENI").to_owned();
    (eni, record["protocol"].as_u64())
}

#[test]
fn it_ends_by_itself_after_its_windows_and_leaves_nothing() {
    if skip_unless_root("it_ends_by_itself_after_its_windows_and_leaves_nothing") {
        return;
    }
    let demo = demo(&["--windows", "2"]);
    let pid = demo.id();
    let output = demo.wait_with_output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("eni-db, on the router's end"), "{told}");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (eni, _) = read(line);
        assert!(ENIS.contains(&eni.as_str()), "{line}");
    }
    assert_eq!(left_of(pid), Vec::<String>::new());
}

#[test]
fn every_eni_and_every_kind_of_traffic_is_recorded() {
    if skip_unless_root("every_eni_and_every_kind_of_traffic_is_recorded") {
        return;
    }
    // Far more windows than it takes, so that it ends if something is missing.
    let mut demo = demo(&["--windows", "60"]);
    let stdout = BufReader::new(demo.stdout.take().expect("its records"));
    let (mut enis, mut protocols) = (BTreeSet::new(), BTreeSet::new());
    let mut told_to_end = false;
    for line in stdout.lines() {
        let (eni, protocol) = read(&line.expect("a line"));
        enis.insert(eni);
        protocols.extend(protocol);
        // ICMP, TCP, UDP, ICMPv6 and SCTP.
        let all = enis.len() == ENIS.len() && protocols.is_superset(&[1, 6, 17, 58, 132].into());
        if all && !std::mem::replace(&mut told_to_end, true) {
            end(&demo, Signal::SIGTERM);
        }
    }
    let output = demo.wait_with_output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("failed"), "{told}");
    assert!(told_to_end, "recorded are {enis:?} and {protocols:?}");
    assert_eq!(enis, ENIS.map(str::to_owned).into());
}

fn end(demo: &Child, signal: Signal) {
    let pid = demo.id().try_into().expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("sent");
}

#[test]
fn a_signal_ends_it_cleanly() {
    if skip_unless_root("a_signal_ends_it_cleanly") {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut demo = demo(&[]);
        let pid = demo.id();
        // The first record says that all is up.
        let mut stdout = BufReader::new(demo.stdout.take().expect("its records"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a record");
        assert!(!left_of(pid).is_empty(), "{line}");
        end(&demo, signal);
        // Read on, so that the agent's last window has room.
        let rest = stdout.lines().map_while(Result::ok).count();
        let output = demo.wait_with_output().expect("its end");
        assert!(
            output.status.success(),
            "{signal}: {rest} more records, {output:?}"
        );
        assert_eq!(left_of(pid), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn an_agent_that_cannot_start_leaves_nothing() {
    if skip_unless_root("an_agent_that_cannot_start_leaves_nothing") {
        return;
    }
    for agent in ["/bin/false", "/nonexistent/flowlog-agent"] {
        let demo = Command::new(env!("CARGO_BIN_EXE_flowlog-lab"))
            .args(["demo", "--agent", agent])
            .stderr(Stdio::null())
            .spawn()
            .expect("the demo");
        let pid = demo.id();
        let output = demo.wait_with_output().expect("its end");
        assert!(!output.status.success(), "{agent}");
        assert_eq!(left_of(pid), Vec::<String>::new(), "{agent}");
    }
}
