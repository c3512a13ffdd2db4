//! Runs the programs on packets without a device (`BPF_PROG_TEST_RUN`): for tests and benches.
use std::{os::fd::AsFd as _, path::Path, time::Duration};

use aya::{
    Ebpf, TestRun as _,
    programs::{ProgramInfo, TestRunOptions},
};
use flowlog_common::{FragmentKey, FragmentPorts, Session, SessionKey};

use super::{
    attach::RunStats,
    counters::{Counters, MapSizes},
    error::BpfError,
    object::{self, EGRESS, EniConstants, INGRESS, XDP},
    sys::{self, BatchReader, MapData},
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

/// What the kernel says of a packet besides its octets; fields of `struct __sk_buff` and `struct xdp_md`
/// (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkbMetadata {
    /// Payload octets of each segment; 0 for an ordinary packet. For TC alone.
    pub gso_size: u32,
    /// Number of segments. For TC alone.
    pub gso_segs: u32,
    /// Octets of the frame in the linear part, the rest being in page fragments; 0 for as many as fit. The kernel puts the 14 of
    /// the Ethernet header there at least. An error where the kernel cannot do so: 6.18 can for XDP and not for TC.
    pub linear_octets: u32,
}

/// What a run gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialResult {
    /// The program's verdict.
    pub verdict: u32,
    /// Mean time of a run.
    pub duration: Duration,
}

/// The programs of one ENI.
pub struct Programs {
    ebpf: Ebpf,
}

/// The programs of one ENI, and counters of their own.
pub struct Trial {
    programs: Programs,
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
        let programs = Programs::load(pin_folder, constants)?;
        Ok(Self { programs, counters })
    }

    /// As [`Programs::run`].
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
        self.programs.run(program, frame, metadata, repeat)
    }

    /// As [`Programs::verified_instructions`].
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn verified_instructions(&self, program: TrialProgram) -> Result<Option<u32>, BpfError> {
        self.programs.verified_instructions(program)
    }
}

impl Programs {
    /// Loads the programs of an ENI, which count into the counters that [`Trial::new`] or [`Counters::create`] pinned into
    /// `pin_folder`. Several ENIs can share them, as can several copies of one.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn load(pin_folder: &Path, constants: EniConstants) -> Result<Self, BpfError> {
        let mut ebpf = object::load(pin_folder, constants)?;
        for name in [INGRESS, EGRESS] {
            let program = object::classifier(&mut ebpf, name)?;
            object::verified(|| program.load()).map_err(|source| BpfError::Program {
                program: name,
                source,
            })?;
        }
        let program = object::xdp(&mut ebpf)?;
        object::verified(|| program.load()).map_err(|source| BpfError::Program {
            program: XDP,
            source,
        })?;
        Ok(Self { ebpf })
    }

    /// Runs a program `repeat` times on a frame. The kernel takes frames of 14 octets and more.
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
        let context = context(program, metadata);
        let mut options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        if metadata != SkbMetadata::default() {
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
        Ok(self.info(program)?.verified_instruction_count())
    }

    /// What a program has cost since it was loaded.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn run_stats(&self, program: TrialProgram) -> Result<RunStats, BpfError> {
        let info = self.info(program)?;
        Ok(RunStats {
            runs: info.run_count(),
            time: info.run_time(),
        })
    }

    fn info(&self, program: TrialProgram) -> Result<ProgramInfo, BpfError> {
        let name = match program {
            TrialProgram::Ingress => INGRESS,
            TrialProgram::Egress => EGRESS,
            TrialProgram::Xdp => XDP,
        };
        let loaded = self.ebpf.program(name).ok_or(BpfError::NoProgram(name))?;
        loaded.info().map_err(|source| BpfError::Program {
            program: name,
            source,
        })
    }
}

// SAFETY: `#[repr(C)]`, integers only, sizes asserted where they are defined.
unsafe impl MapData for FragmentKey {}
// SAFETY: as above.
unsafe impl MapData for FragmentPorts {}

/// Forgets all first fragments that the programs have seen, so that what follows does not depend on what came before.
///
/// # Errors
///
/// The kernel's.
pub fn forget_fragments(pin_folder: &Path) -> Result<(), BpfError> {
    let failed = || BpfError::map("forget the first fragments");
    let map = sys::obj_get(&pin_folder.join("FRAGMENTS")).map_err(failed())?;
    let mut reader =
        BatchReader::<FragmentKey, FragmentPorts>::deleting(map.as_fd(), FRAGMENTS_BATCH);
    while !reader.next().map_err(failed())?.0.is_empty() {}
    Ok(())
}

/// Fragments that are deleted by one system call.
const FRAGMENTS_BATCH: usize = 1024;

/// The context of a run: `struct __sk_buff` or `struct xdp_md` with the fields of [`SkbMetadata`] set; the kernel refuses most
/// others.
fn context(program: TrialProgram, metadata: SkbMetadata) -> Vec<u8> {
    /// Octets of `struct __sk_buff`, and offsets of its fields.
    const SK_BUFF: usize = 192;
    const SK_BUFF_DATA_END: usize = 80;
    const GSO_SEGS: usize = 164;
    const GSO_SIZE: usize = 176;
    /// Octets of `struct xdp_md`, and the offset of a field.
    const XDP_MD: usize = 24;
    const XDP_MD_DATA_END: usize = 4;
    let (octets, fields) = if program == TrialProgram::Xdp {
        (XDP_MD, vec![(XDP_MD_DATA_END, metadata.linear_octets)])
    } else {
        let fields = vec![
            (SK_BUFF_DATA_END, metadata.linear_octets),
            (GSO_SEGS, metadata.gso_segs),
            (GSO_SIZE, metadata.gso_size),
        ];
        (SK_BUFF, fields)
    };
    let mut context = vec![0; octets];
    for (offset, value) in fields {
        for (to, from) in context.iter_mut().skip(offset).zip(value.to_ne_bytes()) {
            *to = from;
        }
    }
    context
}

/// Makes all sessions older, as if nothing had come for so long.
///
/// # Errors
///
/// The kernel's.
pub fn age_sessions(pin_folder: &Path, by: Duration) -> Result<(), BpfError> {
    let failed = || BpfError::map("make sessions older");
    let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    let map = sys::obj_get(&pin_folder.join(object::SESSIONS)).map_err(failed())?;
    let mut all = Vec::new();
    sys::read_all(map.as_fd(), |keys: &[SessionKey], sessions: &[Session]| {
        all.extend(keys.iter().copied().zip(sessions.iter().copied()));
    })
    .map_err(failed())?;
    for (key, mut session) in all {
        session.last_packet = session.last_packet.saturating_sub(by);
        sys::map_update(map.as_fd(), &key, &session).map_err(failed())?;
    }
    Ok(())
}
