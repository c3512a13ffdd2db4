//! Programs of a version 1 agent that count on a device, and an agent that takes their place. The programs are ours, which count into maps
//! of their own: no link knows of versions.
use std::{net::UdpSocket, os::linux::fs::MetadataExt as _};

use flowlog_model::security_group::{SecurityMode, session::WhenFull};

use super::*;
use crate::{
    bpf::{
        AttachPlan, Counters, DeviceDirection, EniConstants, Hook, MapSizes, Observer, Prepared,
        Target, chain, clsact,
        testing::{killed_after, on_a_host_of_its_own},
    },
    config::{AttachMode, Position},
};

const SIZES: MapSizes = MapSizes { v4: 64, v6: 64 };
const OURS: EniConstants = EniConstants {
    slot: 3,
    host_side: false,
    ethernet: true,
    xdp_mtu: 0,
    security_mode: SecurityMode::Off,
    when_full: WhenFull::Accept,
};

fn plan(mode: AttachMode) -> AttachPlan {
    AttachPlan {
        mode,
        position: Position::First,
        clsact_priority: 1,
        xdp: false,
    }
}

/// The device `lo` of the thread's namespace.
fn lo() -> Target<'static> {
    let namespace = fs::metadata("/proc/thread-self/ns/net").unwrap();
    Target {
        namespace_inode: namespace.st_ino(),
        index: 1,
        name: "lo",
        mtu: 65536,
    }
}

fn attach(folder: &Path, mode: AttachMode) -> Observer {
    let prepared = Prepared::new(folder, OURS).unwrap();
    Observer::attach(prepared, lo(), plan(mode)).unwrap()
}

/// Puts what is on the device by pins of `theirs` into the folder of version 1, where that version's agent would have put it.
fn move_to_version_1(theirs: &Path, version_1: &Path) {
    for name in pins::devices(theirs).unwrap() {
        fs::rename(theirs.join(&name), version_1.join(&name)).unwrap();
    }
}

/// Sends so many datagrams from a socket to itself. Each goes out of the device and comes in.
fn send(socket: &UdpSocket, datagrams: u64) {
    for _ in 0..datagrams {
        socket
            .send_to(&[0; 10], socket.local_addr().unwrap())
            .unwrap();
        socket.recv(&mut [0; 10]).unwrap();
    }
}

/// Packets of the socket that were counted since the last call.
fn counted(counters: &mut Counters, socket: &UdpSocket) -> u64 {
    let port = socket.local_addr().unwrap().port().to_be_bytes();
    let still = counters.flip().unwrap();
    let mut packets = 0;
    let read = counters.read_v4(&still, |keys, values| {
        let of_socket = keys
            .iter()
            .zip(values)
            .filter(|(key, _)| key.src_port == port);
        packets += of_socket.map(|(_, value)| value.packets).sum::<u64>();
    });
    read.unwrap();
    counters.renew(still, SIZES).unwrap();
    packets
}

/// How many of our programs are on the device.
fn programs_on_lo() -> usize {
    [DeviceDirection::Ingress, DeviceDirection::Egress]
        .into_iter()
        .flat_map(|direction| chain(1, "lo", direction).unwrap())
        .filter(|entry| entry.name.starts_with("flowlog_"))
        .count()
}

fn device_pins(folder: &Path) -> Vec<String> {
    let mut names = pins::devices(folder).unwrap();
    names.sort();
    names
}

/// An agent of version 1 is gone and its programs count on; the next agent adopts them, and is killed in between after so many calls.
fn adopted_without_a_gap(mode: AttachMode, calls: u32) {
    let Some(test) = TestPins::new() else { return };
    let (theirs, version_1, ours) = (
        test.folder("theirs"),
        Made::new(test.folder("abi-1"), RIGHT).folder,
        test.folder(&format!("abi-{ABI_VERSION}")),
    );
    on_a_host_of_its_own(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut their_counters = Counters::create(&theirs, SIZES).unwrap();
        attach(&theirs, mode).leave();
        move_to_version_1(&theirs, &version_1);
        let left_pins = device_pins(&version_1);
        assert!(!left_pins.is_empty());
        send(&socket, 3);

        let found = OtherPins::find(test.path()).unwrap();
        let left = found[0].open().unwrap();
        // Before there are counters of ours, nothing is taken over.
        assert!(left.adopt_links(&ours).is_err());
        assert_eq!(device_pins(&version_1), left_pins);
        let mut our_counters = Counters::create(&ours, SIZES).unwrap();
        drop(killed_after(calls, || left.adopt_links(&ours)));
        send(&socket, 2);
        left.adopt_links(&ours).unwrap();
        assert_eq!(left.adopt_links(&ours).unwrap(), 0);
        assert_eq!(
            (device_pins(&version_1), device_pins(&ours)),
            (vec![], left_pins)
        );
        send(&socket, 4);
        let observer = attach(&ours, mode);
        assert_eq!(programs_on_lo(), 2);
        send(&socket, 5);

        left.settle().unwrap();
        let packets = [&mut their_counters, &mut our_counters].map(|of| counted(of, &socket));
        assert_eq!(packets, [2 * (3 + 2 + 4), 2 * 5]);
        left.remove();
        assert!(!version_1.exists());
        // What they made is ours to remove.
        observer.detach(lo());
        assert_eq!((programs_on_lo(), device_pins(&ours)), (0, vec![]));
        assert!(!clsact::exists(1).unwrap());
    });
}

#[test]
fn links_are_adopted_without_a_gap() {
    for calls in 0..3 {
        adopted_without_a_gap(AttachMode::Auto, calls);
    }
}

#[test]
fn filters_are_adopted_without_a_gap_and_so_is_their_qdisc() {
    for calls in 0..3 {
        adopted_without_a_gap(AttachMode::Clsact, calls);
    }
}

/// An agent of version 1 came after one of ours and knew nothing of it.
#[test]
fn where_both_count_a_device_theirs_comes_off() {
    let Some(test) = TestPins::new() else { return };
    let (theirs, version_1, ours) = (
        test.folder("theirs"),
        Made::new(test.folder("abi-1"), RIGHT).folder,
        test.folder(&format!("abi-{ABI_VERSION}")),
    );
    on_a_host_of_its_own(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut our_counters = Counters::create(&ours, SIZES).unwrap();
        let observer = attach(&ours, AttachMode::Auto);
        if observer.hooks() != [Hook::Tcx; 2] {
            println!("skipped: this kernel has no TCX");
            return observer.detach(lo());
        }
        let mut their_counters = Counters::create(&theirs, SIZES).unwrap();
        attach(&theirs, AttachMode::Auto).leave();
        move_to_version_1(&theirs, &version_1);
        assert_eq!(programs_on_lo(), 4);
        send(&socket, 3);
        let left = OtherPins::find(test.path()).unwrap()[0].open().unwrap();
        assert_eq!(left.adopt_links(&ours).unwrap(), 2);
        assert_eq!(programs_on_lo(), 2);
        send(&socket, 4);
        let packets = [&mut their_counters, &mut our_counters].map(|of| counted(of, &socket));
        assert_eq!(packets, [2 * 3, 2 * (3 + 4)]);
        assert_eq!(
            (device_pins(&version_1), device_pins(&ours).len()),
            (vec![], 2)
        );
        observer.detach(lo());
        assert_eq!(programs_on_lo(), 0);
    });
}
