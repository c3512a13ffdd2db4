//! How requests are signed: the two signatures that the product's SDKs speak, pure and without I/O, for the service, the agent and
//! the CLI alike.
//!
//! | module | what it holds |
//! |---|---|
//! | [`encoding`] | the percent-encoding of RFC 3986, and parameters as they travel |
//! | [`acs3`] | ACS3-HMAC-SHA256, in headers: the newer SDKs, the REST face, the agent protocol |
//! | [`v1`] | HMAC-SHA1 in parameters: the older SDKs |
//!
//! Neither module knows a clock, a nonce store or a key: they turn a request into the text that is signed, and compare signatures
//! in constant time.
pub mod acs3;
pub mod encoding;
pub mod v1;

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
