//! An agent that dies leaves the last policy in force and the sessions known, and the next one goes on with them.
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use flowlog_model::record::FlowTuple;
use flowlog_tests::{
    agent::{
        Action, AgentPlan, DestinationPlan, Direction, FlowLogPlan, OnExit, RejectReason, Resource,
        records_of, volume,
    },
    lab::{VethPair, skip_unless_root},
};

use crate::{
    frames::{Senders, frame},
    scene::{
        Mode, VM, address, flows, nft, packets, received, silent_wire, start, start_plan,
        stop_after, vm, wire,
    },
};

/// Nothing is allowed but what the VM asks of port 8080.
const CLIENT: &str = r#"
[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-api", direction = "egress", ip-protocol = "TCP", port-range = "8080/8080", dest-cidr-ip = "10.77.0.0/24" },
    { security-group-rule-id = "sgr-web", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },
]
"#;

/// A connection of the VM to outside: its end and the other.
fn connection(pair: &VethPair) -> (TcpStream, TcpStream) {
    let target = SocketAddr::new(address(pair.left(), false), 8080);
    let listener = pair.left().namespace.enter(|| TcpListener::bind(target));
    let listener = listener.expect("the namespace").expect("a listener");
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(5));
    let ours = pair.right().namespace.enter(connect);
    let ours = ours.expect("the namespace").expect("a connection");
    let theirs = listener.accept().expect("a connection").0;
    for stream in [&ours, &theirs] {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a time limit");
    }
    (ours, theirs)
}

/// Each end says something that the other hears.
fn talk((ours, theirs): &mut (TcpStream, TcpStream)) {
    let mut heard = [0; 5];
    theirs.write_all(b"hello").expect("sent");
    ours.read_exact(&mut heard)
        .expect("it passes as its session");
    ours.write_all(b"there").expect("sent");
    theirs
        .read_exact(&mut heard)
        .expect("it passes as its session");
}

fn is_enforced(pair: &VethPair) {
    let ssh = SocketAddr::new(address(pair.right(), false), 22);
    let listener = pair.right().namespace.enter(|| TcpListener::bind(ssh));
    let _listener = listener.expect("the namespace").expect("a listener");
    let connect = || TcpStream::connect_timeout(&ssh, Duration::from_millis(300));
    let connected = pair.left().namespace.enter(connect).expect("the namespace");
    let error = connected.expect_err("it is not allowed");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn a_killed_agent_leaves_its_policy_in_force_and_its_sessions_known() {
    if skip_unless_root("a_killed_agent_leaves_its_policy_in_force_and_its_sessions_known") {
        return;
    }
    let pair = wire();
    let mut agent = start(vm(&pair, Mode::Enforce, &["sg"], CLIENT));
    let mut connection = connection(&pair);
    talk(&mut connection);
    is_enforced(&pair);
    for _ in 0..3 {
        agent.kill().expect("killed");
        talk(&mut connection);
        is_enforced(&pair);
        agent.restart().expect("restarted");
        agent.wait_until_captured(&[VM]).expect("captured");
        talk(&mut connection);
        is_enforced(&pair);
    }
    agent
        .wait_for_packets(VM, Direction::In, 1)
        .expect("records");
    let flows = flows(&stop_after(agent, 1, 1).records);
    let rejected = packets(&flows, |flow, _| {
        flow.action == Action::Reject && flow.dst.port() != 22
    });
    assert_eq!(rejected, 0, "{flows:#?}");
    // Of the last life, which these records are of.
    assert!(packets(&flows, |flow, _| flow.action == Action::Reject) >= 1);
    // It is gone with the agent, for that is what on-exit says.
    let ssh = SocketAddr::new(address(pair.right(), false), 22);
    let listener = pair.right().namespace.enter(|| TcpListener::bind(ssh));
    let _listener = listener.expect("the namespace").expect("a listener");
    let connect = || TcpStream::connect_timeout(&ssh, Duration::from_secs(5));
    pair.left()
        .namespace
        .enter(connect)
        .expect("the namespace")
        .expect("allowed");
}

/// With `on-exit = "stay"` an end in good order is like a death, and nothing is lost by either.
#[test]
fn an_agent_that_stays_enforces_on() {
    if skip_unless_root("an_agent_that_stays_enforces_on") {
        return;
    }
    let pair = wire();
    let mut agent = start_plan(&AgentPlan {
        on_exit: OnExit::Stay,
        ..AgentPlan::capturing([vm(&pair, Mode::Enforce, &["sg"], CLIENT)])
    });
    let mut connection = connection(&pair);
    for _ in 0..2 {
        agent.stop().expect("its end");
        talk(&mut connection);
        is_enforced(&pair);
        agent.restart().expect("restarted");
        agent.wait_until_captured(&[VM]).expect("captured");
        talk(&mut connection);
    }
}

/// Groups, a firewall, and kills at random moments: each packet is in one record, with the verdict that it had.
#[test]
fn with_verdicts_of_both_kinds_kills_lose_nothing_and_tell_nothing_twice() {
    const KILLS: u64 = 10;
    const ROUND: u64 = 500;
    if skip_unless_root("with_verdicts_of_both_kinds_kills_lose_nothing_and_tell_nothing_twice") {
        return;
    }
    let pair = wire();
    nft(&pair.right().namespace, "input", "udp dport 7002 drop;");
    let tables = CLIENT.replace("7000/7000", "7000/7002");
    // The file has each line once; standard output may get it again.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flow.log");
    let mut agent = start_plan(&AgentPlan {
        flow_logs: vec![FlowLogPlan {
            destination: DestinationPlan::File {
                path: file.clone(),
                max_size: 16 << 20,
                max_files: 100,
            },
            extra: "format = \"json\"\nfields = [\"reject-reason\", \"security-group-rule-id\"]"
                .to_owned(),
            ..FlowLogPlan::of(Resource::Vpc("vpc-test".to_owned()))
        }],
        output: None,
        ..AgentPlan::capturing([vm(&pair, Mode::Observe, &["sg"], &tables)])
    });
    let (left, right) = (pair.left().clone(), pair.right().clone());
    let flow = |port| FlowTuple {
        src_addr: address(&left, false),
        src_port: 5000,
        dst_addr: address(&right, false),
        dst_port: port,
        protocol: 17,
    };
    // Allowed; not allowed by the groups; allowed by them, and dropped by the firewall.
    let frames = [7001, 7003, 7002].map(|port| frame(&left, &right, &flow(port)));
    let listener = right
        .namespace
        .enter(|| std::net::UdpSocket::bind((address(&right, false), 7001)));
    let _listener = listener.expect("the namespace").expect("a socket");
    let mut senders = Senders::new(&pair);
    let mut rounds = 0;
    for kill in 0..KILLS {
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for _ in 0..ROUND {
                    for frame in &frames {
                        senders.send_in(frame, 1);
                    }
                    thread::sleep(Duration::from_micros(500));
                }
            });
            // The moment is what the test varies: there is nothing to await.
            thread::sleep(Duration::from_millis(kill * 53 % 400));
            agent.kill().expect("killed");
            agent.restart().expect("restarted");
            sender.join().expect("no panic");
        });
        rounds += ROUND;
    }
    agent.wait_until_captured(&[VM]).expect("captured");
    let outcome = agent.stop().expect("its end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let records = records_of(&file).expect("records");
    assert_eq!(volume(&records, VM, Direction::In).packets, 3 * rounds);
    let flows = flows(&records);
    for (port, action) in [(7001, Action::Accept), (7003, Action::Reject)] {
        let told = packets(&flows, |flow, _| {
            (flow.dst.port(), flow.action) == (port, action)
        });
        assert_eq!(told, rounds, "{flows:#?}");
    }
    let dropped = |action| {
        packets(&flows, |flow, _| {
            (flow.dst.port(), flow.action) == (7002, action)
        })
    };
    assert_eq!(dropped(Action::Accept) + dropped(Action::Reject), rounds);
    // What was in flight as a window ended may be told as accepted.
    assert!(dropped(Action::Accept) <= rounds / 100, "{flows:#?}");
}

/// The map of sessions is full: what finds no room is decided as configured, counted, and told.
#[test]
fn a_full_table_of_sessions_fails_as_it_is_told_to() {
    const SESSIONS: u64 = 1024;
    const MORE: u64 = 300;
    if skip_unless_root("a_full_table_of_sessions_fails_as_it_is_told_to") {
        return;
    }
    for (when_full, action) in [("accept", Action::Accept), ("reject", Action::Reject)] {
        let pair = silent_wire();
        let agent = start_plan(&AgentPlan {
            extra: format!("[security]\nmax-sessions = {SESSIONS}\nwhen-full = {when_full:?}\n"),
            ..AgentPlan::capturing([vm(&pair, Mode::Enforce, &["sg"], CLIENT)])
        });
        let mut senders = Senders::new(&pair);
        for index in 0..SESSIONS + MORE {
            let flow = FlowTuple {
                src_addr: [198, 51, 100, 1].into(),
                src_port: 1024 + index as u16,
                dst_addr: [10, 88, 0, 10].into(),
                dst_port: 7000,
                protocol: 17,
            };
            senders.send_in(&frame(pair.left(), pair.right(), &flow), 1);
        }
        agent
            .wait_for_packets(VM, Direction::In, SESSIONS + MORE)
            .expect("records");
        let status = agent.status().expect("a status");
        let security = &status["security"];
        assert_eq!(security["max-sessions"], SESSIONS);
        let (known, missed) = (&security["sessions"], &security["packets-without-session"]);
        let (known, missed) = (
            known.as_u64().expect("a number"),
            missed.as_u64().expect("a number"),
        );
        assert_eq!((known, missed), (SESSIONS, MORE), "{security}");
        let flows = flows(&stop_after(agent, SESSIONS + MORE, 0).records);
        // What is let in without a session was accepted by its rule; what is not, by none.
        let accepted = packets(&flows, |flow, told| {
            flow.action == Action::Accept && told.rule.as_deref() == Some("sgr-web")
        });
        let rejected = packets(&flows, |flow, told| {
            let full = told.reason == Some(RejectReason::SessionTableFull);
            flow.action == Action::Reject && full && told.rule.is_none()
        });
        let expected = match action {
            Action::Accept => (SESSIONS + MORE, 0),
            Action::Reject => (SESSIONS, MORE),
        };
        assert_eq!((accepted, rejected), expected);
        let passed = if action == Action::Accept {
            SESSIONS + MORE
        } else {
            SESSIONS
        };
        assert_eq!(received(&pair.right().namespace), passed);
    }
}
