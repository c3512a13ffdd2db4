//! Writing a drain.
use flowlog_common::{FlowKeyV4, FlowKeyV6};

use super::{Committed, KernelMark, Spool, SpoolError, Volumes};
use crate::flows::Flow;

/// A drain that is being written. What goes wrong on the way is told by [`DrainWriter::commit`].
#[derive(Debug)]
pub struct DrainWriter<'s> {
    spool: &'s mut Spool,
}

impl<'s> DrainWriter<'s> {
    pub(super) fn new(spool: &'s mut Spool) -> Self {
        Self { spool }
    }

    /// Adds IPv4 flows, in any order and any number of times.
    pub fn v4(&mut self, _flows: impl IntoIterator<Item = Flow<FlowKeyV4>>) {}

    /// Adds IPv6 flows, likewise.
    pub fn v6(&mut self, _flows: impl IntoIterator<Item = Flow<FlowKeyV6>>) {}

    /// Commits the drain: it is on the disk, when this returns. `skipped` is what was counted in no flow; `extras` are kept with the
    /// newest drain, for [`super::Recovered::extras`].
    ///
    /// # Errors
    ///
    /// If it cannot be written; on the disk everything is as before then, and the drain can be made again.
    pub fn commit(
        self,
        _mark: KernelMark,
        _skipped: &Volumes,
        _extras: serde_json::Value,
    ) -> Result<Committed, SpoolError> {
        let sequence = self.spool.next_drain;
        self.spool.next_drain += 1;
        Ok(Committed {
            sequence,
            ..Committed::default()
        })
    }
}
