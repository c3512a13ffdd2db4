//! Which ENI each slot stands for, kept in the kernel beside the counters: so an agent that takes them over knows whose they are.
use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use flowlog_common::MAX_ENIS;
use flowlog_model::record::Eni;

use super::{
    error::BpfError,
    sys::{self, BatchReader, MapData},
};

/// Name of the map's pin.
pub(super) const PIN: &str = "IDENTITIES";

/// Octets of an identity: six ids of up to 64 characters, each on a line.
const OCTETS: usize = 512;

/// An identity as it is in the map: text, filled up with zeros.
#[repr(C)]
#[derive(Clone, Copy)]
struct Text([u8; OCTETS]);

impl Default for Text {
    fn default() -> Self {
        Self([0; OCTETS])
    }
}

// SAFETY: octets.
unsafe impl MapData for Text {}

/// The map.
pub struct Identities(OwnedFd);

impl Identities {
    /// Makes and pins the map.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn create(pin_folder: &Path) -> Result<Self, BpfError> {
        let map = sys::map_create::<u32, Text>(sys::MAP_TYPE_HASH, MAX_ENIS, "flowlog_ids")
            .map_err(BpfError::map("make the map of identities"))?;
        sys::obj_pin(map.as_fd(), &pin_folder.join(PIN))
            .map_err(BpfError::map("pin the map of identities"))?;
        Ok(Self(map))
    }

    /// Opens the map that a previous agent has pinned.
    ///
    /// # Errors
    ///
    /// The kernel's; and if the map is another.
    pub fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        sys::pinned_map::<u32, Text>(&pin_folder.join(PIN), sys::MAP_TYPE_HASH)
            .map(Self)
            .map_err(BpfError::map("open the map of identities"))
    }

    /// Notes whose a slot is.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set(&self, slot: u32, eni: &Eni) -> Result<(), BpfError> {
        sys::map_update(self.0.as_fd(), &slot, &encode(eni))
            .map_err(BpfError::map("note the identity of an ENI"))
    }

    /// Notes that a slot is nobody's.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove(&self, slot: u32) -> Result<(), BpfError> {
        sys::map_delete(self.0.as_fd(), &slot)
            .map_err(BpfError::map("remove the identity of an ENI"))
    }

    /// All that were noted, by slot.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn all(&self) -> Result<Vec<(u32, Eni)>, BpfError> {
        let mut all = Vec::new();
        let mut reader = BatchReader::<u32, Text>::new(self.0.as_fd(), MAX_ENIS as usize);
        loop {
            let (slots, texts) = reader
                .next()
                .map_err(BpfError::map("read the map of identities"))?;
            if slots.is_empty() {
                return Ok(all);
            }
            all.extend(
                slots
                    .iter()
                    .zip(texts)
                    .filter_map(|(slot, text)| Some((*slot, decode(text)?))),
            );
        }
    }
}

fn encode(eni: &Eni) -> Text {
    let lines = [
        eni.eni_id.as_str(),
        &eni.vswitch_id,
        &eni.vpc_id,
        &eni.account_id,
        eni.vm_id.as_deref().unwrap_or_default(),
        eni.region.as_deref().unwrap_or_default(),
    ]
    .join("\n");
    let mut text = Text::default();
    for (to, from) in text.0.iter_mut().zip(lines.bytes()) {
        *to = from;
    }
    text
}

fn decode(text: &Text) -> Option<Eni> {
    let end = text
        .0
        .iter()
        .position(|octet| *octet == 0)
        .unwrap_or(OCTETS);
    let mut lines = str::from_utf8(text.0.get(..end)?)
        .ok()?
        .split('\n')
        .map(str::to_owned);
    let mut next = || lines.next();
    let optional = |line: String| (!line.is_empty()).then_some(line);
    Some(Eni {
        eni_id: next()?,
        vswitch_id: next()?,
        vpc_id: next()?,
        account_id: next()?,
        vm_id: optional(next()?),
        region: optional(next()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_of_the_longest_ids_comes_back_whole() {
        let id = |letter: &str| letter.repeat(64);
        let eni = Eni {
            eni_id: id("a"),
            vswitch_id: id("b"),
            vpc_id: id("c"),
            account_id: id("d"),
            vm_id: Some(id("e")),
            region: Some(id("f")),
        };
        assert_eq!(decode(&encode(&eni)), Some(eni.clone()));
        let bare = Eni {
            vm_id: None,
            region: None,
            ..eni
        };
        assert_eq!(decode(&encode(&bare)), Some(bare.clone()));
        assert_eq!(decode(&Text::default()), None);
    }
}
