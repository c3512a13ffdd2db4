//! Attaching the programs to a device.
//!
//! All of this is to be called in the device's network namespace: interface indices and netlink sockets belong to one.
mod filter;
mod link;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{
        ProgramError, SchedClassifier, XdpMode, links::PinnedLink, tc::SchedClassifierLink,
    },
    util::KernelVersion,
};

use super::{
    direction::DeviceDirection,
    error::BpfError,
    object::{self, EGRESS, EniConstants, INGRESS, XDP},
    sys,
};
use crate::config::{AttachMode, Position};

/// How the name of the pin ends that says that an agent made a device's clsact qdisc. What is pinned there says nothing.
pub(super) const MADE_CLSACT: &str = "made-clsact";

/// How to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPlan {
    /// TCX or clsact.
    pub mode: AttachMode,
    /// Where in the TCX chain.
    pub position: Position,
    /// Priority among clsact filters: the lower, the earlier.
    pub clsact_priority: u16,
    /// Count what the device receives by XDP instead of TC.
    pub xdp: bool,
}

/// A device to attach to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Inode of its network namespace, which with the index names its pins.
    pub namespace_inode: u64,
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: &'a str,
    /// MTU in octets.
    pub mtu: u32,
}

/// How one direction of a device is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A TCX link.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
    /// XDP in the driver.
    XdpNative,
    /// XDP in the network stack.
    XdpGeneric,
}

impl Hook {
    /// As shown to users.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::XdpNative => "xdp native",
            Self::XdpGeneric => "xdp generic",
        }
    }
}

/// What one program has cost, as far as the kernel keeps statistics (`kernel.bpf_stats_enabled`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Runs.
    pub runs: u64,
    /// Time spent in them.
    pub time: Duration,
}

enum Held {
    /// A BPF link, which its pin holds.
    Link {
        link: PinnedLink,
        pin: PathBuf,
    },
    Filter(SchedClassifierLink),
}

struct Attached {
    program: &'static str,
    hook: Hook,
    held: Held,
}

impl Attached {
    fn detach(self) -> Result<(), ProgramError> {
        match self.held {
            // A link that is only unpinned and closed ends some time later. A successor would count every packet a second time
            // until then.
            Held::Link { link, pin } => sys::link_detach(&pin)
                .and(link.unpin().map(drop))
                .map_err(ProgramError::IOError),
            Held::Filter(link) => aya::programs::Link::detach(link),
        }
    }

    fn leave(self) {
        match self.held {
            Held::Link { link, pin: _ } => drop(link),
            Held::Filter(link) => std::mem::forget(link),
        }
    }
}

/// The programs of one ENI, ready to be attached.
///
/// To be made outside the short-lived threads that enter namespaces: reading the object takes megabytes for a moment, which the
/// allocator would keep for each thread.
pub struct Prepared {
    ebpf: Ebpf,
    pin_folder: PathBuf,
    constants: EniConstants,
}

impl Prepared {
    /// Reads the object and fills in the ENI's constants.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(pin_folder: &Path, constants: EniConstants) -> Result<Self, BpfError> {
        let constants = EniConstants {
            xdp_mtu: 0,
            ..constants
        };
        let ebpf = object::load(pin_folder, constants)?;
        Ok(Self {
            ebpf,
            pin_folder: pin_folder.to_owned(),
            constants,
        })
    }
}

/// The programs of one ENI on its device. They stay there until [`Observer::detach`].
pub struct Observer {
    ebpf: Ebpf,
    ingress: Attached,
    egress: Attached,
    made_marker: PathBuf,
}

impl Observer {
    /// Loads the programs into the kernel and attaches them to the ENI's device; programs that a previous agent has left there are replaced
    /// without a gap.
    ///
    /// # Errors
    ///
    /// The kernel's. After [`BpfError::Attach`], and by XDP after any, nothing that was attached here stays attached. After another, what was
    /// left there is as it was, for both programs of TC are loaded first.
    pub fn attach(
        prepared: Prepared,
        target: Target<'_>,
        plan: AttachPlan,
    ) -> Result<Self, BpfError> {
        let Prepared {
            mut ebpf,
            pin_folder,
            constants,
        } = prepared;
        let pin_folder = pin_folder.as_path();
        let attaching = Attaching {
            pin_folder,
            constants,
            target,
            plan,
        };
        let ingress = if plan.xdp {
            attaching.xdp(&mut ebpf)?
        } else {
            loaded(&mut ebpf, EGRESS)?;
            attaching.tc(&mut ebpf, INGRESS, DeviceDirection::Ingress)?
        };
        let made_marker = attaching.pin(MADE_CLSACT);
        match attaching.tc(&mut ebpf, EGRESS, DeviceDirection::Egress) {
            Ok(egress) => Ok(Self {
                ebpf,
                ingress,
                egress,
                made_marker,
            }),
            Err(error) => {
                let _ = ingress.detach();
                filter::remove_own_qdisc(target, &made_marker);
                Err(error)
            }
        }
    }

    /// Hooks of ingress and egress.
    #[must_use]
    pub fn hooks(&self) -> [Hook; 2] {
        [self.ingress.hook, self.egress.hook]
    }

    /// What the programs at ingress and egress have cost since they were loaded.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn run_stats(&self) -> Result<[RunStats; 2], BpfError> {
        let stats = |attached: &Attached| {
            let program = self
                .ebpf
                .program(attached.program)
                .ok_or(BpfError::NoProgram(attached.program))?;
            let info = program.info().map_err(|source| BpfError::Program {
                program: attached.program,
                source,
            })?;
            Ok(RunStats {
                runs: info.run_count(),
                time: info.run_time(),
            })
        };
        Ok([stats(&self.ingress)?, stats(&self.egress)?])
    }

    /// Takes the programs off the device; removes the clsact qdisc if it was made for them and nobody else has put a filter there.
    /// A device that is gone has taken them with it, which is no error.
    pub fn detach(self, target: Target<'_>) {
        let Self {
            ebpf,
            ingress,
            egress,
            made_marker,
        } = self;
        for attached in [ingress, egress] {
            let program = attached.program;
            if let Err(error) = attached.detach() {
                tracing::debug!(device = target.name, program, %error, "was not attached any more");
            }
        }
        filter::remove_own_qdisc(target, &made_marker);
        drop(ebpf);
    }

    /// Leaves the programs on the device, for the next agent to take over.
    pub fn leave(self) {
        self.ingress.leave();
        self.egress.leave();
    }
}

/// Takes off a device what was left there, by [`Observer::leave`] or by a previous agent.
pub fn remove_leftovers(pin_folder: &Path, target: Target<'_>) {
    remove_links(
        pin_folder,
        target,
        &["ingress", "egress", "xdp-native", "xdp-generic"],
    );
    for (direction, name) in [
        (DeviceDirection::Ingress, INGRESS),
        (DeviceDirection::Egress, EGRESS),
    ] {
        filter::remove_left(name, direction, target);
    }
    filter::remove_own_qdisc(target, &pin(pin_folder, target, MADE_CLSACT));
}

/// Where something of a device is pinned.
fn pin(pin_folder: &Path, target: Target<'_>, what: &str) -> PathBuf {
    pin_folder.join(super::pins::device_prefix(target.namespace_inode, target.index) + what)
}

fn remove_links(pin_folder: &Path, target: Target<'_>, names: &[&str]) {
    for pin in names.iter().map(|name| pin(pin_folder, target, name)) {
        // Most often there is none.
        let _ = sys::link_detach(&pin);
        let _ = std::fs::remove_file(pin);
    }
}

struct Attaching<'a> {
    pin_folder: &'a Path,
    constants: EniConstants,
    target: Target<'a>,
    plan: AttachPlan,
}

impl Attaching<'_> {
    fn pin(&self, what: &str) -> PathBuf {
        pin(self.pin_folder, self.target, what)
    }

    fn remove_links(&self, names: &[&str]) {
        remove_links(self.pin_folder, self.target, names);
    }

    fn tc(
        &self,
        ebpf: &mut Ebpf,
        name: &'static str,
        direction: DeviceDirection,
    ) -> Result<Attached, BpfError> {
        let Self { target, plan, .. } = *self;
        let program = loaded(ebpf, name)?;
        let pin = self.pin(direction.as_str());
        if direction == DeviceDirection::Ingress {
            // A link of a previous agent at another hook would count everything a second time.
            self.remove_links(&["xdp-native", "xdp-generic"]);
        }
        if plan.mode != AttachMode::Clsact {
            if !kernel_is_older_than_tcx() {
                // So would a filter of a previous agent.
                filter::remove_left(name, direction, target);
            }
            match link::attach_tcx(
                program,
                direction.attach_type(),
                target,
                plan.position,
                &pin,
            ) {
                Ok(link) => {
                    return Ok(Attached {
                        program: name,
                        hook: Hook::Tcx,
                        held: Held::Link { link, pin },
                    });
                }
                Err(error) if plan.mode == AttachMode::Auto && tcx_is_missing(&error) => {
                    tracing::info!(device = target.name, "this kernel has no TCX; using clsact");
                }
                Err(error) => return Err(failed(name, target, "tcx", &error)),
            }
        }
        self.remove_links(&[direction.as_str()]);
        self.clsact(program, name, direction)
            .map_err(|error| failed(name, target, "clsact", &error))
    }

    fn clsact(
        &self,
        program: &mut SchedClassifier,
        name: &'static str,
        direction: DeviceDirection,
    ) -> Result<Attached, ProgramError> {
        let marker = self.pin(MADE_CLSACT);
        let link = filter::attach(
            program,
            name,
            direction,
            self.target,
            self.plan.clsact_priority,
            &marker,
        )?;
        Ok(Attached {
            program: name,
            hook: Hook::Clsact,
            held: Held::Filter(link),
        })
    }

    fn xdp(&self, ebpf: &mut Ebpf) -> Result<Attached, BpfError> {
        let busy = |error: &ProgramError| -> BpfError {
            if is_busy(error) {
                failed(
                    XDP,
                    self.target,
                    "xdp",
                    &"another XDP program is attached to it",
                )
            } else {
                failed(XDP, self.target, "xdp", error)
            }
        };
        self.remove_links(&[DeviceDirection::Ingress.as_str()]);
        filter::remove_left(INGRESS, DeviceDirection::Ingress, self.target);
        // A generic program that a previous agent has left stays generic.
        if !self.pin("xdp-generic").exists() {
            match self.xdp_in_mode(ebpf, XdpMode::Driver, "xdp-native") {
                Ok(link) => {
                    return Ok(Attached {
                        program: XDP,
                        hook: Hook::XdpNative,
                        held: Held::Link {
                            link,
                            pin: self.pin("xdp-native"),
                        },
                    });
                }
                Err(error) if is_busy(&error) => return Err(busy(&error)),
                Err(error) => {
                    tracing::info!(device = self.target.name, %error, "no XDP in this device's driver; using generic XDP");
                }
            }
        }
        // Generic XDP runs where received segments may have been merged already.
        *ebpf = object::load(
            self.pin_folder,
            EniConstants {
                xdp_mtu: self.target.mtu,
                ..self.constants
            },
        )?;
        let link = self
            .xdp_in_mode(ebpf, XdpMode::Skb, "xdp-generic")
            .map_err(|error| busy(&error))?;
        Ok(Attached {
            program: XDP,
            hook: Hook::XdpGeneric,
            held: Held::Link {
                link,
                pin: self.pin("xdp-generic"),
            },
        })
    }

    fn xdp_in_mode(
        &self,
        ebpf: &mut Ebpf,
        mode: XdpMode,
        pin: &str,
    ) -> Result<PinnedLink, ProgramError> {
        let program = object::xdp(ebpf).map_err(|_| ProgramError::NotLoaded)?;
        object::verified(|| program.load())?;
        link::attach_xdp(program, self.target, mode, &self.pin(pin))
    }
}

/// A TC program of the object, which is in the kernel.
fn loaded<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier, BpfError> {
    let program = object::classifier(ebpf, name)?;
    if program.fd().is_err() {
        object::verified(|| program.load()).map_err(|source| BpfError::Program {
            program: name,
            source,
        })?;
    }
    Ok(program)
}

/// Kernels before 6.6 do not know the attach type.
fn tcx_is_missing(error: &ProgramError) -> bool {
    let refused = matches!(error, ProgramError::SyscallError(error)
        if matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)));
    refused && kernel_is_older_than_tcx()
}

fn kernel_is_older_than_tcx() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(6, 6, 0))
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if matches!(error.io_error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)))
}

fn failed(
    program: &'static str,
    target: Target<'_>,
    hook: &'static str,
    reason: &dyn std::fmt::Display,
) -> BpfError {
    BpfError::Attach {
        program,
        device: target.name.to_owned(),
        hook,
        reason: reason.to_string(),
    }
}
