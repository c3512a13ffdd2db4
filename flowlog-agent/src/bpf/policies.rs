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

use flowlog_common::{
    DIRECTION_IN, DIRECTION_OUT, DirectionTables, LAST_EPOCH, MAX_POLICIES, POLICY_ENTRIES,
    PolicyEntry,
};
use flowlog_model::security_group::{Policy, compile::CompiledPolicy};

use super::{
    counters::{open_array, open_of_maps, wait_for_programs},
    error::BpfError,
    object,
    rules::{self, RuleNumbers},
    sys,
};
use crate::failpoint;
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
    /// By number.
    installed: BTreeMap<u32, Installed>,
    /// Whether programs may still judge by what was before.
    is_settling: bool,
}

/// A policy that is installed.
enum Installed {
    /// By this agent.
    Own(Policy),
    /// By a previous agent, with the numbers of its rules; none if they cannot be read.
    Left(Option<BTreeSet<u32>>),
}

impl Installed {
    fn policy(&self) -> Option<&Policy> {
        match self {
            Self::Own(policy) => Some(policy),
            Self::Left(_) => None,
        }
    }
}

/// What [`Policies::apply`] or [`Policies::set`] has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Slots for which another policy holds, or none any more.
    pub changed: Vec<u32>,
    /// Policies whose tables were made.
    pub installed: usize,
    /// Policies whose tables are gone.
    pub removed: usize,
    /// Slots whose policy could not be brought into force, and why. What held for them before holds on.
    pub failed: BTreeMap<u32, String>,
}

/// What is to hold for a slot: the number of a policy or none, or why that cannot be had.
type Numbered = Result<Option<u32>, String>;

impl Policies {
    /// Readies the maps that [`super::Counters::create`] has pinned, and makes and pins that of rules.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn create(pin_folder: &Path) -> Result<Self, BpfError> {
        let max_rules = failpoint::max_rules(rules::MAX_RULES);
        Self::create_for(pin_folder, max_rules)
    }

    /// Likewise; so many rules can have a number at a time.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn create_for(pin_folder: &Path, max_rules: u32) -> Result<Self, BpfError> {
        let rules = RuleNumbers::create(pin_folder, max_rules)?;
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
            is_settling: false,
        };
        policies.wait_for_programs()?;
        Ok(policies)
    }

    /// Brings the policies of all ENIs into force, by slot: the whole desired state, so slots that are not named have none. What is new is
    /// compiled; what is as it was is left alone. When this returns, no program judges by what was before, but on slots whose policy could
    /// not be brought into force: they are in [`Applied::failed`], and hold up no other.
    ///
    /// # Errors
    ///
    /// The kernel's. Then each ENI has its old policy or its new one, and it can be done again.
    pub fn apply(&mut self, desired: &BTreeMap<u32, Policy>) -> Result<Applied, BpfError> {
        let nothing = self.in_force.keys().map(|slot| (*slot, None));
        let mut wanted: BTreeMap<u32, Option<&Policy>> = nothing.collect();
        wanted.extend(desired.iter().map(|(slot, policy)| (*slot, Some(policy))));
        self.bring_about(&wanted)
    }

    /// Likewise, for one slot alone.
    ///
    /// # Errors
    ///
    /// As [`Policies::apply`].
    pub fn set(&mut self, slot: u32, policy: Option<&Policy>) -> Result<Applied, BpfError> {
        self.bring_about(&BTreeMap::from([(slot, policy)]))
    }

    fn bring_about(
        &mut self,
        wanted: &BTreeMap<u32, Option<&Policy>>,
    ) -> Result<Applied, BpfError> {
        let mut applied = Applied::default();
        let mut numbers = BTreeMap::new();
        for (slot, numbered) in self.install(wanted, &mut applied) {
            match numbered {
                Ok(number) => drop(numbers.insert(slot, number)),
                Err(reason) => drop(applied.failed.insert(slot, reason)),
            }
        }
        self.bring_into_force(&numbers, &mut applied)?;
        if self.is_settling {
            self.wait_for_programs()?;
            self.is_settling = false;
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
        let mut kept = BTreeSet::new();
        for installed in self.installed.values() {
            match installed {
                Installed::Own(policy) => {
                    let rules = policy.rules().iter();
                    kept.extend(rules.map(|rule| rule.rule.id.as_str().to_owned()));
                }
                Installed::Left(Some(numbers)) => {
                    kept.extend(self.rules.ids(numbers.iter().copied()).into_values());
                }
                Installed::Left(None) => return Ok(()),
            }
        }
        self.rules.keep(&kept)
    }

    /// Which policy holds for a slot: its number, which ENIs with equal policies share, and its epoch. None if nothing is judged.
    #[must_use]
    pub fn in_force(&self, slot: u32) -> Option<PolicyEntry> {
        self.in_force.get(&slot).copied()
    }

    /// The policy that holds for a slot; none if nothing is judged, or if a previous agent's holds on.
    #[must_use]
    pub fn policy(&self, slot: u32) -> Option<&Policy> {
        let number = self.in_force.get(&slot)?.policy;
        self.installed.get(&number)?.policy()
    }

    /// Gives each slot the number of its policy, and makes the tables of those that have none yet.
    fn install(
        &mut self,
        wanted: &BTreeMap<u32, Option<&Policy>>,
        applied: &mut Applied,
    ) -> BTreeMap<u32, Numbered> {
        let mut made = BTreeMap::new();
        let mut numbers = self.number(wanted, &mut made);
        applied.installed = made.len();
        if let Err(error) = self.place(made.iter().map(|(number, maps)| (*number, maps))) {
            // What was made is in no place that a program looks at.
            self.installed
                .retain(|number, _| !made.contains_key(number));
            applied.installed = 0;
            for numbered in numbers.values_mut() {
                if matches!(numbered, Ok(Some(number)) if made.contains_key(number)) {
                    *numbered = Err(error.to_string());
                }
            }
        }
        numbers
    }

    /// Gives each slot the number of its policy. The tables of those that are new are in `made`.
    fn number(
        &mut self,
        wanted: &BTreeMap<u32, Option<&Policy>>,
        made: &mut BTreeMap<u32, PolicyMaps>,
    ) -> BTreeMap<u32, Numbered> {
        let mut numbers = BTreeMap::new();
        // ENIs with equal policies have the same reason, and it is not found out for each of them.
        let mut failed: Vec<(&Policy, String)> = Vec::new();
        for (slot, policy) in wanted {
            let policy = policy.filter(|policy| policy.group_type().is_some());
            let numbered = match policy {
                None => Ok(None),
                Some(policy) => match (self.number_of(policy), reason_of(&failed, policy)) {
                    (Some(number), _) => Ok(Some(number)),
                    (None, Some(reason)) => Err(reason),
                    (None, None) => self.make(policy, made).map(Some).map_err(|error| {
                        failed.push((policy, error.to_string()));
                        error.to_string()
                    }),
                },
            };
            numbers.insert(*slot, numbered);
        }
        numbers
    }

    /// Makes the tables of a policy, which gets a number.
    fn make(
        &mut self,
        policy: &Policy,
        made: &mut BTreeMap<u32, PolicyMaps>,
    ) -> Result<u32, BpfError> {
        let number = self.free_number()?;
        let ids = policy.rules().iter().map(|rule| rule.rule.id.as_str());
        self.rules.check_room(ids)?;
        let compiled = CompiledPolicy::new(policy.clone());
        made.insert(number, PolicyMaps::of(&compiled, &mut self.rules)?);
        self.installed
            .insert(number, Installed::Own(policy.clone()));
        Ok(number)
    }

    fn number_of(&self, policy: &Policy) -> Option<u32> {
        let mut installed = self.installed.iter();
        installed
            .find(|(_, installed)| installed.policy() == Some(policy))
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

    /// Writes which policy holds, for each slot of which that is not so already.
    fn bring_into_force(
        &mut self,
        numbers: &BTreeMap<u32, Option<u32>>,
        applied: &mut Applied,
    ) -> Result<(), BpfError> {
        let failed = || BpfError::map("bring a policy into force");
        let changed = |(slot, number): &(&u32, &Option<u32>)| {
            self.in_force.get(slot).map(|entry| entry.policy) != **number
        };
        let changed: Vec<_> = numbers.iter().filter(changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let epoch = next_epoch(self.epoch);
        // First, so that no later agent gives it out again.
        let last = PolicyEntry { policy: 0, epoch };
        sys::map_update(self.entries.as_fd(), &LAST_EPOCH, &last).map_err(failed())?;
        self.epoch = epoch;
        self.is_settling = true;
        for (slot, number) in changed {
            let entry = number.map(|policy| PolicyEntry { policy, epoch });
            let written = sys::map_update(self.entries.as_fd(), slot, &entry.unwrap_or_default());
            if let Err(error) = written.map_err(failed()) {
                applied.failed.insert(*slot, error.to_string());
                continue;
            }
            match entry {
                Some(entry) => drop(self.in_force.insert(*slot, entry)),
                None => drop(self.in_force.remove(slot)),
            }
            applied.changed.push(*slot);
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
                let rules = self.rules_of(entry.policy);
                self.installed.insert(entry.policy, Installed::Left(rules));
            }
        }
        let mut unused = Vec::new();
        for number in (0..NOBODY).filter(|number| !self.installed.contains_key(number)) {
            // Where nothing is, nothing has to go: a kernel that puts maps in place one by one waits for programs each time.
            if self.has_tables(number).map_err(failed())? {
                unused.push(number);
            }
        }
        self.place(unused.into_iter().map(|number| (number, &self.empty)))
    }

    /// The numbers of the rules of a policy, as its tables have them. None if they cannot be read, as without CAP_SYS_ADMIN.
    fn rules_of(&self, number: u32) -> Option<BTreeSet<u32>> {
        let tables = sys::map_of_maps_get(self.tables.as_fd(), number).ok()??;
        let mut numbers = BTreeSet::new();
        for direction in [DIRECTION_IN, DIRECTION_OUT] {
            let direction = u32::from(direction);
            let tables: DirectionTables = sys::map_lookup(tables.as_fd(), &direction).ok()??;
            numbers.extend(tables.outcomes.iter().map(|outcome| outcome >> 8));
        }
        Some(numbers)
    }

    fn has_tables(&self, number: u32) -> std::io::Result<bool> {
        for outer in [&self.tables, &self.vectors, &self.prefixes] {
            if sys::map_lookup::<u32, u32>(outer.as_fd(), &number)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What this kernel cannot do in one step of what policies and sessions take, so that it is done in several; a sentence for each, and none
/// on a new one. `pin_folder` has maps of nobody's.
///
/// # Errors
///
/// The kernel's.
pub fn lacks(pin_folder: &Path) -> Result<Vec<&'static str>, BpfError> {
    let failed = || BpfError::map("try what policies and sessions take");
    let tables = open_of_maps(pin_folder, "TABLES")?;
    let empty = PolicyMaps::empty()?;
    let number = [(NOBODY, empty.tables.as_raw_fd() as u32)];
    let lacks = [
        (
            sys::can_update_batch(tables.as_fd(), &number).map_err(failed())?,
            "the tables of a policy are put in place one by one: before Linux 5.19",
        ),
        (
            sys::can_take().map_err(failed())?,
            "a session that goes on while it is cleared away may be forgotten: before Linux 5.14",
        ),
        (
            object::has_coarse_clock(),
            "a session's time is read from the finer clock, which costs more: before Linux 5.11",
        ),
    ];
    let lacking = lacks.into_iter().filter(|(can, _)| !can);
    Ok(lacking.map(|(_, sentence)| sentence).collect())
}

fn reason_of(failed: &[(&Policy, String)], policy: &Policy) -> Option<String> {
    let mut failed = failed.iter();
    let (_, reason) = failed.find(|(other, _)| *other == policy)?;
    Some(reason.clone())
}

/// Its low 16 bits are all that a flow remembers, and 0 means that it remembers nothing.
fn next_epoch(epoch: u32) -> u32 {
    let next = epoch.wrapping_add(1);
    if next & 0xffff == 0 { next | 1 } else { next }
}

#[cfg(test)]
mod tests {
    use aya::util::KernelVersion;

    use super::*;
    use crate::bpf::{Counters, MapSizes, testing::TestPins};

    #[test]
    fn a_new_kernel_lacks_nothing() {
        let Some(pins) = TestPins::new() else { return };
        if KernelVersion::current().unwrap() < KernelVersion::new(5, 19, 0) {
            println!("skipped: it takes Linux 5.19");
            return;
        }
        Counters::create(pins.path(), MapSizes { v4: 64, v6: 64 }).unwrap();
        assert_eq!(lacks(pins.path()).unwrap(), [""; 0]);
    }
}
