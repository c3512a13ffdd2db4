//! An agent that dies leaves the last policy in force and the sessions known, and the next one goes on with them.
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use flowlog_model::record::FlowTuple;
use flowlog_tests::{
    agent::{Action, AgentPlan, Direction, OnExit, records_of, volume},
    lab::{VethPair, skip_unless_root},
};

use crate::{
    connection::Connection,
    frames::{Senders, frame},
    scene::{
        Mode, VM, address, flows, nft, packets, start, start_plan, stop_after, to_file, vm, wire,
    },
};

/// Nothing is allowed but what the VM asks of port 8080.
pub(crate) const CLIENT: &str = r#"
[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-api", direction = "egress", ip-protocol = "TCP", port-range = "8080/8080", dest-cidr-ip = "10.77.0.0/24" },
    { security-group-rule-id = "sgr-web", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },
]
"#;

/// A connection of the VM to outside.
pub(crate) fn connection(pair: &VethPair) -> Connection {
    let target = SocketAddr::new(address(pair.left(), false), 8080);
    Connection::open(pair.right(), (pair.left(), target))
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
    connection.talk();
    is_enforced(&pair);
    for _ in 0..3 {
        agent.kill().expect("killed");
        connection.talk();
        is_enforced(&pair);
        agent.restart().expect("restarted");
        agent.wait_until_captured(&[VM]).expect("captured");
        connection.talk();
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
        connection.talk();
        is_enforced(&pair);
        agent.restart().expect("restarted");
        agent.wait_until_captured(&[VM]).expect("captured");
        connection.talk();
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
    let mut agent = start_plan(&to_file(
        &file,
        [vm(&pair, Mode::Observe, &["sg"], &tables)],
    ));
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
