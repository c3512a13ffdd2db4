//! Awaiting what an agent says and writes.
use std::time::Duration;

use super::{AgentProcess, Direction, PATIENCE, Record, output::LogMark};
use crate::Result;

impl AgentProcess {
    /// Waits until the agent has said of each ENI that it captures it, and not since that it does no longer.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`], or the agent ends.
    pub fn wait_until_captured(&self, enis: &[&str]) -> Result<()> {
        self.wait_for_capture(enis, true)
    }

    /// Waits until the agent captures none of these ENIs.
    ///
    /// # Errors
    /// As [`Self::wait_until_captured`].
    pub fn wait_until_released(&self, enis: &[&str]) -> Result<()> {
        self.wait_for_capture(enis, false)
    }

    fn wait_for_capture(&self, enis: &[&str], wanted: bool) -> Result<()> {
        let what = format!("capture of {enis:?} = {wanted}");
        self.running()?.output.wait(&what, PATIENCE, |heard| {
            enis.iter()
                .all(|eni| is_captured(&heard.log, eni) == wanted)
                .then_some(())
        })
    }

    /// The end of what the agent has said so far.
    ///
    /// # Errors
    /// If it has ended.
    pub fn log_mark(&self) -> Result<LogMark> {
        Ok(self.running()?.output.mark())
    }

    /// Waits for a line on standard error, after `mark`, that contains `text`, and returns it.
    ///
    /// # Errors
    /// If there is none within [`PATIENCE`], or the agent ends.
    pub fn wait_for_log(&self, mark: LogMark, text: &str) -> Result<String> {
        let what = format!("a line with {text:?}");
        self.running()?.output.wait(&what, PATIENCE, |heard| {
            let mut lines = heard.since(mark).iter();
            lines.find(|line| line.contains(text)).cloned()
        })
    }

    /// The records so far.
    ///
    /// # Errors
    /// If it has ended: [`Outcome`] has them then.
    pub fn records_so_far(&self) -> Result<Vec<Record>> {
        Ok(self.running()?.output.look(|heard| heard.records.clone()))
    }

    /// Waits until `enough` says so of all records so far. It is asked whenever there are new ones, and so not for very many.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or the agent ends.
    pub fn wait_for_records(
        &self,
        limit: Duration,
        mut enough: impl FnMut(&[Record]) -> bool,
    ) -> Result<()> {
        self.running()?
            .output
            .wait("what is awaited of the records", limit, |heard| {
                enough(&heard.records).then_some(())
            })
    }

    /// Whether there is a record so far that `wanted` says yes to.
    ///
    /// # Errors
    /// If it has ended: [`Outcome`] has the records then.
    pub fn has_record(&self, wanted: impl Fn(&Record) -> bool) -> Result<bool> {
        Ok(self
            .running()?
            .output
            .look(|heard| heard.records.iter().any(wanted)))
    }

    /// Waits until at least so many packets of an ENI and direction are in records, of any status.
    ///
    /// # Errors
    /// If no more of them come for [`PATIENCE`], or the agent ends.
    pub fn wait_for_packets(&self, eni: &str, direction: Direction, packets: u64) -> Result<()> {
        let output = &self.running()?.output;
        let (mut seen, mut sum) = (0, 0);
        while sum < packets {
            let what = format!("{packets} packets of {eni} {direction:?}, after {sum}");
            output.wait(&what, PATIENCE, |heard| {
                let new = heard.records.get(seen..).unwrap_or_default();
                seen = heard.records.len();
                let more = super::volume(new, eni, direction).packets;
                sum += more;
                (more > 0 || sum >= packets).then_some(())
            })?;
        }
        Ok(())
    }
}

/// Whether the last word on the ENI is that it is captured. The lines are those of `capture.rs` of the agent.
fn is_captured(log: &[String], eni: &str) -> bool {
    let name = format!("eni=\"{eni}\"");
    log.iter()
        .rev()
        .filter(|line| line.contains(&name))
        .find_map(|line| {
            if line.contains(" captured: ingress by ") {
                Some(true)
            } else if line.contains("no longer captured") {
                Some(false)
            } else {
                None
            }
        })
        .unwrap_or(false)
}
