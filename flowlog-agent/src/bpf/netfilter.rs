//! The host firewall's verdicts: one program for the whole host, on the tracepoint of packets that the kernel drops.
//!
//! What is attached is a program that only looks at the reason, and goes on with another by a map of programs. The kernel cannot put another
//! program in a link to a tracepoint, but it can in that map, between one packet and the next: so an agent that takes over misses nothing
//! and counts nothing twice.
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf,
    pin::PinError,
    programs::{
        ProgramError, RawTracePoint,
        links::{FdLink, PinnedLink},
    },
};
use flowlog_common::{Device, DeviceKey};
use thiserror::Error;

use super::{
    attach::RunStats,
    error::BpfError,
    kernel_layout::{self, UnknownLayout},
    object::{self, DEVICES, DROPS, VERDICT, VERDICTS},
    sys::{self, MapData, read_all},
};

/// The tracepoint.
const TRACEPOINT: &str = "kfree_skb";

/// Names of pins: the link to the tracepoint, and the program that is attached by it.
const LINK: &str = "netfilter-link";
const PROGRAM: &str = "netfilter-program";

// SAFETY: `#[repr(C)]`, integers only, sizes asserted where they are defined.
unsafe impl MapData for DeviceKey {}
// SAFETY: as above.
unsafe impl MapData for Device {}

/// Why the host firewall's verdicts are not to be had. Everything else works without them.
#[derive(Debug, Error)]
pub enum NoVerdicts {
    /// By what the kernel says of itself.
    #[error(transparent)]
    Unknown(#[from] UnknownLayout),
    /// By what it does.
    #[error(transparent)]
    Refused(#[from] BpfError),
}

/// Whether this kernel says what netfilter drops, as far as it tells so by its types. It takes some megabytes for a moment.
///
/// # Errors
///
/// What it lacks.
pub fn support() -> Result<(), NoVerdicts> {
    kernel_layout::of_running_kernel()?;
    Ok(())
}

/// What netfilter drops is counted as long as the program is attached, of the devices that it has been told of. It stays attached until
/// [`NetfilterDrops::detach`].
pub struct NetfilterDrops {
    devices: OwnedFd,
    verdicts: OwnedFd,
    link: PinnedLink,
    /// The program that is attached, which may be an earlier agent's.
    attached: OwnedFd,
    pin_folder: PathBuf,
}

impl NetfilterDrops {
    /// Attaches the program; or, where a previous agent has left one, takes that one's place. Of the devices that the previous agent has set,
    /// all stay set; else there are none.
    ///
    /// The counters must have been pinned into `pin_folder` before. It takes CAP_BPF and CAP_PERFMON, and some megabytes for a moment.
    ///
    /// # Errors
    ///
    /// What this kernel lacks or refuses. Nothing is attached then that was not before.
    pub fn attach(pin_folder: &Path) -> Result<Self, NoVerdicts> {
        let layout = kernel_layout::of_running_kernel()?;
        let mut ebpf = object::load_for_host(pin_folder, layout)?;
        let (devices, verdicts) = open_maps(pin_folder)?;
        load(&mut ebpf, VERDICT)?;
        let verdict = raw_tracepoint(&mut ebpf, VERDICT)?;
        let number = verdict.fd().map_err(failed(VERDICT))?.as_fd().as_raw_fd();
        sys::map_update(verdicts.as_fd(), &0_u32, &(number as u32)).map_err(BpfError::map(
            "put the program of netfilter's verdicts in place",
        ))?;
        let (link, attached) = match held(pin_folder) {
            Some(held) => held,
            None => attach_anew(&mut ebpf, pin_folder)?,
        };
        Ok(Self {
            devices,
            verdicts,
            link,
            attached,
            pin_folder: pin_folder.to_owned(),
        })
    }

    /// Says which ENI a device is, in place of what was said of it before.
    ///
    /// # Errors
    ///
    /// The kernel's: there is no room for more than [`MAX_DEVICES`].
    pub fn set_device(
        &self,
        namespace_inode: u64,
        index: u32,
        slot: u32,
        host_side: bool,
    ) -> Result<(), BpfError> {
        let device = Device {
            slot,
            host_side: u32::from(host_side),
        };
        sys::map_update(self.devices.as_fd(), &key(namespace_inode, index), &device)
            .map_err(BpfError::map("note that a device is an ENI"))
    }

    /// Says that a device is no ENI any more, if it was.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove_device(&self, namespace_inode: u64, index: u32) -> Result<(), BpfError> {
        sys::map_delete(self.devices.as_fd(), &key(namespace_inode, index))
            .map_err(BpfError::map("note that a device is no ENI"))
    }

    /// All devices that are ENIs, be it that a previous agent has said so.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn devices(&self) -> Result<Vec<(DeviceKey, Device)>, BpfError> {
        let mut all = Vec::new();
        read_all(
            self.devices.as_fd(),
            |keys: &[DeviceKey], devices: &[Device]| {
                all.extend(keys.iter().copied().zip(devices.iter().copied()));
            },
        )
        .map_err(BpfError::map("read the map of devices"))?;
        Ok(all)
    }

    /// How often the kernel did not run the program, because it was running on that CPU already: of so many packets at most that were dropped,
    /// for whatever reason, it is not known whether netfilter dropped them. Since the program was attached.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn missed(&self) -> Result<u64, BpfError> {
        sys::program_info(self.attached.as_fd())
            .map(|info| info.recursion_misses)
            .map_err(BpfError::map("ask for a program's statistics"))
    }

    /// What the program has cost since it was attached, which is run for every packet that the host drops.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn run_stats(&self) -> Result<RunStats, BpfError> {
        let info = sys::program_info(self.attached.as_fd())
            .map_err(BpfError::map("ask for a program's statistics"))?;
        Ok(RunStats {
            runs: info.run_count,
            time: Duration::from_nanos(info.run_time_ns),
        })
    }

    /// Detaches the program. When this returns, nothing runs any more for packets that are dropped.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn detach(self) -> Result<(), BpfError> {
        // Before the link ends, so that nothing is counted twice if another is made meanwhile.
        sys::map_delete(self.verdicts.as_fd(), &0_u32).map_err(BpfError::map(
            "take the program of netfilter's verdicts away",
        ))?;
        for (key, _) in self.devices()? {
            sys::map_delete(self.devices.as_fd(), &key)
                .map_err(BpfError::map("note that a device is no ENI"))?;
        }
        remove_pin(&self.pin_folder.join(PROGRAM));
        // Closing the last descriptor of a link that is not pinned ends it at once; removing the pin last would do so some time later.
        let unpinned = self.link.unpin().map(drop);
        unpinned.map_err(BpfError::map("unpin the link of netfilter's verdicts"))
    }

    /// Leaves the program attached, for the next agent to take over.
    pub fn leave(self) {
        drop(self);
    }
}

/// Detaches what a previous agent has left attached, if there is anything, and forgets its devices.
///
/// # Errors
///
/// The kernel's.
pub fn remove_left(pin_folder: &Path) -> Result<(), BpfError> {
    let Some((link, attached)) = held(pin_folder) else {
        remove_pin(&pin_folder.join(LINK));
        remove_pin(&pin_folder.join(PROGRAM));
        return Ok(());
    };
    let (devices, verdicts) = open_maps(pin_folder)?;
    NetfilterDrops {
        devices,
        verdicts,
        link,
        attached,
        pin_folder: pin_folder.to_owned(),
    }
    .detach()
}

/// The map of devices, and that of programs.
fn open_maps(pin_folder: &Path) -> Result<(OwnedFd, OwnedFd), BpfError> {
    let path = |name| pin_folder.join(name);
    let devices = sys::pinned_map::<DeviceKey, Device>(&path(DEVICES), sys::MAP_TYPE_HASH);
    let verdicts = sys::pinned_map::<u32, u32>(&path(VERDICTS), sys::MAP_TYPE_PROGRAM_ARRAY);
    Ok((
        devices.map_err(BpfError::map("open the map of devices"))?,
        verdicts.map_err(BpfError::map("open the map of programs"))?,
    ))
}

/// The link and the program that a previous agent has pinned, if both are there.
fn held(pin_folder: &Path) -> Option<(PinnedLink, OwnedFd)> {
    let link = PinnedLink::from_pin(pin_folder.join(LINK)).ok()?;
    let attached = sys::obj_get(&pin_folder.join(PROGRAM)).ok()?;
    Some((link, attached))
}

fn attach_anew(ebpf: &mut Ebpf, pin_folder: &Path) -> Result<(PinnedLink, OwnedFd), BpfError> {
    let (link_pin, program_pin) = (pin_folder.join(LINK), pin_folder.join(PROGRAM));
    // One without the other is of an agent that was killed in between.
    remove_pin(&link_pin);
    remove_pin(&program_pin);
    load(ebpf, DROPS)?;
    let program = raw_tracepoint(ebpf, DROPS)?;
    let pin_failed = |error: PinError| BpfError::Pins {
        path: pin_folder.to_owned(),
        source: io::Error::other(error),
    };
    program.pin(&program_pin).map_err(pin_failed)?;
    let attached = sys::obj_get(&program_pin).map_err(BpfError::map("open a pinned program"))?;
    let id = program.attach(TRACEPOINT).map_err(failed(DROPS))?;
    let link: FdLink = program.take_link(id).map_err(failed(DROPS))?.into();
    Ok((link.pin(&link_pin).map_err(pin_failed)?, attached))
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), BpfError> {
    let program = raw_tracepoint(ebpf, name)?;
    object::verified(|| program.load()).map_err(failed(name))
}

fn raw_tracepoint<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut RawTracePoint, BpfError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(BpfError::NoProgram(name))
}

fn failed(program: &'static str) -> impl FnOnce(ProgramError) -> BpfError {
    move |source| BpfError::Program { program, source }
}

fn remove_pin(pin: &Path) {
    // Most often there is none.
    let _ = fs::remove_file(pin);
}

/// The kernel's numbers of namespaces have 32 bits.
fn key(namespace_inode: u64, index: u32) -> DeviceKey {
    DeviceKey {
        namespace: namespace_inode as u32,
        index,
    }
}
