//! What it costs that the host's drops are looked at: for each packet that is dropped, by the kernel's own run statistics.
use std::process::Command;

use anyhow::{Result, ensure};
use flowlog_agent::bpf::{
    DeviceDirection, NetfilterDrops,
    floor::{Floor, FloorProgram, RunStatistics, nanoseconds_each},
};
use flowlog_tests::lab::{Distribution, Family};

use crate::{
    live::{Attached, flood},
    report::{Report, median},
    setting::{Link, entries_for},
};

/// Packets of one round, and flows that they are of.
const PACKETS: u64 = 300_000;
const FLOWS: u32 = 1_000;

/// The flood is for nobody, so IP drops it as another host's. With this rule netfilter does, before.
const RULE: &str = "add table netdev t; add chain netdev t c { type filter hook ingress device right0 priority 0; }; \
                    add rule netdev t c drop";

pub(crate) fn measure(object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let link = Link::new()?;
    let _statistics = RunStatistics::enable()?;
    let spread = (FLOWS, Distribution::Even);
    let (mut empties, mut others, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut floor = Floor::load(object, FloorProgram::Empty, entries_for(FLOWS))?;
        link.receiver
            .enter(|| floor.attach(&link.pair.right().name, DeviceDirection::Ingress))??;
        let before = floor.run_stats()?;
        flood(&link, Family::V4, spread, PACKETS, 1)?;
        let after = floor.run_stats()?;
        empties.push(nanoseconds_each(
            after.time - before.time,
            after.runs - before.runs,
        ));
        drop(floor);

        let attached = Attached::new(&link, FLOWS)?;
        let drops = NetfilterDrops::attach(attached.pins())?;
        let (namespace, index) = link.receiver_device()?;
        drops.set_device(namespace, index, 0, false)?;
        let each = || -> Result<f64> {
            flood(&link, Family::V4, spread, u64::from(FLOWS), 1)?;
            let before = drops.run_stats()?;
            flood(&link, Family::V4, spread, PACKETS, 2)?;
            let after = drops.run_stats()?;
            ensure!(
                after.runs - before.runs >= PACKETS / 2,
                "few packets were dropped"
            );
            Ok(nanoseconds_each(
                after.time - before.time,
                after.runs - before.runs,
            ))
        };
        others.push(each()?);
        nft(&link, RULE)?;
        rejects.push(each()?);
        nft(&link, "flush ruleset")?;
        drops.detach()?;
    }
    let (empty, other, reject) = (median(empties), median(others), median(rejects));
    eprintln!("  empty {empty:.0} ns, another reason {other:.0} ns, netfilter {reject:.0} ns");
    for (what, measured) in [
        (
            "a drop for another reason than netfilter's, beside an empty program",
            other,
        ),
        ("a drop by netfilter, beside an empty program", reject),
    ] {
        report.beside(what, "ns", measured, empty, measured / empty, None);
    }
    Ok(())
}

fn nft(link: &Link, script: &str) -> Result<()> {
    let status = link
        .receiver
        .enter(|| Command::new("nft").arg(script).status())??;
    ensure!(status.success(), "nft {script}: {status}");
    Ok(())
}
