//! Hooks: the same traffic gives the same records, however it is observed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flowlog_tests::agent::{
    AgentPlan, AttachMode, Direction, EniPlan, Hook, IpType, LogMark, LogStatus, Record, Volume,
};
use flowlog_tests::lab::{
    Family, FloodPlan, FrameSender, Namespace, VethPair, skip_unless_root, traffic, udp_flood,
};
use flowlog_tests::packets::oracle::{Oracle, Reading};
use flowlog_tests::packets::{corpus, sequences};

use crate::support::{LEFT, RIGHT, both_ends, quiet_up, start, stop_after, wire};

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
/// Left out are stacks of more tags than are read: at ingress the kernel has taken the outermost off before TC, but not before XDP.
fn frames() -> Vec<Vec<u8>> {
    corpus()
        .into_iter()
        .filter(|packet| {
            !packet.name.starts_with("tags-five") && !packet.name.starts_with("tags-six")
        })
        .map(|packet| packet.frame)
        .chain(sequences().into_iter().flat_map(|sequence| sequence.frames))
        .filter(|frame| (ETHERNET..=MTU + ETHERNET).contains(&frame.len()))
        .collect()
}

/// Sends all crafted frames, and gives how many of them are to be in records.
fn send_frames(namespace: &Namespace, device: &str) -> u64 {
    let mut sender = FrameSender::open(namespace, device).expect("a sender");
    let mut oracle = Oracle::default();
    let mut counted = 0;
    for frame in frames() {
        sender.send(&frame).expect("sent");
        counted += u64::from(oracle.read(&frame) != Reading::NotIp);
    }
    counted
}

/// Frames, floods and pings, from left to right.
fn send_everything(pair: &VethPair) -> u64 {
    const PINGS: u16 = 20;
    let (left, device) = (&pair.left().namespace, &pair.left().name);
    let mut counted = send_frames(left, device);
    for family in [Family::V4, Family::V6] {
        let plan = FloodPlan {
            packets: 20_000,
            flows: 500,
            family,
            ..FloodPlan::default()
        };
        counted += udp_flood(left, device, &plan).expect("a flood").packets;
    }
    for (address, _) in &pair.right().addresses {
        let answered = traffic::ping(left, *address, PINGS, 56).expect("pings");
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
        packets: send_frames(&pair.left().namespace, &pair.left().name),
        bytes: 0,
    };
    eprintln!("DBG sent {sent:?}"); std::thread::sleep(std::time::Duration::from_millis(300));
    let expected = [];
    let records = stop_after(agent, &expected).records;
    let of = |eni: &str| {
        let mut ledger = ledger(&records);
        ledger.retain(|key, _| key.eni == eni && key.status == LogStatus::Ok);
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
        let (left, device) = (&pair.left().namespace, &pair.left().name);
        let mut packets = send_frames(left, device);
        let plan = FloodPlan {
            packets: 20_000,
            flows: 500,
            ..FloodPlan::default()
        };
        packets += udp_flood(left, device, &plan).expect("a flood").packets;
        let sent = Volume { packets, bytes: 0 };
        let records = ledger(&stop_after(agent, &[(RIGHT, Direction::In, sent)]).records);
        let first = first.get_or_insert_with(|| records.clone());
        assert_equal(named, &records, first);
    }
}
