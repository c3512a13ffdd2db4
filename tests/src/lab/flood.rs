//! Many small UDP packets, fast and exactly counted.

use std::ops::Range;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::flows::FlowChoice;
use super::sender::Backlog;
use super::{
    DeviceStats, Distribution, Family, FrameSender, MAX_FLOWS, Mac, NOBODY_MAC, Namespace,
    device_stats, flow_tuple,
};
use crate::{Error, Result};

const ETHERNET: usize = 14;
const UDP: usize = 8;
/// So that the datagram's length, IPv6 header included, fits in 16 bits.
const MAX_PAYLOAD: u16 = u16::MAX - 48;
const MAX_THREADS: usize = 64;
/// How long a flood may go on until enough was sent.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

/// What [`udp_flood`] is to send.
#[derive(Clone, Debug)]
pub struct FloodPlan {
    /// Packets in all, or in each pass of [`udp_flood_until`].
    pub packets: u64,
    /// Flows they are spread over, 1 to [`MAX_FLOWS`].
    pub flows: u32,
    /// Number of the first of them, as in [`flow_tuple`].
    pub first_flow: u32,
    /// Threads that send, each on a CPU of its own while there are enough. Every thread sends packets of every flow.
    pub threads: usize,
    /// Octets of UDP payload in each packet.
    pub payload_bytes: u16,
    /// How the packets are spread over the flows.
    pub distribution: Distribution,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Fixes the draw of [`Distribution::Zipf`]: the same plan with the same seed has the same counts.
    pub seed: u64,
    /// Source of the frames.
    pub source_mac: Mac,
    /// Destination of the frames. With [`NOBODY_MAC`] the receiver drops them behind TC ingress; with its own address its stack
    /// would drop them a little later, for they are to an IP address of nobody.
    pub destination_mac: Mac,
}

impl Default for FloodPlan {
    fn default() -> Self {
        Self {
            packets: 1_000_000,
            flows: 100_000,
            first_flow: 0,
            threads: 2,
            payload_bytes: 18,
            distribution: Distribution::Even,
            family: Family::V4,
            seed: 1,
            source_mac: [0x02, 0xf1, 0x00, 0x00, 0xff, 0x01],
            destination_mac: NOBODY_MAC,
        }
    }
}

/// What [`udp_flood`] sent. The sum of two floods of as many flows is what both sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Packets that the kernel accepted.
    pub packets: u64,
    /// Octets of their IP datagrams, without Ethernet headers.
    pub bytes: u64,
    /// Octets of each IP datagram; all are equal.
    pub datagram_bytes: u64,
    /// Packets of each flow, from the plan's first one on.
    pub per_flow: Vec<u64>,
    /// Attempts that the device refused for want of room, as [`FrameSender::refused`].
    pub refused: u64,
    /// What the sending device counted meanwhile.
    pub device: DeviceStats,
    /// From the moment all threads were ready until the last was done.
    pub elapsed: Duration,
}

impl Sent {
    /// Packets a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64()
    }
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        for (sum, count) in self.per_flow.iter_mut().zip(&other.per_flow) {
            *sum += count;
        }
        self.refused += other.refused;
        self.device += other.device;
        self.elapsed += other.elapsed;
    }
}

/// Sends `plan` out of `device` in `namespace` and returns when all of it has left, and, on a veth pair that does not poll (for XDP,
/// or to merge), has passed the other end's ingress.
///
/// Frame k belongs to the flow that the plan's distribution gives it and carries that flow's addresses and ports (see
/// [`flow_tuple`]); payload octets are 0. The IPv4 header's checksum is right; UDP's is 0: in IPv4 "none", in IPv6 not allowed to
/// an ordinary receiver (RFC 8200 §8.1), but nobody receives these packets.
///
/// # Errors
/// If the plan is out of bounds, the device is missing, or it stays full; see [`FrameSender::send`].
pub fn udp_flood(namespace: &Namespace, device: &str, plan: &FloodPlan) -> Result<Sent> {
    udp_flood_until(namespace, device, plan, || true)
}

/// Sends `plan` as [`udp_flood`] does, again and again without a pause, until `enough` says so. Each thread asks it after its share.
///
/// # Errors
/// As [`udp_flood`]; and if it is not enough after 60 s.
pub fn udp_flood_until(
    namespace: &Namespace,
    device: &str,
    plan: &FloodPlan,
    enough: impl Fn() -> bool + Sync,
) -> Result<Sent> {
    check(plan)?;
    let choice = FlowChoice::new(plan.distribution, plan.flows, plan.seed);
    let template = Template::new(plan);
    let cpus = allowed_cpus()?;
    let senders: Vec<(FrameSender, Backlog)> = (0..plan.threads)
        .map(|_| {
            Ok((
                FrameSender::open(namespace, device)?,
                Backlog::of(namespace)?,
            ))
        })
        .collect::<Result<_>>()?;
    let before = device_stats(namespace, device)?;
    let ready = Barrier::new(plan.threads + 1);

    let (shares, elapsed) = thread::scope(|scope| {
        let threads: Vec<_> = (0_u64..)
            .zip(senders)
            .map(|(number, (sender, backlog))| {
                let cpu = cpus[number as usize % cpus.len()];
                let mut share = Share {
                    packets: first_of(plan, number)..first_of(plan, number + 1),
                    sender,
                    template: template.clone(),
                    first_flow: plan.first_flow,
                    per_flow: vec![0; plan.flows as usize],
                };
                let (choice, ready, enough) = (&choice, &ready, &enough);
                scope.spawn(move || {
                    let pinned = pin(cpu);
                    ready.wait();
                    pinned?;
                    share.send_until(choice, enough)?;
                    backlog.wait()?;
                    Ok(share)
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        let shares: Result<Vec<Share>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
            })
            .collect();
        (shares, start.elapsed())
    });

    let device = device_stats(namespace, device)?.since(&before);
    Ok(total(
        &shares?,
        plan,
        template.datagram_bytes(),
        device,
        elapsed,
    ))
}

fn check(plan: &FloodPlan) -> Result<()> {
    let room = MAX_FLOWS.saturating_sub(plan.first_flow);
    let broken = if plan.flows == 0 || plan.flows > room {
        format!("flows = {}: 1 to {room} are allowed", plan.flows)
    } else if plan.threads == 0 || plan.threads > MAX_THREADS {
        format!("threads = {}: 1 to {MAX_THREADS} are allowed", plan.threads)
    } else if plan.payload_bytes > MAX_PAYLOAD {
        format!(
            "payload_bytes = {}: 0 to {MAX_PAYLOAD} are allowed",
            plan.payload_bytes
        )
    } else {
        return Ok(());
    };
    Err(Error::Invalid(format!("flood plan: {broken}")))
}

/// The first packet of thread `number`'s share.
fn first_of(plan: &FloodPlan, number: u64) -> u64 {
    // Through u128, so that no number of packets overflows.
    (u128::from(plan.packets) * u128::from(number) / plan.threads as u128) as u64
}

/// What one thread sends, and how much of each flow it has sent.
struct Share {
    packets: Range<u64>,
    first_flow: u32,
    sender: FrameSender,
    template: Template,
    per_flow: Vec<u64>,
}

impl Share {
    fn send_until(&mut self, choice: &FlowChoice, enough: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + FLOOD_LIMIT;
        loop {
            self.send(choice)?;
            if enough() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Invalid(format!(
                    "the flood is not enough after {FLOOD_LIMIT:?}"
                )));
            }
        }
    }

    fn send(&mut self, choice: &FlowChoice) -> Result<()> {
        for packet in self.packets.clone() {
            let flow = choice.flow_of(packet);
            let frame = self.template.of_flow(self.first_flow + flow);
            self.sender.send(frame)?;
            self.per_flow[flow as usize] += 1;
        }
        Ok(())
    }
}

fn total(
    shares: &[Share],
    plan: &FloodPlan,
    datagram_bytes: u64,
    device: DeviceStats,
    elapsed: Duration,
) -> Sent {
    let mut per_flow = vec![0_u64; plan.flows as usize];
    for share in shares {
        for (sum, count) in per_flow.iter_mut().zip(&share.per_flow) {
            *sum += count;
        }
    }
    let packets: u64 = per_flow.iter().sum();
    let refused = shares.iter().map(|share| share.sender.refused()).sum();
    Sent {
        packets,
        bytes: packets * datagram_bytes,
        datagram_bytes,
        per_flow,
        refused,
        device,
        elapsed,
    }
}

fn allowed_cpus() -> Result<Vec<usize>> {
    let set =
        sched_getaffinity(Pid::from_raw(0)).map_err(Error::system("read the CPU affinity"))?;
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect();
    if cpus.is_empty() {
        Err(Error::Invalid("this process may run on no CPU".to_owned()))
    } else {
        Ok(cpus)
    }
}

/// Pins the calling thread.
fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(Error::system(format!("pin a thread to CPU {cpu}")))
}

/// A frame in which only addresses, ports and IPv4's checksum change from flow to flow.
#[derive(Clone)]
struct Template {
    frame: Vec<u8>,
    family: Family,
    /// Sum of the IPv4 header's 16-bit words without checksum and source address.
    header_sum: u32,
}

impl Template {
    fn new(plan: &FloodPlan) -> Self {
        let udp_bytes = plan.payload_bytes + UDP as u16;
        let mut frame = [plan.destination_mac, plan.source_mac].concat();
        match plan.family {
            Family::V4 => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((udp_bytes + 20).to_be_bytes());
                // Identification 0, don't fragment, TTL 64, UDP, checksum and addresses to be patched.
                frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            Family::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(udp_bytes.to_be_bytes());
                // UDP, hop limit 64, addresses to be patched.
                frame.extend([17, 64]);
                frame.extend([0; 32]);
            }
        }
        frame.extend([0; 4]);
        frame.extend(udp_bytes.to_be_bytes());
        frame.extend([0; 2]);
        frame.resize(frame.len() + usize::from(plan.payload_bytes), 0);

        let mut template = Self {
            frame,
            family: plan.family,
            header_sum: 0,
        };
        let tuple = flow_tuple(plan.family, 0);
        let at = template.ports_at();
        match tuple.dst {
            std::net::IpAddr::V4(dst) => template.frame[at - 4..at].copy_from_slice(&dst.octets()),
            std::net::IpAddr::V6(dst) => template.frame[at - 16..at].copy_from_slice(&dst.octets()),
        }
        template.frame[at + 2..at + 4].copy_from_slice(&tuple.dport.to_be_bytes());
        let header = &template.frame[ETHERNET..ETHERNET + 20];
        template.header_sum = header
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        template
    }

    /// Where the UDP header begins.
    fn ports_at(&self) -> usize {
        ETHERNET + if self.family == Family::V4 { 20 } else { 40 }
    }

    fn datagram_bytes(&self) -> u64 {
        (self.frame.len() - ETHERNET) as u64
    }

    /// The frame of a packet of `flow`.
    fn of_flow(&mut self, flow: u32) -> &[u8] {
        let tuple = flow_tuple(self.family, flow);
        let at = self.ports_at();
        match tuple.src {
            std::net::IpAddr::V4(src) => {
                let bits = src.to_bits();
                let sum = self.header_sum + (bits >> 16) + (bits & 0xffff);
                let sum = (sum & 0xffff) + (sum >> 16);
                let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
                self.frame[at - 10..at - 8].copy_from_slice(&checksum.to_be_bytes());
                self.frame[at - 8..at - 4].copy_from_slice(&src.octets());
            }
            std::net::IpAddr::V6(src) => {
                self.frame[at - 32..at - 16].copy_from_slice(&src.octets());
            }
        }
        self.frame[at..at + 2].copy_from_slice(&tuple.sport.to_be_bytes());
        &self.frame
    }
}
