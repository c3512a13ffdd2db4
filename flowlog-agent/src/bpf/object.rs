//! The BPF object, and loading it for one ENI.
use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    programs::{ProgramType, SchedClassifier, Xdp},
    sys::{BpfHelper, is_helper_supported},
};
use flowlog_common::{ABI_VERSION, KernelLayout, OVERFLOW_RING_BYTES};
use flowlog_model::security_group::{SecurityMode, session::WhenFull};
use nix::libc;

use super::error::BpfError;
use crate::failpoint;

/// The programs, as `build.rs` compiled them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowlog-ebpf.o"));

/// The programs that the agent carries, as an ELF file.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn built_in_object() -> &'static [u8] {
    OBJECT
}

/// How names of folders for pins begin; the ABI's version follows.
const ABI_FOLDER: &str = "abi-";

/// Name of the overflow ring.
pub(super) const OVERFLOW: &str = "OVERFLOW";

/// Name of the map of sessions.
pub(super) const SESSIONS: &str = "SESSIONS";
/// Name of the map of the sessions' room.
pub(super) const SESSION_ROOM: &str = "SESSION_ROOM";

/// Name of the map of the devices that are ENIs.
pub(super) const DEVICES: &str = "DEVICES";
/// Name of the map that has the program of netfilter's verdicts.
pub(super) const VERDICTS: &str = "VERDICTS";

/// The maps that all programs share.
const SHARED_MAPS: [&str; 16] = [
    "ACTIVE",
    "FLOWS_V4",
    "FLOWS_V6",
    "ENIS",
    "OCCUPANCY",
    "WAKE",
    OVERFLOW,
    "FRAGMENTS",
    "POLICIES",
    "TABLES",
    "VECTORS",
    "PREFIXES",
    SESSIONS,
    SESSION_ROOM,
    DEVICES,
    VERDICTS,
];

/// Program names, as listed by `bpftool prog`.
pub(super) const INGRESS: &str = "flowlog_ingress";
/// See [`INGRESS`].
pub(super) const EGRESS: &str = "flowlog_egress";
/// See [`INGRESS`].
pub(super) const XDP: &str = "flowlog_xdp";

/// The program that sees all drops of the host.
pub(super) const DROPS: &str = "flowlog_drops";
/// What it goes on with, for those of netfilter.
pub(super) const VERDICT: &str = "flowlog_verdict";

/// What is compiled into the programs of one ENI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EniConstants {
    /// Slot of the ENI, less than [`flowlog_common::MAX_ENIS`].
    pub slot: u32,
    /// The device is the host's end of the VM's link.
    pub host_side: bool,
    /// Frames begin with an Ethernet header.
    pub ethernet: bool,
    /// The device's MTU in octets where generic XDP may be handed merged segments, else 0.
    pub xdp_mtu: u32,
    /// What is done with the security groups' verdict.
    pub security_mode: SecurityMode,
    /// What becomes of accepted packets for whose session there is no room.
    pub when_full: WhenFull,
}

/// The folder of the pins of this ABI.
#[must_use]
pub fn pin_folder(pin_path: &Path) -> PathBuf {
    pin_path.join(format!("{ABI_FOLDER}{ABI_VERSION}"))
}

/// Of which ABI version the pins in a folder are, if it is one for pins.
pub(super) fn version_of(pin_folder: &Path) -> Option<u32> {
    let digits = pin_folder.file_name()?.to_str()?.strip_prefix(ABI_FOLDER)?;
    let version: u32 = digits.parse().ok()?;
    (version.to_string() == digits && pin_folder.is_dir()).then_some(version)
}

/// Loads the object: makes and pins the shared maps where they are not, and readies the programs for one ENI.
pub(super) fn load(pin_folder: &Path, constants: EniConstants) -> Result<Ebpf, BpfError> {
    load_with_ring(pin_folder, constants, OVERFLOW_RING_BYTES)
}

/// Likewise; the overflow ring, if it is not there, is made of `ring_bytes`, a power of two and a multiple of the page size.
pub(super) fn load_with_ring(
    pin_folder: &Path,
    constants: EniConstants,
    ring_bytes: u32,
) -> Result<Ebpf, BpfError> {
    let host_side = u8::from(constants.host_side);
    let ethernet = u8::from(constants.ethernet);
    let mode: u8 = match constants.security_mode {
        SecurityMode::Off => 0,
        SecurityMode::Observe => 1,
        SecurityMode::Enforce => 2,
    };
    let when_full = u8::from(constants.when_full == WhenFull::Reject);
    let coarse_clock = u8::from(has_coarse_clock());
    let pins = SHARED_MAPS.map(|name| (name, pin_folder.join(name)));
    let mut loader = EbpfLoader::new();
    // The programs use no kernel type, so the kernel's own BTF (megabytes of it) need not be kept.
    loader.btf(None);
    for (name, path) in &pins {
        loader.map_pin_path(name, path.as_path());
    }
    loader
        .map_max_entries(OVERFLOW, ring_bytes)
        .override_global("ENI", &constants.slot, true)
        .override_global("HOST_SIDE", &host_side, true)
        .override_global("ETHERNET", &ethernet, true)
        .override_global("XDP_MTU", &constants.xdp_mtu, true)
        .override_global("SECURITY_MODE", &mode, true)
        .override_global("WHEN_FULL", &when_full, true)
        .override_global("COARSE_CLOCK", &coarse_clock, false);
    loader
        .load(&failpoint::object(OBJECT))
        .map_err(BpfError::Load)
}

/// Whether this kernel has the helper `bpf_ktime_get_coarse_ns` (Linux 5.11). Programs that judge call another without it, which costs more.
pub(super) fn has_coarse_clock() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let helper = BpfHelper::BPF_FUNC_ktime_get_coarse_ns;
    // Where even that cannot be told, a program that is refused says why.
    *HAS.get_or_init(|| is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(true))
}

/// The kernel's layout as the programs' constant.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Layout(KernelLayout);
// SAFETY: integers without padding, as its size that is asserted where it is defined says.
unsafe impl Pod for Layout {}

/// Loads the object for the programs that the host has one of. The maps must be pinned already.
pub(super) fn load_for_host(pin_folder: &Path, layout: KernelLayout) -> Result<Ebpf, BpfError> {
    let layout = Layout(layout);
    let pins = SHARED_MAPS.map(|name| (name, pin_folder.join(name)));
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for (name, path) in &pins {
        loader.map_pin_path(name, path.as_path());
    }
    loader
        .override_global("KERNEL", &layout, true)
        .load(&failpoint::object(OBJECT))
        .map_err(BpfError::Load)
}

/// A TC program of the object.
pub(super) fn classifier<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut SchedClassifier, BpfError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(BpfError::NoProgram(name))
}

/// The XDP program of the object.
pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, BpfError> {
    ebpf.program_mut(XDP)
        .and_then(|program| program.try_into().ok())
        .ok_or(BpfError::NoProgram(XDP))
}

/// How often a program is given to the verifier before its loading has failed: libbpf's number.
const ATTEMPTS: usize = 5;

/// Loads a program. The verifier leaves off (EAGAIN) when a signal comes for the thread, be it one that the agent is glad of, such as that to read its
/// configuration again: the program is loaded anew then.
pub(super) fn verified<E: Error>(mut load: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let was_interrupted = |error: &E| {
        let of_the_kernel = error.source().and_then(|source| source.downcast_ref());
        of_the_kernel.and_then(io::Error::raw_os_error) == Some(libc::EAGAIN)
    };
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if was_interrupted(&error) => {}
            outcome => return outcome,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: i32) -> Result<(), BpfError> {
        Err(BpfError::Pins {
            path: PathBuf::new(),
            source: io::Error::from_raw_os_error(number),
        })
    }

    #[test]
    fn a_program_whose_verifying_a_signal_interrupts_is_loaded_again() {
        let interrupted = |times: usize| {
            let mut attempts = 0;
            let outcome = verified(|| {
                attempts += 1;
                if attempts <= times {
                    refused(libc::EAGAIN)
                } else {
                    Ok(())
                }
            });
            (outcome.is_ok(), attempts)
        };
        assert_eq!(interrupted(0), (true, 1));
        assert_eq!(interrupted(2), (true, 3));
        // Not for ever.
        assert_eq!(interrupted(100), (false, ATTEMPTS));
    }

    #[test]
    fn a_program_that_the_kernel_refuses_is_not_loaded_again() {
        let mut attempts = 0;
        let outcome = verified(|| {
            attempts += 1;
            refused(libc::EACCES)
        });
        assert!(outcome.is_err());
        assert_eq!(attempts, 1);
    }
}
