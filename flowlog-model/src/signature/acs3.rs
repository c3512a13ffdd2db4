//! ACS3-HMAC-SHA256: the signature in the `Authorization` header.
//!
//! What is signed is the canonical request:
//!
//! ```text
//! METHOD
//! path
//! parameters of the query, sorted and encoded (`encoding::canonical`)
//! header:value           a line for each signed header, in the order of the list below
//!
//! header;header;…
//! SHA-256 of the body, in hexadecimal
//! ```
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::encoding::{self, Parameter};
use super::{hex, hmac_sha256, same};

/// The name of the algorithm: the first word of the header, and the first line of what is signed.
pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Header with the date of the request: `2026-11-22T04:52:11Z`.
pub const DATE: &str = "x-acs-date";
/// Header with what makes the request unique.
pub const NONCE: &str = "x-acs-signature-nonce";
/// Header with the SHA-256 of the body, in hexadecimal.
pub const CONTENT_SHA256: &str = "x-acs-content-sha256";
/// Header with the name of the action; of the RPC face alone.
pub const ACTION: &str = "x-acs-action";
/// Header with the version of the API; of the RPC face alone.
pub const VERSION: &str = "x-acs-version";

/// What must be signed in every request; the RPC face asks for [`ACTION`] and [`VERSION`] too.
pub const ALWAYS_SIGNED: [&str; 4] = ["host", CONTENT_SHA256, DATE, NONCE];

/// The most headers that a request may sign.
pub const MAX_SIGNED_HEADERS: usize = 64;

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// The path, as it travels.
    pub path: &'a str,
    /// The parameters of the query, decoded, in any order.
    pub query: &'a [Parameter],
    /// The signed headers in the order of the list in the `Authorization` header: names in lower case, values as they travel.
    pub headers: &'a [(&'a str, &'a str)],
    /// The value of [`CONTENT_SHA256`].
    pub content_sha256: &'a str,
}

impl Signed<'_> {
    /// The canonical request.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut canonical = format!(
            "{}\n{}\n{}\n",
            self.method,
            self.path,
            encoding::canonical(self.query)
        );
        for (name, value) in self.headers {
            canonical.push_str(&format!("{name}:{}\n", value.trim()));
        }
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        canonical.push_str(&format!("\n{}\n{}", names.join(";"), self.content_sha256));
        canonical
    }

    /// The signature of the request, in hexadecimal.
    #[must_use]
    pub fn signature(&self, secret: &str) -> String {
        let text = format!("{ALGORITHM}\n{}", sha256_hex(self.canonical().as_bytes()));
        hex(&hmac_sha256(secret.as_bytes(), text.as_bytes()))
    }

    /// Whether `signature` is that of the request; compared in constant time.
    #[must_use]
    pub fn is_signature(&self, secret: &str, signature: &str) -> bool {
        same(&self.signature(secret), signature)
    }
}

/// The SHA-256 of a body, in hexadecimal.
#[must_use]
pub fn sha256_hex(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// The `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The access key's id.
    pub credential: String,
    /// Names of the signed headers, in lower case.
    pub signed_headers: Vec<String>,
    /// The signature, in hexadecimal.
    pub signature: String,
}

impl Authorization {
    /// Reads the header's value; none if it is not of this algorithm, has not its three parts once each, or signs more than
    /// [`MAX_SIGNED_HEADERS`].
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let parts = header.trim().strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let (mut credential, mut names, mut signature) = (None, None, None);
        for part in parts.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut names,
                "Signature" => &mut signature,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let signed_headers: Vec<String> = names?
            .split(';')
            .take(MAX_SIGNED_HEADERS + 1)
            .map(str::to_ascii_lowercase)
            .collect();
        (signed_headers.len() <= MAX_SIGNED_HEADERS).then_some(Self {
            credential: credential?.to_owned(),
            signed_headers,
            signature: signature?.to_owned(),
        })
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{ALGORITHM} Credential={},SignedHeaders={},Signature={}",
            self.credential,
            self.signed_headers.join(";"),
            self.signature
        )
    }
}

/// A request that a client of ours is about to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// The value of the `host` header: `127.0.0.1:8080`.
    pub host: &'a str,
    /// The path, as it travels.
    pub path: &'a str,
    /// The parameters of the query.
    pub query: &'a [Parameter],
    /// The body; empty if there is none.
    pub body: &'a [u8],
    /// Now: `2026-11-22T04:52:11Z`.
    pub date: &'a str,
    /// What makes the request unique.
    pub nonce: &'a str,
}

impl Outgoing<'_> {
    /// The headers to send, besides `host`: date, nonce, hash of the body and `authorization`.
    #[must_use]
    pub fn headers(&self, key_id: &str, secret: &str) -> [(&'static str, String); 4] {
        let content_sha256 = sha256_hex(self.body);
        let headers = [
            ("host", self.host),
            (CONTENT_SHA256, content_sha256.as_str()),
            (DATE, self.date),
            (NONCE, self.nonce),
        ];
        let signed = Signed {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: &headers,
            content_sha256: &content_sha256,
        };
        let authorization = Authorization {
            credential: key_id.to_owned(),
            signed_headers: headers.map(|(name, _)| name.to_owned()).to_vec(),
            signature: signed.signature(secret),
        };
        [
            (DATE, self.date.to_owned()),
            (NONCE, self.nonce.to_owned()),
            (CONTENT_SHA256, content_sha256.clone()),
            ("authorization", authorization.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the product's documentation of the signature (version 3, fixed parameters).
    #[test]
    fn the_vector_of_the_documentation() {
        let empty = sha256_hex(b"");
        let query = [
            (
                "ImageId".into(),
                "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd".into(),
            ),
            ("RegionId".into(), "cn-shanghai".into()),
        ];
        let signed = Signed {
            method: "POST",
            path: "/",
            query: &query,
            headers: &[
                ("host", "ecs.cn-shanghai.aliyuncs.com"),
                (ACTION, "RunInstances"),
                (CONTENT_SHA256, &empty),
                (DATE, "2023-10-26T10:22:32Z"),
                (NONCE, "3156853299f313e23d1673dc12e1703d"),
                (VERSION, "2014-05-26"),
            ],
            content_sha256: &empty,
        };
        assert_eq!(
            sha256_hex(signed.canonical().as_bytes()),
            "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
        );
        let signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
        assert_eq!(signed.signature("YourAccessKeySecret"), signature);
        assert!(signed.is_signature("YourAccessKeySecret", signature));
        assert!(!signed.is_signature("YourAccessKeySecret", &signature.replace('0', "1")));
        assert!(!signed.is_signature("another", signature));
    }

    #[test]
    fn authorization_headers() {
        let text =
            "ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=host;x-acs-date,Signature=4c3c";
        let parsed = Authorization::parse(text).unwrap();
        assert_eq!(parsed.credential, "testid");
        assert_eq!(parsed.signed_headers, ["host", "x-acs-date"]);
        assert_eq!(parsed.signature, "4c3c");
        assert_eq!(parsed.to_string(), text);
        assert_eq!(
            Authorization::parse(&text.replace(',', ", ")).unwrap(),
            parsed
        );
        for bad in [
            "",
            "ACS3-HMAC-SHA256",
            "ACS3-HMAC-SM3 Credential=a,SignedHeaders=host,Signature=1",
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host",
            "ACS3-HMAC-SHA256 Credential=a,Credential=b,SignedHeaders=host,Signature=1",
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host,Signature=1,Other=2",
        ] {
            assert_eq!(Authorization::parse(bad), None, "{bad}");
        }
        let many = "h;".repeat(MAX_SIGNED_HEADERS);
        assert_eq!(
            Authorization::parse(&text.replace("host;", &many)),
            None,
            "65 headers"
        );
    }

    proptest! {
        #[test]
        fn what_a_client_signs_is_verified(
            query in prop::collection::vec((".{0,6}", ".{0,6}"), 0..5),
            body in prop::collection::vec(any::<u8>(), 0..64),
            secret in ".{0,80}",
        ) {
            let outgoing = Outgoing {
                method: "POST", host: "h:1", path: "/a", query: &query, body: &body, date: "2026-11-22T04:52:11Z", nonce: "n",
            };
            let sent = outgoing.headers("id", &secret);
            let value = |name| if name == "host" { "h:1" } else {
                sent.iter().find(|(sent, _)| *sent == name).map(|(_, value)| value.as_str()).unwrap()
            };
            let authorization = Authorization::parse(value("authorization")).unwrap();
            prop_assert!(ALWAYS_SIGNED.iter().all(|name| authorization.signed_headers.iter().any(|signed| signed == name)));
            let headers: Vec<(&str, &str)> = authorization.signed_headers.iter().map(|name| (name.as_str(), value(name))).collect();
            let shuffled: Vec<Parameter> = query.iter().rev().cloned().collect();
            let signed = Signed {
                method: "POST", path: "/a", query: &shuffled, headers: &headers, content_sha256: value(CONTENT_SHA256),
            };
            prop_assert!(signed.is_signature(&secret, &authorization.signature));
            let longer = format!("{secret}x");
            prop_assert!(!signed.is_signature(&longer, &authorization.signature));
            let other = Signed { method: "GET", ..signed };
            prop_assert!(!other.is_signature(&secret, &authorization.signature));
        }
    }
}
