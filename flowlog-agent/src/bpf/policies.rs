//! The policies of the ENIs: which one holds for each, and its tables.
//!
//! A policy has a number, at which the maps of maps `TABLES`, `VECTORS` and `PREFIXES` have what the programs look up. Its tables are
//! made whole and put there first; then one write of `POLICIES` brings it into force on an ENI, so no packet is judged by half a policy.
//! When no program can have the old number any more, its tables go. ENIs with equal policies share a number.
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use flowlog_common::{LAST_EPOCH, MAX_POLICIES, POLICY_ENTRIES, PolicyEntry};
use flowlog_model::security_group::{Policy, compile::CompiledPolicy};

use super::{
    counters::{open_array, open_of_maps, wait_for_programs},
    error::BpfError,
    rules::RuleNumbers,
    sys,
};
use tables::PolicyMaps;

/// The number that no policy gets. What is there has nothing in it; it is put there again to wait for programs.
const NOBODY: u32 = MAX_POLICIES - 1;

/// The policies in the kernel, and the numbers of their rules.
pub struct Policies {
    entries: OwnedFd,
    tables: OwnedFd,
    vectors: OwnedFd,
    prefixes: OwnedFd,
    /// What is in the place of policies that are gone.
    empty: PolicyMaps,
    rules: RuleNumbers,
    epoch: u32,
    /// By slot.
    in_force: BTreeMap<u32, PolicyEntry>,
    /// By number; none of what a previous agent has installed.
    installed: BTreeMap<u32, Option<Policy>>,
}

/// What [`Policies::apply`] has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Slots for which another policy holds, or none any more.
    pub changed: Vec<u32>,
    /// Policies whose tables were made.
    pub installed: usize,
    /// Policies whose tables are gone.
    pub removed: usize,
}

impl Policies {
    /// Readies the maps that [`super::Counters::create`] has pinned, and makes and pins that of rules.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn create(pin_folder: &Path) -> Result<Self, BpfError> {
        let rules = RuleNumbers::create(pin_folder)?;
        Self::open(pin_folder, rules)
    }

    /// Takes over what a previous agent has installed; it stays in force. [`Policies::apply`] knows none of it, and brings all policies
    /// into force anew.
    ///
    /// # Errors
    ///
    /// The kernel's; and if the maps are others.
    pub fn take_over(pin_folder: &Path) -> Result<Self, BpfError> {
        let rules = RuleNumbers::open(pin_folder)?;
        let mut policies = Self::open(pin_folder, rules)?;
        policies.know_again()?;
        Ok(policies)
    }

    fn open(pin_folder: &Path, rules: RuleNumbers) -> Result<Self, BpfError> {
        let policies = Self {
            entries: open_array::<PolicyEntry>(pin_folder, "POLICIES")?,
            tables: open_of_maps(pin_folder, "TABLES")?,
            vectors: open_of_maps(pin_folder, "VECTORS")?,
            prefixes: open_of_maps(pin_folder, "PREFIXES")?,
            empty: PolicyMaps::empty()?,
            rules,
            epoch: 0,
            in_force: BTreeMap::new(),
            installed: BTreeMap::new(),
        };
        policies.wait_for_programs()?;
        Ok(policies)
    }

    /// Brings the policies of all ENIs into force, by slot: the whole desired state, so slots that are not named have none. What is new is
    /// compiled; what is as it was is left alone. When this returns, no program judges by what was before.
    ///
    /// # Errors
    ///
    /// The kernel's. Then each ENI has its old policy or its new one, and it can be done again.
    pub fn apply(&mut self, desired: &BTreeMap<u32, Policy>) -> Result<Applied, BpfError> {
        let mut applied = Applied::default();
        let numbers = self.install(desired, &mut applied)?;
        self.bring_into_force(&numbers, &mut applied)?;
        if applied != Applied::default() {
            self.wait_for_programs()?;
        }
        applied.removed = self.remove_unused()?;
        Ok(applied)
    }

    /// The ids of rules by number, of those numbers; what is no rule's is left out.
    #[must_use]
    pub fn rule_ids(&self, numbers: impl IntoIterator<Item = u32>) -> BTreeMap<u32, String> {
        self.rules.ids(numbers)
    }

    /// Forgets the numbers of rules that no policy has. To be called when everything that was counted before the last
    /// [`Policies::apply`] is drained, with the ids of its rules.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn forget_rules(&mut self) -> Result<(), BpfError> {
        if self.installed.values().any(Option::is_none) {
            // Which rules a previous agent's policies have is not known.
            return Ok(());
        }
        let policies = self.installed.values().flatten();
        let kept: BTreeSet<&str> = policies
            .flat_map(Policy::rules)
            .map(|rule| rule.rule.id.as_str())
            .collect();
        self.rules.keep(&kept)
    }

    /// Which policy holds for a slot: its number, which ENIs with equal policies share, and its epoch. None if nothing is judged.
    #[must_use]
    pub fn in_force(&self, slot: u32) -> Option<PolicyEntry> {
        self.in_force.get(&slot).copied()
    }

    /// Gives each slot the number of its policy, and makes the tables of those that have none yet.
    fn install(
        &mut self,
        desired: &BTreeMap<u32, Policy>,
        applied: &mut Applied,
    ) -> Result<BTreeMap<u32, u32>, BpfError> {
        let mut made = Vec::new();
        let numbers = self.number(desired, &mut made);
        applied.installed = made.len();
        let placed = numbers.and_then(|numbers| {
            self.place(made.iter().map(|(number, maps)| (*number, maps)))
                .map(|()| numbers)
        });
        if placed.is_err() {
            // What was made is in no place that a program looks at.
            for (number, _) in &made {
                self.installed.remove(number);
            }
        }
        placed
    }

    /// Gives each slot the number of its policy. The tables of those that are new are in `made`, also where it fails.
    fn number(
        &mut self,
        desired: &BTreeMap<u32, Policy>,
        made: &mut Vec<(u32, PolicyMaps)>,
    ) -> Result<BTreeMap<u32, u32>, BpfError> {
        let mut numbers = BTreeMap::new();
        for (slot, policy) in desired {
            if policy.group_type().is_none() {
                continue;
            }
            let number = match self.number_of(policy) {
                Some(number) => number,
                None => {
                    let number = self.free_number()?;
                    let compiled = CompiledPolicy::new(policy.clone());
                    made.push((number, PolicyMaps::of(&compiled, &mut self.rules)?));
                    self.installed.insert(number, Some(policy.clone()));
                    number
                }
            };
            numbers.insert(*slot, number);
        }
        Ok(numbers)
    }

    fn number_of(&self, policy: &Policy) -> Option<u32> {
        let mut installed = self.installed.iter();
        installed
            .find(|(_, own)| own.as_ref() == Some(policy))
            .map(|(number, _)| *number)
    }

    fn free_number(&self) -> Result<u32, BpfError> {
        let mut numbers = 0..NOBODY;
        // There are two for each ENI, so this does not happen.
        let none = || std::io::Error::other(format!("{MAX_POLICIES} policies are installed"));
        numbers
            .find(|number| !self.installed.contains_key(number))
            .ok_or_else(|| BpfError::map("install a policy")(none()))
    }

    fn bring_into_force(
        &mut self,
        numbers: &BTreeMap<u32, u32>,
        applied: &mut Applied,
    ) -> Result<(), BpfError> {
        let failed = || BpfError::map("bring a policy into force");
        let slots: BTreeSet<u32> = self
            .in_force
            .keys()
            .chain(numbers.keys())
            .copied()
            .collect();
        let changed = |slot: &u32| {
            let own = self.in_force.get(slot).map(|entry| entry.policy);
            own != numbers.get(slot).copied()
        };
        let changed: Vec<u32> = slots.into_iter().filter(changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let epoch = next_epoch(self.epoch);
        // First, so that no later agent gives it out again.
        let last = PolicyEntry { policy: 0, epoch };
        sys::map_update(self.entries.as_fd(), &LAST_EPOCH, &last).map_err(failed())?;
        self.epoch = epoch;
        for slot in changed {
            let entry = numbers.get(&slot).map(|policy| PolicyEntry {
                policy: *policy,
                epoch,
            });
            sys::map_update(self.entries.as_fd(), &slot, &entry.unwrap_or_default())
                .map_err(failed())?;
            match entry {
                Some(entry) => drop(self.in_force.insert(slot, entry)),
                None => drop(self.in_force.remove(&slot)),
            }
            applied.changed.push(slot);
        }
        Ok(())
    }

    /// Removes the tables of policies that hold nowhere. No program must have their numbers any more.
    fn remove_unused(&mut self) -> Result<usize, BpfError> {
        let used: BTreeSet<u32> = self.in_force.values().map(|entry| entry.policy).collect();
        let unused: Vec<u32> = self
            .installed
            .keys()
            .copied()
            .filter(|number| !used.contains(number))
            .collect();
        self.place(unused.iter().map(|number| (*number, &self.empty)))?;
        for number in &unused {
            self.installed.remove(number);
        }
        Ok(unused.len())
    }

    /// Puts tables where the programs look for them.
    fn place<'m>(&self, maps: impl Iterator<Item = (u32, &'m PolicyMaps)>) -> Result<(), BpfError> {
        let (mut tables, mut vectors, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        let descriptor = |map: &OwnedFd| map.as_raw_fd() as u32;
        for (number, maps) in maps {
            tables.push((number, descriptor(&maps.tables)));
            vectors.push((number, descriptor(&maps.vectors)));
            prefixes.push((number, descriptor(&maps.prefixes)));
        }
        for (outer, inner) in [
            (&self.tables, tables),
            (&self.vectors, vectors),
            (&self.prefixes, prefixes),
        ] {
            sys::update_all(outer.as_fd(), &inner)
                .map_err(BpfError::map("put the tables of policies in place"))?;
        }
        Ok(())
    }

    /// Returns when no program runs any more that ran when this was called.
    fn wait_for_programs(&self) -> Result<(), BpfError> {
        wait_for_programs(self.vectors.as_fd(), NOBODY, self.empty.vectors.as_fd())
    }

    /// Reads what a previous agent has left in force, and removes what it has left elsewhere.
    fn know_again(&mut self) -> Result<(), BpfError> {
        let failed = || BpfError::map("read which policies are in force");
        for slot in 0..POLICY_ENTRIES {
            let entry: Option<PolicyEntry> =
                sys::map_lookup(self.entries.as_fd(), &slot).map_err(failed())?;
            let entry = entry.unwrap_or_default();
            self.epoch = self.epoch.max(entry.epoch);
            if slot != LAST_EPOCH && entry.epoch != 0 {
                self.in_force.insert(slot, entry);
                self.installed.insert(entry.policy, None);
            }
        }
        let unused = (0..NOBODY).filter(|number| !self.installed.contains_key(number));
        self.place(unused.map(|number| (number, &self.empty)))
    }
}

/// Its low 16 bits are all that a flow remembers, and 0 means that it remembers nothing.
fn next_epoch(epoch: u32) -> u32 {
    let next = epoch.wrapping_add(1);
    if next & 0xffff == 0 { next | 1 } else { next }
}
