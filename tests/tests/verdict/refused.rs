//! What the kernel refuses, a policy or programs: what was enforced before is enforced on, and what is not refused is in force.
use std::{fs, thread, time::Duration};

use flowlog_agent::bpf::built_in_object;
use flowlog_model::{record::FlowTuple, security_group::session::reversed};
use flowlog_tests::{
    agent::{Action, AgentPlan, AgentProcess, Direction, EniPlan, PATIENCE},
    lab::{EndPlan, FrameSender, VethPair, skip_unless_root},
};
use serde_json::Value;

use crate::{
    frames::frame,
    scene::{Mode, VM, flows, packets, received, silent_wire, start, start_plan, vm},
};

/// The other end of the wire, as an ENI.
const OUTSIDE: &str = "eni-outside";

/// How much may be asked of a condition before it is given up.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let pause = Duration::from_millis(20);
    let mut left = PATIENCE;
    while !holds() {
        left = left
            .checked_sub(pause)
            .unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"));
        thread::sleep(pause);
    }
}

/// A group that accepts what comes to these ports, each by a rule of its own.
fn group(id: &str, ports: &[u16]) -> String {
    let rules = ports.iter().map(|port| {
        format!(
            "{{ security-group-rule-id = \"{id}-{port}\", direction = \"ingress\", ip-protocol = \"UDP\", port-range = \"{port}/{port}\", \
             source-cidr-ip = \"0.0.0.0/0\" }},"
        )
    });
    let rules: String = rules.collect();
    format!(
        "\n[[security-group]]\nsecurity-group-id = \"{id}\"\nvpc-id = \"vpc-test\"\nrule = [ {rules} ]\n"
    )
}

/// Both ends of a wire as ENIs that enforce, each in a group of its own that accepts what comes to these ports.
fn ends(pair: &VethPair, vm_ports: &[u16], outside_ports: &[u16]) -> [EniPlan; 2] {
    let outside = EniPlan {
        extra: format!(
            "security-mode = \"enforce\"\nsecurity-group-ids = [\"sg-outside\"]\n{}",
            group("sg-outside", outside_ports)
        ),
        ..EniPlan::end(OUTSIDE, pair.left())
    };
    let tables = group("sg-vm", vm_ports);
    [outside, vm(pair, Mode::Enforce, &["sg-vm"], &tables)]
}

/// A flow from one end to the other, to a port from the port of the same number.
fn flow(pair: &VethPair, from: &EndPlan, port: u16) -> FlowTuple {
    let inward = FlowTuple {
        src_addr: [198, 51, 100, 1].into(),
        src_port: port,
        dst_addr: [10, 88, 0, 10].into(),
        dst_port: port,
        protocol: 17,
    };
    if from.name == pair.left().name {
        inward
    } else {
        reversed(&inward)
    }
}

fn send(pair: &VethPair, from: &EndPlan, flow: &FlowTuple) {
    let to = if from.name == pair.left().name {
        pair.right()
    } else {
        pair.left()
    };
    let mut sender = FrameSender::open(&from.namespace, &from.name).expect("a sender");
    // One that its own end's groups drop is not taken, which is what some are sent for.
    let _ = sender.offer(&frame(from, to, flow)).expect("offered");
}

/// Of a packet to each of two ports, the second alone arrives at the other end.
fn enforces(pair: &VethPair, from: &EndPlan, [rejected, accepted]: [u16; 2]) {
    let to = if from.name == pair.left().name {
        pair.right()
    } else {
        pair.left()
    };
    let before = received(&to.namespace);
    for port in [rejected, accepted] {
        send(pair, from, &flow(pair, from, port));
    }
    let what = format!("a packet to port {accepted}, and none to {rejected}");
    wait_until(&what, || received(&to.namespace) > before);
    assert_eq!(received(&to.namespace), before + 1, "{what}");
}

/// Replaces the inventory, and waits until it was followed: a status is told after that.
fn follow(agent: &AgentProcess, enis: impl IntoIterator<Item = EniPlan>) -> Value {
    let mark = agent.log_mark().expect("it runs");
    agent.replace_inventory(enis).expect("an inventory");
    agent
        .wait_for_log(mark, "the inventory has changed")
        .expect("read");
    status_of(agent)
}

/// The agent's status. It answers when it has done what it is at, which on a busy machine may take longer than one who asks waits.
fn status_of(agent: &AgentProcess) -> Value {
    let mut told = None;
    wait_until("a status", || {
        told = agent.status().ok();
        told.is_some()
    });
    told.expect("a status")
}

fn judged<'s>(status: &'s Value, eni: &str) -> &'s Value {
    let enis = status["security"]["enis"].as_array().expect("ENIs");
    let mut enis = enis.iter();
    enis.find(|judged| judged["eni-id"] == eni)
        .unwrap_or(&Value::Null)
}

fn interface<'s>(status: &'s Value, eni: &str) -> &'s Value {
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let mut interfaces = interfaces.iter();
    interfaces
        .find(|interface| interface["eni-id"] == eni)
        .unwrap_or(&Value::Null)
}

fn has(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|value| value.contains(text))
}

fn adds_up(status: &Value) {
    let conservation = status["conservation"].as_array().expect("sums");
    for sum in conservation {
        assert_eq!(sum["difference"], 0, "{sum}");
    }
}

/// One ENI's policy is larger than there is room for, at the start, at a change, and at a restart: the other's is in force, and its own, if
/// it had one, stays so.
#[test]
fn a_policy_that_has_no_room_leaves_the_others_and_the_one_before_in_force() {
    const ROOM: u16 = 6;
    const REASON: &str = "cannot give numbers to 7 rules";
    if skip_unless_root("a_policy_that_has_no_room_leaves_the_others_and_the_one_before_in_force") {
        return;
    }
    let pair = silent_wire();
    let (left, right) = (pair.left(), pair.right());
    let large: Vec<u16> = (7200..=7200 + ROOM).collect();
    let room = ("FLOWLOG_MAX_RULES".to_owned(), ROOM.to_string());
    let mut agent = start_plan(&AgentPlan {
        environment: [room].into(),
        ..AgentPlan::capturing(ends(&pair, &[7000], &large))
    });
    wait_until("the reason", || {
        let status = status_of(&agent);
        has(&interface(&status, OUTSIDE)["reason"], REASON)
    });
    enforces(&pair, left, [7001, 7000]);

    let status = follow(&agent, ends(&pair, &[7002], &[7100]));
    agent.wait_until_captured(&[OUTSIDE]).expect("captured");
    assert_eq!(judged(&status, VM)["rules"], 1);
    enforces(&pair, left, [7000, 7002]);
    enforces(&pair, right, [7101, 7100]);

    let status = follow(&agent, ends(&pair, &[7003], &large));
    assert!(has(&judged(&status, OUTSIDE)["error"], REASON), "{status}");
    assert_eq!(judged(&status, OUTSIDE)["rules"], 1);
    assert_eq!(judged(&status, VM)["error"], Value::Null);
    enforces(&pair, left, [7002, 7003]);
    enforces(&pair, right, [7200, 7100]);

    for _ in 0..2 {
        agent.kill().expect("killed");
        enforces(&pair, left, [7002, 7003]);
        enforces(&pair, right, [7200, 7100]);
        agent.restart().expect("restarted");
        agent.wait_until_captured(&[VM, OUTSIDE]).expect("captured");
        let status = status_of(&agent);
        assert!(has(&judged(&status, OUTSIDE)["error"], REASON), "{status}");
        assert_eq!(judged(&status, VM)["error"], Value::Null);
        adds_up(&status);
        enforces(&pair, left, [7002, 7003]);
        enforces(&pair, right, [7200, 7100]);
    }
    let outcome = agent.stop().expect("its end");
    assert!(
        !outcome.stderr.contains("not captured"),
        "{}",
        outcome.stderr
    );
}

/// Programs that cannot be loaded: those that enforce stay, at a change of the mode and at a restart, until others can take their place.
#[test]
fn programs_that_enforce_stay_until_others_can_take_their_place() {
    const UNUSABLE: &str = "this is no object";
    if skip_unless_root("programs_that_enforce_stay_until_others_can_take_their_place") {
        return;
    }
    let pair = silent_wire();
    let left = pair.left();
    let folder = tempfile::tempdir().expect("a folder");
    let object = folder.path().join("object.o");
    let usable = || fs::write(&object, built_in_object()).expect("written");
    let unusable = || fs::write(&object, UNUSABLE).expect("written");
    let tables = group("sg", &[7000]);
    let eni = |mode| vm(&pair, mode, &["sg"], &tables);
    usable();
    let file = (
        "FLOWLOG_BPF_OBJECT".to_owned(),
        object.display().to_string(),
    );
    let mut agent = start_plan(&AgentPlan {
        environment: [file].into(),
        ..AgentPlan::capturing([eni(Mode::Enforce)])
    });
    enforces(&pair, left, [7001, 7000]);

    unusable();
    let status = follow(&agent, [eni(Mode::Observe)]);
    let told = judged(&status, VM);
    assert_eq!(told["mode"], "enforce");
    assert!(
        has(&told["error"], "its security mode cannot be observe"),
        "{told}"
    );
    enforces(&pair, left, [7001, 7000]);
    let mark = agent.log_mark().expect("it runs");
    usable();
    agent
        .wait_for_log(mark, "its security mode is observe")
        .expect("tried again");
    let before = received(&pair.right().namespace);
    send(&pair, left, &flow(&pair, left, 7001));
    wait_until("it passes", || received(&pair.right().namespace) > before);
    let status = follow(&agent, [eni(Mode::Enforce)]);
    assert_eq!(judged(&status, VM)["mode"], "enforce");
    assert_eq!(judged(&status, VM)["error"], Value::Null);
    adds_up(&status);

    unusable();
    agent.kill().expect("killed");
    enforces(&pair, left, [7001, 7000]);
    agent.restart().expect("restarted");
    wait_until("the reason", || {
        let status = status_of(&agent);
        interface(&status, VM)["reason"].is_string()
    });
    enforces(&pair, left, [7001, 7000]);
    // What is looked for once, at a drain when the devices have been told of, is not this.
    status_of(&agent);
    enforces(&pair, left, [7001, 7000]);
    usable();
    agent.wait_until_captured(&[VM]).expect("tried again");
    enforces(&pair, left, [7001, 7000]);
    adds_up(&status_of(&agent));

    // It is not that ENI any more: its programs go.
    agent.kill().expect("killed");
    unusable();
    agent.restart().expect("restarted");
    wait_until("the reason", || {
        let status = status_of(&agent);
        interface(&status, VM)["reason"].is_string()
    });
    enforces(&pair, left, [7001, 7000]);
    let other = EniPlan {
        eni_id: "eni-other".to_owned(),
        ..eni(Mode::Enforce)
    };
    follow(&agent, [other]);
    let before = received(&pair.right().namespace);
    send(&pair, left, &flow(&pair, left, 7001));
    wait_until("it passes", || received(&pair.right().namespace) > before);
    agent.stop().expect("its end");
}

/// What was rejected and observed is dropped, both ways, as soon as it is enforced, and passes when it is observed again.
#[test]
fn a_session_that_was_rejected_is_dropped_as_soon_as_that_is_enforced() {
    if skip_unless_root("a_session_that_was_rejected_is_dropped_as_soon_as_that_is_enforced") {
        return;
    }
    let pair = silent_wire();
    let (left, right) = (pair.left(), pair.right());
    let tables = group("sg", &[7000]);
    let eni = |mode| vm(&pair, mode, &["sg"], &tables);
    let mut agent = start(eni(Mode::Observe));
    let rejected = flow(&pair, left, 7001);
    // A packet of the session each way; how many arrive.
    let exchange = || {
        let before = [left, right].map(|end| received(&end.namespace));
        send(&pair, left, &rejected);
        send(&pair, right, &reversed(&rejected));
        // What is allowed comes after it, so all of it has arrived.
        let arrived = received(&right.namespace);
        send(&pair, left, &flow(&pair, left, 7000));
        wait_until("what is allowed", || received(&right.namespace) > arrived);
        let after = [left, right].map(|end| received(&end.namespace));
        (after[0] - before[0], after[1] - before[1] - 1)
    };
    let mut sent = 0;
    for _ in 0..2 {
        for (mode, arrive) in [(Mode::Observe, (1, 1)), (Mode::Enforce, (0, 0))] {
            follow(&agent, [eni(mode)]);
            assert_eq!(exchange(), arrive, "{mode:?}");
            assert_eq!(exchange(), arrive, "{mode:?}");
            sent += 2;
        }
    }
    agent
        .wait_for_packets(VM, Direction::In, 2 * sent)
        .expect("records");
    let outcome = agent.stop().expect("its end");
    let flows = flows(&outcome.records);
    let of = |port: u16, direction| {
        packets(&flows, |flow, told| {
            let action = if port == 7001 {
                Action::Reject
            } else {
                Action::Accept
            };
            let is_told = (told.rule.is_some()) == (port == 7000);
            is_told
                && flow.action == action
                && flow.direction == direction
                && [flow.src.port(), flow.dst.port()] == [port, port]
        })
    };
    assert_eq!(of(7001, Direction::In), sent, "{flows:#?}");
    assert_eq!(of(7001, Direction::Out), sent, "{flows:#?}");
    assert_eq!(of(7000, Direction::In), sent, "{flows:#?}");
}

/// An ENI that is moved to another VSwitch has another identity, and so other counters: its sessions go on, as the other end notices that
/// answers.
#[test]
fn sessions_go_on_under_another_identity() {
    if skip_unless_root("sessions_go_on_under_another_identity") {
        return;
    }
    let pair = silent_wire();
    let (left, right) = (pair.left(), pair.right());
    let tables = group("sg", &[7000]);
    let eni = |vswitch: &str| EniPlan {
        vswitch_id: vswitch.to_owned(),
        ..vm(&pair, Mode::Enforce, &["sg"], &tables)
    };
    let mut agent = start(eni("vsw-1"));
    let asked = flow(&pair, right, 7001);
    send(&pair, right, &asked);
    let answered = || {
        let before = received(&right.namespace);
        send(&pair, left, &reversed(&asked));
        wait_until("the answer", || received(&right.namespace) > before);
        // That is not allowed but for the session.
        enforces(&pair, left, [7002, 7000]);
    };
    answered();
    for vswitch in ["vsw-2", "vsw-3", "vsw-2"] {
        follow(&agent, [eni(vswitch)]);
        agent.wait_until_captured(&[VM]).expect("captured");
        answered();
    }
    // Nor does it take a running agent.
    agent.kill().expect("killed");
    agent.replace_inventory([eni("vsw-4")]).expect("written");
    agent.restart().expect("restarted");
    agent.wait_until_captured(&[VM]).expect("captured");
    answered();
    agent.stop().expect("its end");
}
