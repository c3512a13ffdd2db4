//! What security groups cost a packet: of a flow whose session is known, and of one that opens a session, with so many rules.
use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use flowlog_agent::bpf::{
    Counters, EniConstants, Policies, Sessions,
    floor::{Floor, FloorProgram, RunStatistics, nanoseconds_each},
    trial::{Programs, SkbMetadata, TrialProgram},
};
use flowlog_model::{
    record::Direction,
    security_group::{
        Access, GroupType, IpProtocol, Peer, Policy, PortRange, Rule, SecurityGroup,
        SecurityGroups, SecurityMode, session::WhenFull,
    },
};

use crate::{
    report::{Budget, Report, median},
    setting::{PinFolder, sizes_for},
};

/// A round of an established flow is so many turns, in each of which every ENI has its own.
const TURNS: usize = 20;

/// Runs of one turn: some milliseconds, so that what disturbs a turn (an interrupt, another process) disturbs few.
const REPEAT: u32 = 50_000;

/// Flows of one round of new sessions.
const NEW: u16 = 20_000;

/// Rules of the groups.
const RULES: [usize; 3] = [10, 100, 1000];

/// What an established flow may cost more than without groups, in nanoseconds.
const MOST_FOR_ESTABLISHED: f64 = 15.0;

pub(crate) fn measure(object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let pins = PinFolder::new()?;
    let sessions = Sessions::create(pins.path(), 1 << 18)?;
    let counters = Counters::create(pins.path(), sizes_for(u32::from(NEW)))?;
    let policies = Policies::create(pins.path())?;
    let mut bench = Bench {
        pins,
        counters,
        sessions,
        policies,
        enis: Vec::new(),
    };
    bench.load("without groups", None)?;
    for rules in RULES {
        bench.load(&format!("{rules} rules"), Some(rules))?;
    }
    let mut empty = Floor::load(object, FloorProgram::Empty, 65_536)?;
    bench.established(&mut empty, rounds, report)?;
    bench.new_sessions(rounds, report)
}

/// An ENI with its programs.
struct Eni {
    name: String,
    slot: u32,
    programs: Programs,
}

struct Bench {
    pins: PinFolder,
    counters: Counters,
    sessions: Sessions,
    policies: Policies,
    /// The first is without groups.
    enis: Vec<Eni>,
}

impl Bench {
    /// Loads the programs of another ENI, with a group of so many rules.
    fn load(&mut self, name: &str, rules: Option<usize>) -> Result<()> {
        let slot = self.enis.len() as u32;
        let security_mode = match rules {
            None => SecurityMode::Off,
            Some(_) => SecurityMode::Observe,
        };
        let constants = EniConstants {
            slot,
            ethernet: true,
            security_mode,
            when_full: WhenFull::Accept,
            ..EniConstants::default()
        };
        let programs = Programs::load(self.pins.path(), constants)?;
        self.enis.push(Eni {
            name: name.to_owned(),
            slot,
            programs,
        });
        let mut desired = BTreeMap::new();
        for (eni, rules) in self.enis.iter().skip(1).zip(RULES) {
            desired.insert(eni.slot, policy(rules)?);
        }
        self.policies.apply(&desired)?;
        Ok(())
    }

    /// One flow, by test run. The ENIs take turns, and each difference is between neighbours in time: the machine may be slower for a while,
    /// but is so for both.
    fn established(&mut self, empty: &mut Floor, rounds: usize, report: &mut Report) -> Result<()> {
        for (kind, frame) in established_frames()? {
            let mut costs: Vec<Vec<f64>> = vec![Vec::new(); self.enis.len()];
            let mut more: Vec<Vec<f64>> = vec![Vec::new(); self.enis.len()];
            for turn in 0..rounds * TURNS {
                let nothing = nanoseconds(empty.run(&frame, REPEAT)?.duration);
                let mut of_turn = vec![0.0; self.enis.len()];
                // There and back again, so that no ENI is always the next after the empty program.
                for place in 0..self.enis.len() {
                    let index = if turn % 2 == 0 {
                        place
                    } else {
                        self.enis.len() - 1 - place
                    };
                    of_turn[index] = self.cost(index, &frame)? - nothing;
                }
                for (index, cost) in of_turn.iter().enumerate() {
                    costs[index].push(*cost);
                    more[index].push(cost - of_turn[0]);
                }
            }
            let without = median(costs[0].clone());
            for ((eni, costs), more) in self.enis.iter().zip(costs).zip(more) {
                let what = format!("established, {kind}, {}", eni.name);
                let cost = median(costs);
                report.beside(what, "ns", cost, without, cost / without, None);
                if eni.slot > 0 {
                    report.figure(
                        format!("established, {kind}, {}: more than without", eni.name),
                        "ns",
                        median(more),
                        Some(Budget::AtMost(MOST_FOR_ESTABLISHED)),
                    );
                }
            }
        }
        Ok(())
    }

    /// What a packet costs at an ENI, in nanoseconds, the kernel's own part of a test run included. The first run of a turn may judge the flow
    /// anew, as it is to be once in a unit of time.
    fn cost(&mut self, index: usize, frame: &[u8]) -> Result<f64> {
        let programs = &mut self.enis[index].programs;
        let run = programs.run(TrialProgram::Ingress, frame, SkbMetadata::default(), REPEAT)?;
        Ok(nanoseconds(run.duration))
    }

    /// As many flows as packets, by the kernel's run statistics, whose own clock reads are in every figure.
    fn new_sessions(&mut self, rounds: usize, report: &mut Report) -> Result<()> {
        let _statistics = RunStatistics::enable()?;
        let frames: Vec<Vec<u8>> = (0..NEW).map(new_frame).collect::<Result<_>>()?;
        let mut costs: Vec<Vec<f64>> = vec![Vec::new(); self.enis.len()];
        for _ in 0..rounds {
            for (index, eni) in self.enis.iter_mut().enumerate() {
                let before = eni.programs.run_stats(TrialProgram::Ingress)?;
                for frame in &frames {
                    eni.programs
                        .run(TrialProgram::Ingress, frame, SkbMetadata::default(), 1)?;
                }
                let after = eni.programs.run_stats(TrialProgram::Ingress)?;
                let time = after.time.saturating_sub(before.time);
                costs[index].push(nanoseconds_each(time, after.runs - before.runs));
                self.sessions.remove_of(eni.slot)?;
                let still = self.counters.flip()?;
                self.counters.renew(still, sizes_for(u32::from(NEW)))?;
            }
        }
        let medians: Vec<f64> = costs.into_iter().map(median).collect();
        let without = medians.first().copied().context("an ENI without groups")?;
        for (eni, cost) in self.enis.iter().zip(medians) {
            let what = format!("a new flow and session, IPv4 TCP, {}", eni.name);
            report.beside(what, "ns", cost, without, cost / without, None);
        }
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// Rules as people have them: a block of addresses and a port each. Only the last two, one for each family, are about the packets here.
fn policy(rules: usize) -> Result<Policy> {
    let rule = |index: usize| -> Result<Rule> {
        let block = match rules - index {
            1 => "::/0".to_owned(),
            2 => "192.0.2.0/24".to_owned(),
            _ => format!("10.{}.{}.0/24", index / 256, index % 256),
        };
        let is_about = index + 2 >= rules;
        let port = index as u16 + 1000;
        let (protocol, dst_ports) = if is_about {
            (IpProtocol::ALL, PortRange::ALL)
        } else {
            let ports = PortRange::new(port..=port).context("a port")?;
            (IpProtocol::from_number(6), ports)
        };
        Ok(Rule {
            id: format!("sgr-{rules}-{index}").parse()?,
            direction: Direction::In,
            policy: Access::Accept,
            protocol,
            priority: if is_about { 100 } else { 1 },
            peer: Peer::Cidr(block.parse()?),
            local: None,
            src_ports: PortRange::ALL,
            dst_ports,
            description: None,
        })
    };
    let group_id: flowlog_model::text::Id = "sg-1".parse()?;
    let group = SecurityGroup {
        id: group_id.clone(),
        vpc_id: "vpc-1".parse()?,
        group_type: GroupType::Normal,
        inner_access_policy: Access::Drop,
        description: None,
        rules: (0..rules).map(rule).collect::<Result<_>>()?,
    };
    Ok(SecurityGroups::new([group], []).policy(&[group_id]))
}

/// Of 100 octets or so.
fn established_frames() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let payload = [0_u8; 58];
    let v4 = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [10, 9, 9, 9], 64);
    let v6 = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64);
    let [mut udp, mut tcp, mut udp_v6, mut tcp_v6] = [const { Vec::new() }; 4];
    v4().udp(1000, 2000).write(&mut udp, &payload)?;
    v4().tcp(1000, 2000, 7, 1024)
        .ack(9)
        .write(&mut tcp, &payload)?;
    v6().udp(1000, 2000).write(&mut udp_v6, &payload)?;
    v6().tcp(1000, 2000, 7, 1024)
        .ack(9)
        .write(&mut tcp_v6, &payload)?;
    Ok(vec![
        ("IPv4 UDP", udp),
        ("IPv4 TCP", tcp),
        ("IPv6 UDP", udp_v6),
        ("IPv6 TCP", tcp_v6),
    ])
}

fn new_frame(number: u16) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = builder.ipv4([192, 0, 2, (number >> 12) as u8], [10, 9, 9, 9], 64);
    ip.tcp(number % 4096 + 1, 2000, 7, 1024)
        .syn()
        .write(&mut frame, &[])?;
    Ok(frame)
}
