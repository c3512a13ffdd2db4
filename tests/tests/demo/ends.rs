//! The demo's records, and its end.
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
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

/// ENIs and protocols of the records, each of which must be a line of JSON.
fn seen(output: &Output) -> (BTreeSet<String>, BTreeSet<u64>) {
    let (mut enis, mut protocols) = (BTreeSet::new(), BTreeSet::new());
    for line in output.stdout.split(|octet| *octet == b'\n') {
        if line.is_empty() {
            continue;
        }
        let record: serde_json::Value = serde_json::from_slice(line).expect("a record");
        enis.insert(record["eni-id"].as_str().expect("an ENI").to_owned());
        protocols.extend(record["protocol"].as_u64());
    }
    (enis, protocols)
}

#[test]
fn it_ends_by_itself_with_records_of_every_eni_and_leaves_nothing() {
    if skip_unless_root("it_ends_by_itself_with_records_of_every_eni_and_leaves_nothing") {
        return;
    }
    let demo = demo(&["--windows", "4"]);
    let pid = demo.id();
    let output = demo.wait_with_output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("eni-db, on the router's end"), "{told}");
    assert!(!told.contains("failed"), "{told}");
    let (enis, protocols) = seen(&output);
    assert_eq!(enis, ENIS.map(str::to_owned).into());
    // ICMP, TCP, UDP, ICMPv6 and SCTP.
    assert!(
        protocols.is_superset(&[1, 6, 17, 58, 132].into()),
        "{protocols:?}"
    );
    assert_eq!(left_of(pid), Vec::<String>::new());
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
        kill(Pid::from_raw(pid.try_into().expect("a process id")), signal).expect("sent");
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
