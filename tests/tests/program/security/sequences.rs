//! Packets both ways, one after the other, against [`Sessions::judge`]: replies, connections that open and close, queries, errors, fragments,
//! changed policies, full tables, and time that passes.
use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, time::Duration};

use flowlog_agent::bpf::trial::age_sessions;
use flowlog_model::{
    record::{Direction, FlowTuple},
    security_group::{
        AddressFamily, Policy, SecurityMode,
        session::{
            ACK, Current, Detail, FIN, Fragment, Packet, Query, Quoted, RST, SYN, SessionConfig,
            Sessions, WhenFull, reversed,
        },
    },
};
use flowlog_tests::lab::skip_unless_root;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{
    host::{Counted, Host, basis, differences, note, uptime},
    world::Random,
};

/// How long it may be quiet, in seconds. No sum of up to [`MAX_PAUSES`] of them is less than 20 s under a time after which a session is
/// over (60, 300, 600 and 910 s): in the kernel a session is noted once in 2.6 s at worst, and its time goes on meanwhile.
const PAUSES: [u64; 4] = [33, 140, 610, 950];
const MAX_PAUSES: usize = 3;

/// On a host that is slower a case ends early, for its own time must not count beside that of pauses.
const PATIENCE: Duration = Duration::from_secs(15);

/// Few addresses and ports, so that packets meet each other's sessions.
struct Scene {
    random: Random,
    local: BTreeMap<bool, Vec<IpAddr>>,
    peers: BTreeMap<bool, Vec<IpAddr>>,
    ports: Vec<u16>,
    protocols: &'static [u8],
    /// Packets that were sent and are no later fragments.
    past: Vec<Packet>,
}

/// What a case is about.
#[derive(Clone, Copy)]
enum About {
    /// Few addresses and ports, and all protocols.
    All,
    /// One TCP connection after the other with the same addresses and ports, so that packets meet sessions that are closing.
    OneConnection,
}

impl Scene {
    fn new(seed: u64, about: About) -> Self {
        let mut random = Random(seed);
        let (addresses, ports, protocols): (_, _, &[u8]) = match about {
            About::All => (2, 3, &[1, 6, 6, 6, 17, 17, 58, 47, 132]),
            About::OneConnection => (1, 1, &[6]),
        };
        let mut pool = |count: usize| {
            let families = [(false, AddressFamily::V4), (true, AddressFamily::V6)];
            families
                .map(|(is_v6, family)| {
                    let addresses = (0..count).map(|_| random.address_of(family));
                    (is_v6, addresses.collect())
                })
                .into()
        };
        let (local, peers) = (pool(addresses), pool(addresses));
        let ports = (0..ports).map(|_| random.port()).collect();
        Self {
            random,
            local,
            peers,
            ports,
            protocols,
            past: Vec::new(),
        }
    }

    fn next(&mut self) -> Packet {
        let packet = match self.random.below(20) {
            0..=7 => self.fresh(),
            8..=12 => self.answer(),
            13..=14 => self.again(),
            15..=16 => self.error(),
            17 => self.apart(),
            _ => return self.later_fragment(),
        };
        let packet = if self.random.one_in(8) && !matches!(packet.detail, Detail::Error(_)) {
            let id = self.random.below(6) as u32;
            Packet {
                fragment: Fragment::First(id),
                ..packet
            }
        } else {
            packet
        };
        self.past.push(packet);
        packet
    }

    fn flow(&mut self, direction: Direction, protocol: u8) -> FlowTuple {
        let is_v6 = match protocol {
            1 => false,
            58 => true,
            _ => self.random.one_in(3),
        };
        let local = self.random.of(&self.local[&is_v6]);
        let peer = self.random.of(&self.peers[&is_v6]);
        let has_ports = matches!(protocol, 6 | 17 | 132);
        let mut port = || {
            if has_ports {
                self.random.of(&self.ports)
            } else {
                0
            }
        };
        let out = FlowTuple {
            src_addr: local,
            src_port: port(),
            dst_addr: peer,
            dst_port: port(),
            protocol,
        };
        match direction {
            Direction::Out => out,
            Direction::In => reversed(&out),
        }
    }

    /// A packet that belongs to none that was sent, unless by chance.
    fn fresh(&mut self) -> Packet {
        let direction = self.random.direction();
        let protocol = self.random.of(self.protocols);
        let flow = self.flow(direction, protocol);
        let detail = match protocol {
            6 => Detail::Tcp {
                flags: self.random.of(&[SYN, SYN, SYN, ACK]),
            },
            1 | 58 => Detail::Query(Query {
                identifier: self.random.below(3) as u16,
                is_reply: self.random.one_in(4),
            }),
            _ => Detail::None,
        };
        whole(direction, flow, detail)
    }

    /// What the other end may send then.
    fn answer(&mut self) -> Packet {
        let Some(asked) = self.earlier() else {
            return self.fresh();
        };
        let detail = match asked.detail {
            Detail::Tcp { .. } => Detail::Tcp {
                flags: self.flags(),
            },
            Detail::Query(query) => Detail::Query(Query {
                is_reply: true,
                ..query
            }),
            other => other,
        };
        whole(asked.direction.opposite(), reversed(&asked.flow), detail)
    }

    /// What the same end may send then.
    fn again(&mut self) -> Packet {
        let Some(before) = self.earlier() else {
            return self.fresh();
        };
        let detail = match before.detail {
            Detail::Tcp { .. } => Detail::Tcp {
                flags: self.flags(),
            },
            other => other,
        };
        whole(before.direction, before.flow, detail)
    }

    fn flags(&mut self) -> u8 {
        self.random.of(&[
            SYN,
            SYN | ACK,
            ACK,
            ACK,
            ACK,
            ACK,
            FIN | ACK,
            FIN | ACK,
            RST,
        ])
    }

    /// An error about an earlier packet, from whoever.
    fn error(&mut self) -> Packet {
        let Some(about) = self.earlier() else {
            return self.fresh();
        };
        let direction = about.direction.opposite();
        let is_v6 = about.flow.src_addr.is_ipv6();
        let routers = match direction {
            Direction::In => &self.peers[&is_v6],
            Direction::Out => &self.local[&is_v6],
        };
        let flow = FlowTuple {
            src_addr: self.random.of(routers),
            src_port: 0,
            dst_addr: about.flow.src_addr,
            dst_port: 0,
            protocol: if is_v6 { 58 } else { 1 },
        };
        let query = match about.detail {
            Detail::Query(query) => Some(query),
            _ => None,
        };
        let quoted = Quoted {
            flow: about.flow,
            query,
        };
        let cut_short = self.random.one_in(6);
        whole(
            direction,
            flow,
            Detail::Error((!cut_short).then_some(quoted)),
        )
    }

    /// What belongs to no session.
    fn apart(&mut self) -> Packet {
        let direction = self.random.direction();
        let protocol = self.random.of(&[1, 58]);
        let flow = self.flow(direction, protocol);
        let is_discovery = protocol == 58 && self.random.one_in(2);
        let detail = if is_discovery {
            Detail::NeighborDiscovery
        } else {
            Detail::OtherIcmp
        };
        whole(direction, flow, detail)
    }

    /// A later fragment, of an earlier packet's datagram or of none that is known.
    fn later_fragment(&mut self) -> Packet {
        let firsts: Vec<Packet> = self
            .past
            .iter()
            .filter(|packet| packet.fragment != Fragment::None)
            .copied()
            .collect();
        let of = if firsts.is_empty() || self.random.one_in(4) {
            self.fresh()
        } else {
            self.random.of(&firsts)
        };
        let id = match of.fragment {
            Fragment::First(id) => id,
            Fragment::None | Fragment::Later(_) => self.random.below(8) as u32,
        };
        Packet {
            flow: FlowTuple {
                src_port: 0,
                dst_port: 0,
                ..of.flow
            },
            fragment: Fragment::Later(id),
            ..of
        }
    }

    /// One of the last packets; none that is an error, for nothing answers these.
    fn earlier(&mut self) -> Option<Packet> {
        let past: Vec<Packet> = self
            .past
            .iter()
            .rev()
            .filter(|packet| !matches!(packet.detail, Detail::Error(_)))
            .take(12)
            .copied()
            .collect();
        (!past.is_empty()).then(|| self.random.of(&past))
    }
}

fn whole(direction: Direction, flow: FlowTuple, detail: Detail) -> Packet {
    Packet {
        direction,
        flow,
        detail,
        fragment: Fragment::None,
    }
}

/// The flow in which a packet is counted: later fragments with their first one's ports, where these are known.
#[derive(Default)]
struct Ports(BTreeMap<(Direction, IpAddr, IpAddr, Option<u8>, u32), FlowTuple>);

impl Ports {
    fn flow(&mut self, packet: &Packet) -> FlowTuple {
        let flow = packet.flow;
        let key = |id| {
            let protocol = flow.src_addr.is_ipv4().then_some(flow.protocol);
            (packet.direction, flow.src_addr, flow.dst_addr, protocol, id)
        };
        match packet.fragment {
            Fragment::None => flow,
            Fragment::First(id) => {
                self.0.insert(key(id), flow);
                flow
            }
            Fragment::Later(id) => self.0.get(&key(id)).copied().unwrap_or(flow),
        }
    }
}

/// A case: a host, and what the reference makes of what it is sent.
struct Case<'h> {
    host: &'h mut Host,
    config: SessionConfig,
    reference: Sessions,
    policy: Policy,
    generation: u64,
    now: Duration,
    ports: Ports,
    expected: Counted,
    without_room: u64,
}

impl Case<'_> {
    fn change_policy(&mut self, random: &mut Random) {
        // Without groups the reference does not look at fragments either.
        self.policy = loop {
            let rules = [random.below(12), random.below(6)];
            let policy = random.policy(rules, None);
            if policy.group_type().is_some() {
                break policy;
            }
        };
        self.host.apply(&self.policy);
        self.generation += 1;
    }

    fn send(&mut self, packet: &Packet) -> Result<(), String> {
        let current = Current {
            policy: &self.policy,
            generation: self.generation,
        };
        let judgement = self.reference.judge(packet, current, self.now);
        let fate = self.host.send(packet);
        if fate != self.host.fate(judgement.action) {
            return Err(format!("{packet:?}: {fate:?}, and must be {judgement:?}"));
        }
        let id = (packet.direction, self.ports.flow(packet), judgement.action);
        note(&mut self.expected, id, basis(&judgement));
        Ok(())
    }

    /// Holds what was counted against what must be.
    fn check(&mut self) -> Result<(), String> {
        let expected = std::mem::take(&mut self.expected);
        let (found, aside) = self.host.drain();
        let mut differences = differences(&expected, &found);
        self.without_room += aside.iter().map(|aside| aside.without_session).sum::<u64>();
        if self.without_room != self.reference.without_room() {
            differences.push(format!(
                "{} had no room, not {}",
                self.without_room,
                self.reference.without_room()
            ));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(differences.join("\n"))
    }

    fn pause(&mut self, seconds: u64) -> Result<(), String> {
        self.check()?;
        let by = Duration::from_secs(seconds);
        self.now += by;
        age_sessions(self.host.folder.path(), by).expect("older sessions");
        // The reference clears away what is over when a session has no room; here it takes a sweep.
        if self.config.max_sessions < ROOM {
            self.host.sweep();
        }
        Ok(())
    }
}

/// Room for whatever a case opens.
const ROOM: usize = 4096;

/// Sends so many packets of a scene, and holds each verdict and each flow against the reference.
fn hold_against(
    host: &mut Host,
    config: SessionConfig,
    about: About,
    seed: u64,
    packets: usize,
) -> Result<(), String> {
    host.forget();
    let mut random = Random(!seed);
    let mut scene = Scene::new(seed, about);
    let mut case = Case {
        host,
        config,
        reference: Sessions::new(config),
        policy: Policy::default(),
        generation: 0,
        now: Duration::ZERO,
        ports: Ports::default(),
        expected: Counted::new(),
        without_room: 0,
    };
    case.change_policy(&mut random);
    let start = uptime();
    let mut quiet = start.saturating_sub(Duration::from_secs(60));
    let mut pauses = 0;
    for _ in 0..packets {
        if uptime() - start > PATIENCE {
            println!("a case ended early: this host is slow");
            break;
        }
        match random.below(90) {
            0 => case.change_policy(&mut random),
            1 => case.check()?,
            2 => {
                let seconds = random.of(&PAUSES);
                // A session cannot be older than the host.
                let rest = quiet.checked_sub(Duration::from_secs(seconds));
                if let Some(rest) = rest.filter(|_| pauses < MAX_PAUSES) {
                    (quiet, pauses) = (rest, pauses + 1);
                    case.pause(seconds)?;
                }
            }
            _ => case.send(&scene.next())?,
        }
    }
    case.check()?;
    if config.max_sessions >= ROOM {
        let found = case.host.sessions.sweep(Duration::ZERO).expect("a sweep");
        let expected = case.reference.len() as u64;
        if found.left != expected {
            return Err(format!("{} sessions, not {expected}", found.left));
        }
    }
    Ok(())
}

fn run(mode: SecurityMode, when_full: WhenFull, max_sessions: usize, about: About) {
    let host = Host::new(mode, when_full, max_sessions as u32);
    let host = RefCell::new(host);
    let config = SessionConfig {
        max_sessions,
        max_fragmented_datagrams: 1024,
        when_full,
        mode,
    };
    let runner = Config {
        cases: 16,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let cases = (1..400_usize, any::<u64>());
    let result = TestRunner::new(runner).run(&cases, |(packets, seed)| {
        hold_against(&mut host.borrow_mut(), config, about, seed, packets)
            .map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn packets_are_judged_by_their_sessions_where_rejected_ones_pass() {
    if skip_unless_root("packets_are_judged_by_their_sessions_where_rejected_ones_pass") {
        return;
    }
    run(SecurityMode::Observe, WhenFull::Accept, ROOM, About::All);
}

#[test]
fn packets_are_judged_by_their_sessions_where_rejected_ones_are_dropped() {
    if skip_unless_root("packets_are_judged_by_their_sessions_where_rejected_ones_are_dropped") {
        return;
    }
    run(SecurityMode::Enforce, WhenFull::Accept, ROOM, About::All);
}

#[test]
fn what_finds_no_room_for_its_session_is_accepted_if_so_configured() {
    if skip_unless_root("what_finds_no_room_for_its_session_is_accepted_if_so_configured") {
        return;
    }
    run(SecurityMode::Observe, WhenFull::Accept, 4, About::All);
}

#[test]
fn what_finds_no_room_for_its_session_is_rejected_if_so_configured() {
    if skip_unless_root("what_finds_no_room_for_its_session_is_rejected_if_so_configured") {
        return;
    }
    run(SecurityMode::Enforce, WhenFull::Reject, 4, About::All);
}

#[test]
fn a_connection_that_comes_after_one_that_is_closing_is_judged_anew() {
    if skip_unless_root("a_connection_that_comes_after_one_that_is_closing_is_judged_anew") {
        return;
    }
    for mode in [SecurityMode::Observe, SecurityMode::Enforce] {
        run(mode, WhenFull::Accept, ROOM, About::OneConnection);
    }
}
