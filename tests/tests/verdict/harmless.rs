//! In `observe` each packet goes on as it would without an agent, whatever the verdict: octet for octet, and in order.
use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use flowlog_tests::{
    agent::{Action, LogStatus},
    lab::{EndPlan, FrameSender, VethPair, skip_unless_root},
    packets::{corpus, sequences},
};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
        sockopt,
    },
    unistd::Pid,
};

use crate::{
    frames::errors,
    scene::{Mode, Place, silent_wire, start, stop_after},
};

/// What an ordinary device takes: an Ethernet header, and that with its MTU.
const FRAME: std::ops::RangeInclusive<usize> = 14..=1514;
/// Room for what a device has received and nobody has read yet, in octets.
const ROOM: usize = 64 << 20;
/// How long a frame is awaited.
const PATIENCE: Duration = Duration::from_secs(20);

/// A group that allows nothing, and one that allows what has a port of the crafted packets.
const TABLES: &str = r#"
[[security-group]]
security-group-id = "sg-closed"
vpc-id = "vpc-test"
security-group-type = "enterprise"

[[security-group]]
security-group-id = "sg-https"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-in", direction = "ingress", ip-protocol = "TCP", port-range = "443/443", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-in-6", direction = "ingress", ip-protocol = "TCP", port-range = "443/443", ipv6-source-cidr-ip = "::/0" },
    { security-group-rule-id = "sgr-out", direction = "egress", ip-protocol = "UDP", port-range = "443/443", dest-cidr-ip = "0.0.0.0/0" },
]
"#;

/// Everything that the stack is given of an end's device, as another device has it: somebody else's filter, which stands behind the
/// programs, copies it there.
struct Tap(OwnedFd);

impl Tap {
    fn behind(end: &EndPlan) -> Self {
        let namespace = &end.namespace;
        let sink = [
            "link", "add", "sink0", "type", "veth", "peer", "name", "sink1",
        ];
        namespace.ip(&sink).expect("a sink");
        for device in ["sink1", "sink0"] {
            let disable = format!("ipv6/conf/{device}/disable_ipv6");
            namespace.set_sysctl(&disable, "1").expect("no IPv6");
            let up = ["link", "set", device, "arp", "off", "up"];
            namespace.ip(&up).expect("up");
        }
        let tc = |arguments: String| namespace.run(&format!("tc {arguments}"), "").expect("tc");
        tc(format!("qdisc add dev {} clsact", end.name));
        let copy = "protocol all u32 match u32 0 0 action mirred egress mirror dev sink0";
        tc(format!(
            "filter add dev {} ingress prio 10 {copy}",
            end.name
        ));
        Self(namespace.enter(|| listen("sink1")).expect("the namespace"))
    }

    /// The frames until the one that is the last.
    fn until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let mut buffer = [0; 2048];
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => panic!("only {} frames within {PATIENCE:?}", frames.len()),
                Err(error) => panic!("the tap fails: {error}"),
            };
            if &buffer[..length] == last {
                return frames;
            }
            frames.push(buffer[..length].to_vec());
        }
    }
}

/// A socket that receives what comes to a device of the thread's namespace.
fn listen(device: &str) -> OwnedFd {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    );
    let socket = socket.expect("a packet socket");
    let interfaces = getifaddrs().expect("the devices");
    let mut addresses = interfaces.filter(|interface| interface.interface_name == device);
    let address = addresses.find_map(|interface| interface.address?.as_link_addr().copied());
    bind(socket.as_raw_fd(), &address.expect("the device")).expect("bound");
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM).expect("room");
    let patience = nix::sys::time::TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience).expect("a time limit");
    socket
}

/// All kinds of frames: of every protocol, with tags and extension headers, fragments, malformed ones, errors about what was sent before.
fn frames() -> Vec<Vec<u8>> {
    let one_by_one = corpus().into_iter().map(|packet| packet.frame);
    let in_order = sequences().into_iter().flat_map(|sequence| sequence.frames);
    let all = one_by_one.chain(in_order).chain(errors());
    all.filter(|frame| FRAME.contains(&frame.len())).collect()
}

/// Sends the frames both ways, and gives what the other ends' stacks were given of those to the VM and of those from it.
fn cross(pair: &VethPair, taps: &[Tap; 2], frames: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
    let senders = [pair.left(), pair.right()];
    let senders =
        senders.map(|end| FrameSender::open(&end.namespace, &end.name).expect("a sender"));
    // Of no protocol, so that it passes whatever is enforced.
    let last = [
        &[
            2, 0xf1, 0, 0, 0xff, 0xfe, 2, 0xf1, 0, 0, 0xff, 1, 0x88, 0xb5,
        ][..],
        &[7; 46],
    ]
    .concat();
    thread::scope(|scope| {
        // On one CPU, which then receives what it sends in that order.
        let sent = scope.spawn(|| {
            pin();
            for mut sender in senders {
                for frame in frames.iter().chain([&last]) {
                    // What is dropped before it is sent is refused.
                    sender.offer(frame).expect("offered");
                }
            }
        });
        sent.join().expect("no panic");
    });
    [&taps[0], &taps[1]].map(|tap| tap.until(&last))
}

/// Keeps the thread on one CPU.
fn pin() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("the CPUs");
    let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(cpu.expect("a CPU")).expect("a set");
    sched_setaffinity(this, &one).expect("pinned");
}

#[test]
fn whatever_the_verdict_a_packet_goes_on_as_without_an_agent() {
    if skip_unless_root("whatever_the_verdict_a_packet_goes_on_as_without_an_agent") {
        return;
    }
    let frames = frames();
    for place in Place::ALL {
        let pair = silent_wire();
        let taps = [pair.right(), pair.left()].map(Tap::behind);
        let without = cross(&pair, &taps, &frames);
        for group in ["sg-closed", "sg-https"] {
            let agent = start(place.eni(&pair, Mode::Observe, &[group], TABLES));
            let with = cross(&pair, &taps, &frames);
            for (way, (with, without)) in with.iter().zip(&without).enumerate() {
                assert_eq!(with.len(), without.len(), "{place:?}, {group}, way {way}");
                let differs = with
                    .iter()
                    .zip(without)
                    .find(|(with, without)| with != without);
                assert_eq!(differs, None, "{place:?}, {group}, way {way}");
            }
            // It was judged all the same.
            let outcome = stop_after(agent, 100, 100);
            let mut judged = outcome
                .records
                .iter()
                .filter(|record| record.log_status == LogStatus::Ok);
            let accepts = judged
                .clone()
                .any(|record| record.action == Some(Action::Accept));
            assert_eq!(accepts, group == "sg-https", "{place:?}");
            assert!(
                judged.any(|record| record.action == Some(Action::Reject)),
                "{place:?}"
            );
        }
        // And the taps would tell.
        let agent = start(place.eni(&pair, Mode::Enforce, &["sg-closed"], TABLES));
        let enforced = cross(&pair, &taps, &frames);
        for (enforced, without) in enforced.iter().zip(&without) {
            assert!(
                enforced.len() < without.len() / 2,
                "{place:?}: {} of {}",
                enforced.len(),
                without.len()
            );
        }
        drop(agent);
    }
}
