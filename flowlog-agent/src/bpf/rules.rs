//! Numbers that stand for rules in what the programs count, and the ids that they stand for.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use flowlog_common::{DECIDED_BY_FIRST_RULE, DECIDED_BY_MAX, RULE_ID_OCTETS};

use super::{
    error::BpfError,
    sys::{self, MapData, read_all},
};

/// Name of the map's pin.
pub(super) const PIN: &str = "RULES";

/// Rules that can have a number at a time.
pub(super) const MAX_RULES: u32 = 1 << 17;

/// The key at which the map has the number that was given out last. No rule has it.
const LAST: u32 = 0;

/// An id as it is in the map: text, filled up with zeros.
#[repr(C)]
#[derive(Clone, Copy)]
struct Text([u8; RULE_ID_OCTETS]);

impl Default for Text {
    fn default() -> Self {
        Self([0; RULE_ID_OCTETS])
    }
}

// SAFETY: octets.
unsafe impl MapData for Text {}

/// The numbers of rules. They grow, so that of two the greater is the newer; and none is given out anew before all others were.
pub(super) struct RuleNumbers {
    map: OwnedFd,
    /// Rules that can have a number at a time.
    limit: usize,
    by_id: HashMap<String, u32>,
    by_number: BTreeMap<u32, String>,
    last: u32,
}

impl RuleNumbers {
    /// Makes and pins the map, with room for so many rules.
    pub(super) fn create(pin_folder: &Path, max_rules: u32) -> Result<Self, BpfError> {
        let map = sys::map_create_flagged::<u32, Text>(
            sys::MAP_TYPE_HASH,
            sys::NO_PREALLOC,
            max_rules.saturating_add(1),
            "flowlog_rules",
        )
        .map_err(BpfError::map("make the map of rules"))?;
        sys::obj_pin(map.as_fd(), &pin_folder.join(PIN))
            .map_err(BpfError::map("pin the map of rules"))?;
        Ok(Self::without_any(map, max_rules))
    }

    fn without_any(map: OwnedFd, max_rules: u32) -> Self {
        Self {
            map,
            limit: max_rules as usize,
            by_id: HashMap::new(),
            by_number: BTreeMap::new(),
            last: DECIDED_BY_FIRST_RULE - 1,
        }
    }

    /// Opens the map that a previous agent has pinned. Its room stays what it is.
    pub(super) fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        let failed = || BpfError::map("open the map of rules");
        let map = sys::pinned_map::<u32, Text>(&pin_folder.join(PIN), sys::MAP_TYPE_HASH)
            .map_err(failed())?;
        let entries = sys::map_info(map.as_fd()).map_err(failed())?.max_entries;
        let mut rules = Self::without_any(map, entries.saturating_sub(1));
        let (by_id, by_number, last) = (&mut rules.by_id, &mut rules.by_number, &mut rules.last);
        read_all(rules.map.as_fd(), |numbers: &[u32], texts: &[Text]| {
            for (number, text) in numbers.iter().zip(texts) {
                if *number == LAST {
                    *last = decode_number(text);
                } else if let Some(id) = decode(text) {
                    by_id.insert(id.clone(), *number);
                    by_number.insert(*number, id);
                }
            }
        })
        .map_err(BpfError::map("read the map of rules"))?;
        Ok(rules)
    }

    /// Whether there is room for all rules of a policy, by their ids: one that has no room for all must not take it from the others.
    pub(super) fn check_room<'i>(
        &self,
        ids: impl Iterator<Item = &'i str>,
    ) -> Result<(), BpfError> {
        let new: BTreeSet<&str> = ids.filter(|id| !self.by_id.contains_key(*id)).collect();
        let free = self.limit.saturating_sub(self.by_number.len());
        if new.len() <= free {
            return Ok(());
        }
        let full = io::Error::other(format!(
            "of the {} rules that can have one at a time, there is room for {free} more",
            self.limit
        ));
        Err(BpfError::map(format!(
            "give numbers to {} rules",
            new.len()
        ))(full))
    }

    /// The number of a rule: the one that it has, or a new one.
    pub(super) fn number(&mut self, id: &str) -> Result<u32, BpfError> {
        if let Some(number) = self.by_id.get(id) {
            return Ok(*number);
        }
        let number = self.next_free()?;
        let failed = || BpfError::map(format!("give a number to the rule {id}"));
        // First, for a number that nobody has does no harm, and one that is given out twice does.
        sys::map_update(self.map.as_fd(), &LAST, &encode_number(number)).map_err(failed())?;
        sys::map_update(self.map.as_fd(), &number, &encode(id)).map_err(failed())?;
        self.last = number;
        self.by_id.insert(id.to_owned(), number);
        self.by_number.insert(number, id.to_owned());
        Ok(number)
    }

    /// The ids of the rules of these numbers; what is no rule's is left out.
    pub(super) fn ids(&self, numbers: impl IntoIterator<Item = u32>) -> BTreeMap<u32, String> {
        let id = |number| Some((number, self.by_number.get(&number)?.clone()));
        numbers.into_iter().filter_map(id).collect()
    }

    /// Forgets all rules but these.
    pub(super) fn keep(&mut self, kept: &BTreeSet<String>) -> Result<(), BpfError> {
        let gone =
            |(number, id): (&u32, &String)| (!kept.contains(id)).then(|| (*number, id.clone()));
        let gone: Vec<(u32, String)> = self.by_number.iter().filter_map(gone).collect();
        for (number, id) in gone {
            sys::map_delete(self.map.as_fd(), &number)
                .map_err(BpfError::map("forget a rule's number"))?;
            self.by_number.remove(&number);
            self.by_id.remove(&id);
        }
        Ok(())
    }

    fn next_free(&self) -> Result<u32, BpfError> {
        if self.by_number.len() >= self.limit {
            let full = io::Error::other(format!(
                "{} rules have one, and there is no room for more",
                self.limit
            ));
            return Err(BpfError::map("give a number to a rule")(full));
        }
        let next = |number| match number {
            DECIDED_BY_FIRST_RULE..DECIDED_BY_MAX => number + 1,
            _ => DECIDED_BY_FIRST_RULE,
        };
        let mut number = next(self.last);
        // Only after the last of all numbers can one be taken.
        while self.by_number.contains_key(&number) {
            number = next(number);
        }
        Ok(number)
    }
}

fn encode(id: &str) -> Text {
    let mut text = Text::default();
    for (to, from) in text.0.iter_mut().zip(id.bytes()) {
        *to = from;
    }
    text
}

fn decode(text: &Text) -> Option<String> {
    let end = text.0.iter().position(|octet| *octet == 0);
    let id = text.0.get(..end.unwrap_or(RULE_ID_OCTETS))?;
    str::from_utf8(id).ok().map(str::to_owned)
}

fn encode_number(number: u32) -> Text {
    let mut text = Text::default();
    for (to, from) in text.0.iter_mut().zip(number.to_ne_bytes()) {
        *to = from;
    }
    text
}

fn decode_number(text: &Text) -> u32 {
    let [a, b, c, d, ..] = text.0;
    u32::from_ne_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::testing::TestPins;

    #[test]
    fn numbers_begin_again_after_the_last_and_pass_over_those_in_use() {
        let Some(test) = TestPins::new() else { return };
        let mut rules = RuleNumbers::create(test.path(), MAX_RULES).unwrap();
        assert_eq!(rules.number("first").unwrap(), DECIDED_BY_FIRST_RULE);
        rules.last = DECIDED_BY_MAX - 1;
        assert_eq!(rules.number("last").unwrap(), DECIDED_BY_MAX);
        assert_eq!(rules.number("again").unwrap(), DECIDED_BY_FIRST_RULE + 1);
        let mut rules = RuleNumbers::open(test.path()).unwrap();
        assert_eq!(rules.number("last").unwrap(), DECIDED_BY_MAX);
        assert_eq!(rules.number("next").unwrap(), DECIDED_BY_FIRST_RULE + 2);
        let ids = rules.ids([3, DECIDED_BY_FIRST_RULE, DECIDED_BY_MAX, 77]);
        let told: Vec<&str> = ids.values().map(String::as_str).collect();
        assert_eq!(told, ["first", "last"]);
    }

    #[test]
    fn there_is_room_for_so_many_rules_also_for_the_next_agent() {
        let Some(test) = TestPins::new() else { return };
        let mut rules = RuleNumbers::create(test.path(), 2).unwrap();
        let room = |rules: &RuleNumbers, ids: &[&str]| rules.check_room(ids.iter().copied());
        room(&rules, &["a", "b", "a"]).unwrap();
        let told = room(&rules, &["a", "b", "c"]).unwrap_err().to_string();
        assert_eq!(
            told,
            "cannot give numbers to 3 rules: of the 2 rules that can have one at a time, there is room for 2 more"
        );
        rules.number("a").unwrap();
        let mut rules = RuleNumbers::open(test.path()).unwrap();
        room(&rules, &["b", "a"]).unwrap();
        room(&rules, &["b", "c"]).unwrap_err();
        rules.number("b").unwrap();
        rules.number("c").unwrap_err();
        room(&rules, &["b", "a"]).unwrap();
    }

    #[test]
    fn an_id_of_the_longest_comes_back_whole() {
        let id = "r".repeat(RULE_ID_OCTETS);
        assert_eq!(decode(&encode(&id)), Some(id));
    }
}
