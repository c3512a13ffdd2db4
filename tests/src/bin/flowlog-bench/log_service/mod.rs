//! The Log Service: ingest, what a record takes on the disk, and queries beside DuckDB on the same files with as many threads.
mod asked;
mod ingest;
mod questions;
mod served;
mod shipped;
mod stored;
mod traffic;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flowlog::log_service::query::{Engine, EngineConfig};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

pub(crate) use served::SERVICE;

use crate::report::{Budget, Report};
use asked::DuckDb;
use stored::Stored;
use traffic::Traffic;

/// Records that are put through the API.
const INGESTED: usize = 1_000_000;
/// Records of the day that is searched.
const STORED: usize = 20_000_000;
/// Processors that all of it has, DuckDB too.
const CORES: usize = 2;

/// The most memory that the service may have while it takes records as fast as it can: rows in memory until they are files (384 MiB), and
/// as much again on their way there, in MiB.
const PEAK_MIB: f64 = 768.0;

pub(crate) fn measure(_object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    use_two_cores()?;
    let folder = Folder::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CORES)
        .enable_all()
        .build()?;
    let shipped = shipped::measure(&runtime, &folder.0.join("shipped"))?;
    report.figure(
        "Log Service: ingest of 1 M flows of an agent, from the kernel to the service's disk",
        "records/s",
        shipped.records / shipped.seconds,
        Some(Budget::AtLeast(200_000.0)),
    );
    report.figure(
        "Log Service: peak resident memory of the service at ingest of an agent",
        "MiB",
        shipped.peak_mib,
        Some(Budget::AtMost(PEAK_MIB)),
    );
    runtime.block_on(async {
        let ingested = ingest::measure(&folder.0.join("service"), INGESTED).await?;
        report.figure(
            "Log Service: ingest of 1 M records over HTTP, until they are on the disk",
            "records/s",
            ingested.records as f64 / ingested.seconds,
            Some(Budget::AtLeast(200_000.0)),
        );
        report.figure(
            "Log Service: peak resident memory of the service at ingest over HTTP",
            "MiB",
            ingested.peak_mib,
            Some(Budget::AtMost(PEAK_MIB)),
        );
        let kept = std::env::var_os(KEPT).map(PathBuf::from);
        let of_a_day = kept.unwrap_or_else(|| folder.0.join("day"));
        let stored = Stored::open(&of_a_day, STORED).await?;
        report.figure(
            "Log Service: a record on the disk, of 20 M in hourly files",
            "bytes",
            stored.status.file_octets as f64 / stored.status.file_rows as f64,
            Some(Budget::AtMost(12.0)),
        );
        let engine = Engine::new(EngineConfig {
            threads: CORES,
            ..EngineConfig::new(folder.0.join("spill"))
        })?;
        let duckdb = DuckDb::start(&of_a_day.join("logs"), CORES)?;
        if duckdb.is_none() {
            eprintln!("  there is no DuckDB in target/python: `cargo xtask setup` installs it");
        }
        let traffic = Traffic::new();
        let asked = (traffic.eni_id(), rounds);
        asked::measure(&engine, &stored, duckdb, asked, report).await
    })
}

/// Names a folder in which the records of the day are kept from run to run: making them takes minutes.
const KEPT: &str = "FLOWLOG_BENCH_DAY";

/// Has this thread, and all threads and programs that it starts from now on, use the first two processors alone.
fn use_two_cores() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut two = CpuSet::new();
    let processors = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    for processor in processors.take(CORES) {
        two.set(processor)?;
    }
    Ok(sched_setaffinity(this, &two)?)
}

/// A folder beside this program, on the disk that builds use; it is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let program = std::env::current_exe()?;
        let beside: &Path = program.parent().context("a program is in a folder")?;
        let folder = beside.join(format!("log-service-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
