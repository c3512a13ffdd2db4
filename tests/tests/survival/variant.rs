//! Other programs that do the same: what a later version of the agent would bring.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flowlog_agent::bpf::built_in_object;
use object::{File, Object as _, ObjectSection as _, SectionKind};

/// Octets of an instruction (`struct bpf_insn`). `lddw` alone takes two.
const INSTRUCTION: usize = 8;
const LDDW: u8 = 0x18;
/// Sets a register of 64 bits to the instruction's signed number of 32 bits.
const MOVE_64: u8 = 0xb7;
/// Sets the lower half to it and the upper half to zero.
const MOVE_32: u8 = 0xb4;

/// Writes the agent's programs with every 64-bit move of a number that is not negative done in 32 bits: for such a number it does
/// the same, and the kernel gives the program another tag.
pub(crate) fn write(path: &Path) {
    let mut octets = built_in_object().to_vec();
    let mut changed = 0;
    for (from, to, relocated) in code(built_in_object()) {
        let mut at = from;
        while at + INSTRUCTION <= to {
            let [code, .., n0, n1, n2, n3] = octets[at..at + INSTRUCTION] else {
                unreachable!("eight octets")
            };
            let number = i32::from_le_bytes([n0, n1, n2, n3]);
            if code == MOVE_64 && number >= 0 && !relocated.contains(&(at - from)) {
                octets[at] = MOVE_32;
                changed += 1;
            }
            at += if code == LDDW {
                2 * INSTRUCTION
            } else {
                INSTRUCTION
            };
        }
    }
    assert!(changed > 0, "no instruction can be changed");
    fs::write(path, octets).expect("written");
}

/// Where the sections of code are, in octets of the file; and which of their own octets are changed when they are loaded.
fn code(elf: &[u8]) -> Vec<(usize, usize, BTreeSet<usize>)> {
    let file = File::parse(elf).expect("an ELF file");
    let text = file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text);
    text.map(|section| {
        let (offset, size) = section.file_range().expect("code is in the file");
        let relocated = section.relocations().map(|(at, _)| at as usize).collect();
        (offset as usize, (offset + size) as usize, relocated)
    })
    .collect()
}
