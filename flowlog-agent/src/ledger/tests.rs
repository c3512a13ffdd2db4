//! What the ledger makes of what it is told.
use super::*;
use crate::slots::EniInSlot;
use flowlog_model::record::Eni;
use std::sync::Arc;

const DEVICE: DeviceId = DeviceId {
    namespace: 1,
    index: 2,
};
const OTHER: DeviceId = DeviceId {
    namespace: 1,
    index: 3,
};

fn exactly(packets_in: u64, packets_out: u64) -> DeviceCount {
    [packets_in, packets_out].map(|packets| Reading {
        low: packets,
        high: packets,
        bytes: packets * 100,
    })
}

/// Enters packets `in` of the only ENI there is, in flows.
fn record(ledger: &mut Ledger, packets: u64) {
    enter(ledger, packets, EniCounters::default());
}

fn enter(ledger: &mut Ledger, recorded: u64, aside: EniCounters) {
    let mut drain = Committed::default();
    drain.volumes.entry(0).or_default().add(0, recorded, 0);
    enter_drain(ledger, &drain, aside);
}

fn enter_drain(ledger: &mut Ledger, drain: &Committed, aside: EniCounters) {
    let eni = Eni {
        eni_id: "eni".to_owned(),
        vswitch_id: String::new(),
        vm_id: None,
        vpc_id: String::new(),
        account_id: String::new(),
        region: None,
    };
    let eni = EniInSlot {
        eni: Arc::new(eni),
        gone_at: None,
    };
    ledger.drained(drain, &[aside], &vec![Some(eni)]);
}

fn differences(ledger: &Ledger) -> [i64; 2] {
    let (_, conservation) = ledger.conservation().next().unwrap();
    conservation.map(|of| of.difference)
}

#[test]
fn what_the_interface_counted_and_nobody_recorded_is_the_difference() {
    let mut ledger = Ledger::default();
    ledger.captured("eni", DEVICE, exactly(100, 200));
    record(&mut ledger, 7);
    ledger.read([("eni", exactly(110, 208))]);
    assert_eq!(differences(&ledger), [3, 8]);
    record(&mut ledger, 4);
    assert_eq!(differences(&ledger), [-1, 8]);
}

#[test]
fn each_way_a_frame_can_go_counts() {
    let mut ledger = Ledger::default();
    ledger.captured("eni", DEVICE, exactly(0, 0));
    let packets = |packets| Volume {
        packets,
        bytes: packets * 100,
    };
    let aside = EniCounters {
        map_full: packets(2),
        unparsable: packets(1),
        not_ip: packets(2),
        extra_segments: 44,
        ..EniCounters::default()
    };
    enter(&mut ledger, 50, aside);
    ledger.read([("eni", exactly(11, 0))]);
    assert_eq!(differences(&ledger), [0, 0]);
    // A device that counts them as they are on the wire agrees, too; one that has lost some does not.
    for (interface, difference) in [(55, 0), (30, 0), (10, -1), (56, 1)] {
        ledger.read([("eni", exactly(interface, 0))]);
        assert_eq!(differences(&ledger), [difference, 0], "{interface}");
    }
    let losses: Vec<_> = ledger
        .losses()
        .iter()
        .map(|(cause, loss)| (*cause, loss.packets))
        .collect();
    assert_eq!(losses, [(Cause::MapFull, 2), (Cause::Unparsable, 1)]);
}

#[test]
fn what_is_dropped_before_the_interface_is_no_difference() {
    let mut ledger = Ledger::default();
    ledger.captured("eni", DEVICE, exactly(0, 0));
    let mut drain = Committed::default();
    // Of 9 packets the security groups dropped 2, and netfilter 3.
    drain.volumes.entry(0).or_default().add(0, 9, 900);
    drain.unseen.entry(0).or_default().add(0, 3, 300);
    let aside = EniCounters {
        dropped: Volume {
            packets: 2,
            bytes: 200,
        },
        ..EniCounters::default()
    };
    enter_drain(&mut ledger, &drain, aside);
    ledger.read([("eni", exactly(4, 0))]);
    assert_eq!(differences(&ledger), [0, 0]);
    let (_, [of, _]) = ledger.conservation().next().unwrap();
    assert_eq!(
        (of.interface, of.counted.recorded, of.counted.unseen),
        (4, 9, 5)
    );
    ledger.read([("eni", exactly(5, 0))]);
    assert_eq!(differences(&ledger), [1, 0]);
}

#[test]
fn readings_under_traffic_leave_so_much_room_and_no_more() {
    let mut ledger = Ledger::default();
    let base = Reading {
        low: 100,
        high: 104,
        bytes: 0,
    };
    ledger.captured("eni", DEVICE, [base, base]);
    let now = Reading {
        low: 150,
        high: 151,
        bytes: 0,
    };
    ledger.read([("eni", [now, now])]);
    for (seen, difference) in [(45, 1), (46, 0), (51, 0), (52, -1)] {
        let mut ledger = ledger.clone();
        record(&mut ledger, seen);
        assert_eq!(differences(&ledger)[0], difference, "{seen}");
    }
}

#[test]
fn an_eni_goes_on_over_devices_and_restarts() {
    let mut ledger = Ledger::default();
    ledger.captured("eni", DEVICE, exactly(100, 0));
    let old = ledger.clone();
    record(&mut ledger, 10);
    let text = serde_json::to_string(&ledger).unwrap();
    let mut ledger = old.newer(serde_json::from_str(&text).unwrap());
    // The next agent finds it on the same device, which has counted on.
    ledger.captured("eni", DEVICE, exactly(105, 0));
    ledger.released("eni", Some(exactly(115, 0)));
    record(&mut ledger, 5);
    ledger.captured("eni", OTHER, exactly(0, 0));
    record(&mut ledger, 4);
    ledger.read([("eni", exactly(4, 0))]);
    assert_eq!(differences(&ledger), [0, 0]);
}

#[test]
fn what_a_device_counted_while_the_counters_were_lost_is_told() {
    let mut ledger = Ledger::default();
    ledger.captured("eni", DEVICE, exactly(100, 50));
    record(&mut ledger, 10);
    let missing = ledger.missing("eni", DEVICE, exactly(117, 50)).unwrap();
    assert_eq!((missing.r#in.packets, missing.r#in.bytes), (7, 700));
    assert_eq!(missing.out.packets, 0);
    assert_eq!(ledger.missing("eni", OTHER, exactly(117, 50)), None);
}

#[test]
fn a_device_that_is_gone_is_settled_by_what_was_counted_on_it() {
    let gone = [Reading {
        low: 10,
        high: u64::MAX,
        bytes: 0,
    }; 2];
    for (counted, difference) in [(9, 1), (10, 0), (12, 0)] {
        let mut ledger = Ledger::default();
        ledger.captured("eni", DEVICE, exactly(0, 0));
        ledger.released("eni", Some(gone));
        assert!(ledger.is_unsettled());
        record(&mut ledger, counted);
        ledger.settle();
        assert!(!ledger.is_unsettled());
        assert_eq!(differences(&ledger)[0], difference, "{counted}");
        ledger.captured("eni", OTHER, exactly(0, 0));
        ledger.read([("eni", exactly(5, 0))]);
        assert_eq!(differences(&ledger)[0], difference + 5, "{counted}");
    }
}

#[test]
fn what_was_drained_after_the_last_reading_before_a_reboot_is_no_difference() {
    let mut ledger = Ledger::default();
    ledger.captured("eni", DEVICE, exactly(0, 0));
    ledger.read([("eni", exactly(5, 0))]);
    record(&mut ledger, 9);
    ledger.released_all();
    assert_eq!(differences(&ledger), [0, 0]);
}

#[test]
fn an_eni_that_is_gone_can_be_forgotten() {
    let mut ledger = Ledger::default();
    ledger.captured("here", DEVICE, exactly(0, 0));
    ledger.captured("gone", OTHER, exactly(0, 0));
    ledger.released("gone", None);
    ledger.forget(|_| false);
    assert_eq!(ledger.conservation().count(), 1);
}
