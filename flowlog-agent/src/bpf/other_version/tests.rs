//! Pins of other versions, made by hand: all that is in them comes back, and what is not as it should be is left alone.
mod links;

use flowlog_common::{Active, DECIDED_BY_NOTHING, FlowMarks, MAX_ENIS, Overflow, Volume};

use super::{
    layout::{EniCountersV1, EniCountersV2, OverflowV1},
    *,
};
use crate::bpf::{sys::crafted, testing::TestPins};

const ENTRIES: u32 = 16;

/// Shapes of the maps, of which a test gets one wrong: key and value in octets.
#[derive(Clone, Copy)]
struct Shapes {
    active: (u32, u32),
    v4: (u32, u32),
    v6: (u32, u32),
    enis: (u32, u32),
    identities: (u32, u32),
    ring: bool,
}

const RIGHT: Shapes = Shapes {
    active: (4, 8),
    v4: (20, 24),
    v6: (44, 24),
    enis: (4, 48),
    identities: (4, 512),
    ring: true,
};

const RIGHT_V2: Shapes = Shapes {
    active: (4, 16),
    enis: (4, 56),
    ..RIGHT
};

/// `ACTIVE` of version 2, as it is made here: the first generation is still.
const ACTIVE_V2: Active = Active {
    generation: 1,
    zero: 0,
    flips: 7,
};

/// Extra segments of each generation, of version 2.
const EXTRA_SEGMENTS_V2: u64 = 9;

/// Octets of the ring that the two packets take, which are made in version 2: each with a header of 8.
pub(crate) const RING_OF_VERSION_2: u64 = 8 + 40 + 8 + 64;

/// The maps of another version.
struct Made {
    folder: PathBuf,
    active: OwnedFd,
    v4: [OwnedFd; GENERATIONS],
    v6: [OwnedFd; GENERATIONS],
    enis: [OwnedFd; GENERATIONS],
    ring: OwnedFd,
}

impl Made {
    fn new(folder: PathBuf, shapes: Shapes) -> Self {
        let pin =
            |name: &str, map: &OwnedFd| sys::obj_pin(map.as_fd(), &folder.join(name)).unwrap();
        let hash = |shape| crafted::map(sys::MAP_TYPE_HASH, shape, ENTRIES).unwrap();
        let array = |shape, entries| crafted::map(sys::MAP_TYPE_ARRAY, shape, entries).unwrap();
        let of_maps = |name: &str, inner: &[OwnedFd; GENERATIONS]| {
            let outer = crafted::array_of_maps(inner[0].as_fd(), 2).unwrap();
            for (index, inner) in (0..).zip(inner) {
                sys::map_of_maps_update(outer.as_fd(), index, inner.as_fd()).unwrap();
            }
            pin(name, &outer);
        };
        let (v4, v6) = (
            [(); 2].map(|()| hash(shapes.v4)),
            [(); 2].map(|()| hash(shapes.v6)),
        );
        let enis = [(); 2].map(|()| array(shapes.enis, MAX_ENIS * 2));
        of_maps("FLOWS_V4", &v4);
        of_maps("FLOWS_V6", &v6);
        of_maps("ENIS", &enis);
        let active = array(shapes.active, 1);
        pin("ACTIVE", &active);
        pin("IDENTITIES", &hash(shapes.identities));
        let ring = if shapes.ring {
            crafted::ring(4096).unwrap()
        } else {
            hash((4, 8))
        };
        pin(OVERFLOW, &ring);
        Self {
            folder,
            active,
            v4,
            v6,
            enis,
            ring,
        }
    }
}

/// Names of what is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn key_v4(port: u16) -> FlowKeyV4 {
    FlowKeyV4 {
        eni: 7,
        src_addr: [192, 0, 2, 1],
        src_port: port.to_be_bytes(),
        protocol: 17,
        ..FlowKeyV4::default()
    }
}

fn key_v6(port: u16) -> FlowKeyV6 {
    FlowKeyV6 {
        eni: 7,
        src_addr: [0xfe; 16],
        src_port: port.to_be_bytes(),
        protocol: 6,
        ..FlowKeyV6::default()
    }
}

fn counters(packets: u64) -> FlowCounters {
    FlowCounters {
        packets,
        bytes: packets * 100,
        marks: FlowMarks::new(packets as u8, DECIDED_BY_NOTHING),
        judged: 0,
    }
}

/// A struct of another version as the words that it consists of.
fn words<T: Copy>(value: &T) -> Vec<u64> {
    let start = std::ptr::from_ref(value).cast::<u64>();
    // SAFETY: within the value; integers without padding.
    let word = |index| unsafe { start.add(index).read_unaligned() };
    (0..size_of::<T>() / 8).map(word).collect()
}

/// What [`fill`] has put into the maps besides.
struct Filled {
    folder: PathBuf,
    eni: Eni,
    v4: Overflow<FlowKeyV4>,
    v6: Overflow<FlowKeyV6>,
}

/// Makes pins of a version, 1 or 2, of an ENI in slot 7: of each family 42 packets in flows (IPv6: 84), of which 6 (IPv6: 12) in the first
/// generation, and 4 (IPv6: 5) in the ring, all `in`; 6 packets `out` that were skipped, half of them in each generation.
fn fill(folder: PathBuf, version: u32) -> Filled {
    let made = Made::new(folder, if version == 1 { RIGHT } else { RIGHT_V2 });
    if version > 1 {
        sys::map_update(made.active.as_fd(), &0_u32, &ACTIVE_V2).unwrap();
    }
    for generation in 0..GENERATIONS {
        for port in 0..3 {
            let packets = 10 * generation as u64 + u64::from(port) + 1;
            let (v4, v6) = (&made.v4[generation], &made.v6[generation]);
            sys::map_update(v4.as_fd(), &key_v4(port), &counters(packets)).unwrap();
            sys::map_update(v6.as_fd(), &key_v6(port), &counters(2 * packets)).unwrap();
        }
        let volume = |packets| Volume { packets, bytes: 60 };
        let first = EniCountersV1 {
            map_full: volume(1),
            unparsable: volume(2),
            not_ip: volume(3 + generation as u64),
        };
        let enis = made.enis[generation].as_fd();
        if version == 1 {
            sys::map_update(enis, &15_u32, &first).unwrap();
        } else {
            let extra_segments = EXTRA_SEGMENTS_V2;
            let eni = EniCountersV2 {
                first,
                extra_segments,
            };
            sys::map_update(enis, &15_u32, &eni).unwrap();
        }
    }
    let v4 = Overflow {
        packets: 4,
        bytes: 400,
        marks: FlowMarks::default(),
        key: key_v4(99),
    };
    let v6 = Overflow {
        packets: 5,
        bytes: 500,
        marks: FlowMarks::new(18, DECIDED_BY_NOTHING),
        key: key_v6(98),
    };
    let items = if version == 1 {
        [words(&of_version_1(&v4)), words(&of_version_1(&v6))]
    } else {
        [words(&v4), words(&v6)]
    };
    for item in items {
        crafted::put(made.ring.as_fd(), &item).unwrap();
    }
    let eni = Eni {
        eni_id: "eni-1".to_owned(),
        vswitch_id: "vsw-1".to_owned(),
        vpc_id: "vpc-1".to_owned(),
        account_id: "1".to_owned(),
        vm_id: None,
        region: None,
    };
    Identities::open(&made.folder)
        .unwrap()
        .set(7, &eni)
        .unwrap();
    Filled {
        folder: made.folder,
        eni,
        v4,
        v6,
    }
}

fn of_version_1<K: Copy>(packet: &Overflow<K>) -> OverflowV1<K> {
    OverflowV1 {
        generation: 1,
        tcp_flags: packet.marks.0,
        packets: packet.packets,
        bytes: packet.bytes,
        key: packet.key,
        reserved: 0,
    }
}

/// Likewise; gives the ENI.
pub(crate) fn filled(folder: PathBuf, version: u32) -> Eni {
    fill(folder, version).eni
}

#[test]
fn what_an_agent_of_another_version_has_left_is_read() {
    for version in [1, 2] {
        let Some(test) = TestPins::new() else { return };
        is_read(&test, version);
    }
}

fn is_read(test: &TestPins, version: u32) {
    let Filled {
        folder,
        eni,
        v4,
        v6,
    } = fill(test.folder(&format!("abi-{version}")), version);
    let found = OtherPins::find(test.path()).unwrap();
    let [pins] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((pins.version(), pins.folder()), (version, &*folder));
    let left = pins.open().unwrap();
    left.settle().unwrap();
    assert_eq!(left.identities().unwrap(), [(7, eni)]);
    // Reading takes nothing away.
    for _ in 0..2 {
        for still in left.generations() {
            let packets = |port: u16| 10 * still.index() as u64 + u64::from(port) + 1;
            let mut flows = Vec::new();
            let read = left.read_v4(&still, |keys, values| {
                flows.extend(keys.iter().copied().zip(values.iter().copied()));
            });
            read.unwrap();
            flows.sort_by_key(|(key, _)| *key);
            let expected = [0, 1, 2].map(|port| (key_v4(port), counters(packets(port))));
            assert_eq!(flows, expected);
            let mut flows = Vec::new();
            let read = left.read_v6(&still, |keys, values| {
                flows.extend(keys.iter().copied().zip(values.iter().copied()));
            });
            read.unwrap();
            flows.sort_by_key(|(key, _)| *key);
            let expected = [0, 1, 2].map(|port| (key_v6(port), counters(2 * packets(port))));
            assert_eq!(flows, expected);
            let enis = left.read_enis(&still).unwrap();
            assert_eq!(enis.len(), 2 * MAX_ENIS as usize);
            for (index, eni) in enis.iter().enumerate() {
                let packets = [eni.map_full, eni.unparsable, eni.not_ip].map(|of| of.packets);
                let expected = [1, 2, 3 + still.index() as u64];
                assert_eq!(packets, if index == 15 { expected } else { [0; 3] });
                let extra_segments = if (version, index) == (2, 15) {
                    EXTRA_SEGMENTS_V2
                } else {
                    0
                };
                assert_eq!(eni.extra_segments, extra_segments);
            }
        }
        let mut packets = Vec::new();
        left.read_ring(|packet| packets.push(packet));
        assert_eq!(packets, [OverflowPacket::V4(v4), OverflowPacket::V6(v6)]);
        assert_eq!((packets.len(), v4.packets, v6.packets), (2, 4, 5));
    }
    assert_eq!(left.flips(), (version == 2).then_some(ACTIVE_V2.flips));
    let epoch = left.epoch().unwrap();
    assert_eq!(pins.open().unwrap().epoch().unwrap(), epoch);
    left.remove();
    assert_eq!(OtherPins::find(test.path()).unwrap(), []);
    assert!(!folder.exists());
}

#[test]
fn what_their_agent_has_drained_is_removed_and_the_rest_stays() {
    let Some(test) = TestPins::new() else { return };
    fill(test.folder("abi-2"), 2);
    let found = OtherPins::find(test.path()).unwrap();
    let mut left = found[0].open().unwrap();
    let packets = |left: &OtherCounters, still: &Still| {
        let mut packets = 0;
        let read = left.read_v4(still, |_, values| {
            packets += values.iter().map(|of| of.packets).sum::<u64>();
        });
        read.unwrap();
        let read = left.read_v6(still, |_, values| {
            packets += values.iter().map(|of| of.packets).sum::<u64>();
        });
        read.unwrap();
        let enis = left.read_enis(still).unwrap();
        packets
            + enis
                .iter()
                .map(|of| of.map_full.packets + of.extra_segments)
                .sum::<u64>()
    };
    let [first, second] = left.generations();
    assert_eq!(
        (packets(&left, &first), packets(&left, &second)),
        (6 + 12 + 10, 36 + 72 + 10)
    );
    // Done again after an interruption, nothing more goes.
    for _ in 0..2 {
        left.remove_drained(8 + 40).unwrap();
        assert_eq!(
            (packets(&left, &first), packets(&left, &second)),
            (0, 36 + 72 + 10)
        );
        let mut waiting = 0;
        left.read_ring(|packet| waiting += u64::from(matches!(packet, OverflowPacket::V6(_))));
        assert_eq!(waiting, 1);
    }
}

#[test]
fn only_folders_of_other_versions_that_hold_something_are_found() {
    let Some(test) = TestPins::new() else { return };
    assert_eq!(OtherPins::find(&test.path().join("nowhere")).unwrap(), []);
    let map = crafted::map(sys::MAP_TYPE_ARRAY, (4, 8), 1).unwrap();
    let current = format!("abi-{ABI_VERSION}");
    for name in [
        "abi-9", "abi-1", &current, "abi-01", "abi--1", "abi-", "other-2", "abi-x",
    ] {
        let pin = test.folder(name).join("SOMETHING");
        sys::obj_pin(map.as_fd(), &pin).unwrap();
    }
    test.folder("abi-5");
    sys::obj_pin(map.as_fd(), &test.path().join("abi-7")).unwrap();
    let found = OtherPins::find(test.path()).unwrap();
    let versions: Vec<u32> = found.iter().map(OtherPins::version).collect();
    assert_eq!(versions, [1, 9]);
}

#[test]
fn an_unknown_version_is_refused_and_left_alone() {
    let Some(test) = TestPins::new() else { return };
    let made = Made::new(test.folder("abi-9"), RIGHT);
    let before = names(&made.folder);
    let [pins] = &OtherPins::find(test.path()).unwrap()[..] else {
        panic!("one folder");
    };
    let Err(error @ BpfError::OtherVersion { version: 9, .. }) = pins.open() else {
        panic!("opened");
    };
    let told = error.to_string();
    assert!(
        told.contains("version 9") && told.contains("knows versions 1 to 3"),
        "{told}"
    );
    assert_eq!(names(&made.folder), before);
}

#[test]
fn maps_of_another_shape_are_refused_and_left_alone() {
    let Some(test) = TestPins::new() else { return };
    for (name, shapes) in [
        (
            "ACTIVE",
            Shapes {
                active: (4, 16),
                ..RIGHT
            },
        ),
        (
            "maps",
            Shapes {
                v4: (20, 16),
                ..RIGHT
            },
        ),
        (
            "maps",
            Shapes {
                v4: (24, 24),
                ..RIGHT
            },
        ),
        (
            "maps",
            Shapes {
                v6: (44, 32),
                ..RIGHT
            },
        ),
        (
            "maps",
            Shapes {
                enis: (4, 56),
                ..RIGHT
            },
        ),
        (
            "identities",
            Shapes {
                identities: (4, 256),
                ..RIGHT
            },
        ),
        (
            OVERFLOW,
            Shapes {
                ring: false,
                ..RIGHT
            },
        ),
    ] {
        let made = Made::new(test.folder("abi-1"), shapes);
        let before = names(&made.folder);
        let found = OtherPins::find(test.path()).unwrap();
        let Err(error @ BpfError::OtherVersion { version: 1, .. }) = found[0].open() else {
            panic!("opened with another {name}");
        };
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(names(&made.folder), before);
        pins::remove(&made.folder);
        pins::prepare(test.path()).unwrap();
    }
    // And what is not there.
    let made = Made::new(test.folder("abi-1"), RIGHT);
    fs::remove_file(made.folder.join("ENIS")).unwrap();
    let found = OtherPins::find(test.path()).unwrap();
    assert!(matches!(
        found[0].open(),
        Err(BpfError::OtherVersion { .. })
    ));
}
