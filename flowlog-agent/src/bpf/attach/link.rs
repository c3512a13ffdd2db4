//! Attaching by BPF link. Each link is pinned, so that counting goes on when the agent is gone, and so that the next agent can put
//! its own program in the place of the one that runs, without missing a packet.
use std::{fs, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};

use super::Target;
use crate::config::Position;

/// Attaches by TCX, or takes the place of the program that `pin` holds.
pub(super) fn attach_tcx(
    program: &mut SchedClassifier,
    attach_type: TcAttachType,
    target: Target<'_>,
    position: Position,
    pin: &Path,
) -> Result<PinnedLink, ProgramError> {
    let taken_over = take_over(pin, target, |link| {
        let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
        Ok(program.take_link(id)?.try_into()?)
    });
    if let Some(held) = taken_over {
        return Ok(held);
    }
    let order = match position {
        Position::First => LinkOrder::first(),
        Position::Last => LinkOrder::last(),
    };
    let id =
        program.attach_with_options(target.name, attach_type, TcAttachOptions::TcxOrder(order))?;
    let link = FdLink::try_from(program.take_link(id)?).map_err(|_| ProgramError::NotLoaded)?;
    link.pin(pin).map_err(|error| pin_failed(&error))
}

/// Attaches by XDP in the given mode, or takes the place of the program that `pin` holds.
pub(super) fn attach_xdp(
    program: &mut Xdp,
    target: Target<'_>,
    mode: XdpMode,
    pin: &Path,
) -> Result<PinnedLink, ProgramError> {
    let taken_over = take_over(pin, target, |link| {
        let id = program.attach_to_link(XdpLink::try_from(link)?)?;
        Ok(program.take_link(id)?.try_into()?)
    });
    if let Some(held) = taken_over {
        return Ok(held);
    }
    let id = program.attach_to_if_index(target.index, mode)?;
    let link = FdLink::try_from(program.take_link(id)?).map_err(|_| ProgramError::NotLoaded)?;
    link.pin(pin).map_err(|error| pin_failed(&error))
}

/// Why a pinned link could not be taken over.
#[derive(Debug, thiserror::Error)]
enum TakeOverError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Opens the link that `pin` holds, if there is one, and has `replace` put another program in it. A link whose device is gone cannot be
/// taken over; its pin is removed, and the caller attaches anew.
fn take_over(
    pin: &Path,
    target: Target<'_>,
    replace: impl FnOnce(FdLink) -> Result<FdLink, TakeOverError>,
) -> Option<PinnedLink> {
    if !pin.exists() {
        return None;
    }
    let taken_over = PinnedLink::from_pin(pin)
        .map_err(TakeOverError::from)
        .and_then(|pinned| replace(pinned.into()))
        .and_then(|_open| Ok(PinnedLink::from_pin(pin)?));
    taken_over
        .inspect_err(|error| {
            tracing::info!(device = target.name, %error, "the link of the previous agent is of no use any more");
            let _ = fs::remove_file(pin);
        })
        .ok()
}

fn pin_failed(error: &aya::pin::PinError) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(format!(
        "cannot pin its link: {error}"
    )))
}
