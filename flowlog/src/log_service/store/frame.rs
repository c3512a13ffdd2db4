//! Frames of a write-ahead segment: one for each put.
//!
//! | octets | what |
//! |---|---|
//! | 4 | `FLWF` |
//! | 4 | length of the body in octets, little-endian as all numbers here |
//! | 4 | CRC-32 of the length and the body |
//! | body: 8 | sequence number of the first log |
//! | 4 | when it arrived, in Unix seconds |
//! | 16 | the put's identity as a hash; zeros where it has none |
//! | 1 + n | length of the project's name, the name |
//! | 1 + n | length of the logstore's name, the name |
//! | the rest | the logs without their sequence numbers: an Arrow IPC stream, LZ4 |
use std::io::Cursor;

use arrow::{array::RecordBatch, error::ArrowError};
use arrow_ipc::{
    CompressionType,
    reader::StreamReader,
    writer::{IpcWriteOptions, StreamWriter},
};

use super::identities::Identity;
use crate::log_service::types::LogstoreKey;

const MAGIC: &[u8; 4] = b"FLWF";
const HEADER_OCTETS: usize = 12;
const FIXED_OCTETS: usize = 28;

/// Most octets of a frame's body.
pub(super) const MAX_BODY_OCTETS: usize = 256 << 20;

/// A put as it is in a segment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) key: LogstoreKey,
    /// Sequence number of the first log.
    pub(super) first: u64,
    /// When it arrived, in Unix seconds.
    pub(super) arrived: u32,
    pub(super) identity: Option<Identity>,
    /// The logs without their sequence numbers.
    pub(super) contents: RecordBatch,
}

/// What comes before the logs in a frame.
pub(super) struct Head<'a> {
    pub(super) key: &'a LogstoreKey,
    pub(super) first: u64,
    pub(super) arrived: u32,
    pub(super) identity: Option<Identity>,
}

/// The logs as a frame has them.
pub(super) fn encode(contents: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let options =
        IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &contents.schema(), options)?;
    writer.write(contents)?;
    writer.into_inner()
}

/// Appends a frame.
pub(super) fn append(out: &mut Vec<u8>, head: &Head<'_>, logs: &[u8]) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&head.first.to_le_bytes());
    out.extend_from_slice(&head.arrived.to_le_bytes());
    out.extend_from_slice(&head.identity.map_or([0; 16], |identity| identity.0));
    for name in [head.key.project.as_str(), head.key.logstore.as_str()] {
        // A name has at most 63 octets.
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(logs);
    let length = u32::try_from(out.len() - start - HEADER_OCTETS).unwrap_or(u32::MAX);
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(length, &out[start + HEADER_OCTETS..]);
    out[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
}

/// The bodies of a segment's sound frames, and how many octets between them and after them are of none.
///
/// After a damaged frame it looks for the next sound one: only what is damaged is lost.
pub(super) fn split(segment: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut bodies, mut at, mut lost) = (Vec::new(), 0, 0);
    while at < segment.len() {
        if let Some(body) = sound(&segment[at..]) {
            at += HEADER_OCTETS + body.len();
            bodies.push(body);
        } else {
            let next = segment[at + 1..]
                .windows(MAGIC.len())
                .position(|window| window == MAGIC)
                .map_or(segment.len(), |found| at + 1 + found);
            lost += next - at;
            at = next;
        }
    }
    (bodies, lost)
}

/// The body of the frame that begins here, if its checksum is right.
fn sound(octets: &[u8]) -> Option<&[u8]> {
    let (header, rest) = octets.split_at_checked(HEADER_OCTETS)?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let length = number(4)?;
    let body = rest.get(..usize::try_from(length).ok()?)?;
    let is_sound = &header[..4] == MAGIC
        && body.len() <= MAX_BODY_OCTETS
        && number(8)? == checksum(length, body);
    is_sound.then_some(body)
}

/// What a body says; none if that is nothing that was written here.
pub(super) fn decode(body: &[u8]) -> Option<Frame> {
    let (fixed, mut rest) = body.split_at_checked(FIXED_OCTETS)?;
    let identity: [u8; 16] = fixed[12..].try_into().ok()?;
    let mut name = || {
        let (&length, after) = rest.split_first()?;
        let (name, after) = after.split_at_checked(length.into())?;
        rest = after;
        std::str::from_utf8(name).ok()
    };
    let key = LogstoreKey {
        project: name()?.parse().ok()?,
        logstore: name()?.parse().ok()?,
    };
    Some(Frame {
        key,
        first: u64::from_le_bytes(fixed[..8].try_into().ok()?),
        arrived: u32::from_le_bytes(fixed[8..12].try_into().ok()?),
        identity: (identity != [0; 16]).then_some(Identity(identity)),
        contents: StreamReader::try_new(Cursor::new(rest), None)
            .ok()?
            .next()?
            .ok()?,
    })
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}
