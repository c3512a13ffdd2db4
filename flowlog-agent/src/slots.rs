//! Slots: the small numbers that stand for ENIs in the kernel's keys.
//!
//! A slot is given to an identity, not to a device: an ENI that moves to another device goes on in its slot. A slot is given out
//! anew only after the last window that may name it is closed.
use std::{sync::Arc, time::Duration};

use flowlog_common::MAX_ENIS;
use flowlog_model::record::Eni;
use thiserror::Error;

/// There are more ENIs than the kernel's tables have room for.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("this host has more than {MAX_ENIS} ENIs, the most that an agent captures")]
pub struct NoSlot;

#[derive(Clone, Debug)]
struct Slot {
    eni: Arc<Eni>,
    /// Devices captured under it now.
    devices: usize,
    /// When the last device went, as a boot time.
    gone_at: Option<Duration>,
    /// A program that a previous agent has left may still count into it.
    left: bool,
    /// Whether anything may have been counted into it.
    is_used: bool,
}

/// An ENI that has a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniInSlot {
    /// The ENI.
    pub eni: Arc<Eni>,
    /// When it ceased to be captured, as a boot time.
    pub gone_at: Option<Duration>,
}

/// The ENIs by slot.
pub type EniTable = Vec<Option<EniInSlot>>;

/// The ENIs of the host when a window is closed.
#[derive(Clone, Debug, Default)]
pub struct CapturedEnis {
    /// Those that are captured, or were in the window, by slot.
    pub by_slot: EniTable,
    /// Those that should be captured and cannot be.
    pub not_captured: Vec<Arc<Eni>>,
}

/// Gives slots out and takes them back.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    slots: Vec<Option<Slot>>,
}

impl Slots {
    /// Slots that a previous agent has given out, and when their ENIs ceased to be captured, if they have. None is free before
    /// [`Self::leftovers_removed`]: the programs that it has left count on until others take their place.
    #[must_use]
    pub fn restored(identities: impl IntoIterator<Item = (u32, Eni, Option<Duration>)>) -> Self {
        let mut slots = Self::default();
        for (index, eni, gone_at) in identities {
            let index = index as usize;
            if index >= MAX_ENIS as usize {
                continue;
            }
            if slots.slots.len() <= index {
                slots.slots.resize(index + 1, None);
            }
            if let Some(slot) = slots.slots.get_mut(index) {
                *slot = Some(Slot {
                    eni: Arc::new(eni),
                    devices: 0,
                    gone_at,
                    left: true,
                    is_used: true,
                });
            }
        }
        slots
    }

    /// The programs that a previous agent has left are off all devices that are not captured, but those that count into the slots in `but`.
    pub fn leftovers_removed(&mut self, but: &[u32], now: Duration) {
        for index in 0..self.slots.len() as u32 {
            if !but.contains(&index) {
                self.nothing_left(index, now);
            }
        }
    }

    /// No program that a previous agent has left counts into a slot any more.
    pub fn nothing_left(&mut self, slot: u32, now: Duration) {
        if let Some(Some(slot)) = self.slots.get_mut(slot as usize)
            && slot.left
        {
            slot.left = false;
            if slot.devices == 0 {
                // Until now it may have been counted into.
                slot.gone_at.get_or_insert(now);
            }
        }
    }

    /// The slot that a previous agent has given to an ENI and that its programs count into.
    #[must_use]
    pub fn left_of(&self, eni_id: &str) -> Option<u32> {
        let is_left =
            |slot: &Slot| slot.left && slot.gone_at.is_none() && slot.eni.eni_id == eni_id;
        let mut slots = (0..).zip(&self.slots);
        slots
            .find(|(_, slot)| slot.as_ref().is_some_and(is_left))
            .map(|(index, _)| index)
    }

    /// Whether a slot is this identity's, and no device is captured under it.
    #[must_use]
    pub fn is_free_for(&self, slot: u32, eni: &Eni) -> bool {
        let slot = self.slots.get(slot as usize).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.devices == 0 && *slot.eni == *eni)
    }

    /// A slot for a device of an ENI; the one that it has, if it has one.
    ///
    /// # Errors
    ///
    /// If all are taken.
    pub fn take(&mut self, eni: &Eni) -> Result<u32, NoSlot> {
        let taken = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| *slot.eni == *eni);
        let index = match self
            .slots
            .iter()
            .position(taken)
            .or_else(|| self.slots.iter().position(Option::is_none))
        {
            Some(index) => index,
            None if self.slots.len() < MAX_ENIS as usize => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(NoSlot),
        };
        let slot = self.slots.get_mut(index).ok_or(NoSlot)?;
        let slot = slot.get_or_insert_with(|| Slot {
            eni: Arc::new(eni.clone()),
            devices: 0,
            gone_at: None,
            left: false,
            is_used: false,
        });
        slot.devices += 1;
        u32::try_from(index).map_err(|_| NoSlot)
    }

    /// A device that has a slot is captured.
    pub fn captured(&mut self, slot: u32) {
        if let Some(Some(slot)) = self.slots.get_mut(slot as usize) {
            slot.gone_at = None;
            slot.is_used = true;
        }
    }

    /// A device for which a slot was taken is not captured after all. Gives whether the slot is free again, which it is if it was taken for
    /// this device alone.
    #[must_use]
    pub fn cancel(&mut self, slot: u32) -> bool {
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return false;
        };
        let Some(slot) = entry else { return false };
        slot.devices = slot.devices.saturating_sub(1);
        let is_free = slot.devices == 0 && slot.gone_at.is_none() && !slot.left;
        if is_free {
            *entry = None;
        }
        is_free
    }

    /// The slot that the ENI of a slot which was just taken had last, under another identity, if it had one.
    #[must_use]
    pub fn predecessor(&self, slot: u32) -> Option<u32> {
        let new = self.slots.get(slot as usize)?.as_ref()?;
        if new.is_used {
            return None;
        }
        let others = (0..).zip(&self.slots).filter_map(|(index, other)| {
            let other = other.as_ref()?;
            (index != slot && other.is_used && other.eni.eni_id == new.eni.eni_id)
                .then_some((other.gone_at.unwrap_or(Duration::MAX), index))
        });
        others.max().map(|(_, index)| index)
    }

    /// A device of the slot's ENI is gone.
    pub fn release(&mut self, slot: u32, now: Duration) {
        if let Some(Some(slot)) = self.slots.get_mut(slot as usize) {
            slot.devices = slot.devices.saturating_sub(1);
            slot.is_used = true;
            if slot.devices == 0 {
                slot.gone_at = Some(now);
            }
        }
    }

    /// All open windows were opened at the boot time `opened` or later: slots whose last device was gone by then are free again. Gives
    /// them.
    pub fn windows_opened(&mut self, opened: Duration) -> Vec<u32> {
        let mut free = Vec::new();
        for (index, entry) in (0..).zip(&mut self.slots) {
            if entry.as_ref().is_some_and(|slot| {
                slot.devices == 0
                    && !slot.left
                    && slot.gone_at.is_none_or(|gone_at| gone_at <= opened)
            }) {
                *entry = None;
                free.push(index);
            }
        }
        free
    }

    /// The ENIs that have a slot now.
    #[must_use]
    pub fn table(&self) -> EniTable {
        let in_slot = |slot: &Slot| EniInSlot {
            eni: Arc::clone(&slot.eni),
            gone_at: slot.gone_at,
        };
        self.slots
            .iter()
            .map(|slot| slot.as_ref().map(in_slot))
            .collect()
    }

    /// Whether a device of this ENI is captured now.
    #[must_use]
    pub fn is_captured(&self, eni_id: &str) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|slot| slot.devices > 0 && slot.eni.eni_id == eni_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eni(id: &str) -> Eni {
        Eni {
            eni_id: id.to_owned(),
            vswitch_id: "vsw".to_owned(),
            vm_id: None,
            vpc_id: "vpc".to_owned(),
            account_id: "1".to_owned(),
            region: None,
        }
    }

    const NOW: Duration = Duration::from_secs(9);

    #[test]
    fn an_eni_keeps_its_slot_over_a_change_of_device() {
        let mut slots = Slots::default();
        let first = slots.take(&eni("a")).unwrap();
        assert_ne!(slots.take(&eni("b")).unwrap(), first);
        slots.release(first, NOW);
        assert!(!slots.is_captured("a"));
        assert_eq!(slots.take(&eni("a")).unwrap(), first);
        assert!(slots.is_captured("a"));
    }

    #[test]
    fn the_table_says_since_when_an_eni_is_gone() {
        let gone_at = |slots: &Slots| slots.table()[0].as_ref().unwrap().gone_at;
        let mut slots = Slots::default();
        let slot = slots.take(&eni("a")).unwrap();
        assert_eq!(gone_at(&slots), None);
        slots.release(slot, NOW);
        assert_eq!(gone_at(&slots), Some(NOW));
        slots.take(&eni("a")).unwrap();
        assert!(!slots.cancel(slot), "the open window may name it");
        assert_eq!(
            gone_at(&slots),
            Some(NOW),
            "no device was captured meanwhile"
        );
        slots.take(&eni("a")).unwrap();
        slots.captured(slot);
        assert_eq!(gone_at(&slots), None);
    }

    #[test]
    fn a_slot_is_not_given_out_anew_while_a_window_may_name_it() {
        let mut slots = Slots::default();
        let first = slots.take(&eni("a")).unwrap();
        slots.release(first, NOW);
        let second = slots.take(&eni("b")).unwrap();
        assert_ne!(second, first);
        let left = slots.table()[first as usize].clone().unwrap();
        assert_eq!((left.eni.eni_id.as_str(), left.gone_at), ("a", Some(NOW)));
        assert_eq!(slots.windows_opened(NOW), [first]);
        assert_eq!(slots.take(&eni("c")).unwrap(), first);
        assert_eq!(
            slots.table()[second as usize].as_ref().unwrap().eni.eni_id,
            "b"
        );
    }

    #[test]
    fn a_slot_into_which_a_left_program_may_count_is_not_given_out_anew() {
        let left = [(0, eni("a"), None), (1, eni("b"), Some(NOW))];
        let mut slots = Slots::restored(left);
        let later = NOW + Duration::from_secs(1);
        let gone_at = |slots: &Slots| slots.table()[0].as_ref().unwrap().gone_at;
        assert_eq!(gone_at(&slots), None, "it is counted still");
        // A window was due when the agent was started, before any device was told of.
        assert!(slots.windows_opened(later).is_empty());
        assert_eq!(slots.take(&eni("b")), Ok(1));
        slots.captured(1);
        assert_eq!(slots.take(&eni("c")), Ok(2));
        slots.leftovers_removed(&[], later);
        let opened_before = NOW + Duration::from_millis(1);
        assert!(slots.windows_opened(opened_before).is_empty());
        assert_eq!(slots.windows_opened(later), [0]);
        assert_eq!(slots.take(&eni("d")), Ok(0));
    }

    #[test]
    fn a_slot_whose_left_programs_stay_is_kept_until_they_go() {
        let identity = |slots: &Slots| slots.left_of("a");
        let mut slots = Slots::restored([(0, eni("a"), None), (1, eni("b"), None)]);
        assert_eq!(identity(&slots), Some(0));
        assert!(slots.is_free_for(0, &eni("a")) && !slots.is_free_for(0, &eni("b")));
        assert_eq!(slots.take(&eni("a")), Ok(0));
        assert!(!slots.is_free_for(0, &eni("a")));
        assert!(!slots.cancel(0), "it is counted into");
        slots.leftovers_removed(&[0], NOW);
        assert_eq!(slots.windows_opened(NOW), [1]);
        assert_eq!(identity(&slots), Some(0));
        slots.nothing_left(0, NOW);
        assert_eq!(identity(&slots), None);
        assert_eq!(slots.windows_opened(NOW), [0]);
    }

    #[test]
    fn a_slot_that_was_never_used_leaves_no_trace() {
        let mut slots = Slots::default();
        let slot = slots.take(&eni("a")).unwrap();
        assert!(slots.cancel(slot));
        assert_eq!(slots.table().iter().flatten().count(), 0);
        let slot = slots.take(&eni("a")).unwrap();
        slots.release(slot, NOW);
        let again = slots.take(&eni("a")).unwrap();
        assert!(!slots.cancel(again));
        assert_eq!(
            slots.table().iter().flatten().count(),
            1,
            "the open window may name it"
        );
    }

    #[test]
    fn an_eni_of_another_identity_comes_after_the_one_that_it_was() {
        let of = |vswitch: &str| Eni {
            vswitch_id: vswitch.to_owned(),
            ..eni("a")
        };
        let mut slots = Slots::default();
        let first = slots.take(&of("one")).unwrap();
        assert_eq!(slots.predecessor(first), None);
        slots.captured(first);
        assert_eq!(slots.take(&eni("b")), Ok(1));
        let second = slots.take(&of("two")).unwrap();
        assert_eq!(slots.predecessor(second), Some(first));
        slots.captured(second);
        assert_eq!(slots.predecessor(second), None, "it has come after it");
        slots.release(first, NOW);
        slots.release(second, NOW + Duration::from_secs(1));
        let third = slots.take(&of("three")).unwrap();
        assert_eq!(slots.predecessor(third), Some(second), "the last of them");
        assert_eq!(slots.predecessor(1), None);
        assert_eq!(slots.predecessor(99), None);
    }

    #[test]
    fn slots_are_bounded() {
        let mut slots = Slots::default();
        for index in 0..MAX_ENIS {
            assert_eq!(slots.take(&eni(&index.to_string())), Ok(index));
        }
        assert_eq!(slots.take(&eni("one more")), Err(NoSlot));
    }
}
