//! Runs the programs on packets without a device (`BPF_PROG_TEST_RUN`): for tests and benches.
use std::{path::Path, time::Duration};

use aya::{Ebpf, TestRun as _, programs::TestRunOptions};

use super::{
    counters::{Counters, MapSizes},
    error::BpfError,
    object::{self, EGRESS, EniConstants, INGRESS, XDP},
};

/// A program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrialProgram {
    /// TC, what the device receives.
    Ingress,
    /// TC, what the device sends.
    Egress,
    /// XDP, what the device receives.
    Xdp,
}

/// What the kernel says of a packet besides its octets; the start of `struct __sk_buff` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkbMetadata {
    /// Payload octets of each segment; 0 for an ordinary packet.
    pub gso_size: u32,
    /// Number of segments.
    pub gso_segs: u32,
}

/// What a run gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialResult {
    /// The program's verdict.
    pub verdict: u32,
    /// Mean time of a run.
    pub duration: Duration,
}

/// The programs of one ENI, and counters of their own.
pub struct Trial {
    ebpf: Ebpf,
    /// The counters that the programs count into.
    pub counters: Counters,
}

impl Trial {
    /// Loads the programs. `pin_folder` is prepared by [`super::pins::prepare`] and the caller's to remove.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(
        pin_folder: &Path,
        constants: EniConstants,
        sizes: MapSizes,
    ) -> Result<Self, BpfError> {
        let counters = Counters::create(pin_folder, sizes)?;
        let mut ebpf = object::load(pin_folder, constants)?;
        for name in [INGRESS, EGRESS] {
            object::classifier(&mut ebpf, name)?
                .load()
                .map_err(|source| BpfError::Program {
                    program: name,
                    source,
                })?;
        }
        object::xdp(&mut ebpf)?
            .load()
            .map_err(|source| BpfError::Program {
                program: XDP,
                source,
            })?;
        Ok(Self { ebpf, counters })
    }

    /// Runs a program `repeat` times on a frame. The kernel takes frames of 14 octets and more; metadata is for TC alone.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn run(
        &mut self,
        program: TrialProgram,
        frame: &[u8],
        metadata: SkbMetadata,
        repeat: u32,
    ) -> Result<TrialResult, BpfError> {
        let context = sk_buff(metadata);
        let mut options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        if program != TrialProgram::Xdp && metadata != SkbMetadata::default() {
            options.ctx_in = Some(&context);
        }
        let (name, result) = match program {
            TrialProgram::Ingress => (
                INGRESS,
                object::classifier(&mut self.ebpf, INGRESS)?.test_run(options),
            ),
            TrialProgram::Egress => (
                EGRESS,
                object::classifier(&mut self.ebpf, EGRESS)?.test_run(options),
            ),
            TrialProgram::Xdp => (XDP, object::xdp(&mut self.ebpf)?.test_run(options)),
        };
        let result = result.map_err(|source| BpfError::Program {
            program: name,
            source,
        })?;
        Ok(TrialResult {
            verdict: result.return_value,
            duration: result.duration,
        })
    }

    /// Instructions that the verifier walked for a program, where the kernel tells (5.16 and later).
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn verified_instructions(&self, program: TrialProgram) -> Result<Option<u32>, BpfError> {
        let name = match program {
            TrialProgram::Ingress => INGRESS,
            TrialProgram::Egress => EGRESS,
            TrialProgram::Xdp => XDP,
        };
        let info = self
            .ebpf
            .program(name)
            .ok_or(BpfError::NoProgram(name))?
            .info();
        Ok(info
            .map_err(|source| BpfError::Program {
                program: name,
                source,
            })?
            .verified_instruction_count())
    }
}

/// `struct __sk_buff` with the fields of [`SkbMetadata`] set; the kernel refuses most others.
fn sk_buff(metadata: SkbMetadata) -> [u8; 192] {
    const GSO_SEGS: usize = 164;
    const GSO_SIZE: usize = 176;
    let mut context = [0; 192];
    for (offset, value) in [(GSO_SEGS, metadata.gso_segs), (GSO_SIZE, metadata.gso_size)] {
        for (to, from) in context.iter_mut().skip(offset).zip(value.to_ne_bytes()) {
            *to = from;
        }
    }
    context
}
