//! What an agent that was killed leaves behind, and whether the next one can go on from there.
use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::bpf::{
    pins,
    testing::{TestPins, killed_after, udp_v4, udp_v6},
    trial::{Programs, SkbMetadata, TrialProgram},
};

const BEFORE: MapSizes = MapSizes { v4: 64, v6: 32 };
const AFTER: MapSizes = MapSizes { v4: 128, v6: 256 };
/// More than the kernel makes maps of.
const TOO_LARGE: MapSizes = MapSizes {
    v4: u32::MAX,
    v6: u32::MAX,
};

/// Programs that count into the counters of a folder.
fn programs(folder: &Path) -> Programs {
    let constants = EniConstants {
        slot: 3,
        ethernet: true,
        ..EniConstants::default()
    };
    Programs::load(folder, constants).unwrap()
}

/// Sends a packet of each of so many flows of each family, and as many frames that are not IP.
fn send(programs: &mut Programs, flows: u16) {
    let mut not_ip = vec![2; 60];
    not_ip[12..14].copy_from_slice(&[0x08, 0x06]);
    for port in 0..flows {
        for frame in [udp_v4(port), udp_v6(port), not_ip.clone()] {
            programs
                .run(TrialProgram::Ingress, &frame, SkbMetadata::default(), 1)
                .unwrap();
        }
    }
}

/// What is in a generation: packets of each source port, by family, and frames that are not IP.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    v4: BTreeMap<u16, u64>,
    v6: BTreeMap<u16, u64>,
    not_ip: u64,
}

impl Contents {
    /// What [`send`] makes of a clean generation.
    fn of(flows: u16) -> Self {
        let all: BTreeMap<u16, u64> = (0..flows).map(|port| (port, 1)).collect();
        Self {
            v4: all.clone(),
            v6: all,
            not_ip: flows.into(),
        }
    }

    fn read(counters: &Counters, still: &Still) -> Self {
        let mut found = Self::default();
        let read = counters.read_v4(still, |keys, values| {
            for (key, value) in keys.iter().zip(values) {
                let port = u16::from_be_bytes(key.src_port);
                assert_eq!(found.v4.insert(port, value.packets), None);
            }
        });
        read.unwrap();
        let read = counters.read_v6(still, |keys, values| {
            for (key, value) in keys.iter().zip(values) {
                let port = u16::from_be_bytes(key.src_port);
                assert_eq!(found.v6.insert(port, value.packets), None);
            }
        });
        read.unwrap();
        let enis = counters.read_enis(still).unwrap();
        found.not_ip = enis.iter().map(|eni| eni.not_ip.packets).sum();
        found
    }
}

fn wake_at(counters: &Counters, generation: usize) -> [u64; 2] {
    [0, 1].map(|family| {
        let index = (generation * FAMILIES + family) as u32;
        let occupancy = sys::map_lookup(counters.pinned.occupancy.as_fd(), &index).unwrap();
        occupancy.map_or(0, |occupancy: Occupancy| occupancy.wake_at)
    })
}

/// An agent is killed at each point of a renewal in turn; the next one renews to these sizes.
fn renew_again_wherever_it_was_killed(first: MapSizes, then: MapSizes) {
    let Some(test) = TestPins::new() else { return };
    let mut counters = Counters::create(test.path(), BEFORE).unwrap();
    let mut programs = programs(test.path());
    for calls in 0.. {
        send(&mut programs, 5);
        let still = counters.flip().unwrap();
        let index = still.index();
        send(&mut programs, 7);
        let completed = killed_after(calls, || counters.renew(still, first)).is_ok();
        drop(counters);

        let mut next = Counters::take_over(test.path()).unwrap();
        next.settle().unwrap();
        let still = next.still_after_take_over();
        assert_eq!(still.index(), index);
        next.renew(still, then).unwrap();
        let still = next.still_after_take_over();
        assert_eq!(Contents::read(&next, &still), Contents::default());
        assert_eq!(next.fill(&still).unwrap(), Fill::default());
        let half = [then.v4, then.v6].map(|size| u64::from(size / 2));
        assert_eq!(wake_at(&next, index), half);
        // As the kernel sees it.
        let seen = Counters::take_over(test.path()).unwrap();
        assert_eq!(seen.generations[index].sizes, then);
        assert_eq!(seen.generations[1 - index].sizes, BEFORE);

        // The other generation is as it was, and this one counts.
        let still = next.flip().unwrap();
        assert_eq!(next.sizes_of_active(), then);
        assert_eq!(Contents::read(&next, &still), Contents::of(7));
        next.renew(still, BEFORE).unwrap();
        send(&mut programs, 9);
        let still = next.flip().unwrap();
        assert_eq!(Contents::read(&next, &still), Contents::of(9));
        assert_eq!(next.fill(&still).unwrap(), Fill { v4: 9, v6: 9 });
        next.renew(still, BEFORE).unwrap();
        counters = next;
        if completed {
            assert!(calls > 8, "{calls} calls make no renewal");
            return;
        }
    }
}

#[test]
fn a_renewal_that_was_interrupted_is_completed_by_another() {
    renew_again_wherever_it_was_killed(BEFORE, BEFORE);
    renew_again_wherever_it_was_killed(AFTER, AFTER);
}

#[test]
fn a_renewal_to_other_sizes_than_the_interrupted_one_gives_these() {
    renew_again_wherever_it_was_killed(AFTER, MapSizes { v4: 16, v6: 64 });
}

#[test]
fn a_renewal_without_memory_that_was_interrupted_is_completed_by_another() {
    renew_again_wherever_it_was_killed(TOO_LARGE, BEFORE);
}

#[test]
fn a_flip_that_was_interrupted_has_happened_or_has_not() {
    let Some(test) = TestPins::new() else { return };
    let mut counters = Counters::create(test.path(), BEFORE).unwrap();
    let mut programs = programs(test.path());
    for (calls, flips, contents) in [(0, 0, 0), (1, 1, 5)] {
        assert!(killed_after(calls, || counters.flip()).is_err());
        let next = Counters::take_over(test.path()).unwrap();
        assert_eq!(next.flips(), flips);
        next.settle().unwrap();
        send(&mut programs, 5);
        let still = next.still_after_take_over();
        assert_eq!(Contents::read(&next, &still), Contents::of(contents));
    }
}

#[test]
fn the_flips_and_the_epoch_outlive_the_agent() {
    let Some(test) = TestPins::new() else { return };
    let (folder, other) = (test.folder("one"), test.folder("other"));
    let mut counters = Counters::create(&folder, BEFORE).unwrap();
    let epoch = counters.epoch().unwrap();
    assert_eq!(counters.flips(), 0);
    for flips in 1..=3 {
        let still = counters.flip().unwrap();
        assert_eq!(counters.flips(), flips);
        counters.renew(still, BEFORE).unwrap();
        let next = Counters::take_over(&folder).unwrap();
        assert_eq!(
            (next.flips(), next.epoch().unwrap()),
            (flips, epoch.clone())
        );
        assert_eq!(next.active, counters.active);
        counters = next;
    }
    let others = Counters::create(&other, BEFORE).unwrap();
    assert_ne!(others.epoch().unwrap(), epoch);
    drop(counters);
    pins::remove(&folder);
    let folder = test.folder("one");
    let anew = Counters::create(&folder, BEFORE).unwrap();
    assert_ne!(anew.epoch().unwrap(), epoch);
    assert_eq!(anew.flips(), 0);
    let boot_id = fs::read_to_string(BOOT_ID).unwrap();
    assert!(epoch.starts_with(boot_id.trim()));
}

/// The kernel would write more than there is room for.
#[test]
fn maps_of_another_shape_are_not_taken_over() {
    let Some(test) = TestPins::new() else { return };
    let folder = test.folder("one");
    drop(Counters::create(&folder, BEFORE).unwrap());
    let other = sys::map_create::<u32, FlowCounters>(sys::MAP_TYPE_ARRAY, 1, "test").unwrap();
    fs::remove_file(folder.join("ACTIVE")).unwrap();
    sys::obj_pin(other.as_fd(), &folder.join("ACTIVE")).unwrap();
    let refused = Counters::take_over(&folder)
        .err()
        .map(|error| error.to_string());
    assert_eq!(
        refused.as_deref(),
        Some(
            "cannot open the map ACTIVE: the map is of type 2 with keys of 4 octets and values of 24, and not of type 2, 4 and 16"
        )
    );
}
