//! A realistic mix of records: that of one host with forty ENIs in four VPCs.
//!
//! Of the sessions at an ENI, 45 % are with clients on the internet (50,000 of them, some far more often than others), 35 % with 400
//! addresses of the same VPC, 10 % are DNS, and 10 % are rejected packets from anywhere to any port. A session is two records, `in` and
//! `out`, with an ephemeral port; a rejected packet is one. Records come as the agent has them: by ENI, and then by flow.
use std::net::Ipv4Addr;

use flowlog_model::{
    field::DEFAULT_FIELDS,
    format::Format,
    log_group::GroupWriter,
    record::{Action, Direction, Eni, FlowTuple, LogStatus, Record},
};

/// ENIs of the host.
pub(crate) const ENIS: usize = 40;
/// Length of a capture window, in seconds.
pub(crate) const WINDOW_SECONDS: u64 = 600;

/// Clients on the internet.
const CLIENTS: f64 = 50_000.0;

/// Numbers that look random and are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// Small numbers far more often than large ones: about as 1/n.
    fn skewed(&mut self, limit: f64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (limit.powf(uniform) - 1.0) as u64
    }
}

/// A flow with its counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    src_addr: Ipv4Addr,
    dst_addr: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    direction: Direction,
    action: Action,
    packets: u64,
    bytes: u64,
}

impl Flow {
    fn record<'a>(&self, eni: &'a Eni, start: u64) -> Record<'a> {
        Record {
            eni,
            flow: Some(FlowTuple {
                src_addr: self.src_addr.into(),
                src_port: self.src_port,
                dst_addr: self.dst_addr.into(),
                dst_port: self.dst_port,
                protocol: self.protocol,
            }),
            direction: Some(self.direction),
            packets: Some(self.packets),
            bytes: Some(self.bytes),
            start,
            end: start + WINDOW_SECONDS,
            log_status: LogStatus::Ok,
            action: Some(self.action),
            tcp_flags: None,
            reject_reason: None,
            security_group_rule_id: None,
            batch_id: None,
        }
    }

    fn is_same(&mut self, other: &mut Self) -> bool {
        let key = |flow: &Self| {
            let addresses = (flow.src_addr, flow.dst_addr);
            (addresses, flow.src_port, flow.dst_port, flow.protocol)
        };
        key(self) == key(other)
    }
}

/// Draws the records of one window after the other.
pub(crate) struct Traffic {
    random: Random,
    enis: Vec<Eni>,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        let eni = |index: usize| Eni {
            eni_id: format!("eni-bp1ivqvl9vx8c{:07}", index * 7919),
            vswitch_id: format!("vsw-bp1s5grzef87{:05}", index / 5),
            vm_id: Some(format!("i-bp1hcrbbq2f5a93{index:05}")),
            vpc_id: format!("vpc-bp1m7v25emi1h5{:02}", index / 10),
            account_id: "1234567890123456".to_owned(),
            region: None,
        };
        Self {
            random: Random(0x5eed),
            enis: (0..ENIS).map(eni).collect(),
        }
    }

    /// The identity of the ENI that is asked about.
    pub(crate) fn eni_id(&self) -> &str {
        &self.enis[ENIS / 2].eni_id
    }

    /// About so many flows of the window that begins then, in Unix seconds.
    pub(crate) fn window(&mut self, start: u64, records: usize) -> Window<'_> {
        let random = &mut self.random;
        let flows = (0..ENIS).map(|eni| flows(random, eni, records / ENIS));
        Window {
            flows: flows.collect(),
            enis: &self.enis,
            start,
        }
    }

    /// The same, as groups of at most so many records, as the agent sends them.
    pub(crate) fn groups(&mut self, start: u64, records: usize, group: usize) -> Vec<Vec<u8>> {
        let mut writer = GroupWriter::new(Format::text(&DEFAULT_FIELDS));
        let mut groups = Vec::new();
        for record in self.window(start, records).records() {
            writer.write(&record);
            if writer.count() == group {
                groups.push(writer.finish("host-1", &[]));
            }
        }
        if writer.count() > 0 {
            groups.push(writer.finish("host-1", &[]));
        }
        groups
    }
}

/// The flows of a window.
pub(crate) struct Window<'a> {
    /// By ENI.
    flows: Vec<Vec<Flow>>,
    enis: &'a [Eni],
    start: u64,
}

impl Window<'_> {
    pub(crate) fn len(&self) -> usize {
        self.flows.iter().map(Vec::len).sum()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let enis = self.enis.iter().zip(&self.flows);
        enis.flat_map(|(eni, flows)| flows.iter().map(|flow| flow.record(eni, self.start)))
    }
}

fn public(number: u64) -> Ipv4Addr {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let octet = |shift: u32| (mixed >> shift) as u8;
    Ipv4Addr::new(11 + (mixed % 160) as u8, octet(8), octet(16), octet(24))
}

/// About so many flows of an ENI in a window, by their keys.
fn flows(random: &mut Random, eni: usize, count: usize) -> Vec<Flow> {
    let own = Ipv4Addr::new(10, 0, (eni / 20) as u8, (eni % 20 + 10) as u8);
    let service = [443, 80, 8080, 22][eni % 4];
    let mut flows = Vec::with_capacity(count + 1);
    while flows.len() < count {
        let ephemeral = 32_768 + random.below(28_232) as u16;
        let (peer, peer_port, own_port, protocol) = match random.below(100) {
            0..45 => (public(random.skewed(CLIENTS)), ephemeral, service, 6),
            45..80 => {
                let peer = random.skewed(400.0);
                let peer = Ipv4Addr::new(10, 0, (peer / 200) as u8, (peer % 200 + 10) as u8);
                let port = [3306, 6379, 5432, 9092, 443][random.skewed(5.0) as usize];
                if random.below(2) == 0 {
                    (peer, port, ephemeral, 6)
                } else {
                    (peer, ephemeral, service, 6)
                }
            }
            80..90 => (Ipv4Addr::new(10, 0, 0, 2), 53, ephemeral, 17),
            _ => {
                flows.push(Flow {
                    src_addr: public(1_000_000 + random.below(1 << 30)),
                    dst_addr: own,
                    src_port: ephemeral,
                    dst_port: random.skewed(65_535.0) as u16,
                    protocol: 6,
                    direction: Direction::In,
                    action: Action::Reject,
                    packets: 1,
                    bytes: 40 + 4 * random.below(6),
                });
                continue;
            }
        };
        let is_dns = protocol == 17;
        let packets = if is_dns {
            1
        } else {
            4 + random.skewed(2_000.0)
        };
        let back = packets - packets / 3;
        let mut size = || match is_dns {
            true => 60 + random.below(60),
            false => 52 + random.skewed(1_400.0),
        };
        let (size_in, size_out) = (size(), size());
        flows.push(Flow {
            src_addr: peer,
            dst_addr: own,
            src_port: peer_port,
            dst_port: own_port,
            protocol,
            direction: Direction::In,
            action: Action::Accept,
            packets,
            bytes: packets * size_in + random.below(40),
        });
        flows.push(Flow {
            src_addr: own,
            dst_addr: peer,
            src_port: own_port,
            dst_port: peer_port,
            protocol,
            direction: Direction::Out,
            action: Action::Accept,
            packets: back,
            bytes: back * size_out + random.below(40),
        });
    }
    flows.sort_unstable();
    flows.dedup_by(Flow::is_same);
    flows
}
