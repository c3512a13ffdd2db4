//! The names of the spool's files.
use std::fmt;

/// What a file's name ends with while it is being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// The state.
pub(super) const STATE: &str = "state.json";

/// What the service wants of the agent.
pub(super) const MANAGED: &str = "managed.json";

/// What tells the spool from all others.
pub(super) const IDENTITY: &str = "identity.json";

/// The file whose lock says that somebody uses the spool.
pub(crate) const LOCK: &str = "lock";

/// What is given back to a full disk.
pub(super) const RESERVE: &str = "reserve";

/// Largest number of a drain or a window. Those beyond are not ours: so there is always a next one.
pub(super) const MAX_NUMBER: u64 = u64::MAX >> 1;

/// Octets of a flow log's name that a cursor's file name can have.
const MAX_CURSOR_NAME: usize = 128;

/// Consecutive drains in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DrainRange {
    /// Sequence number of the first.
    pub(super) first: u64,
    /// Sequence number of the last; not before the first.
    pub(super) last: u64,
}

impl DrainRange {
    pub(super) fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The file of the flows.
    pub(super) fn flows(self) -> String {
        format!("drain-{self}.flows")
    }

    /// The file that says what the flows' file has, and without which that counts for nothing.
    pub(super) fn meta(self) -> String {
        format!("drain-{self}.meta")
    }
}

impl fmt::Display for DrainRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The manifest of a closed window.
pub(super) fn window(id: u64) -> String {
    format!("window-{id}.json")
}

/// The cursor of a flow log. A name that is too long for a file, or has what a file's name cannot have, is told apart by its checksum.
pub(super) fn cursor(flow_log: &str) -> String {
    let mut name = String::new();
    for character in flow_log.chars() {
        let plain = character.is_alphanumeric() || matches!(character, '-' | '_');
        let next = if plain { character } else { '_' };
        if name.len() + next.len_utf8() > MAX_CURSOR_NAME {
            break;
        }
        name.push(next);
    }
    if name != flow_log {
        name = format!("{name}.{:08x}", crc32fast::hash(flow_log.as_bytes()));
    }
    format!("cursor-{name}.json")
}

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Flows.
    Flows(DrainRange),
    /// What the flows' file has.
    Meta(DrainRange),
    /// A closed window.
    Window(u64),
    /// A flow log's cursor.
    Cursor,
    /// The state, what the service wants, the identity, the lock, the reserve.
    Single,
    /// Not written to its end.
    Temporary,
}

impl Name {
    /// None for a file that is not the spool's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(of) = name.strip_suffix(TEMPORARY) {
            return Self::parse(of).map(|_| Self::Temporary);
        }
        if matches!(name, STATE | MANAGED | IDENTITY | LOCK | RESERVE) {
            return Some(Self::Single);
        }
        if let Some(id) = name
            .strip_prefix("window-")
            .and_then(|rest| rest.strip_suffix(".json"))
        {
            return number(id).map(Self::Window);
        }
        if name.starts_with("cursor-") && name.ends_with(".json") {
            return Some(Self::Cursor);
        }
        let (range, kind) = name.strip_prefix("drain-")?.split_once('.')?;
        let (first, last) = range.split_once('-')?;
        let range = DrainRange {
            first: number(first)?,
            last: number(last)?,
        };
        match kind {
            _ if range.first > range.last => None,
            "flows" => Some(Self::Flows(range)),
            "meta" => Some(Self::Meta(range)),
            _ => None,
        }
    }
}

/// A number as it is written here, so that no two names are of the same thing.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= MAX_NUMBER && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        let range = DrainRange { first: 3, last: 40 };
        assert_eq!(Name::parse(&range.flows()), Some(Name::Flows(range)));
        assert_eq!(Name::parse(&range.meta()), Some(Name::Meta(range)));
        assert_eq!(Name::parse(&window(7)), Some(Name::Window(7)));
        assert_eq!(Name::parse(&cursor("a-b_c")), Some(Name::Cursor));
        assert_eq!(Name::parse("state.json"), Some(Name::Single));
        assert_eq!(Name::parse("window-7.json.tmp"), Some(Name::Temporary));
        for foreign in [
            "drain-40-3.flows",
            "drain-03-40.flows",
            "drain-+3-40.flows",
            "drain-3-40.txt",
            "drain-3.flows",
            "window-.json",
            "window-9223372036854775808.json",
            "syslog",
            "editor.tmp",
        ] {
            assert_eq!(Name::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn every_flow_log_has_a_cursor_of_its_own_whose_name_fits() {
        let long = "名".repeat(128);
        let names = [
            cursor("vpc"),
            cursor("../../etc/passwd"),
            cursor(".._.._etc_passwd"),
            cursor(&long),
            cursor(&format!("{long}2")),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() < 255 && !name.contains('/'), "{name}");
            assert!(!names.iter().skip(index + 1).any(|other| other == name));
        }
        assert_eq!(cursor("vpc"), "cursor-vpc.json");
    }
}
