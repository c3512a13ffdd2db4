//! Bit vectors, and the table in which each different one stands once.
use std::collections::HashMap;
use std::ops::{BitAnd, BitOr};

/// Words of 64 bits in a vector.
pub const WORDS: usize = 16;

/// A set of outcomes: bit 0 of word 0 is outcome 0, which comes before all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vector([u64; WORDS]);

/// Which vector of the table: what a look-up in a dimension gives.
pub type Class = u32;

impl Vector {
    /// Bits of a vector, and so the outcomes that a policy can have in one direction.
    pub const BITS: usize = WORDS * 64;

    /// Adds an outcome; one beyond the last bit is not added.
    pub(super) fn insert(&mut self, outcome: usize) {
        if let Some(word) = self.0.get_mut(outcome / 64) {
            *word |= 1 << (outcome % 64);
        }
    }

    pub(super) fn remove(&mut self, outcome: usize) {
        if let Some(word) = self.0.get_mut(outcome / 64) {
            *word &= !(1 << (outcome % 64));
        }
    }

    /// Whether the outcome is in the set.
    #[must_use]
    pub fn contains(&self, outcome: usize) -> bool {
        self.0
            .get(outcome / 64)
            .is_some_and(|word| word >> (outcome % 64) & 1 == 1)
    }

    /// The words, as they are in memory.
    #[must_use]
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.0
    }
}

impl BitOr for Vector {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl BitAnd for Vector {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl FromIterator<usize> for Vector {
    fn from_iter<I: IntoIterator<Item = usize>>(outcomes: I) -> Self {
        let mut vector = Self::default();
        for outcome in outcomes {
            vector.insert(outcome);
        }
        vector
    }
}

/// The table of vectors while it is made. Many prefixes and ports lead to the same vector: the members of a group all do.
#[derive(Default)]
pub(super) struct Classes {
    vectors: Vec<Vector>,
    known: HashMap<Vector, Class>,
}

impl Classes {
    pub(super) fn of(&mut self, vector: Vector) -> Class {
        *self.known.entry(vector).or_insert_with(|| {
            self.vectors.push(vector);
            // Fewer than prefixes, ports and protocols together, and so in range.
            Class::try_from(self.vectors.len() - 1).unwrap_or(Class::MAX)
        })
    }

    pub(super) fn into_vectors(self) -> Vec<Vector> {
        self.vectors
    }
}
