//! The demo's records, and its end.
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use flowlog_tests::{agent::PATIENCE, lab::skip_unless_root};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const FLOWLOG: &str = env!("CARGO_BIN_EXE_flowlog-under-test");

const ENIS: [&str; 3] = ["eni-app", "eni-db", "eni-web"];

/// A demo that shows its records as JSON.
fn demo(arguments: &[&str]) -> Child {
    demo_showing("json", arguments)
}

fn demo_showing(output: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_flowlog-lab"))
        .args([
            "demo",
            "--agent",
            env!("CARGO_BIN_EXE_flowlog-agent-under-test"),
            "--flowlog",
            FLOWLOG,
        ])
        .args(["--window", "2s", "--output", output])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo")
}

/// What is there of the demo of this process id: namespaces, pins, files.
fn left_of(pid: u32) -> Vec<String> {
    let namespaces = (format!("fl{pid}-"), "/run/netns");
    let files = format!("flowlog-lab-{pid}");
    let temporary = std::env::temp_dir();
    let temporary = temporary.to_str().expect("a path that is text");
    let pins = (files.clone(), "/sys/fs/bpf");
    [namespaces, pins, (files, temporary)]
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
            .args(["demo", "--agent", agent, "--flowlog", FLOWLOG])
            .stderr(Stdio::null())
            .spawn()
            .expect("the demo");
        let pid = demo.id();
        let output = demo.wait_with_output().expect("its end");
        assert!(!output.status.success(), "{agent}");
        assert_eq!(left_of(pid), Vec::<String>::new(), "{agent}");
    }
}

/// The lines of something, while it goes on.
fn lines(of: impl Read + Send + 'static) -> impl Iterator<Item = String> {
    BufReader::new(of).lines().map(|line| line.expect("a line"))
}

/// The script that tells `flowlog` of the demo's service, by what the demo tells.
fn environment(told: &mut impl Iterator<Item = String>) -> String {
    told.find_map(|line| Some(line.trim().strip_prefix(". ")?.to_owned()))
        .expect("a script")
}

#[test]
fn what_was_recorded_is_asked_of_the_service_by_the_demo_and_by_who_follows_its_hints() {
    if skip_unless_root(
        "what_was_recorded_is_asked_of_the_service_by_the_demo_and_by_who_follows_its_hints",
    ) {
        return;
    }
    let mut demo = demo_showing("table", &[]);
    let pid = demo.id();
    let mut stdout = demo.stdout.take().expect("its tables");
    let tables = thread::spawn(move || {
        let mut tables = String::new();
        stdout.read_to_string(&mut tables).expect("text");
        tables
    });
    let mut told = lines(demo.stderr.take().expect("what it tells"));
    let environment = environment(&mut told);
    let is_answer = |line: &String| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        cells.starts_with(&["10.0.1.10", "10.0.2.20", "22"])
    };
    assert!(told.any(|line| is_answer(&line)), "SSH is rejected");
    let script =
        ". \"$1\" && \"$2\" query --output csv 'action:REJECT | SELECT DISTINCT \"eni-id\"'";
    let asked = Command::new("sh")
        .args(["-euc", script, "sh", &environment, FLOWLOG])
        .output()
        .expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&asked.stdout),
        "eni-id\neni-db\n",
        "{asked:?}"
    );
    end(&demo, Signal::SIGINT);
    let rest: Vec<String> = told.collect();
    assert!(demo.wait().expect("its end").success(), "{rest:?}");
    // The backup is the most, and the last windows were delivered before the service was asked.
    let asked = rest.iter().position(|line| line.contains("direction:out"));
    let answer = asked.map(|asked| rest[asked + 2].clone());
    assert!(
        answer.is_some_and(|answer| answer.trim_start().starts_with("10.0.")),
        "{rest:?}"
    );
    assert!(tables.join().expect("its tables").contains("REJECT"));
    assert_eq!(left_of(pid), Vec::<String>::new());
}

/// Whether there is a process that has this in its command line.
fn is_running(word: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn what_it_has_started_ends_also_when_it_is_killed() {
    if skip_unless_root("what_it_has_started_ends_also_when_it_is_killed") {
        return;
    }
    let mut demo = demo(&[]);
    let pid = demo.id();
    let mut stdout = lines(demo.stdout.take().expect("its records"));
    stdout.next().expect("a record");
    let folder = format!("flowlog-lab-{pid}-");
    assert!(is_running(&folder));
    demo.kill().expect("killed");
    demo.wait().expect("its end");
    let deadline = Instant::now() + PATIENCE;
    while is_running(&folder) {
        assert!(Instant::now() < deadline, "agent or service still run");
        thread::sleep(Duration::from_millis(100));
    }
    // What is left on the disk is removed by the next one, which ends at once.
    let next = Command::new(env!("CARGO_BIN_EXE_flowlog-lab"))
        .args(["demo", "--agent", "/bin/false", "--flowlog", FLOWLOG])
        .output()
        .expect("the next demo");
    assert!(!next.status.success());
    assert_eq!(left_of(pid), Vec::<String>::new());
}
