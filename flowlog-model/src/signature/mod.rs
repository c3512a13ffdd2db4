//! How requests are signed: the signatures that the product's SDKs speak, pure and without I/O, for the service, the agent and
//! the CLI alike.
//!
//! | module | what it holds |
//! |---|---|
//! | [`encoding`] | the percent-encoding of RFC 3986, and parameters as they travel |
//! | [`acs3`] | ACS3-HMAC-SHA256, in headers: the newer SDKs, the REST face, the agent protocol |
//! | [`v1`] | HMAC-SHA1 in parameters: the older SDKs |
//! | [`log_v1`], [`log_v4`] | those of the Log Service |
//!
//! No module knows a clock, a nonce store or a key: they turn a request into the text that is signed, and compare signatures
//! in constant time.
pub mod acs3;
pub mod encoding;
pub mod log_v1;
pub mod log_v4;
pub mod v1;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Whether two signatures are the same, in a time that depends on their lengths alone. No signature is empty.
fn same(one: &str, other: &str) -> bool {
    !one.is_empty() && bool::from(one.as_bytes().ct_eq(other.as_bytes()))
}

/// Bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn hmac_sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    Hmac::<Sha1>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(text);
            mac.finalize().into_bytes().to_vec()
        },
    )
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(text);
            mac.finalize().into_bytes().to_vec()
        },
    )
}

/// The value of the first header of a name, which is in lower case.
fn value<'a>(headers: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(other, _)| *other == name)
        .map(|(_, value)| *value)
}

/// Whether the Log Service's signatures cover a header.
fn is_log_header(name: &str) -> bool {
    name.starts_with("x-acs-") || (name.starts_with("x-log-") && !name.starts_with("x-log-meta-"))
}

/// The headers of the Log Service, sorted by name; those of one name keep their order.
fn log_headers<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    sorted(headers, is_log_header)
}

/// Some headers, sorted by name; those of one name keep their order.
fn sorted<'a>(
    headers: &[(&'a str, &'a str)],
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<(&'a str, &'a str)> {
    let mut wanted: Vec<_> = headers
        .iter()
        .copied()
        .filter(|(name, _)| is_wanted(name))
        .collect();
    wanted.sort_by_key(|(name, _)| *name);
    wanted
}
