//! A packet's cost on a veth pair, by the kernel's own run statistics.
use std::path::Path;

use anyhow::{Context as _, Result};
use flowlog_agent::{
    bpf::{
        AttachPlan, Counters, DeviceDirection, EniConstants, Observer, Prepared, RunStats, Target,
        floor::{Floor, FloorProgram, RunStatistics, nanoseconds_each},
    },
    config::{AttachMode, Position},
};
use flowlog_tests::lab::{Distribution, Family, FloodPlan, udp_flood};

use crate::{
    report::{Budget, Report, median},
    setting::{Link, PinFolder, entries_for, sizes_for},
};

/// Packets of one round.
pub(crate) const PACKETS: u64 = 1_000_000;

/// Flows, how packets are spread over them, and the budget.
const CASES: [(u32, Distribution, f64); 5] = [
    (1, Distribution::Even, 2.0),
    (1_000, Distribution::Even, 1.5),
    (1_000, Distribution::Zipf(1.1), 1.5),
    (100_000, Distribution::Even, 1.25),
    (100_000, Distribution::Zipf(1.1), 1.25),
];

/// Flows, and how packets are spread over them.
type Spread = (u32, Distribution);

/// An observer that is off its device when this is dropped.
pub(crate) struct Attached<'l> {
    link: &'l Link,
    observer: Option<Observer>,
    _counters: Counters,
    pins: PinFolder,
}

impl<'l> Attached<'l> {
    pub(crate) fn new(link: &'l Link, flows: u32) -> Result<Self> {
        let pins = PinFolder::new()?;
        let counters = Counters::create(pins.path(), sizes_for(flows))?;
        let constants = EniConstants {
            ethernet: true,
            ..EniConstants::default()
        };
        let plan = AttachPlan {
            mode: AttachMode::Tcx,
            position: Position::First,
            clsact_priority: 1,
            xdp: false,
        };
        let prepared = Prepared::new(pins.path(), constants)?;
        let observer = link
            .receiver
            .enter(|| Observer::attach(prepared, target(link), plan))??;
        Ok(Self {
            link,
            observer: Some(observer),
            _counters: counters,
            pins,
        })
    }

    /// Where its maps are pinned.
    pub(crate) fn pins(&self) -> &Path {
        self.pins.path()
    }

    fn run_stats(&self) -> Result<RunStats> {
        Ok(self
            .observer
            .as_ref()
            .context("the observer is gone")?
            .run_stats()?[0])
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            let _ = self
                .link
                .receiver
                .enter(|| observer.detach(target(self.link)));
        }
    }
}

fn target(link: &Link) -> Target<'_> {
    Target {
        namespace_inode: 0,
        index: 0,
        name: &link.pair.right().name,
        mtu: 1500,
    }
}

pub(crate) fn flood(
    link: &Link,
    family: Family,
    (flows, distribution): Spread,
    packets: u64,
    seed: u64,
) -> Result<()> {
    let plan = FloodPlan {
        packets,
        flows,
        distribution,
        family,
        seed,
        ..FloodPlan::default()
    };
    udp_flood(&link.sender, &link.pair.left().name, &plan)?;
    Ok(())
}

/// Cost of a packet between two readings of run statistics, after the flows are known.
fn cost(
    link: &Link,
    family: Family,
    spread: Spread,
    stats: impl Fn() -> Result<RunStats>,
) -> Result<f64> {
    flood(
        link,
        family,
        (spread.0, Distribution::Even),
        u64::from(spread.0),
        1,
    )?;
    let before = stats()?;
    flood(link, family, spread, PACKETS, 2)?;
    let after = stats()?;
    Ok(nanoseconds_each(
        after.time.saturating_sub(before.time),
        after.runs - before.runs,
    ))
}

pub(crate) fn measure(object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let link = Link::new()?;
    let _statistics = RunStatistics::enable()?;
    for (flows, distribution, budget) in CASES {
        let (mut empties, mut leasts, mut ours, mut ratios, mut ours_v6) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let spread = (flows, distribution);
        let floor = |program| -> Result<f64> {
            let mut floor = Floor::load(object, program, entries_for(flows))?;
            link.receiver
                .enter(|| floor.attach(&link.pair.right().name, DeviceDirection::Ingress))??;
            cost(&link, Family::V4, spread, || Ok(floor.run_stats()?))
        };
        for _ in 0..rounds {
            let empty = floor(FloorProgram::Empty)?;
            let least = floor(FloorProgram::Least)? - empty;
            let attached = Attached::new(&link, flows)?;
            let our = cost(&link, Family::V4, spread, || attached.run_stats())? - empty;
            ours_v6.push(cost(&link, Family::V6, spread, || attached.run_stats())? - empty);
            empties.push(empty);
            leasts.push(least);
            ours.push(our);
            ratios.push(our / least);
        }
        let what = match distribution {
            Distribution::Even => format!("{flows} flows evenly, on veth"),
            Distribution::Zipf(s) => format!("{flows} flows by Zipf({s}), on veth"),
        };
        let (our, least, our_v6) = (median(ours), median(leasts), median(ours_v6));
        eprintln!(
            "  {what}: empty {:.0} ns, least +{least:.0} ns, ours +{our:.0} ns, IPv6 +{our_v6:.0} ns",
            median(empties)
        );
        report.beside(
            format!("{what}, IPv4"),
            "ns",
            our,
            least,
            median(ratios),
            Some(Budget::AtMost(budget)),
        );
        // The floor counts IPv4 alone: a key of 44 octets costs more to hash and to compare.
        report.beside(
            format!("{what}, IPv6"),
            "ns",
            our_v6,
            least,
            our_v6 / least,
            None,
        );
    }
    Ok(())
}
