use std::fmt::Write as _;

use flowlog_model::record::Eni;

use super::*;
use crate::{
    bpf::{Counters, MapSizes, TestPins, killed_after},
    slots::Slots,
};

/// What an agent has in the kernel.
struct Host {
    pins: TestPins,
    security: Security,
    slots: Slots,
}

impl Host {
    /// With room for so many rules. `None` where the test cannot run.
    fn new(max_rules: u32) -> Option<Self> {
        let pins = TestPins::new()?;
        let sessions = Sessions::create(pins.path(), 64).unwrap();
        Counters::create(pins.path(), MapSizes { v4: 64, v6: 64 }).unwrap();
        let policies = Policies::create_for(pins.path(), max_rules).unwrap();
        Some(Self {
            pins,
            security: Security::new(policies, sessions),
            slots: Slots::default(),
        })
    }

    /// The agent dies, and another takes over; the slots are those that there were.
    fn restart(&mut self) {
        let policies = Policies::take_over(self.pins.path()).unwrap();
        let sessions = Sessions::take_over(self.pins.path()).unwrap();
        self.security = Security::new(policies, sessions);
    }

    /// The slot of an ENI, which it gets if it has none.
    fn slot(&mut self, inventory: &Inventory, eni_id: &str) -> u32 {
        self.slots.take(&entry(inventory, eni_id).eni).unwrap()
    }

    fn follow(&mut self, inventory: &Inventory) {
        self.security.follow(inventory, &self.slots.table());
    }

    fn judge(&mut self, inventory: &Inventory, eni_id: &str) -> Result<(), String> {
        let slot = self.slot(inventory, eni_id);
        self.security
            .judge(slot, inventory, entry(inventory, eni_id))
    }

    fn sweep(&mut self) {
        self.security.sweep(Duration::ZERO).unwrap();
    }

    /// Rules that are in force by slot; none where nothing is judged.
    fn rules(&self, slots: &[u32]) -> Vec<Option<usize>> {
        let rules = |slot: &u32| Some(self.security.in_force(*slot)?.rules.unwrap_or(UNKNOWN));
        slots.iter().map(rules).collect()
    }
}

/// Rules of a policy that a previous agent has brought into force.
const UNKNOWN: usize = usize::MAX;

fn entry<'i>(inventory: &'i Inventory, eni_id: &str) -> &'i EniEntry {
    let mut entries = inventory.entries().iter();
    entries.find(|entry| entry.eni.eni_id == eni_id).unwrap()
}

/// ENIs that are each in a group of its own with so many rules. A rule is known by its ENI, a letter and a number, and is one port's.
fn inventory(enis: &[(&str, &str, char, usize)]) -> Inventory {
    let mut text = String::new();
    for (eni, mode, letter, rules) in enis {
        write!(
            text,
            "[[eni]]\neni-id = \"{eni}\"\nvswitch-id = \"vsw\"\nvpc-id = \"vpc\"\naccount-id = \"1\"\nmatch = {{ name = \"{eni}\" }}\n\
             security-mode = \"{mode}\"\nsecurity-group-ids = [\"sg-{eni}\"]\n\
             [[security-group]]\nsecurity-group-id = \"sg-{eni}\"\nvpc-id = \"vpc\"\nrule = [\n"
        )
        .unwrap();
        for number in 1..=*rules {
            writeln!(
                text,
                "{{ security-group-rule-id = \"{eni}-{letter}-{number}\", direction = \"ingress\", ip-protocol = \"TCP\", \
                 port-range = \"{number}/{number}\", source-cidr-ip = \"0.0.0.0/0\" }},"
            )
            .unwrap();
        }
        text.push_str("]\n");
    }
    Inventory::parse(&text, "inventory.toml").unwrap()
}

#[test]
fn a_policy_that_has_no_room_holds_up_no_other() {
    let Some(mut host) = Host::new(4) else { return };
    let wanted = inventory(&[
        ("a", "enforce", 'x', 1),
        ("large", "enforce", 'x', 4),
        ("z", "observe", 'x', 2),
    ]);
    let slots = ["a", "large", "z"].map(|eni| host.slot(&wanted, eni));
    host.follow(&wanted);
    assert_eq!(host.rules(&slots), [Some(1), None, Some(2)]);
    let reason = host.security.reason(slots[1]).unwrap().to_owned();
    assert_eq!(
        reason,
        "cannot give numbers to 4 rules: of the 4 rules that can have one at a time, there is room for 3 more"
    );
    assert_eq!(host.security.reason(slots[0]), None);
    assert_eq!(host.security.error(), None);
    assert!(host.security.is_busy());

    // Whoever attaches programs is told of its own ENI.
    host.judge(&wanted, "a").unwrap();
    host.judge(&wanted, "z").unwrap();
    let told = host.judge(&wanted, "large").unwrap_err();
    assert!(told.starts_with("cannot give numbers to 4 rules"), "{told}");

    let smaller = inventory(&[
        ("a", "enforce", 'x', 1),
        ("large", "enforce", 'x', 1),
        ("z", "observe", 'x', 2),
    ]);
    host.follow(&smaller);
    assert_eq!(host.rules(&slots), [Some(1), Some(1), Some(2)]);
    assert_eq!(host.security.reason(slots[1]), None);
    host.judge(&smaller, "large").unwrap();
}

/// At a change, and at a restart: what was enforced is enforced on.
#[test]
fn where_a_policy_has_no_room_the_one_before_holds_on() {
    let Some(mut host) = Host::new(6) else { return };
    let small = inventory(&[("a", "enforce", 'x', 2), ("b", "enforce", 'x', 1)]);
    let slots = ["a", "b"].map(|eni| host.slot(&small, eni));
    host.follow(&small);
    assert_eq!(host.rules(&slots), [Some(2), Some(1)]);
    let before = host.security.in_force(slots[0]).unwrap();

    let large = inventory(&[("a", "enforce", 'y', 6), ("b", "enforce", 'x', 2)]);
    host.follow(&large);
    assert_eq!(host.rules(&slots), [Some(2), Some(2)]);
    assert_eq!(host.security.in_force(slots[0]), Some(before));
    assert!(host.security.reason(slots[0]).is_some());
    host.judge(&large, "a").unwrap();
    assert!(host.security.reason(slots[0]).is_some(), "it is told on");

    host.restart();
    host.follow(&large);
    assert_eq!(host.rules(&slots), [Some(UNKNOWN), Some(2)]);
    assert_eq!(
        host.security.in_force(slots[0]).unwrap().epoch,
        before.epoch
    );
    host.judge(&large, "a").unwrap();
    host.judge(&large, "b").unwrap();
    assert!(host.security.reason(slots[0]).is_some());
    assert_eq!(host.security.reason(slots[1]), None);

    // It is nothing that would have to be in force for the ENI to be captured.
    let off = inventory(&[("a", "off", 'y', 6), ("b", "enforce", 'x', 2)]);
    host.judge(&off, "a").unwrap();
    assert_eq!(host.rules(&slots), [None, Some(2)]);
    assert_eq!(host.security.reason(slots[0]), None);
}

/// Also after a restart, when the numbers that have to stay are those of a policy that a previous agent has brought into force.
#[test]
fn numbers_of_rules_that_are_gone_do_not_stay_for_a_policy_that_has_no_room() {
    let Some(mut host) = Host::new(4) else { return };
    let small = inventory(&[("a", "enforce", 'x', 1), ("b", "enforce", 'x', 3)]);
    let slots = ["a", "b"].map(|eni| host.slot(&small, eni));
    host.follow(&small);
    assert_eq!(host.rules(&slots), [Some(1), Some(3)]);
    host.restart();
    let large = inventory(&[("a", "enforce", 'y', 3), ("b", "off", 'x', 0)]);
    host.follow(&large);
    assert_eq!(host.rules(&slots), [Some(UNKNOWN), None]);
    let numbers = BTreeSet::from_iter(0..100);
    assert_eq!(host.security.rule_ids(&numbers).len(), 4);
    host.security.drained();
    let kept = host.security.rule_ids(&numbers);
    assert_eq!(kept.into_values().collect::<Vec<_>>(), ["a-x-1"]);
    host.sweep();
    assert_eq!(host.rules(&slots), [Some(3), None]);
}

#[test]
fn what_had_no_room_is_in_force_when_there_is_some() {
    let Some(mut host) = Host::new(3) else { return };
    let wanted = |mode| inventory(&[("a", mode, 'x', 2), ("b", "enforce", 'x', 2)]);
    let slots = ["a", "b"].map(|eni| host.slot(&wanted("enforce"), eni));
    host.follow(&wanted("enforce"));
    assert_eq!(host.rules(&slots), [Some(2), None]);
    host.follow(&wanted("off"));
    // The numbers of rules that are gone may be in what is not drained yet.
    host.sweep();
    assert_eq!(host.rules(&slots), [None, None]);
    host.security.drained();
    host.sweep();
    assert_eq!(host.rules(&slots), [None, Some(2)]);
    assert_eq!(host.security.reason(slots[1]), None);
}

/// The kernel takes so many calls and then none, at whatever point: each ENI has its old policy or its new one, and what is done again comes
/// to its end.
#[test]
fn whatever_the_kernel_refuses_can_be_done_again() {
    let Some(mut host) = Host::new(64) else {
        return;
    };
    let inventories = ['x', 'y'].map(|letter| {
        inventory(&[
            ("a", "enforce", letter, 3),
            ("b", "observe", letter, if letter == 'x' { 1 } else { 5 }),
        ])
    });
    let slots = ["a", "b"].map(|eni| host.slot(&inventories[0], eni));
    host.follow(&inventories[0]);
    let wanted = [[Some(3), Some(1)], [Some(3), Some(5)]];
    for calls in 0..200 {
        let to = (calls as usize + 1) % 2;
        let epochs = |host: &Host| slots.map(|slot| host.security.in_force(slot).unwrap().epoch);
        let before = epochs(&host);
        killed_after(calls, || host.follow(&inventories[to]));
        let is_behind = host.security.is_behind();
        for (at, epoch) in epochs(&host).into_iter().enumerate() {
            let rules = host.rules(&slots)[at];
            let old = (before[at], wanted[1 - to][at]);
            assert!(
                (epoch, rules) == old || (epoch != before[at] && rules == wanted[to][at]),
                "{rules:?} after {calls} calls"
            );
            assert!(is_behind || rules == wanted[to][at], "after {calls} calls");
        }
        // One that attaches its programs meanwhile gets its own, and the others are not forgotten.
        host.judge(&inventories[to], "b").unwrap();
        host.sweep();
        assert_eq!(host.rules(&slots), wanted[to], "after {calls} calls");
        assert!(!host.security.is_behind(), "after {calls} calls");
        host.security.drained();
        if !is_behind {
            assert!(calls > 10, "nothing was refused");
            return;
        }
    }
    panic!("it takes more calls");
}

#[test]
fn a_slot_that_is_nobodys_is_judged_by_nothing() {
    let Some(mut host) = Host::new(2) else { return };
    let wanted = inventory(&[("a", "enforce", 'x', 1), ("b", "enforce", 'x', 3)]);
    host.judge(&wanted, "a").unwrap();
    host.judge(&wanted, "b").unwrap_err();
    let [a, b] = ["a", "b"].map(|eni| host.slot(&wanted, eni));
    host.security.forget(b);
    assert_eq!(host.security.reason(b), None);
    assert_eq!(host.rules(&[a, b]), [Some(1), None]);
    host.security.forget(a);
    assert_eq!(host.rules(&[a, b]), [None, None]);
    assert!(!host.security.is_busy());
    // Nor does the next agent find anything.
    host.restart();
    assert_eq!(host.rules(&[a, b]), [None, None]);
}

#[test]
fn what_a_previous_agent_has_left_for_others_is_gone() {
    let Some(mut host) = Host::new(8) else { return };
    let wanted = inventory(&[("a", "enforce", 'x', 1), ("b", "enforce", 'x', 2)]);
    let slots = ["a", "b"].map(|eni| host.slot(&wanted, eni));
    host.follow(&wanted);
    host.restart();
    assert_eq!(host.rules(&slots), [Some(UNKNOWN), Some(UNKNOWN)]);
    host.follow(&inventory(&[("b", "enforce", 'x', 2)]));
    assert_eq!(host.rules(&slots), [None, Some(2)]);
}

/// ENIs of the same groups have one policy, whoever asks for it.
#[test]
fn a_wish_is_the_same_by_itself_and_with_all_others() {
    let Some(mut host) = Host::new(8) else { return };
    let wanted = inventory(&[("a", "enforce", 'x', 2), ("b", "off", 'x', 2)]);
    let slots = ["a", "b"].map(|eni| host.slot(&wanted, eni));
    host.follow(&wanted);
    let before = slots.map(|slot| host.security.in_force(slot));
    assert!(before[0].is_some() && before[1].is_none());
    host.judge(&wanted, "a").unwrap();
    host.judge(&wanted, "b").unwrap();
    assert_eq!(slots.map(|slot| host.security.in_force(slot)), before);
    let unknown = Eni {
        eni_id: "c".to_owned(),
        ..entry(&wanted, "a").eni.clone()
    };
    host.slots.take(&unknown).unwrap();
    host.follow(&wanted);
    assert_eq!(slots.map(|slot| host.security.in_force(slot)), before);
}
