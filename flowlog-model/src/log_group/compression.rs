//! LZ4: one raw block without its size, which travels beside it, in the header `x-log-bodyrawsize`.
use lz4_flex::block;

use super::MAX_RAW_BYTES;

/// Most bytes that a byte of a block can stand for.
const MAX_RATIO: usize = 255;

/// Why a block cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// It stands for more than is allowed.
    #[error("it has {bytes} bytes when it is decompressed, and allowed are {MAX_RAW_BYTES}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// It does not stand for as many bytes as it should.
    #[error("it has not the {expected} bytes that it should have when it is decompressed")]
    OtherSize {
        /// As many.
        expected: usize,
    },
    /// It is no such block.
    #[error("it is no raw block of LZ4: {0}")]
    Malformed(block::DecompressError),
}

/// Compresses bytes.
#[must_use]
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    block::compress(bytes)
}

/// Decompresses a block that stands for `raw_bytes` bytes.
///
/// # Errors
/// [`CompressionError`]. Nothing is allocated for what is beyond the limit, or more than the block can stand for.
pub fn decompress(block: &[u8], raw_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    if raw_bytes > MAX_RAW_BYTES {
        return Err(CompressionError::TooLarge { bytes: raw_bytes });
    }
    let other_size = CompressionError::OtherSize {
        expected: raw_bytes,
    };
    if raw_bytes > block.len().saturating_mul(MAX_RATIO) {
        return Err(other_size);
    }
    match block::decompress(block, raw_bytes) {
        Ok(raw) if raw.len() == raw_bytes => Ok(raw),
        Ok(_) | Err(block::DecompressError::OutputTooSmall { .. }) => Err(other_size),
        Err(error) => Err(CompressionError::Malformed(error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the official client's LZ4 makes of twenty times `flow_log` and the bytes from 0 to 31.
    #[test]
    fn a_block_of_the_official_client() {
        let mut raw = b"flow_log".repeat(20);
        raw.extend(0..32);
        let mut block = b"\x8fflow_log\x08\x00\x85\xf0\x11".to_vec();
        block.extend(0..32);
        assert_eq!(decompress(&block, 192).unwrap(), raw);
        assert!(matches!(
            decompress(&block, 191),
            Err(CompressionError::OtherSize { expected: 191 })
        ));
        assert!(matches!(
            decompress(&block, 193),
            Err(CompressionError::OtherSize { .. })
        ));
        assert!(matches!(
            decompress(&block, MAX_RAW_BYTES + 1),
            Err(CompressionError::TooLarge { .. })
        ));
        assert!(matches!(
            decompress(&block[..30], MAX_RAW_BYTES),
            Err(CompressionError::OtherSize { .. })
        ));
        assert!(matches!(
            decompress(&block[..30], 192),
            Err(CompressionError::Malformed(_))
        ));
        assert_eq!(decompress(b"\x00", 0).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read_back(raw in prop::collection::vec(0_u8..4, 0..3000)) {
            let block = compress(&raw);
            prop_assert_eq!(decompress(&block, raw.len()).unwrap(), raw);
        }

        #[test]
        fn no_bytes_make_it_panic(block in prop::collection::vec(any::<u8>(), 0..300), raw_bytes in 0_usize..2000) {
            if let Ok(raw) = decompress(&block, raw_bytes) {
                prop_assert_eq!(raw.len(), raw_bytes);
            }
        }
    }
}
