//! Attaching by a filter of the clsact qdisc, for kernels without TCX. A filter outlives its process by itself.
use std::{fs, io, path::Path};

use aya::programs::{
    Link, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use super::{super::direction::DeviceDirection, Target};
use crate::bpf::clsact;

/// Attaches a filter, or takes the place of the one that a previous agent has left. `made_marker` is a pin that says that the qdisc
/// was made by an agent.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &'static str,
    direction: DeviceDirection,
    target: Target<'_>,
    priority: u16,
    made_marker: &Path,
) -> Result<SchedClassifierLink, ProgramError> {
    let attach_type = direction.attach_type();
    match tc::qdisc_add_clsact(target.name) {
        Ok(()) => program.pin(made_marker).map_err(|error| {
            ProgramError::IOError(io::Error::other(format!(
                "cannot mark the qdisc as ours: {error}"
            )))
        })?,
        Err(TcError::AlreadyAttached) => must_be_clsact(target)?,
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            must_be_clsact(target)?;
        }
        Err(error) => return Err(error.into()),
    }
    if let Some(link) = take_over(program, name, attach_type, direction, target) {
        return Ok(link);
    }
    let options = |priority| {
        TcAttachOptions::Netlink(NlOptions {
            priority,
            ..NlOptions::default()
        })
    };
    let id = program.attach_with_options(target.name, attach_type, options(priority)).or_else(|error| {
        // Filters of one priority are of one kind, and somebody else's may be of another.
        tracing::warn!(device = target.name, priority, %error, "this priority is taken; the kernel chooses one, which may be behind others");
        program.attach_with_options(target.name, attach_type, options(0))
    })?;
    program.take_link(id)
}

/// Refuses the older `ingress` qdisc, which has the same place: it takes filters for egress as well, and runs them at ingress.
fn must_be_clsact(target: Target<'_>) -> Result<(), ProgramError> {
    if clsact::exists(target.index)? {
        return Ok(());
    }
    Err(ProgramError::IOError(io::Error::other(
        "an ingress qdisc stands where the clsact qdisc would",
    )))
}

/// Replaces the program in the filter that a previous agent has left.
fn take_over(
    program: &mut SchedClassifier,
    name: &'static str,
    attach_type: TcAttachType,
    direction: DeviceDirection,
    target: Target<'_>,
) -> Option<SchedClassifierLink> {
    let filters = clsact::filters(target.index, direction).ok()?;
    let left = filters
        .into_iter()
        .find(|filter| filter.name.as_deref() == Some(name))?;
    let handle = TcHandle::from(left.handle);
    let link = SchedClassifierLink::attached(target.name, attach_type, left.priority, handle, None)
        .ok()?;
    let replaced = program
        .attach_to_link(link)
        .and_then(|id| program.take_link(id));
    replaced.inspect_err(|error| tracing::warn!(device = target.name, %error, "cannot take over a filter that an agent has left")).ok()
}

/// Takes off the filters of this name that a previous agent has left.
pub(super) fn remove_left(name: &'static str, direction: DeviceDirection, target: Target<'_>) {
    // Where there is no such qdisc, there are no filters.
    for left in clsact::filters(target.index, direction)
        .unwrap_or_default()
        .into_iter()
        .filter(|filter| filter.name.as_deref() == Some(name))
    {
        let handle = TcHandle::from(left.handle);
        let removed = SchedClassifierLink::attached(
            target.name,
            direction.attach_type(),
            left.priority,
            handle,
            None,
        )
        .map_err(ProgramError::from)
        .and_then(Link::detach);
        match removed {
            Ok(()) => {
                tracing::info!(
                    device = target.name,
                    program = name,
                    "removed a filter that an agent had left"
                );
            }
            Err(error) => {
                tracing::warn!(device = target.name, %error, "cannot remove a filter that an agent has left");
            }
        }
    }
}

/// Removes the clsact qdisc if an agent made it and nobody else has put a filter there.
pub(super) fn remove_own_qdisc(target: Target<'_>, made_marker: &Path) {
    if !made_marker.exists() {
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
        Ok(others) => {
            tracing::info!(
                device = target.name,
                others,
                "leaving the clsact qdisc to the filters that others put there"
            );
        }
        Err(error) => tracing::debug!(device = target.name, %error, "the device is gone"),
    }
    let _ = fs::remove_file(made_marker);
}
