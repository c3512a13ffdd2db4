//! What a soak has come to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Instant,
};

use flowlog_tests::agent::{Crossed, LogStatus, Record};

/// How often something was done to the agent.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) kills: u64,
    pub(crate) restarts: u64,
    pub(crate) pauses: u64,
    pub(crate) outages: u64,
    pub(crate) replugs: u64,
}

/// A soak so far.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) events: Events,
    /// Sentences; the soak ends with the first.
    pub(crate) differences: Vec<String>,
    pub(crate) peak_kib: u64,
    /// Of lives that could be asked before their end.
    pub(crate) drains: Durations,
    pub(crate) commits: Durations,
    began: Instant,
    rounds: u64,
    crossed: u64,
    recorded: u64,
    skipped: u64,
    windows: u64,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            events: Events::default(),
            differences: Vec::new(),
            peak_kib: 0,
            drains: Durations::default(),
            commits: Durations::default(),
            began: Instant::now(),
            rounds: 0,
            crossed: 0,
            recorded: 0,
            skipped: 0,
            windows: 0,
        }
    }

    /// Takes a round's records, and compares them with what crossed in it.
    pub(crate) fn add_round(&mut self, crossed: &Crossed, records: &[Record]) {
        let packets = |status| {
            let of_status = records.iter().filter(|record| record.log_status == status);
            of_status.filter_map(|record| record.packets).sum::<u64>()
        };
        self.rounds += 1;
        self.crossed += crossed.packets();
        self.recorded += packets(LogStatus::Ok);
        self.skipped += packets(LogStatus::SkipData);
        let windows: BTreeSet<u64> = records.iter().map(|record| record.start).collect();
        self.windows += windows.len() as u64;
        self.differences.extend(crossed.differences(records));
    }

    fn difference(&self) -> i128 {
        i128::from(self.crossed) - i128::from(self.recorded) - i128::from(self.skipped)
    }

    /// The gist in a line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} s, round {}: {} packets crossed, difference {}, {} kills, {} restarts",
            self.began.elapsed().as_secs(),
            self.rounds,
            self.crossed,
            self.difference(),
            self.events.kills,
            self.events.restarts
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Events {
            kills,
            restarts,
            pauses,
            outages,
            replugs,
        } = &self.events;
        let rows = [
            ("seed", self.seed.to_string()),
            ("seconds", self.began.elapsed().as_secs().to_string()),
            ("rounds", self.rounds.to_string()),
            ("packets crossed", self.crossed.to_string()),
            ("packets recorded", self.recorded.to_string()),
            ("packets skipped", self.skipped.to_string()),
            ("difference", self.difference().to_string()),
            ("windows", self.windows.to_string()),
            ("kills", kills.to_string()),
            ("restarts", restarts.to_string()),
            ("pauses", pauses.to_string()),
            ("full disks", outages.to_string()),
            ("interfaces plugged and unplugged", replugs.to_string()),
            ("peak resident memory, KiB", self.peak_kib.to_string()),
            ("drain, p50 and p99", self.drains.to_string()),
            ("commit, p50 and p99", self.commits.to_string()),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<34}{value:>24}")?;
        }
        for difference in &self.differences {
            writeln!(f, "DIFFERENCE: {difference}")?;
        }
        Ok(())
    }
}

/// A histogram of Prometheus, summed up over several processes.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// By upper bound in nanoseconds: how many took no longer.
    buckets: BTreeMap<u64, u64>,
}

impl Durations {
    /// Adds what a scrape says of `name`, which is in seconds; nothing if it says nothing.
    pub(crate) fn add(&mut self, scrape: &str, name: &str) {
        let prefix = format!("{name}_bucket{{le=\"");
        for line in scrape.lines() {
            let Some((bound, rest)) = line
                .strip_prefix(&prefix)
                .and_then(|rest| rest.split_once('"'))
            else {
                continue;
            };
            let count = rest.rsplit(' ').next().unwrap_or_default();
            if let (Ok(seconds), Ok(count)) = (bound.parse::<f64>(), count.parse::<u64>()) {
                let bound = (seconds * 1e9) as u64;
                *self.buckets.entry(bound).or_default() += count;
            }
        }
    }

    /// The bound that this share took no longer than, in seconds.
    fn quantile(&self, share: f64) -> Option<f64> {
        let all = *self.buckets.last_key_value()?.1;
        let wanted = (all as f64 * share).ceil() as u64;
        let (bound, _) = self.buckets.iter().find(|(_, count)| **count >= wanted)?;
        (all > 0).then_some(*bound as f64 / 1e9)
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.quantile(0.5), self.quantile(0.99)) {
            (Some(p50), Some(p99)) => write!(f, "≤ {p50} s, ≤ {p99} s"),
            _ => f.write_str("not told"),
        }
    }
}
