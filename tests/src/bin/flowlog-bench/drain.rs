//! How quickly flows come from the kernel to user space.
use std::time::Instant;

use anyhow::Result;
use etherparse::PacketBuilder;
use flowlog_agent::bpf::{
    Counters, EniConstants, MapSizes,
    trial::{SkbMetadata, Trial, TrialProgram},
};

use crate::{
    report::{Budget, Report, median},
    setting::PinFolder,
};

const FLOWS: u32 = 1_000_000;

pub(crate) fn measure(_object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let pins = PinFolder::new()?;
    let sizes = MapSizes {
        v4: (FLOWS * 2).next_power_of_two(),
        v6: 64,
    };
    let constants = EniConstants {
        ethernet: true,
        ..EniConstants::default()
    };
    let mut trial = Trial::new(pins.path(), constants, sizes)?;
    let (mut rates, mut flips, mut renewals) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        fill(&mut trial)?;
        let began = Instant::now();
        let still = trial.counters.flip()?;
        flips.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        let mut flows = 0_u64;
        trial
            .counters
            .read_v4(&still, |keys, _| flows += keys.len() as u64)?;
        rates.push(flows as f64 / began.elapsed().as_secs_f64());
        let began = Instant::now();
        Counters::renew(&mut trial.counters, still, sizes)?;
        renewals.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report.figure(
        "drain: flows read from the kernel",
        "flows/s",
        median(rates),
        Some(Budget::AtLeast(2e6)),
    );
    report.figure("drain: flip of idle programs", "ms", median(flips), None);
    report.figure(
        "drain: a fresh map in place of one of 1 M flows",
        "ms",
        median(renewals),
        None,
    );
    Ok(())
}

fn fill(trial: &mut Trial) -> Result<()> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2)
        .write(&mut frame, &[0; 18])?;
    for flow in 0..FLOWS {
        // The source address: 26 octets into the frame.
        for (to, from) in frame.iter_mut().skip(26).zip(flow.to_be_bytes()) {
            *to = from;
        }
        trial.run(TrialProgram::Egress, &frame, SkbMetadata::default(), 1)?;
    }
    Ok(())
}
