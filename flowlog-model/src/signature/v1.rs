//! Signature version 1 of the older SDKs: HMAC-SHA1 over the parameters, as the parameter `Signature`.
//!
//! What is signed is `METHOD&%2F&` and the canonical parameters, encoded once more. All parameters count, those of the query and
//! those of a form body, also empty ones; `Signature` alone does not.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::encoding::{self, Parameter};
use super::{hmac_sha1, same};

/// The parameter that has the signature, in base64.
pub const SIGNATURE: &str = "Signature";
/// The parameter that names the access key.
pub const ACCESS_KEY_ID: &str = "AccessKeyId";
/// The parameter with the date of the request: `2026-11-22T04:52:11Z`.
pub const TIMESTAMP: &str = "Timestamp";
/// The parameter with what makes the request unique.
pub const NONCE: &str = "SignatureNonce";
/// The parameter with the name of the algorithm, which is [`ALGORITHM`].
pub const METHOD: &str = "SignatureMethod";
/// The parameter with the version of the signature, which is [`SIGNATURE_VERSION`].
pub const VERSION: &str = "SignatureVersion";
/// The algorithm's name.
pub const ALGORITHM: &str = "HMAC-SHA1";
/// The signature's version.
pub const SIGNATURE_VERSION: &str = "1.0";

/// The text that is signed.
#[must_use]
pub fn string_to_sign(method: &str, parameters: &[Parameter]) -> String {
    let signed: Vec<Parameter> = parameters
        .iter()
        .filter(|(name, _)| name != SIGNATURE)
        .cloned()
        .collect();
    format!(
        "{method}&%2F&{}",
        encoding::encode(&encoding::canonical(&signed))
    )
}

/// The signature, in base64.
#[must_use]
pub fn signature(secret: &str, method: &str, parameters: &[Parameter]) -> String {
    let key = format!("{secret}&");
    STANDARD.encode(hmac_sha1(
        key.as_bytes(),
        string_to_sign(method, parameters).as_bytes(),
    ))
}

/// Whether `given` is the signature of the parameters; compared in constant time.
#[must_use]
pub fn is_signature(secret: &str, method: &str, parameters: &[Parameter], given: &str) -> bool {
    same(&signature(secret, method, parameters), given)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn documented() -> Vec<Parameter> {
        let parameters = [
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Format", "XML"),
            ("AccessKeyId", "testid"),
            ("Action", "DescribeRegions"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Version", "2014-05-26"),
            ("SignatureVersion", "1.0"),
        ];
        parameters
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec()
    }

    /// The example of the product's documentation of the signature.
    #[test]
    fn the_vector_of_the_documentation() {
        let mut parameters = documented();
        assert_eq!(
            string_to_sign("GET", &parameters),
            "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeRegions%26Format%3DXML%26SignatureMethod%3DHMAC-SHA1%26\
             SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureVersion%3D1.0%26\
             Timestamp%3D2016-02-23T12%253A46%253A24Z%26Version%3D2014-05-26"
        );
        let expected = "OLeaidS1JvxuMvnyHOwuJ+uX5qY=";
        assert_eq!(signature("testsecret", "GET", &parameters), expected);
        parameters.push((SIGNATURE.into(), expected.into()));
        assert!(is_signature("testsecret", "GET", &parameters, expected));
        assert!(!is_signature("testsecret", "POST", &parameters, expected));
        // A parameter that is empty is signed too.
        parameters.push(("SignatureType".into(), String::new()));
        assert!(!is_signature("testsecret", "GET", &parameters, expected));
    }

    proptest! {
        #[test]
        fn every_change_breaks_it(name in ".{1,5}", value in ".{0,5}", other in ".{0,5}") {
            prop_assume!(value != other && name != SIGNATURE);
            let with = |value: &str| {
                let mut parameters = documented();
                parameters.insert(2, (name.clone(), value.to_owned()));
                parameters
            };
            let signed = signature("testsecret", "POST", &with(&value));
            prop_assert!(is_signature("testsecret", "POST", &with(&value), &signed));
            prop_assert!(!is_signature("testsecret", "POST", &with(&other), &signed));
            prop_assert!(!is_signature("testsecret", "POST", &documented(), &signed));
        }
    }
}
