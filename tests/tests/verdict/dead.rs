//! What is in force while no agent runs, and what the next one tells of that time.
use std::collections::BTreeMap;

use flowlog_model::security_group::DescribedPacket;
use flowlog_tests::{
    agent::{Action, Direction, RejectReason, records_of},
    lab::skip_unless_root,
};

use crate::{
    frames::Senders,
    scene::{
        Flow, Mode, Place, Told, VM, flows, nft, received, silent_wire, start_plan, to_file,
        unseen, wait_for_file,
    },
};

/// Lets UDP in to ports 7000 and 7002, and out to port 7000.
const TABLES: &str = r#"
[[security-group]]
security-group-id = "sg"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-in", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-in-6", direction = "ingress", ip-protocol = "UDP", port-range = "7000/7000", ipv6-source-cidr-ip = "::/0" },
    { security-group-rule-id = "sgr-firewall", direction = "ingress", ip-protocol = "UDP", port-range = "7002/7002", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-out", direction = "egress", ip-protocol = "UDP", port-range = "7000/7000", dest-cidr-ip = "0.0.0.0/0" },
]
"#;

/// A packet, and what is to become of it: what lets it pass or what drops it.
const PACKETS: [(&str, Fate); 8] = [
    (
        "udp 198.51.100.1:PORT > 10.88.0.10:7000 in",
        Fate::Passes("sgr-in"),
    ),
    ("udp 198.51.100.1:PORT > 10.88.0.10:7001 in", Fate::Denied),
    ("udp 198.51.100.1:PORT > 10.88.0.10:7002 in", Fate::Filtered),
    (
        "udp [2001:db8::1]:PORT > [fd00:88::10]:7000 in",
        Fate::Passes("sgr-in-6"),
    ),
    (
        "udp [2001:db8::1]:PORT > [fd00:88::10]:7001 in",
        Fate::Denied,
    ),
    (
        "udp 10.88.0.10:PORT > 198.51.100.2:7000 out",
        Fate::Passes("sgr-out"),
    ),
    ("udp 10.88.0.10:PORT > 198.51.100.2:7001 out", Fate::Denied),
    // The answer to the first, which no rule lets out.
    (
        "udp 10.88.0.10:7000 > 198.51.100.1:PORT out",
        Fate::Passes("sgr-in"),
    ),
];

/// How often each of them is sent at a time.
const TIMES: u64 = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// By this rule.
    Passes(&'static str),
    /// By no rule.
    Denied,
    /// A rule lets it in, and the firewall behind drops it.
    Filtered,
}

/// What is sent to a VM and by it, and what must be told of that.
struct Traffic {
    senders: Senders,
    place: Place,
    /// To the VM, and by it.
    sent: [u64; 2],
    passed: [u64; 2],
    wanted: BTreeMap<Flow, Told>,
}

impl Traffic {
    /// Sends all packets from this port, or to it, those that answer last or first.
    fn send(&mut self, port: u16, answers_first: bool) {
        let mut packets = PACKETS;
        if answers_first {
            packets.reverse();
        }
        for (text, fate) in packets {
            let packet: DescribedPacket = text
                .replace("PORT", &port.to_string())
                .parse()
                .expect("a packet");
            let (flow, told) = self.expected(&packet, fate);
            let way = usize::from(flow.direction == Direction::Out);
            let taken = self.senders.send(&packet, TIMES);
            let passes = fate != Fate::Denied;
            let refused = !passes && self.place.drops_at_egress(flow.direction);
            assert_eq!(taken, if refused { 0 } else { TIMES }, "{packet:?}");
            self.sent[way] += TIMES;
            self.passed[way] += if passes { TIMES } else { 0 };
            self.wanted
                .entry(flow)
                .and_modify(|before| before.packets += TIMES)
                .or_insert(told);
        }
    }

    fn expected(&self, packet: &DescribedPacket, fate: Fate) -> (Flow, Told) {
        // What a VM drops for itself the host knows nothing of.
        let fate = match fate {
            Fate::Filtered if self.place == Place::Host => Fate::Passes("sgr-firewall"),
            other => other,
        };
        let told = |reason, rule: Option<&str>| Told {
            packets: TIMES,
            reason,
            rule: rule.map(str::to_owned),
        };
        let (action, told) = match fate {
            Fate::Passes(rule) => (Action::Accept, told(None, Some(rule))),
            Fate::Denied => (
                Action::Reject,
                told(Some(RejectReason::SecurityGroup), None),
            ),
            Fate::Filtered => (Action::Reject, told(Some(RejectReason::Netfilter), None)),
        };
        (Flow::of(packet, action), told)
    }
}

#[test]
fn what_is_decided_while_no_agent_runs_holds_and_is_told_by_the_next_one() {
    if skip_unless_root("what_is_decided_while_no_agent_runs_holds_and_is_told_by_the_next_one") {
        return;
    }
    for place in Place::ALL {
        let pair = silent_wire();
        let ends = [&pair.right().namespace, &pair.left().namespace];
        nft(ends[0], "prerouting", "udp dport 7002 drop;");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("flow.log");
        let eni = place.eni(&pair, Mode::Enforce, &["sg"], TABLES);
        let mut agent = start_plan(&to_file(&file, [eni]));
        let before = ends.map(received);
        let mut traffic = Traffic {
            senders: Senders::new(&pair),
            place,
            sent: [0; 2],
            passed: [0; 2],
            wanted: BTreeMap::new(),
        };
        traffic.send(5000, false);
        // With the first records the agent keeps what the device had counted before them, by which the next ones tell whether all add up.
        wait_for_file(&file, traffic.sent[0], traffic.sent[1]);
        for life in 1..=2 {
            let port = 5000 + life;
            agent.kill().expect("killed");
            // Sessions that there were, and new ones.
            traffic.send(5000, true);
            traffic.send(port, false);
            agent.restart().expect("restarted");
            agent.wait_until_captured(&[VM]).expect("captured");
            traffic.send(port, true);
        }
        wait_for_file(&file, traffic.sent[0], traffic.sent[1]);
        let dropped = place.unseen(traffic.sent, traffic.passed);
        assert_eq!(unseen(&agent), dropped, "{place:?}");
        let outcome = agent.stop().expect("its end");
        assert!(outcome.status.success(), "{}", outcome.stderr);
        let told = flows(&records_of(&file).expect("records"));
        assert_eq!(told, traffic.wanted, "{place:?}");
        let after = ends.map(received);
        let arrived = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(arrived, traffic.passed, "{place:?}");
    }
}
