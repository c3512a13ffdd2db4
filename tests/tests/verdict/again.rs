//! Established connections while rules change: they are judged again, and go on unless the outcome is another.
use std::net::SocketAddr;

use flowlog_tests::{
    agent::Action,
    lab::{VethPair, skip_unless_root},
};

use crate::{
    change::follow,
    connection::Connection,
    scene::{Mode, address, packets, start, stop_after, verdicts, vm, wire},
};

/// Both families of one end of the ports are allowed by a rule of this name, and nothing else is.
fn group(rule: &str, ports: &str) -> String {
    let rules = [
        ("", "source-cidr-ip = \"10.77.0.0/24\""),
        ("-6", "ipv6-source-cidr-ip = \"fd00:77::/64\""),
    ]
    .map(|(family, peer)| {
        format!(
            "{{ security-group-rule-id = \"{rule}{family}\", direction = \"ingress\", ip-protocol = \"TCP\", \
             port-range = {ports:?}, {peer} }},"
        )
    })
    .concat();
    format!(
        "\n[[security-group]]\nsecurity-group-id = \"sg\"\nvpc-id = \"vpc-test\"\nsecurity-group-type = \"enterprise\"\nrule = [ {rules} ]\n"
    )
}

/// Connections from outside to a port of the VM, of both families.
fn connections(pair: &VethPair, port: u16) -> [Connection; 2] {
    [false, true].map(|v6| {
        let target = SocketAddr::new(address(pair.right(), v6), port);
        Connection::open(pair.left(), (pair.right(), target))
    })
}

#[test]
fn a_session_goes_on_unless_the_new_rules_do_not_allow_it() {
    if skip_unless_root("a_session_goes_on_unless_the_new_rules_do_not_allow_it") {
        return;
    }
    for mode in Mode::BOTH {
        let pair = wire();
        let eni = |rule, ports| vm(&pair, mode, &["sg"], &group(rule, ports));
        let agent = start(eni("sgr-old", "80/81"));
        let mut both = connections(&pair, 80);
        let mut first = connections(&pair, 81);
        both.iter_mut().chain(&mut first).for_each(Connection::talk);
        // What was allowed is, by another rule. The VM speaks first, to which no rule would let it: it is the session that is asked about.
        follow(&agent, eni("sgr-new", "80/80"));
        both.iter_mut().for_each(Connection::talk);
        for connection in &mut first {
            assert_eq!(connection.is_cut(), mode == Mode::Enforce);
        }
        // It is the connection that it was, which is allowed again.
        follow(&agent, eni("sgr-old", "80/81"));
        both.iter_mut().for_each(Connection::talk);
        for connection in &mut first {
            if mode == Mode::Enforce {
                connection.goes_on();
            }
            connection.talk();
        }
        // A change that has nothing to do with them.
        follow(&agent, eni("sgr-old", "80/90"));
        both.iter_mut().chain(&mut first).for_each(Connection::talk);
        let outcome = stop_after(agent, 20, 20);
        let verdicts = verdicts(&outcome.records);
        let of = |port: u16, action: Action| {
            packets(&verdicts, |flow, _| {
                (flow.src.port() == port || flow.dst.port() == port) && flow.action == action
            })
        };
        assert_eq!(of(80, Action::Reject), 0, "{mode:?}: {verdicts:#?}");
        assert!(
            of(81, Action::Accept) > 0 && of(81, Action::Reject) > 0,
            "{mode:?}: {verdicts:#?}"
        );
        // Each was judged by all of one policy.
        for record in &outcome.records {
            let Some(action) = record.action else {
                continue;
            };
            let rule = record.security_group_rule_id.as_deref();
            let rules: &[Option<&str>] =
                match (action, record.srcaddr.is_some_and(|addr| addr.is_ipv6())) {
                    (Action::Accept, false) => &[Some("sgr-old"), Some("sgr-new")],
                    (Action::Accept, true) => &[Some("sgr-old-6"), Some("sgr-new-6")],
                    (Action::Reject, _) => &[None],
                };
            assert!(rules.contains(&rule), "{record:?}");
        }
    }
}
