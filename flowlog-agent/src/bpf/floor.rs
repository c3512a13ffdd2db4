//! The benches' floors: programs that do nothing, or the least that counts.
use std::time::Duration;

use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    programs::{LinkOrder, TestRunOptions, tc::TcAttachOptions},
};

use super::{
    attach::RunStats, direction::DeviceDirection, error::BpfError, object, trial::TrialResult,
};

/// A floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloorProgram {
    /// Does nothing.
    Empty,
    /// The least that could count an IPv4 flow.
    Least,
}

impl FloorProgram {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "floor_empty",
            Self::Least => "floor_least",
        }
    }
}

/// A loaded floor, with a flow map of its own; gone from its device when dropped.
pub struct Floor {
    ebpf: Ebpf,
    program: &'static str,
}

impl Floor {
    /// Loads a floor from the object of the benches. `flow_map_entries` is the size of its flow map.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn load(
        object: &[u8],
        program: FloorProgram,
        flow_map_entries: u32,
    ) -> Result<Self, BpfError> {
        let program = program.name();
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("FLOOR_FLOWS", flow_map_entries)
            .load(object)
            .map_err(BpfError::Load)?;
        let classifier = object::classifier(&mut ebpf, program)?;
        object::verified(|| classifier.load())
            .map_err(|source| BpfError::Program { program, source })?;
        Ok(Self { ebpf, program })
    }

    /// Attaches it to a device by TCX. To be called in the device's network namespace.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn attach(&mut self, device: &str, direction: DeviceDirection) -> Result<(), BpfError> {
        let program = self.program;
        object::classifier(&mut self.ebpf, program)?
            .attach_with_options(
                device,
                direction.attach_type(),
                TcAttachOptions::TcxOrder(LinkOrder::first()),
            )
            .map_err(|source| BpfError::Program { program, source })?;
        Ok(())
    }

    /// Runs it `repeat` times on a frame.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> Result<TrialResult, BpfError> {
        let program = self.program;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        let result = object::classifier(&mut self.ebpf, program)?
            .test_run(options)
            .map_err(|source| BpfError::Program { program, source })?;
        Ok(TrialResult {
            verdict: result.return_value,
            duration: result.duration,
        })
    }

    /// What it has cost.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn run_stats(&self) -> Result<RunStats, BpfError> {
        let program = self
            .ebpf
            .program(self.program)
            .ok_or(BpfError::NoProgram(self.program))?;
        let info = program.info().map_err(|source| BpfError::Program {
            program: self.program,
            source,
        })?;
        Ok(RunStats {
            runs: info.run_count(),
            time: info.run_time(),
        })
    }
}

/// The kernel keeps run statistics for as long as this lives.
pub struct RunStatistics(#[expect(dead_code, reason = "held for its effect")] std::os::fd::OwnedFd);

impl RunStatistics {
    /// Switches them on.
    ///
    /// # Errors
    ///
    /// The kernel's: 5.8 and later have them.
    pub fn enable() -> Result<Self, BpfError> {
        aya::sys::enable_stats(aya::sys::Stats::RunTime)
            .map(Self)
            .map_err(|error| BpfError::Map {
                what: "switch run statistics on".to_owned(),
                source: error.io_error,
            })
    }
}

/// Time for one of many, in nanoseconds.
#[must_use]
pub fn nanoseconds_each(time: Duration, count: u64) -> f64 {
    if count == 0 {
        0.0
    } else {
        time.as_nanos() as f64 / count as f64
    }
}
