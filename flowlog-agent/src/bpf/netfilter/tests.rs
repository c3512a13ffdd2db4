use std::{
    io::Write as _,
    net::UdpSocket,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use flowlog_common::{
    ACTION_ACCEPT, ACTION_REJECT, DECIDED_BY_FIRST_RULE, DECIDED_BY_NETFILTER, DIRECTION_IN,
    FlowCounters, FlowKeyV4, FlowMarks, GENERATIONS, ORIGIN_NETFILTER_AFTER, ORIGIN_PROGRAM,
    PolicyEntry,
};

use super::*;
use crate::bpf::{
    Counters, MapSizes, OverflowPacket, OverflowRing, TestPins,
    testing::{killed_after, on_a_host_of_its_own},
};

const SIZES: MapSizes = MapSizes { v4: 64, v6: 64 };
const SLOT: u32 = 5;
/// The device `lo` of a namespace.
const LOOPBACK: u32 = 1;
const FROM: u16 = 4000;
const TO: u16 = 9;

/// Counters in a folder of their own. `None` where the test cannot run.
fn counters() -> Option<(TestPins, Counters)> {
    let pins = TestPins::new()?;
    let counters = Counters::create(pins.path(), SIZES).unwrap();
    Some((pins, counters))
}

/// Has this namespace's netfilter drop what comes in for the port [`TO`].
fn drop_what_comes_in() {
    let rules =
        "table inet t {\nchain c {\ntype filter hook input priority 0\nudp dport 9 drop\n}\n}\n";
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(nft.wait().unwrap().success());
}

/// Sends a datagram to this host, which has come in, and been dropped, when this returns: the device is `lo`.
fn send() {
    let socket = UdpSocket::bind(("127.0.0.1", FROM)).unwrap();
    socket.send_to(&[0; 100], ("127.0.0.1", TO)).unwrap();
}

fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

fn key(action: u8, origin: u8) -> FlowKeyV4 {
    FlowKeyV4 {
        eni: SLOT,
        src_addr: [127, 0, 0, 1],
        dst_addr: [127, 0, 0, 1],
        src_port: FROM.to_be_bytes(),
        dst_port: TO.to_be_bytes(),
        protocol: 17,
        direction: DIRECTION_IN,
        action,
        origin,
    }
}

/// The flow of what netfilter dropped, in the generation that was active.
fn dropped(counters: &mut Counters) -> Option<FlowCounters> {
    let still = counters.flip().unwrap();
    let mut found = None;
    counters
        .read_v4(&still, |keys, values| {
            for (key, value) in keys.iter().zip(values) {
                assert_eq!(key.eni, SLOT);
                if key.origin == ORIGIN_NETFILTER_AFTER {
                    assert_eq!(found.replace((*key, *value)), None);
                }
            }
        })
        .unwrap();
    counters.renew(still, SIZES).unwrap();
    found.map(|(found, value)| {
        assert_eq!(found, key(ACTION_REJECT, ORIGIN_NETFILTER_AFTER));
        value
    })
}

/// Puts a flow of the ENI's own program into both generations.
fn put_flow(pins: &TestPins, action: u8, judged: u32) {
    put(pins, key(action, ORIGIN_PROGRAM), judged);
}

fn put(pins: &TestPins, key: FlowKeyV4, judged: u32) {
    let flows = sys::obj_get(&pins.path().join("FLOWS_V4")).unwrap();
    let counted = FlowCounters {
        packets: 1,
        bytes: 128,
        marks: FlowMarks::new(0, DECIDED_BY_FIRST_RULE),
        judged,
    };
    for generation in 0..GENERATIONS as u32 {
        let flows = sys::map_of_maps_get(flows.as_fd(), generation)
            .unwrap()
            .unwrap();
        sys::map_update(flows.as_fd(), &key, &counted).unwrap();
    }
}

#[test]
fn what_the_security_groups_have_rejected_is_not_rejected_again() {
    let Some((pins, mut counters)) = counters() else {
        return;
    };
    on_a_host_of_its_own(|| {
        drop_what_comes_in();
        let drops = NetfilterDrops::attach(pins.path()).unwrap();
        drops
            .set_device(namespace(), LOOPBACK, SLOT, false)
            .unwrap();
        let once = FlowCounters {
            packets: 1,
            bytes: 128,
            marks: FlowMarks::new(0, DECIDED_BY_NETFILTER),
            judged: 0,
        };
        send();
        assert_eq!(dropped(&mut counters), Some(once), "without any flow");
        let policies = sys::obj_get(&pins.path().join("POLICIES")).unwrap();
        let epoch_7 = PolicyEntry {
            policy: 0,
            epoch: 7,
        };
        sys::map_update(policies.as_fd(), &SLOT, &epoch_7).unwrap();
        // Of each action: whether there is such a flow, and the epoch of the policy that judged it last.
        for (accepted, rejected, expected) in [
            (Some(0), None, Some(once)),
            (Some(7), None, Some(once)),
            (None, Some(0), None),
            (None, Some(7), None),
            (Some(7), Some(0), Some(once)),
            (Some(0), Some(7), None),
            (Some(0), Some(0), Some(once)),
            (Some(7), Some(6), Some(once)),
            (Some(6), Some(7), None),
        ] {
            for (action, judged) in [(ACTION_ACCEPT, accepted), (ACTION_REJECT, rejected)] {
                if let Some(judged) = judged {
                    put_flow(&pins, action, judged);
                }
            }
            send();
            assert_eq!(
                dropped(&mut counters),
                expected,
                "{accepted:?} {rejected:?}"
            );
            // The other generation too is to have none of these flows.
            dropped(&mut counters);
        }
        drops.detach().unwrap();
    });
}

#[test]
fn what_has_no_room_waits_and_the_rest_is_told() {
    /// What holds some tens of packets, and more packets than that.
    const RING: u32 = 4096;
    const PACKETS: u64 = 200;
    let Some(pins) = TestPins::new() else {
        return;
    };
    let smallest = MapSizes { v4: 1, v6: 1 };
    let mut counters = Counters::create_with_ring(pins.path(), smallest, RING).unwrap();
    // Another flow has the only place.
    let other = FlowKeyV4 {
        dst_port: [0, 1],
        ..key(ACTION_ACCEPT, ORIGIN_PROGRAM)
    };
    put(&pins, other, 0);
    on_a_host_of_its_own(|| {
        drop_what_comes_in();
        let drops = NetfilterDrops::attach(pins.path()).unwrap();
        drops
            .set_device(namespace(), LOOPBACK, SLOT, false)
            .unwrap();
        for _ in 0..PACKETS {
            send();
        }
        drops.detach().unwrap();
    });
    let still = counters.flip().unwrap();
    let mut waiting = 0;
    OverflowRing::open(pins.path()).unwrap().read(|packet| {
        let OverflowPacket::V4(packet) = packet else {
            panic!("of IPv6");
        };
        assert_eq!(packet.key, key(ACTION_REJECT, ORIGIN_NETFILTER_AFTER));
        assert_eq!(packet.marks.decided_by(), DECIDED_BY_NETFILTER);
        assert_eq!(packet.bytes, 128);
        waiting += packet.packets;
    });
    let enis = counters.read_enis(&still).unwrap();
    let told = enis[SLOT as usize * 2 + usize::from(DIRECTION_IN)];
    assert!(
        waiting > 0 && told.unmatched_drops > 0,
        "{waiting} {told:?}"
    );
    assert_eq!(waiting + told.unmatched_drops, PACKETS);
    // They are in another flow already, or in none that crossed the device: nothing was skipped.
    assert_eq!(told.map_full, Default::default());
}

#[test]
fn an_agent_that_is_killed_while_it_attaches_leaves_nothing_that_counts_twice() {
    let Some((pins, mut counters)) = counters() else {
        return;
    };
    on_a_host_of_its_own(|| {
        drop_what_comes_in();
        // So many calls of its own an agent makes at most.
        for calls in 0..16 {
            // What an agent that is killed has open, is closed.
            let first = killed_after(calls, || NetfilterDrops::attach(pins.path()));
            let all = first.is_ok();
            drop(first);
            let drops = NetfilterDrops::attach(pins.path()).unwrap();
            drops
                .set_device(namespace(), LOOPBACK, SLOT, false)
                .unwrap();
            send();
            let packets = dropped(&mut counters).map(|counted| counted.packets);
            assert_eq!(packets, Some(1), "after {calls} calls");
            drops.detach().unwrap();
            if all {
                return;
            }
        }
        panic!("it takes more calls");
    });
}

#[test]
fn devices_are_known_to_the_next_agent_until_the_program_is_detached() {
    let Some((pins, _counters)) = counters() else {
        return;
    };
    let drops = NetfilterDrops::attach(pins.path()).unwrap();
    drops.set_device(4_026_531_840, 2, 3, true).unwrap();
    drops.set_device(4_026_531_840, 3, 4, false).unwrap();
    drops.set_device(4_026_531_840, 3, 5, false).unwrap();
    drops.remove_device(4_026_531_840, 9).unwrap();
    drops.leave();
    let drops = NetfilterDrops::attach(pins.path()).unwrap();
    drops.remove_device(4_026_531_840, 2).unwrap();
    let device = Device {
        slot: 5,
        host_side: 0,
    };
    let index = DeviceKey {
        namespace: 4_026_531_840,
        index: 3,
    };
    assert_eq!(drops.devices().unwrap(), [(index, device)]);
    drops.leave();
    remove_left(pins.path()).unwrap();
    remove_left(pins.path()).unwrap();
    let drops = NetfilterDrops::attach(pins.path()).unwrap();
    assert_eq!(drops.devices().unwrap(), []);
    drops.detach().unwrap();
}

#[test]
fn the_verifier_is_soon_through() {
    let Some((pins, _counters)) = counters() else {
        return;
    };
    let layout = kernel_layout::of_running_kernel().unwrap();
    let mut ebpf = object::load_for_host(pins.path(), layout).unwrap();
    for (name, limit) in [(DROPS, 100), (VERDICT, 250_000)] {
        load(&mut ebpf, name).unwrap();
        let info = raw_tracepoint(&mut ebpf, name).unwrap().info().unwrap();
        let instructions = info.verified_instruction_count().unwrap();
        println!("{name}: {instructions} instructions");
        assert!(instructions < limit, "{name}: {instructions} instructions");
    }
}
