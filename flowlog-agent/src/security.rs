//! The security groups of the captured ENIs, as they are in the kernel: which policy holds for each, and the sessions.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use flowlog_model::{
    inventory::{EniEntry, Inventory},
    security_group::{Policy, SecurityMode},
    text::Id,
};

use crate::{
    bpf::{BpfError, Policies, Sessions},
    slots::EniTable,
    spool::RuleIds,
};

/// The security groups in the kernel.
pub(crate) struct Security {
    policies: Policies,
    sessions: Sessions,
    /// What is to hold, by slot.
    desired: BTreeMap<u32, Policy>,
    /// Why it does not hold yet.
    error: Option<String>,
    /// Whether there may be numbers of rules that no policy has any more.
    has_old_rules: bool,
    /// Sessions that there were after the last sweep.
    sessions_left: u64,
}

/// Which policy holds for an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Rules of all its groups together.
    pub(crate) rules: usize,
    /// Another for each policy that came into force.
    pub(crate) epoch: u32,
}

impl Security {
    /// What a previous agent has left in the kernel, or nothing. It stays in force until [`Self::follow`].
    #[must_use]
    pub(crate) fn new(policies: Policies, sessions: Sessions) -> Self {
        Self {
            policies,
            sessions,
            desired: BTreeMap::new(),
            error: None,
            has_old_rules: true,
            sessions_left: 0,
        }
    }

    /// Brings into force what an inventory says of the ENIs that have a slot.
    pub(crate) fn follow(&mut self, inventory: &Inventory, slots: &EniTable) {
        let entries: HashMap<&str, &EniEntry> = inventory
            .entries()
            .iter()
            .map(|entry| (entry.eni.eni_id.as_str(), entry))
            .collect();
        // ENIs of the same groups have the same policy.
        let mut known: HashMap<&[Id], Policy> = HashMap::new();
        let mut desired = BTreeMap::new();
        for (slot, eni) in (0..).zip(slots) {
            let entry = eni.as_ref().and_then(|eni| entries.get(&*eni.eni.eni_id));
            let Some(entry) = entry.filter(|entry| is_judged(entry)) else {
                continue;
            };
            let policy = known
                .entry(&entry.security.group_ids)
                .or_insert_with(|| inventory.policy(entry));
            desired.insert(slot, policy.clone());
        }
        self.desired = desired;
        self.apply_or_tell();
    }

    /// Brings the policy of one ENI into force, before there are programs that judge by it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn judge(
        &mut self,
        slot: u32,
        inventory: &Inventory,
        entry: &EniEntry,
    ) -> Result<(), BpfError> {
        let policy = is_judged(entry).then(|| inventory.policy(entry));
        if self.error.is_none() && self.desired.get(&slot) == policy.as_ref() {
            return Ok(());
        }
        match policy {
            Some(policy) => self.desired.insert(slot, policy),
            None => self.desired.remove(&slot),
        };
        self.apply()
    }

    /// A slot is nobody's any more.
    pub(crate) fn forget(&mut self, slot: u32) {
        if self.desired.remove(&slot).is_some() {
            self.apply_or_tell();
        }
        if let Err(error) = self.sessions.remove_of(slot) {
            tracing::warn!("{error}");
        }
    }

    fn apply_or_tell(&mut self) {
        if let Err(error) = self.apply() {
            tracing::error!(
                "{error}; each ENI has its old policy or its new one, and it is tried again"
            );
        }
    }

    fn apply(&mut self) -> Result<(), BpfError> {
        let applied = self.policies.apply(&self.desired);
        self.error = applied.as_ref().err().map(ToString::to_string);
        // Numbers may have been given to rules also where it failed.
        self.has_old_rules |= self.error.is_some();
        let applied = applied?;
        if !applied.changed.is_empty() {
            tracing::info!(
                enis = applied.changed.len(),
                "policies of security groups have come into force"
            );
            self.has_old_rules = true;
        }
        Ok(())
    }

    /// Whether there is anything to be swept, or to be tried again.
    pub(crate) fn is_busy(&self) -> bool {
        !self.desired.is_empty() || self.sessions_left > 0 || self.error.is_some()
    }

    /// Clears away the sessions that are over, and brings into force what could not be yet. `now` is of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn sweep(&mut self, now: Duration) -> Result<(), BpfError> {
        // Before what may fail again: a table that nobody clears fills up.
        self.sessions_left = self.sessions.sweep(now)?.left;
        if self.error.is_some() {
            self.apply()?;
        }
        Ok(())
    }

    /// The ids of the rules of these numbers, as far as they are known.
    #[must_use]
    pub(crate) fn rule_ids(&self, numbers: &BTreeSet<u32>) -> RuleIds {
        self.policies.rule_ids(numbers.iter().copied())
    }

    /// All that was counted until now is drained, with the ids of its rules.
    pub(crate) fn drained(&mut self) {
        if std::mem::take(&mut self.has_old_rules)
            && let Err(error) = self.policies.forget_rules()
        {
            tracing::warn!("{error}");
        }
    }

    /// Which policy holds for a slot; none if nothing is judged.
    #[must_use]
    pub(crate) fn in_force(&self, slot: u32) -> Option<InForce> {
        let entry = self.policies.in_force(slot)?;
        let policy = self.desired.get(&slot)?;
        Some(InForce {
            rules: policy.rules().len(),
            epoch: entry.epoch,
        })
    }

    /// Sessions that there were when they were last swept, and most that there can be.
    #[must_use]
    pub(crate) fn sessions(&self) -> (u64, u32) {
        (self.sessions_left, self.sessions.limit())
    }

    /// Why the policies that are in force are not those of the inventory.
    #[must_use]
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

fn is_judged(entry: &EniEntry) -> bool {
    entry.security.mode != SecurityMode::Off
}
