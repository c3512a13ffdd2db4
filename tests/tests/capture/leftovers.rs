//! What stays behind: nothing of an agent that ends, and of one that was killed only until the next one starts.

use flowlog_tests::agent::{
    AgentPlan, AttachMode, Direction, EniPlan, Hook, MatchPlan, Volume, conserved,
};
use flowlog_tests::lab::{VethPair, skip_unless_root, traffic};

use crate::others::{Foreign, link, names, ours};
use crate::support::{LEFT, RIGHT, start, stop_after, tc, wire};

/// The right end alone as an ENI, observed in this way.
fn at_right(pair: &VethPair, (attach, hook): (AttachMode, Hook)) -> AgentPlan {
    let mut eni = EniPlan::end(RIGHT, pair.right());
    eni.hook = hook;
    AgentPlan {
        attach,
        ..AgentPlan::capturing([eni])
    }
}

#[test]
fn nothing_is_left_after_the_end() {
    if skip_unless_root("nothing_is_left_after_the_end") {
        return;
    }
    for (attach, hook) in [
        (AttachMode::Tcx, Hook::Tc),
        (AttachMode::Clsact, Hook::Tc),
        (AttachMode::Tcx, Hook::Xdp),
        (AttachMode::Clsact, Hook::Xdp),
    ] {
        let pair = wire(1500);
        let right = pair.right();
        let look = || {
            (
                names(right),
                tc(&right.namespace, "qdisc show"),
                link(right),
            )
        };
        let before = look();
        let mut agent = start(&at_right(&pair, (attach, hook)));
        assert_ne!(look(), before, "nothing was attached");
        let pins = agent.pin_path().to_owned();
        assert!(pins.exists());
        agent.stop().expect("the agent's end");
        assert_eq!(look(), before, "{attach:?} {hook:?}");
        assert!(!pins.exists(), "{} is left behind", pins.display());
    }
}

#[test]
fn the_agents_own_namespace_is_like_any_other() {
    if skip_unless_root("the_agents_own_namespace_is_like_any_other") {
        return;
    }
    for (attach, hook) in [
        (AttachMode::Tcx, Hook::Tc),
        (AttachMode::Clsact, Hook::Tc),
        (AttachMode::Tcx, Hook::Xdp),
    ] {
        let pair = wire(1500);
        let (left, right) = (pair.left(), pair.right());
        let before = (names(left), tc(&left.namespace, "qdisc show"), link(left));
        let here = MatchPlan {
            name: Some(left.name.clone()),
            ..MatchPlan::default()
        };
        let mut enis = [EniPlan::new(LEFT, here), EniPlan::end(RIGHT, right)];
        enis[0].hook = hook;
        let agent = start(&AgentPlan {
            attach,
            namespace: Some(left.namespace.clone()),
            ..AgentPlan::capturing(enis)
        });
        let address = right.addresses[0].0;
        traffic::ping(&left.namespace, address, 10, 56).expect("pings");
        let crossed = Volume {
            packets: 10,
            bytes: 10 * (20 + 8 + 56),
        };
        let expected = [
            (LEFT, Direction::Out, crossed),
            (LEFT, Direction::In, crossed),
            (RIGHT, Direction::In, crossed),
            (RIGHT, Direction::Out, crossed),
        ];
        // The last answer has arrived, so all packets have been counted.
        conserved(&stop_after(agent, &[]).records, &expected);
        let after = (names(left), tc(&left.namespace, "qdisc show"), link(left));
        assert_eq!(after, before, "{attach:?} {hook:?}");
    }
}

/// An agent of one kind is killed and one of another kind comes after it.
fn killed_and_followed(from: (AttachMode, Hook), to: (AttachMode, Hook), with_foreign: bool) {
    let case = format!("{from:?}, then {to:?}, foreign filters: {with_foreign}");
    let pair = wire(1500);
    let foreign = with_foreign.then(|| Foreign::install(pair.right()));
    let dump = || foreign.as_ref().map(Foreign::dump);
    let before = (dump(), link(pair.right()));
    let mut agent = start(&at_right(&pair, from));
    agent.kill().expect("the agent's end");
    let next = at_right(&pair, to);
    agent
        .write_config(&agent.config_of(&next))
        .expect("the configuration");
    agent.replace_inventory(next.enis).expect("the inventory");
    agent.restart().expect("another agent");
    agent.wait_until_captured(&[RIGHT]).expect("captured");

    // What the dead agent left would count everything a second time.
    let (left, address) = (&pair.left().namespace, pair.right().addresses[0].0);
    assert_eq!(
        traffic::ping(left, address, 10, 56).ok(),
        Some(10),
        "{case}"
    );
    let crossed = Volume {
        packets: 10,
        bytes: 10 * (20 + 8 + 56),
    };
    let expected = [
        (RIGHT, Direction::In, crossed),
        (RIGHT, Direction::Out, crossed),
    ];
    let there = names(pair.right());
    assert_eq!(
        ours(&there),
        usize::from(to.1 == Hook::Tc) + 1,
        "{case}: {there:?}"
    );
    // The last answer has arrived, so all packets have been counted.
    let outcome = stop_after(agent, &[]);
    conserved(&outcome.records, &expected);
    assert_eq!(ours(&names(pair.right())), 0, "{case}");
    assert_eq!((dump(), link(pair.right())), before, "{case}");
    if !with_foreign {
        let qdiscs = tc(&pair.right().namespace, "qdisc show");
        assert!(!qdiscs.contains("clsact"), "{case}: {qdiscs}");
    }
}

#[test]
fn what_a_killed_agent_left_is_taken_over_or_removed() {
    if skip_unless_root("what_a_killed_agent_left_is_taken_over_or_removed") {
        return;
    }
    const TCX: (AttachMode, Hook) = (AttachMode::Tcx, Hook::Tc);
    const CLSACT: (AttachMode, Hook) = (AttachMode::Clsact, Hook::Tc);
    const XDP: (AttachMode, Hook) = (AttachMode::Tcx, Hook::Xdp);
    for (from, to, with_foreign) in [
        (CLSACT, CLSACT, false),
        (CLSACT, CLSACT, true),
        (CLSACT, TCX, false),
        (CLSACT, TCX, true),
        (CLSACT, XDP, false),
        (TCX, TCX, false),
        (TCX, CLSACT, false),
        (TCX, XDP, false),
        (XDP, TCX, false),
        (XDP, XDP, false),
    ] {
        killed_and_followed(from, to, with_foreign);
    }
}

/// An agent that is told to end before it was told of the devices leaves what it has found to the next one: it cannot take it off.
#[test]
fn an_agent_that_ends_at_once_forgets_nothing_of_the_one_before() {
    if skip_unless_root("an_agent_that_ends_at_once_forgets_nothing_of_the_one_before") {
        return;
    }
    for _ in 0..3 {
        let pair = wire(1500);
        let right = pair.right();
        let mut agent = start(&at_right(&pair, (AttachMode::Clsact, Hook::Tc)));
        let pins = agent.pin_path().to_owned();
        agent.kill().expect("the agent's end");
        // It is held up where it drains what it has found, so that both signal and devices wait for it.
        agent.set_failpoint(Some("drain-begun:1=say,drain-begun:1=sleep-300ms"));
        agent.restart().expect("another agent");
        let begin = agent.log_mark().expect("it runs");
        agent
            .wait_for_log(begin, "reached drain-begun")
            .expect("it drains");
        let outcome = agent.stop().expect("the agent's end");
        assert!(outcome.status.success(), "{}", outcome.stderr);
        let left = ours(&names(right));
        assert!(left == 0 || pins.exists(), "{left} filters are forgotten");

        agent.set_failpoint(None);
        agent.restart().expect("another agent");
        agent.wait_until_captured(&[RIGHT]).expect("captured");
        agent.stop().expect("the agent's end");
        assert_eq!(ours(&names(right)), 0);
        assert!(!pins.exists(), "{} is left behind", pins.display());
        let qdiscs = tc(&right.namespace, "qdisc show");
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    }
}
