//! Hooks: the same traffic gives the same records, however it is observed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use flowlog_tests::agent::{
    AgentPlan, AttachMode, Direction, EniPlan, Hook, IpType, LogMark, LogStatus, PATIENCE, Record,
    Volume,
};
use flowlog_tests::lab::{FrameSender, VethPair, skip_unless_root, traffic};
use flowlog_tests::packets::build::etherparse_frame;
use flowlog_tests::packets::oracle::{Oracle, Reading};
use flowlog_tests::packets::{corpus, sequences};

use crate::support::{LEFT, RIGHT, both_ends, quiet_up, start, stats, stop_after, wire};

const MTU: usize = 1500;
const ETHERNET: usize = 14;

/// A record without its times and without what the inventory says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    eni: String,
    direction: Option<Direction>,
    status: LogStatus,
    source: Option<(IpAddr, Option<u16>)>,
    destination: Option<(IpAddr, Option<u16>)>,
    protocol: Option<u8>,
    v6: Option<bool>,
}

/// What the records of all windows say of each flow, and TCP flags seen.
type Ledger = BTreeMap<Key, (Volume, u8)>;

fn ledger(records: &[Record]) -> Ledger {
    let mut ledger = Ledger::new();
    // Whether a window without traffic was closed is chance.
    for record in records
        .iter()
        .filter(|record| record.log_status != LogStatus::NoData)
    {
        let key = Key {
            eni: record.eni_id.clone(),
            direction: record.direction,
            status: record.log_status,
            source: record.srcaddr.map(|address| (address, record.srcport)),
            destination: record.dstaddr.map(|address| (address, record.dstport)),
            protocol: record.protocol,
            v6: record.r#type.map(|version| version == IpType::V6),
        };
        let (volume, flags) = ledger.entry(key).or_default();
        *volume += Volume {
            packets: record.packets.unwrap_or_default(),
            bytes: record.bytes.unwrap_or_default(),
        };
        *flags |= record.tcp_flags.unwrap_or_default();
    }
    ledger
}

/// Asserts that two ledgers are equal, and says where not.
#[track_caller]
fn assert_equal(case: &str, ledger: &Ledger, expected: &Ledger) {
    let differences: Vec<String> = ledger
        .keys()
        .chain(expected.keys())
        .filter(|key| ledger.get(key) != expected.get(key))
        .take(20)
        .map(|key| {
            format!(
                "{key:?}: {:?}, not {:?}",
                ledger.get(key),
                expected.get(key)
            )
        })
        .collect();
    assert!(differences.is_empty(), "{case}: {differences:#?}");
}

/// The crafted frames that an ordinary device takes, fragments in their order.
///
/// Two kinds are left out, for at ingress the kernel takes the outermost tag off before TC, but not before XDP: stacks of more tags
/// than are read; and frames that end among their tags, some of which it drops there (net/core/skbuff.c, `skb_vlan_untag`).
fn frames() -> Vec<Vec<u8>> {
    let many_tags = |name: &str| name.starts_with("tags-five") || name.starts_with("tags-six");
    corpus()
        .into_iter()
        .filter(|packet| !many_tags(&packet.name))
        .map(|packet| packet.frame)
        .chain(sequences().into_iter().flat_map(|sequence| sequence.frames))
        .filter(|frame| (ETHERNET..=MTU + ETHERNET).contains(&frame.len()))
        .filter(|frame| !ends_among_tags(frame))
        .collect()
}

/// Whether fewer than two octets follow the last tag that is there.
fn ends_among_tags(frame: &[u8]) -> bool {
    let mut offset = 12;
    while let Some([0x81 | 0x91, 0] | [0x88, 0xa8]) = frame.get(offset..offset + 2) {
        offset += 4;
    }
    offset > 12 && frame.len() < offset + 4
}

/// A sender that never has more packets under way than the shortest queue takes, so that none is refused: a refused frame passes
/// egress twice.
struct Sender<'p> {
    pair: &'p VethPair,
    sender: FrameSender,
    sent: u64,
    before: u64,
}

impl<'p> Sender<'p> {
    /// A veth that polls has a ring of 256 packets.
    const BATCH: u64 = 100;

    fn new(pair: &'p VethPair) -> Self {
        let left = pair.left();
        Self {
            pair,
            sender: FrameSender::open(&left.namespace, &left.name).expect("a sender"),
            sent: 0,
            before: stats(pair.right()).rx_packets,
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.sender.send(frame).expect("sent");
        self.sent += 1;
        if self.sent.is_multiple_of(Self::BATCH) {
            self.await_arrival();
        }
    }

    fn await_arrival(&self) {
        let deadline = Instant::now() + PATIENCE;
        while stats(self.pair.right()).rx_packets - self.before < self.sent {
            assert!(Instant::now() < deadline, "the right end misses frames");
        }
        assert_eq!(self.sender.refused(), 0);
    }
}

/// Sends crafted frames and a little flood, and gives how many of their packets are to be in records.
fn send_frames(pair: &VethPair) -> u64 {
    let mut sender = Sender::new(pair);
    let mut oracle = Oracle::default();
    let mut counted = 0;
    for frame in frames() {
        sender.send(&frame);
        counted += u64::from(oracle.read(&frame) != Reading::NotIp);
    }
    for packet in 0..2000_u16 {
        let mut frame = etherparse_frame(packet % 2 == 0, false, &[0; 18]);
        // The last octet of the source address makes flows of them.
        frame[29] = (packet / 2 % 50) as u8;
        sender.send(&frame);
        counted += 1;
    }
    sender.await_arrival();
    counted
}

/// Frames and pings, from left to right.
fn send_everything(pair: &VethPair) -> u64 {
    const PINGS: u16 = 20;
    let mut counted = send_frames(pair);
    for (address, _) in &pair.right().addresses {
        let answered = traffic::ping(&pair.left().namespace, *address, PINGS, 56).expect("pings");
        assert_eq!(answered, PINGS);
        counted += u64::from(answered);
    }
    counted
}

#[test]
fn every_hook_gives_the_same_records() {
    if skip_unless_root("every_hook_gives_the_same_records") {
        return;
    }
    let mut first = None;
    for (attach, hook, named) in [
        (AttachMode::Tcx, Hook::Tc, "ingress by tcx, egress by tcx"),
        (
            AttachMode::Clsact,
            Hook::Tc,
            "ingress by clsact, egress by clsact",
        ),
        (
            AttachMode::Tcx,
            Hook::Xdp,
            "ingress by xdp native, egress by tcx",
        ),
        (
            AttachMode::Clsact,
            Hook::Xdp,
            "ingress by xdp native, egress by clsact",
        ),
    ] {
        let pair = wire(MTU as u32);
        let mut plan = AgentPlan {
            attach,
            ..both_ends(&pair)
        };
        for eni in &mut plan.enis {
            eni.hook = hook;
        }
        let agent = start(&plan);
        agent
            .wait_for_log(LogMark::default(), named)
            .expect("the hook");
        let sent = Volume {
            packets: send_everything(&pair),
            bytes: 0,
        };
        let expected = [(LEFT, Direction::Out, sent), (RIGHT, Direction::In, sent)];
        let records = ledger(&stop_after(agent, &expected).records);
        let first = first.get_or_insert_with(|| records.clone());
        assert_equal(named, &records, first);
    }
}

#[test]
fn what_one_end_sends_the_other_receives() {
    if skip_unless_root("what_one_end_sends_the_other_receives") {
        return;
    }
    let pair = wire(MTU as u32);
    let agent = start(&both_ends(&pair));
    let sent = Volume {
        packets: send_frames(&pair),
        bytes: 0,
    };
    let expected = [(LEFT, Direction::Out, sent), (RIGHT, Direction::In, sent)];
    let records = stop_after(agent, &expected).records;
    let of = |eni: &str| {
        let mut ledger = ledger(&records);
        ledger.retain(|key, _| key.eni == eni);
        let anonymous = |(mut key, value): (Key, _)| {
            key.eni.clear();
            key.direction = None;
            (key, value)
        };
        ledger.into_iter().map(anonymous).collect::<Ledger>()
    };
    // The tags that are in the frame where it is sent are beside it where it is received.
    assert_equal("received, and sent", &of(RIGHT), &of(LEFT));
}

#[test]
fn generic_xdp_gives_the_same_records() {
    const DEVICE: &str = "passed0";
    if skip_unless_root("generic_xdp_gives_the_same_records") {
        return;
    }
    let mut first = None;
    for (hook, named) in [
        (Hook::Tc, "ingress by tcx, egress by tcx"),
        (Hook::Xdp, "ingress by xdp generic, egress by tcx"),
    ] {
        let pair = wire(MTU as u32);
        let right = pair.right();
        // A driver that has no XDP of its own, and passes on whatever the right end receives.
        let macvlan = [
            "link",
            "add",
            DEVICE,
            "link",
            &right.name,
            "type",
            "macvlan",
            "mode",
            "passthru",
        ];
        right.namespace.ip(&macvlan).expect("a macvlan device");
        quiet_up(&right.namespace, DEVICE);
        let mut eni = EniPlan::device(RIGHT, &right.namespace, DEVICE);
        eni.hook = hook;
        let agent = start(&AgentPlan::capturing([eni]));
        agent
            .wait_for_log(LogMark::default(), named)
            .expect("the hook");
        let sent = Volume {
            packets: send_frames(&pair),
            bytes: 0,
        };
        let records = ledger(&stop_after(agent, &[(RIGHT, Direction::In, sent)]).records);
        let first = first.get_or_insert_with(|| records.clone());
        assert_equal(named, &records, first);
    }
}
