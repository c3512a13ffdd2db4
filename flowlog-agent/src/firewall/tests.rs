use super::*;
use crate::bpf::{Counters, MapSizes, TestPins};

const NAMESPACE: u64 = 4_026_531_840;

/// A firewall whose counters are in a folder of their own. `None` where the test cannot run.
fn firewall() -> Option<(TestPins, Firewall)> {
    let pins = TestPins::new()?;
    Counters::create(pins.path(), MapSizes { v4: 64, v6: 64 }).unwrap();
    let firewall = Firewall::new(pins.path().to_owned());
    Some((pins, firewall))
}

/// Index and slot of the devices that the program knows.
fn known(firewall: &Firewall) -> Vec<(u32, u32)> {
    let Drops::Counted(drops) = &firewall.drops else {
        return Vec::new();
    };
    let devices = drops.devices().unwrap();
    let mut known: Vec<_> = devices
        .iter()
        .map(|(key, device)| (key.index, device.slot))
        .collect();
    known.sort_unstable();
    known
}

fn is_attached(pins: &TestPins) -> bool {
    pins.path().join("netfilter-link").exists()
}

#[test]
fn drops_are_counted_as_long_as_a_device_wants_them() {
    let Some((pins, mut firewall)) = firewall() else {
        return;
    };
    assert_eq!(firewall.state(), FirewallState::NotWanted);
    firewall.set((NAMESPACE, 2), None);
    assert!(!is_attached(&pins));
    firewall.set((NAMESPACE, 2), Some((7, false)));
    firewall.set((NAMESPACE, 3), Some((8, true)));
    assert!(matches!(firewall.state(), FirewallState::Counted { .. }));
    assert_eq!(known(&firewall), [(2, 7), (3, 8)]);
    firewall.set((NAMESPACE, 2), Some((9, false)));
    firewall.set((NAMESPACE, 3), None);
    assert_eq!(known(&firewall), [(2, 9)]);
    assert!(is_attached(&pins));
    firewall.set((NAMESPACE, 2), None);
    assert_eq!(firewall.state(), FirewallState::NotWanted);
    assert!(!is_attached(&pins));
}

#[test]
fn the_next_agent_goes_on_with_what_it_wants_and_removes_the_rest() {
    let Some((pins, mut firewall)) = firewall() else {
        return;
    };
    for (index, slot) in [(2, 7), (3, 8)] {
        firewall.set((NAMESPACE, index), Some((slot, false)));
    }
    firewall.leave();
    assert!(is_attached(&pins));
    let mut next = Firewall::new(pins.path().to_owned());
    // Not told of any device yet, it leaves what there is.
    assert_eq!(next.state(), FirewallState::NotWanted);
    assert!(is_attached(&pins));
    next.set((NAMESPACE, 3), Some((8, false)));
    assert_eq!(known(&next), [(2, 7), (3, 8)]);
    next.remove_leftovers();
    assert_eq!(known(&next), [(3, 8)]);
    next.leave();

    let mut last = Firewall::new(pins.path().to_owned());
    last.remove_leftovers();
    assert!(!is_attached(&pins));
    last.set((NAMESPACE, 4), Some((1, false)));
    assert_eq!(known(&last), [(4, 1)]);
    last.set((NAMESPACE, 4), None);
}

#[test]
fn where_they_cannot_be_had_the_reason_is_told_until_they_can() {
    let Some((pins, mut firewall)) = firewall() else {
        return;
    };
    // No such folder: its maps have no place.
    firewall.pin_folder = pins.path().join("nowhere").join("nobody");
    firewall.set((NAMESPACE, 2), Some((7, false)));
    let FirewallState::Unavailable(reason) = firewall.state() else {
        panic!("{:?}", firewall.state());
    };
    assert!(!reason.is_empty());
    firewall.set((NAMESPACE, 3), Some((8, false)));
    firewall.remove_leftovers();
    firewall.set((NAMESPACE, 3), None);
    assert_eq!(firewall.state(), FirewallState::Unavailable(reason));
    firewall.set((NAMESPACE, 2), None);
    assert_eq!(firewall.state(), FirewallState::NotWanted);
    firewall.pin_folder = pins.path().to_owned();
    firewall.set((NAMESPACE, 2), Some((7, false)));
    assert_eq!(known(&firewall), [(2, 7)]);
    firewall.set((NAMESPACE, 2), None);
}
