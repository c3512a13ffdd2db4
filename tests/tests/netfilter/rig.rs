//! A host with ENIs of its own, its counters, and rules of netfilter in it.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use flowlog_agent::{
    bpf::{
        AttachPlan, Counters, EniConstants, MapSizes, NetfilterDrops, Observer, Prepared, Target,
        pins,
    },
    config::{AttachMode, Position},
};
use flowlog_common::{
    ACTION_REJECT, DIRECTION_OUT, EniCounters, FlowCounters, FlowKeyV4, FlowKeyV6,
    ORIGIN_NETFILTER_AFTER, ORIGIN_NETFILTER_BEFORE, ORIGIN_PROGRAM,
};
use flowlog_tests::lab::{EndPlan, FrameSender, Namespace, VethPair, VethPlan};

const SIZES: MapSizes = MapSizes {
    v4: 1 << 12,
    v6: 1 << 12,
};

/// `ff02::16` (RFC 3810).
const ALL_MLD_ROUTERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];

/// How long it is awaited that what was sent has been counted.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at the counters: nobody tells when a packet was counted.
const LOOK: Duration = Duration::from_millis(5);

/// ENIs with their programs, the program of netfilter's drops, and what they have counted.
pub(crate) struct Host {
    observers: Vec<(Namespace, EndPlan, Observer)>,
    drops: Option<NetfilterDrops>,
    counters: Counters,
    counted: Counted,
    folder: PinFolder,
}

/// A folder for pins, removed when dropped.
struct PinFolder(PathBuf);

impl PinFolder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("flowlog-netfilter-{}-{number}", std::process::id());
        let folder = Self(Path::new("/sys/fs/bpf").join(name));
        pins::prepare(&folder.0).expect("a folder for pins");
        folder
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        pins::remove(&self.0);
    }
}

/// What was counted, over all drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Flows as [`flow`] writes them, with their packets and octets.
    pub(crate) flows: BTreeMap<String, (u64, u64)>,
    /// What is in no flow and is not 0, by slot and direction.
    pub(crate) unmatched: u64,
    pub(crate) unparsable: u64,
}

impl Host {
    /// A host without ENIs.
    pub(crate) fn new() -> Self {
        let folder = PinFolder::new();
        let counters = Counters::create(&folder.0, SIZES).expect("counters");
        let drops = NetfilterDrops::attach(&folder.0).expect("the program of drops");
        Self {
            observers: Vec::new(),
            drops: Some(drops),
            counters,
            counted: Counted::default(),
            folder,
        }
    }

    /// Makes a device the ENI of that slot.
    pub(crate) fn capture(&mut self, end: &EndPlan, slot: u32, host_side: bool) {
        let constants = EniConstants {
            slot,
            host_side,
            ethernet: true,
            xdp_mtu: 0,
            ..EniConstants::default()
        };
        let prepared = Prepared::new(&self.folder.0, constants).expect("programs");
        let (inode, index) = device(end);
        let target = Target {
            namespace_inode: inode,
            index,
            name: &end.name,
            mtu: 1500,
        };
        let plan = AttachPlan {
            mode: AttachMode::Auto,
            position: Position::First,
            clsact_priority: 1,
            xdp: false,
        };
        let observer = end
            .namespace
            .enter(|| Observer::attach(prepared, target, plan))
            .expect("the namespace")
            .expect("attached");
        self.observers
            .push((end.namespace.clone(), end.clone(), observer));
        self.drops()
            .set_device(inode, index, slot, host_side)
            .expect("a device");
    }

    pub(crate) fn drops(&self) -> &NetfilterDrops {
        self.drops.as_ref().expect("attached")
    }

    /// Another agent takes over.
    pub(crate) fn take_over(&mut self) {
        self.drops.take().expect("attached").leave();
        self.drops = Some(NetfilterDrops::attach(&self.folder.0).expect("taken over"));
    }

    /// The program of drops comes off.
    pub(crate) fn detach(&mut self) {
        let drops = self.drops.take().expect("attached");
        drops.detach().expect("detached");
    }

    /// Drains, and gives what was counted since the host was made.
    pub(crate) fn drain(&mut self) -> &Counted {
        let still = self.counters.flip().expect("a flip");
        let counted = &mut self.counted;
        self.counters
            .read_v4(&still, |keys, values| {
                for (key, value) in keys.iter().zip(values) {
                    counted.add(flow_v4(key), value);
                }
            })
            .expect("IPv4 flows");
        self.counters
            .read_v6(&still, |keys, values| {
                // What a kernel tells its multicast routers of itself (MLD) comes whenever it likes.
                let told = keys.iter().zip(values);
                for (key, value) in told.filter(|(key, _)| key.dst_addr != ALL_MLD_ROUTERS) {
                    counted.add(flow_v6(key), value);
                }
            })
            .expect("IPv6 flows");
        for aside in self.counters.read_enis(&still).expect("what is in no flow") {
            let EniCounters {
                unmatched_drops,
                unparsable,
                ..
            } = aside;
            counted.unmatched += unmatched_drops;
            counted.unparsable += unparsable.packets;
        }
        self.counters.renew(still, SIZES).expect("renewal");
        counted
    }

    /// Names of what the program of drops has pinned besides its maps.
    pub(crate) fn pins_of_drops(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder.0).expect("the folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("netfilter")).collect()
    }

    /// Forgets what was counted.
    pub(crate) fn forget(&mut self) {
        self.counted = Counted::default();
    }

    /// Drains until what was counted is as wanted, and once more, for nothing is to come beyond it.
    pub(crate) fn drain_until(&mut self, mut wanted: impl FnMut(&Counted) -> bool) -> Counted {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self.drain()) && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        self.drain().clone()
    }

    /// Asserts that these flows were counted and no others: each with its packets and octets.
    pub(crate) fn assert_flows(&mut self, test: &str, expected: &[(&str, u64, u64)]) {
        let expected: BTreeMap<String, (u64, u64)> = expected
            .iter()
            .map(|(flow, packets, octets)| ((*flow).to_owned(), (*packets, *octets)))
            .collect();
        let counted = self.drain_until(|counted| counted.flows == expected);
        assert_eq!(counted.flows, expected, "{test}");
        assert_eq!(
            counted.unmatched, 0,
            "{test}: drops whose flow is not known"
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(drops) = self.drops.take()
            && let Err(error) = drops.detach()
        {
            eprintln!("the program of drops is left: {error}");
        }
        for (namespace, end, observer) in self.observers.drain(..) {
            let (inode, index) = device(&end);
            let target = Target {
                namespace_inode: inode,
                index,
                name: &end.name,
                mtu: 1500,
            };
            let _ = namespace.enter(|| observer.detach(target));
        }
    }
}

impl Counted {
    fn add(&mut self, flow: String, counters: &FlowCounters) {
        let (packets, octets) = self.flows.entry(flow).or_default();
        *packets += counters.packets;
        *octets += counters.bytes;
    }

    /// Packets and octets of a flow.
    pub(crate) fn of(&self, flow: &str) -> (u64, u64) {
        self.flows.get(flow).copied().unwrap_or_default()
    }
}

/// A flow in words: `SLOT in|out PROTOCOL SOURCE PORT > DESTINATION PORT accept|reject|dropped after|dropped before`.
fn flow(
    (slot, direction, protocol): (u32, u8, u8),
    (src, src_port): (IpAddr, [u8; 2]),
    (dst, dst_port): (IpAddr, [u8; 2]),
    (action, origin): (u8, u8),
) -> String {
    let direction = if direction == DIRECTION_OUT {
        "out"
    } else {
        "in"
    };
    let verdict = match (action, origin) {
        (ACTION_REJECT, ORIGIN_NETFILTER_AFTER) => "dropped after",
        (ACTION_REJECT, ORIGIN_NETFILTER_BEFORE) => "dropped before",
        (ACTION_REJECT, ORIGIN_PROGRAM) => "reject",
        (_, ORIGIN_PROGRAM) => "accept",
        _ => panic!("action {action} of origin {origin}"),
    };
    format!(
        "{slot} {direction} {protocol} {src} {} > {dst} {} {verdict}",
        u16::from_be_bytes(src_port),
        u16::from_be_bytes(dst_port)
    )
}

fn flow_v4(key: &FlowKeyV4) -> String {
    flow(
        (key.eni, key.direction, key.protocol),
        (Ipv4Addr::from(key.src_addr).into(), key.src_port),
        (Ipv4Addr::from(key.dst_addr).into(), key.dst_port),
        (key.action, key.origin),
    )
}

fn flow_v6(key: &FlowKeyV6) -> String {
    flow(
        (key.eni, key.direction, key.protocol),
        (Ipv6Addr::from(key.src_addr).into(), key.src_port),
        (Ipv6Addr::from(key.dst_addr).into(), key.dst_port),
        (key.action, key.origin),
    )
}

/// Inode of a device's network namespace, and its index.
pub(crate) fn device(end: &EndPlan) -> (u64, u32) {
    let found = end.namespace.enter(|| {
        let inode = std::fs::metadata("/proc/thread-self/ns/net").map(|file| file.ino());
        (inode, nix::net::if_::if_nametoindex(end.name.as_str()))
    });
    let (inode, index) = found.expect("the namespace");
    (inode.expect("its inode"), index.expect("its index"))
}

/// A wire whose right end is the ENI of slot 7.
pub(crate) struct Bench {
    host: Host,
    pair: VethPair,
    sender: FrameSender,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let pair = wire();
        let mut host = Host::new();
        host.capture(pair.right(), 7, false);
        let sender = FrameSender::open(&pair.left().namespace, &pair.left().name);
        Self {
            host,
            sender: sender.expect("a sender"),
            pair,
        }
    }

    pub(crate) fn right(&self) -> &Namespace {
        &self.pair.right().namespace
    }

    pub(crate) fn pair(&self) -> &VethPair {
        &self.pair
    }

    pub(crate) fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    /// Sends a frame from the left end, so often.
    pub(crate) fn send(&mut self, times: u32, frame: &[u8]) {
        for _ in 0..times {
            self.sender.send(frame).expect("sent");
        }
    }

    /// As [`Host::assert_flows`]; then what was counted is forgotten, and nftables has no rules any more.
    pub(crate) fn assert_flows(&mut self, test: &str, expected: &[(&str, u64, u64)]) {
        self.host.assert_flows(test, expected);
        self.host.forget();
        flush(self.right());
    }
}

/// Two namespaces and a wire between them. The right one answers whatever it is to answer.
pub(crate) fn wire() -> VethPair {
    let left = Namespace::create("left").expect("a namespace");
    let right = Namespace::create("right").expect("a namespace");
    let pair = VethPair::create(VethPlan::between(&left, &right)).expect("a veth pair");
    for end in [pair.left(), pair.right()] {
        for path in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            end.namespace.set_sysctl(path, "0").expect("no limit");
        }
    }
    pair
}

/// Adds a chain of nftables with these rules, which are divided by semicolons.
pub(crate) fn chain(namespace: &Namespace, family: &str, hook: &str, rules: &str) {
    let rules = rules.replace("; ", "\n");
    let script =
        format!("table {family} t {{\nchain c {{\ntype filter hook {hook};\n{rules}\n}}\n}}\n");
    namespace.nft(&script).expect("rules");
}

/// Takes all rules of nftables away.
pub(crate) fn flush(namespace: &Namespace) {
    namespace.nft("flush ruleset").expect("no rules");
}
