//! Which puts were stored, by their identities, so that a put that is sent again is not stored again.
//!
//! Those of the write-ahead segments are in their frames; `identities` has those whose segments are gone, and perhaps some of the others.
//! A line of octets each: 16 of the hash, 4 of the time in Unix seconds, little-endian; at the end the CRC-32 of all.
use std::{
    collections::{HashSet, VecDeque},
    io,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::durable;
use crate::log_service::types::LogstoreKey;

const ENTRY_OCTETS: usize = 20;

/// A put's identity: a hash of what it was sent with, of its logstore and of that one's incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity(pub(super) [u8; 16]);

impl Identity {
    pub(super) fn new(key: &LogstoreKey, incarnation: u32, identity: &str) -> Self {
        let mut hasher = Sha256::new();
        // No name has a `/`, so no two are confused.
        hasher.update(format!("{key}/{incarnation}/{identity}"));
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        // All zeros stand for none.
        hash[15] |= u8::from(hash == [0; 16]);
        Self(hash)
    }
}

/// The identities of the last puts.
#[derive(Debug)]
pub(super) struct Identities {
    known: HashSet<Identity>,
    /// With their times in Unix seconds, in the order in which they were stored.
    order: VecDeque<(Identity, u32)>,
    most: usize,
    max_age_seconds: u32,
}

impl Identities {
    pub(super) fn new(most: usize, max_age_seconds: u32) -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            most,
            max_age_seconds,
        }
    }

    pub(super) fn contains(&self, identity: Identity) -> bool {
        self.known.contains(&identity)
    }

    /// Notes an identity; forgets the oldest beyond the limits. Tells whether it was new.
    pub(super) fn insert(&mut self, identity: Identity, now: u32) -> bool {
        let is_new = self.known.insert(identity);
        if is_new {
            self.order.push_back((identity, now));
        }
        while let Some(&(oldest, stored)) = self.order.front()
            && (self.order.len() > self.most || stored.saturating_add(self.max_age_seconds) < now)
        {
            self.order.pop_front();
            self.known.remove(&oldest);
        }
        is_new
    }

    /// As they are in the file.
    pub(super) fn to_octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.order.len() * ENTRY_OCTETS + 4);
        for (identity, stored) in &self.order {
            octets.extend_from_slice(&identity.0);
            octets.extend_from_slice(&stored.to_le_bytes());
        }
        let checksum = crc32fast::hash(&octets);
        octets.extend_from_slice(&checksum.to_le_bytes());
        octets
    }

    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// `InvalidData` if it is not what was written.
    pub(super) fn load(&mut self, path: &Path) -> io::Result<()> {
        let octets = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged: its checksum is wrong",
            )
        };
        let (entries, checksum) = octets.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32fast::hash(entries) != u32::from_le_bytes(*checksum)
            || entries.len() % ENTRY_OCTETS != 0
        {
            return Err(damaged());
        }
        for entry in entries.chunks_exact(ENTRY_OCTETS) {
            if let (Some((hash, _)), Some((_, stored))) =
                (entry.split_first_chunk(), entry.split_last_chunk())
            {
                self.insert(Identity(*hash), u32::from_le_bytes(*stored));
            }
        }
        Ok(())
    }

    pub(super) fn save(path: &Path, octets: &[u8]) -> io::Result<()> {
        Ok(durable::write(path, octets)?)
    }
}
