//! Attaching the programs to a device.
//!
//! All of this is to be called in the device's network namespace: interface indices and netlink sockets belong to one.
use std::{io, path::Path, time::Duration};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions, TcError},
        xdp::XdpLinkId,
    },
    util::KernelVersion,
};

use super::{
    chain::DeviceDirection,
    clsact,
    error::BpfError,
    object::{self, EGRESS, EniConstants, INGRESS, XDP},
};
use crate::config::{AttachMode, Position};

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

enum Link {
    Tc(SchedClassifierLinkId),
    Xdp(XdpLinkId),
}

struct Attached {
    program: &'static str,
    hook: Hook,
    link: Link,
    id: u32,
}

/// The programs of one ENI on its device. To be ended by [`Observer::detach`] in the device's namespace; TCX and XDP links also
/// end when this is dropped.
pub struct Observer {
    ebpf: Ebpf,
    ingress: Attached,
    egress: Attached,
    made_clsact: bool,
}

impl Observer {
    /// Loads the programs for an ENI and attaches them to its device.
    ///
    /// # Errors
    ///
    /// The kernel's. Nothing stays attached then.
    pub fn attach(
        pin_folder: &Path,
        constants: EniConstants,
        target: Target<'_>,
        plan: AttachPlan,
    ) -> Result<Self, BpfError> {
        let mut ebpf = object::load(
            pin_folder,
            EniConstants {
                xdp_mtu: 0,
                ..constants
            },
        )?;
        let mut made_clsact = false;
        let attached = (|| {
            let ingress = if plan.xdp {
                attach_xdp(&mut ebpf, pin_folder, constants, target)?
            } else {
                attach_tc(
                    &mut ebpf,
                    INGRESS,
                    DeviceDirection::Ingress,
                    target,
                    plan,
                    &mut made_clsact,
                )?
            };
            let egress = attach_tc(
                &mut ebpf,
                EGRESS,
                DeviceDirection::Egress,
                target,
                plan,
                &mut made_clsact,
            )?;
            Ok((ingress, egress))
        })();
        match attached {
            Ok((ingress, egress)) => Ok(Self {
                ebpf,
                ingress,
                egress,
                made_clsact,
            }),
            Err(error) => {
                drop(ebpf);
                remove_own_clsact(target, made_clsact);
                Err(error)
            }
        }
    }

    /// Hooks of ingress and egress.
    #[must_use]
    pub fn hooks(&self) -> [Hook; 2] {
        [self.ingress.hook, self.egress.hook]
    }

    /// Ids of the programs at ingress and egress.
    #[must_use]
    pub fn program_ids(&self) -> [u32; 2] {
        [self.ingress.id, self.egress.id]
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
            mut ebpf,
            ingress,
            egress,
            made_clsact,
        } = self;
        for Attached { program, link, .. } in [ingress, egress] {
            if let Err(error) = detach(&mut ebpf, program, link) {
                tracing::debug!(device = target.name, program, %error, "was not attached any more");
            }
        }
        remove_own_clsact(target, made_clsact);
    }
}

fn detach(ebpf: &mut Ebpf, name: &'static str, link: Link) -> Result<(), BpfError> {
    let refused = |source| BpfError::Program {
        program: name,
        source,
    };
    match link {
        Link::Tc(id) => object::classifier(ebpf, name)?.detach(id).map_err(refused),
        Link::Xdp(id) => object::xdp(ebpf)?.detach(id).map_err(refused),
    }
}

/// Takes filters off that a previous agent, which could not end orderly, has left. TCX and XDP links end by themselves.
pub fn remove_leftovers(target: Target<'_>) {
    for (attach_type, name) in [
        (TcAttachType::Ingress, INGRESS),
        (TcAttachType::Egress, EGRESS),
    ] {
        if tc::qdisc_detach_program(target.name, attach_type, name).is_ok() {
            tracing::warn!(
                device = target.name,
                program = name,
                "removed a filter that an agent had left"
            );
        }
    }
}

fn remove_own_clsact(target: Target<'_>, made: bool) {
    if !made {
        return;
    }
    let others = [DeviceDirection::Ingress, DeviceDirection::Egress]
        .into_iter()
        .try_fold(0, |sum, direction| {
            Ok::<_, io::Error>(sum + clsact::filters(target.index, direction)?.len())
        });
    match others {
        Ok(0) => {
            if let Err(error) = clsact::remove(target.index) {
                tracing::debug!(device = target.name, %error, "the clsact qdisc is gone already");
            }
        }
        Ok(others) => tracing::info!(
            device = target.name,
            others,
            "leaving the clsact qdisc to the filters that others put there"
        ),
        Err(error) => tracing::debug!(device = target.name, %error, "the device is gone"),
    }
}

fn attach_tc(
    ebpf: &mut Ebpf,
    name: &'static str,
    direction: DeviceDirection,
    target: Target<'_>,
    plan: AttachPlan,
    made_clsact: &mut bool,
) -> Result<Attached, BpfError> {
    let program = object::classifier(ebpf, name)?;
    program.load().map_err(|source| BpfError::Program {
        program: name,
        source,
    })?;
    let id = program
        .info()
        .map_err(|source| BpfError::Program {
            program: name,
            source,
        })?
        .id();
    let attach_type = match direction {
        DeviceDirection::Ingress => TcAttachType::Ingress,
        DeviceDirection::Egress => TcAttachType::Egress,
    };
    if plan.mode != AttachMode::Clsact {
        match attach_tcx(program, attach_type, target, plan.position) {
            Ok(link) => {
                return Ok(Attached {
                    program: name,
                    hook: Hook::Tcx,
                    link: Link::Tc(link),
                    id,
                });
            }
            Err(error) if plan.mode == AttachMode::Auto && tcx_is_missing(&error) => {
                tracing::info!(device = target.name, "this kernel has no TCX; using clsact");
            }
            Err(error) => return Err(failed(name, target, "tcx", &error)),
        }
    }
    let link = attach_clsact(
        program,
        attach_type,
        target,
        plan.clsact_priority,
        made_clsact,
    )
    .map_err(|error| failed(name, target, "clsact", &error))?;
    Ok(Attached {
        program: name,
        hook: Hook::Clsact,
        link: Link::Tc(link),
        id,
    })
}

fn attach_tcx(
    program: &mut SchedClassifier,
    attach_type: TcAttachType,
    target: Target<'_>,
    position: Position,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let order = match position {
        Position::First => LinkOrder::first(),
        Position::Last => LinkOrder::last(),
    };
    program.attach_with_options(target.name, attach_type, TcAttachOptions::TcxOrder(order))
}

/// Kernels before 6.6 do not know the attach type.
fn tcx_is_missing(error: &ProgramError) -> bool {
    let refused = matches!(error, ProgramError::SyscallError(error)
        if matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)));
    refused && KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(6, 6, 0))
}

fn attach_clsact(
    program: &mut SchedClassifier,
    attach_type: TcAttachType,
    target: Target<'_>,
    priority: u16,
    made_clsact: &mut bool,
) -> Result<SchedClassifierLinkId, ProgramError> {
    match tc::qdisc_add_clsact(target.name) {
        Ok(()) => *made_clsact = true,
        Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let options = |priority| {
        TcAttachOptions::Netlink(NlOptions {
            priority,
            ..NlOptions::default()
        })
    };
    program.attach_with_options(target.name, attach_type, options(priority)).or_else(|error| {
        // Filters of one priority are of one kind, and somebody else's may be of another.
        tracing::debug!(device = target.name, priority, %error, "taking the priority that the kernel chooses");
        program.attach_with_options(target.name, attach_type, options(0))
    })
}

fn attach_xdp(
    ebpf: &mut Ebpf,
    pin_folder: &Path,
    constants: EniConstants,
    target: Target<'_>,
) -> Result<Attached, BpfError> {
    match attach_xdp_mode(ebpf, target, XdpMode::Driver) {
        Ok((link, id)) => {
            return Ok(Attached {
                program: XDP,
                hook: Hook::XdpNative,
                link: Link::Xdp(link),
                id,
            });
        }
        Err(error) if is_busy(&error) => {
            return Err(failed(
                XDP,
                target,
                "xdp",
                &"another XDP program is attached to it",
            ));
        }
        Err(error) => {
            tracing::info!(device = target.name, %error, "the driver has no XDP for this device; using generic XDP");
        }
    }
    // Generic XDP runs where received segments may have been merged already.
    let fresh = object::load(
        pin_folder,
        EniConstants {
            xdp_mtu: target.mtu,
            ..constants
        },
    )?;
    let native = std::mem::replace(ebpf, fresh);
    drop(native);
    let (link, id) =
        attach_xdp_mode(ebpf, target, XdpMode::Skb).map_err(|error| match is_busy(&error) {
            true => failed(XDP, target, "xdp", &"another XDP program is attached to it"),
            false => failed(XDP, target, "xdp", &error),
        })?;
    Ok(Attached {
        program: XDP,
        hook: Hook::XdpGeneric,
        link: Link::Xdp(link),
        id,
    })
}

fn attach_xdp_mode(
    ebpf: &mut Ebpf,
    target: Target<'_>,
    mode: XdpMode,
) -> Result<(XdpLinkId, u32), ProgramError> {
    let program: &mut Xdp = ebpf
        .program_mut(XDP)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load()?;
    let id = program.info()?.id();
    Ok((program.attach_to_if_index(target.index, mode)?, id))
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
