//! The newcomer's demo: its records, and that nothing is left of it.
#![cfg(feature = "service")]

// The module is tests itself; the attribute says so to clippy, which lets helpers of tests panic.
#[cfg(test)]
mod ends;
