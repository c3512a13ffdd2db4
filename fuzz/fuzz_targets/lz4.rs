//! A block of LZ4 under any size that its header may claim: no bytes make it panic, and it has that size or is refused.
#![no_main]

use flowlog_model::log_group::{compress, decompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((size, block)) = bytes.split_first_chunk() else {
        return;
    };
    let size = u32::from_le_bytes(*size) as usize;
    if let Ok(raw) = decompress(block, size) {
        assert_eq!(raw.len(), size);
        assert_eq!(decompress(&compress(&raw), size).ok(), Some(raw));
    }
});
