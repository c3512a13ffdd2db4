//! A packet's cost by `BPF_PROG_TEST_RUN`: one flow, packets of several kinds.
use anyhow::Result;
use etherparse::PacketBuilder;
use flowlog_agent::bpf::{
    EniConstants,
    floor::{Floor, FloorProgram},
    trial::{SkbMetadata, Trial, TrialProgram},
};

use crate::{
    report::{Budget, Report, median},
    setting::{PinFolder, sizes_for},
};

/// Runs of one round.
const REPEAT: u32 = 1_000_000;

pub(crate) fn measure(object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let pins = PinFolder::new()?;
    let constants = EniConstants {
        ethernet: true,
        ..EniConstants::default()
    };
    let mut trial = Trial::new(pins.path(), constants, sizes_for(1))?;
    let mut empty = Floor::load(object, FloorProgram::Empty, 65_536)?;
    let mut least = Floor::load(object, FloorProgram::Least, 65_536)?;
    let packets = packets();
    let (Some((_, plain)), rest) = (packets.first(), packets.as_slice()) else {
        return Ok(());
    };
    let nanoseconds = |duration: std::time::Duration| duration.as_nanos() as f64;
    let mut floors = Vec::new();
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); rest.len() * 3];
    let mut empties = Vec::new();
    for _ in 0..rounds {
        let nothing = nanoseconds(empty.run(plain, REPEAT)?.duration);
        empties.push(nothing);
        floors.push(nanoseconds(least.run(plain, REPEAT)?.duration) - nothing);
        let runs = rest.iter().flat_map(|(_, frame)| {
            [
                TrialProgram::Ingress,
                TrialProgram::Egress,
                TrialProgram::Xdp,
            ]
            .map(|program| (program, frame))
        });
        for ((program, frame), costs) in runs.zip(&mut costs) {
            let duration = trial
                .run(program, frame, SkbMetadata::default(), REPEAT)?
                .duration;
            costs.push(nanoseconds(duration) - nothing);
        }
    }
    let floor = median(floors);
    report.figure("empty program, by test run", "ns", median(empties), None);
    let names = rest
        .iter()
        .flat_map(|(name, _)| ["ingress", "egress", "xdp"].map(|hook| format!("{name}, {hook}")));
    for (name, costs) in names.zip(costs) {
        let cost = median(costs);
        // The budget is for what the floor can count; and an XDP run has less around it than the empty TC program.
        let budget = (name.starts_with("IPv4 UDP, ") && !name.ends_with("xdp"))
            .then_some(Budget::AtMost(2.0));
        report.beside(
            format!("1 flow, test run: {name}"),
            "ns",
            cost,
            floor,
            cost / floor,
            budget,
        );
    }
    for program in [TrialProgram::Ingress, TrialProgram::Xdp] {
        let walked = trial.verified_instructions(program)?.unwrap_or(0);
        report.figure(
            format!("instructions that the verifier walks, {program:?}"),
            "",
            f64::from(walked),
            None,
        );
    }
    Ok(())
}

/// The first is of 100 octets, as in the floor's reference figures.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let payload = [0_u8; 58];
    let v4 = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let v6 = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64);
    let tagged = || {
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .double_vlan(etherparse::VlanId::ZERO, etherparse::VlanId::ZERO)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let mut packets = Vec::new();
    let mut add = |name, write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        packets.push((name, frame));
    };
    add("IPv4 UDP", &|frame| {
        drop(v4().udp(1000, 2000).write(frame, &payload));
    });
    add("IPv4 TCP", &|frame| {
        drop(v4().tcp(1000, 2000, 7, 1024).ack(9).write(frame, &payload));
    });
    add("IPv6 UDP", &|frame| {
        drop(v6().udp(1000, 2000).write(frame, &payload));
    });
    add("IPv6 TCP", &|frame| {
        drop(v6().tcp(1000, 2000, 7, 1024).ack(9).write(frame, &payload));
    });
    add("QinQ IPv4 UDP", &|frame| {
        drop(tagged().udp(1000, 2000).write(frame, &payload));
    });
    add("ICMP", &|frame| {
        drop(v4().icmpv4_echo_request(1, 2).write(frame, &payload));
    });
    packets
}
