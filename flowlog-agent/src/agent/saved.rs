//! What the next agent needs and no window has.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Agent;
use crate::{
    ledger::Ledger,
    slots::{CapturedEnis, EniInSlot},
    spool::{State, StoredEni},
};

/// What is kept beside the open windows and the ENIs.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Saved {
    /// The boot of the kernel in which it was saved.
    pub(super) boot_id: String,
    /// The counters in the kernel that may hold what is not drained; none after an end at which they were drained and removed.
    pub(super) epoch: Option<String>,
    /// Who is to have the open windows, by length in seconds, where an earlier version has saved it; now the windows say so themselves.
    #[serde(default, skip_serializing)]
    pub(super) flow_logs: BTreeMap<u64, Vec<String>>,
    /// The end of the last label that is taken, in Unix seconds.
    pub(super) labelled_until: u64,
    /// The ledger, as it was then.
    pub(super) ledger: Ledger,
}

impl Agent {
    /// The state as it is now. `is_empty` says that all was drained and no program counts any more.
    pub(super) fn state(&self, is_empty: bool) -> State {
        let saved = Saved {
            boot_id: self.boot_id.clone(),
            epoch: (!is_empty).then(|| self.drainer.epoch().to_owned()),
            flow_logs: BTreeMap::new(),
            labelled_until: self.windows.labelled_until(),
            ledger: self.ledger.clone(),
        };
        State {
            series: if is_empty {
                Vec::new()
            } else {
                self.windows.open()
            },
            enis: if is_empty {
                Vec::new()
            } else {
                stored_enis(&self.capture.enis())
            },
            // Text keys and numbers always can be.
            ledger: serde_json::to_value(&saved).unwrap_or_default(),
        }
    }
}

fn stored_enis(captured: &CapturedEnis) -> Vec<StoredEni> {
    let stored = |(slot, eni): (u32, &Option<EniInSlot>)| {
        let eni = eni.as_ref()?;
        Some(StoredEni {
            slot,
            eni: eni.eni.as_ref().clone(),
            gone_at_ns: eni
                .gone_at
                .map(|at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)),
        })
    };
    (0..).zip(&captured.by_slot).filter_map(stored).collect()
}
