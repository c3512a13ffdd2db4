//! Any packets under any rules.
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn any_packet() -> impl Strategy<Value = Packet> {
    let direction = || select(vec![In, Out]);
    let port = || select(vec![22_u16, 53, 80]);
    let flags = select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST]);
    prop_oneof![
        3 => (direction(), port(), flags).prop_map(|(direction, port, flags)| tcp(direction, port, flags)),
        2 => (direction(), port()).prop_map(|(direction, port)| udp(direction, port)),
        2 => (direction(), 0..3_u16, any::<bool>()).prop_map(|(direction, id, is_reply)| icmp(direction, id, is_reply)),
        1 => (direction(), port()).prop_map(|(direction, port)| error(direction, &udp(direction.opposite(), port))),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let rule = || {
        let rules = [
            "ingress accept TCP 80/80",
            "ingress drop TCP 22/22",
            "ingress accept UDP 53/53",
            "ingress accept ICMP -1/-1",
            "egress drop ICMP -1/-1",
            "egress drop UDP 1/60",
            "egress accept ALL -1/-1",
            "egress drop TCP -1/-1",
        ];
        select(rules.to_vec())
    };
    (select(vec!["", ADVANCED]), vec(rule(), 0..5)).prop_map(|(keys, rules)| policy(keys, &rules))
}

proptest! {
    /// Where there is no session, the rules decide; where there is, its packets pass as its opener did; and both in bounded room.
    #[test]
    fn a_packet_passes_by_its_own_right_or_by_its_session_s(
        policy in any_policy(),
        mode in select(vec![SecurityMode::Observe, SecurityMode::Enforce]),
        packets in vec((any_packet(), 0..120_u64), 1..60),
    ) {
        let mut sessions = Sessions::new(SessionConfig { max_sessions: 4, mode, ..CONFIG });
        let current = Current { policy: &policy, generation: 1 };
        let mut past: Vec<(Packet, Action)> = Vec::new();
        let mut now = Duration::ZERO;
        for (packet, later) in packets {
            now += second(later);
            let judgement = sessions.judge(&packet, current, now);
            prop_assert!(sessions.len() <= 4);
            match &judgement.basis {
                Basis::Packet(_) => {
                    prop_assert_eq!(judgement.action, policy.decide(packet.direction, &packet.flow).action);
                }
                // Some packet that the rules judged like this went by before, either way on the same 5-tuple or quoted.
                Basis::Session(reason) => {
                    let flow = match packet.detail {
                        Detail::Error(Some(quoted)) => quoted.flow,
                        _ => packet.flow,
                    };
                    let opened = past.iter().any(|(earlier, action)| {
                        (earlier.flow == flow || earlier.flow == reversed(&flow))
                            && *action == judgement.action
                            && policy.decide(earlier.direction, &earlier.flow).reason == *reason
                    });
                    prop_assert!(opened, "{:?}", packet);
                }
                Basis::NotJudged | Basis::NoRoom => prop_assert!(false, "{:?}", judgement),
            }
            past.push((packet, judgement.action));
        }
    }

}

proptest! {
    // Of five packets that are drawn, the rules accept about one.
    #![proptest_config(ProptestConfig::with_cases(1280))]

    /// What the rules accept gets its answer, and within its time only.
    #[test]
    fn what_is_accepted_is_answered(policy in any_policy(), opener in any_packet(), idle in 0..2000_u64) {
        let opens = !matches!(opener.detail, Detail::Error(_) | Detail::Query(Query { is_reply: true, .. }));
        let accepted = policy.decide(opener.direction, &opener.flow).action == Action::Accept;
        if !(opens && accepted) {
            return Ok(());
        }
        let mut sessions = Sessions::new(CONFIG);
        let current = Current { policy: &policy, generation: 1 };
        sessions.judge(&opener, current, second(0));
        let detail = match opener.detail {
            Detail::Query(query) => Detail::Query(Query { is_reply: true, ..query }),
            Detail::Tcp { .. } => Detail::Tcp { flags: ACK },
            other => other,
        };
        let answer = packet(opener.direction.opposite(), reversed(&opener.flow), detail);
        let judgement = sessions.judge(&answer, current, second(idle));
        if idle <= 60 {
            prop_assert_eq!(judgement.action, Action::Accept);
        } else {
            prop_assert!(matches!(judgement.basis, Basis::Packet(_)));
        }
    }
}
