//! The security groups of the captured ENIs, as they are in the kernel: which policy holds for each, and the sessions.
#[cfg(test)]
mod tests;

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
    bpf::{Applied, BpfError, Policies, Sessions},
    slots::{EniInSlot, EniTable},
    spool::RuleIds,
};

/// The security groups in the kernel.
pub(crate) struct Security {
    policies: Policies,
    sessions: Sessions,
    /// What is to hold, by slot.
    desired: BTreeMap<u32, Desired>,
    /// Why it does not hold yet, by slot.
    failed: BTreeMap<u32, String>,
    /// Why some of it may not hold yet, of whatever slot.
    error: Option<String>,
    /// Whether there may be numbers of rules that no policy has any more.
    has_old_rules: bool,
    /// Sessions that there were after the last sweep.
    sessions_left: u64,
}

/// What is to hold for a slot.
struct Desired {
    eni_id: String,
    policy: Policy,
}

/// Which policy holds for an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Rules of all its groups together; none if it is a previous agent's that holds on.
    pub(crate) rules: Option<usize>,
    /// Another for each policy that came into force.
    pub(crate) epoch: u32,
}

/// What an inventory wants to hold. ENIs of the same groups have the same policy, which is made once.
struct Wishes<'i> {
    inventory: &'i Inventory,
    known: HashMap<&'i [Id], Policy>,
}

impl<'i> Wishes<'i> {
    fn of(inventory: &'i Inventory) -> Self {
        Self {
            inventory,
            known: HashMap::new(),
        }
    }

    /// Of an ENI; none if nothing is to be judged.
    fn get(&mut self, entry: &'i EniEntry) -> Option<Desired> {
        if entry.security.mode == SecurityMode::Off {
            return None;
        }
        let policy = self
            .known
            .entry(&entry.security.group_ids)
            .or_insert_with(|| self.inventory.policy(entry));
        Some(Desired {
            eni_id: entry.eni.eni_id.clone(),
            policy: policy.clone(),
        })
    }
}

impl Security {
    /// What a previous agent has left in the kernel, or nothing. It stays in force until [`Self::follow`].
    #[must_use]
    pub(crate) fn new(policies: Policies, sessions: Sessions) -> Self {
        Self {
            policies,
            sessions,
            desired: BTreeMap::new(),
            failed: BTreeMap::new(),
            error: None,
            has_old_rules: true,
            sessions_left: 0,
        }
    }

    /// Brings into force what an inventory says of the ENIs that have a slot. Where that cannot be, what held before holds on.
    pub(crate) fn follow(&mut self, inventory: &Inventory, slots: &EniTable) {
        let entries: HashMap<&str, &EniEntry> = inventory
            .entries()
            .iter()
            .map(|entry| (entry.eni.eni_id.as_str(), entry))
            .collect();
        let mut wishes = Wishes::of(inventory);
        let of_slot = |(slot, eni): (u32, &Option<EniInSlot>)| {
            let eni = eni.as_ref()?;
            let entry = entries.get(&*eni.eni.eni_id)?;
            Some((slot, wishes.get(entry)?))
        };
        self.desired = (0..).zip(slots).filter_map(of_slot).collect();
        self.apply();
    }

    /// Brings the policy of one ENI into force, before there are programs that judge by it. If that cannot be, what held before for the ENI
    /// in this slot holds on.
    ///
    /// # Errors
    ///
    /// Why there is nothing to judge by, as a sentence for people.
    pub(crate) fn judge(
        &mut self,
        slot: u32,
        inventory: &Inventory,
        entry: &EniEntry,
    ) -> Result<(), String> {
        match Wishes::of(inventory).get(entry) {
            Some(desired) => drop(self.desired.insert(slot, desired)),
            None => drop(self.desired.remove(&slot)),
        }
        self.set(slot);
        if !self.desired.contains_key(&slot) || self.policies.in_force(slot).is_some() {
            return Ok(());
        }
        let reason = self.failed.get(&slot).or(self.error.as_ref());
        Err(reason.cloned().unwrap_or_default())
    }

    /// A slot is nobody's any more.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.desired.remove(&slot);
        self.set(slot);
        if let Err(error) = self.sessions.remove_of(slot) {
            tracing::warn!("{error}");
        }
    }

    /// Brings into force what is to hold for one slot.
    fn set(&mut self, slot: u32) {
        let desired = self.desired.get(&slot).map(|desired| &desired.policy);
        let applied = self.policies.set(slot, desired);
        let failed = BTreeMap::from_iter(self.failed.remove_entry(&slot));
        let error = self.error.take();
        self.note(applied, failed, error.as_deref());
        // What could not be done of other slots is still to be done.
        self.error = self.error.take().or(error);
    }

    /// Brings into force all that is to hold.
    fn apply(&mut self) {
        let desired = self.desired.iter();
        let desired: BTreeMap<u32, Policy> = desired
            .map(|(slot, desired)| (*slot, desired.policy.clone()))
            .collect();
        let applied = self.policies.apply(&desired);
        let failed = std::mem::take(&mut self.failed);
        let error = self.error.take();
        self.note(applied, failed, error.as_deref());
    }

    /// Takes note of what could be changed, and tells what could not, unless that was told already: `failed` and `error` are what was known
    /// before.
    fn note(
        &mut self,
        applied: Result<Applied, BpfError>,
        failed: BTreeMap<u32, String>,
        error: Option<&str>,
    ) {
        let applied = match applied {
            Ok(applied) => applied,
            Err(source) => {
                let source = source.to_string();
                if error != Some(&source) {
                    tracing::error!(
                        "{source}; each ENI has its old policy or its new one, and it is tried again"
                    );
                }
                self.error = Some(source);
                self.failed.extend(failed);
                self.has_old_rules = true;
                return;
            }
        };
        if !applied.changed.is_empty() {
            tracing::info!(
                enis = applied.changed.len(),
                "policies of security groups have come into force"
            );
        }
        // Numbers may have been given to rules also where it failed.
        self.has_old_rules |= !applied.changed.is_empty() || !applied.failed.is_empty();
        for (slot, reason) in applied.failed {
            if failed.get(&slot) != Some(&reason) {
                self.tell(slot, &reason);
            }
            self.failed.insert(slot, reason);
        }
    }

    fn tell(&self, slot: u32, reason: &str) {
        let holds = match self.policies.in_force(slot) {
            Some(_) => "the policy that it had before holds on",
            None => "it has no policy",
        };
        tracing::error!(
            eni = self.desired.get(&slot).map(|desired| &*desired.eni_id),
            "its security groups are not in force: {reason}; {holds}, and it is tried again"
        );
    }

    /// The sessions of an ENI that has another identity now, and so another slot, are known in that too.
    pub(crate) fn carry_over(&mut self, from: u32, to: u32) {
        match self.sessions.copy(from, to) {
            Ok(0) => {}
            Ok(copied) => tracing::info!(
                copied,
                "sessions are known of another identity of their ENI"
            ),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Whether there is anything to be swept, or to be tried again.
    pub(crate) fn is_busy(&self) -> bool {
        !self.desired.is_empty() || self.sessions_left > 0 || self.is_behind()
    }

    fn is_behind(&self) -> bool {
        !self.failed.is_empty() || self.error.is_some()
    }

    /// Clears away the sessions that are over, and brings into force what could not be yet. `now` is of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn sweep(&mut self, now: Duration) -> Result<(), BpfError> {
        // Before what may fail again: a table that nobody clears fills up.
        let swept = self.sessions.sweep(now);
        if self.is_behind() {
            self.apply();
        }
        self.sessions_left = swept?.left;
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
        let policy = self.policies.policy(slot);
        Some(InForce {
            rules: policy.map(|policy| policy.rules().len()),
            epoch: entry.epoch,
        })
    }

    /// Why the policy that holds for a slot is not that of the inventory, if that is so.
    #[must_use]
    pub(crate) fn reason(&self, slot: u32) -> Option<&str> {
        self.failed.get(&slot).map(String::as_str)
    }

    /// Sessions that there were when they were last swept, and most that there can be.
    #[must_use]
    pub(crate) fn sessions(&self) -> (u64, u32) {
        (self.sessions_left, self.sessions.limit())
    }

    /// Why the policies that are in force may not be those of the inventory, of whatever slot.
    #[must_use]
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}
