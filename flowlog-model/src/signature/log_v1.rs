//! The Log Service's signature version 1: `Authorization: LOG KEY:SIGNATURE`, HMAC-SHA1 in base64.
//!
//! What is signed:
//!
//! ```text
//! METHOD
//! value of content-md5, or nothing
//! value of content-type, or nothing
//! value of date
//! name:value               a line for each header of the Log Service, sorted by name
//! path?name=value&…        parameters sorted, neither encoded nor escaped; without them the path alone
//! ```
//!
//! Headers of the Log Service begin with `x-log-` or `x-acs-`; those that begin with `x-log-meta-` are not signed, nor is
//! `x-log-date`, which clients add afterwards, for the proxies that do not let `date` pass.
//!
//! The body is signed by its MD5, so a body without `content-md5` is not signed at all: [`is_body`] says whether one is.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

use super::encoding::Parameter;
use super::{hex, hmac_sha1, log_headers, same, value};

/// What the `Authorization` header begins with, before a space.
pub const SCHEME: &str = "LOG";
/// Header with the MD5 of the body, in upper-case hexadecimal digits.
pub const CONTENT_MD5: &str = "content-md5";
/// Header with the date of the request: `Sun, 22 Nov 2026 04:52:11 GMT`.
pub const DATE: &str = "date";
/// Header that has the date where `date` is missing.
pub const LOG_DATE: &str = "x-log-date";
/// Header with the name of the algorithm, which is [`ALGORITHM`].
pub const METHOD: &str = "x-log-signaturemethod";
/// The algorithm's name.
pub const ALGORITHM: &str = "hmac-sha1";

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// The path, as it travels.
    pub path: &'a str,
    /// The parameters of the query, decoded, in any order.
    pub query: &'a [Parameter],
    /// All headers, in any order: names in lower case, values as they travel.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Signed<'a> {
    /// The text that is signed.
    #[must_use]
    pub fn string_to_sign(&self) -> String {
        let header = |name| value(self.headers, name).unwrap_or_default();
        let mut text = format!(
            "{}\n{}\n{}\n{}\n",
            self.method,
            header(CONTENT_MD5),
            header("content-type"),
            self.date().unwrap_or_default()
        );
        for (name, value) in log_headers(self.headers) {
            if name != LOG_DATE {
                text.push_str(&format!("{name}:{value}\n"));
            }
        }
        text.push_str(self.path);
        let mut sorted: Vec<&Parameter> = self.query.iter().collect();
        sorted.sort_unstable();
        for (index, (name, value)) in sorted.into_iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            text.push_str(&format!("{mark}{name}={value}"));
        }
        text
    }

    /// The date that is signed; none if the request has none.
    #[must_use]
    pub fn date(&self) -> Option<&'a str> {
        value(self.headers, DATE).or_else(|| value(self.headers, LOG_DATE))
    }

    /// The signature, in base64.
    #[must_use]
    pub fn signature(&self, secret: &str) -> String {
        STANDARD.encode(hmac_sha1(
            secret.as_bytes(),
            self.string_to_sign().as_bytes(),
        ))
    }

    /// Whether `signature` is that of the request; compared in constant time.
    #[must_use]
    pub fn is_signature(&self, secret: &str, signature: &str) -> bool {
        same(&self.signature(secret), signature)
    }
}

/// The value of [`CONTENT_MD5`] for a body.
#[must_use]
pub fn content_md5(body: &[u8]) -> String {
    hex(&Md5::digest(body)).to_ascii_uppercase()
}

/// Whether a body is the one of which `content_md5` tells; an empty body needs none.
#[must_use]
pub fn is_body(content_md5: Option<&str>, body: &[u8]) -> bool {
    match content_md5 {
        None => body.is_empty(),
        Some(md5) => md5.eq_ignore_ascii_case(&self::content_md5(body)),
    }
}

/// The id of the access key and the signature in an `Authorization` header; none if it is not of this version.
#[must_use]
pub fn authorization(header: &str) -> Option<(&str, &str)> {
    let (key_id, signature) = header
        .trim()
        .strip_prefix(SCHEME)?
        .strip_prefix(' ')?
        .trim()
        .split_once(':')?;
    (!key_id.is_empty() && !signature.is_empty()).then_some((key_id, signature))
}

/// A request that a client of ours is about to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// The path, as it travels.
    pub path: &'a str,
    /// The parameters of the query.
    pub query: &'a [Parameter],
    /// The headers that are known already, in lower case: `content-type`, and those of the Log Service.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; empty if there is none.
    pub body: &'a [u8],
    /// Now: `Sun, 22 Nov 2026 04:52:11 GMT`.
    pub date: &'a str,
}

impl Outgoing<'_> {
    /// The headers to send, besides those that are known already.
    #[must_use]
    pub fn headers(&self, key_id: &str, secret: &str) -> Vec<(&'static str, String)> {
        let mut more = vec![(DATE, self.date.to_owned()), (METHOD, ALGORITHM.to_owned())];
        if !self.body.is_empty() {
            more.push((CONTENT_MD5, content_md5(self.body)));
        }
        let added = more.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = self.headers.iter().copied().chain(added).collect();
        let signed = Signed {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: &headers,
        };
        let signature = signed.signature(secret);
        more.push(("authorization", format!("{SCHEME} {key_id}:{signature}")));
        more
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUT: [(&str, &str); 10] = [
        ("content-length", "7"),
        ("x-log-bodyrawsize", "60"),
        ("content-type", "application/x-protobuf"),
        ("x-log-compresstype", "lz4"),
        ("x-log-apiversion", "0.6.0"),
        ("host", "demo-project.127.0.0.1"),
        ("x-acs-security-token", "tok"),
        ("x-log-signaturemethod", "hmac-sha1"),
        ("date", "Sun, 22 Nov 2026 04:52:11 GMT"),
        ("content-md5", "332B28ACD08F45885575E141B95E7268"),
    ];

    fn parameters(given: &[(&str, &str)]) -> Vec<Parameter> {
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        given.iter().map(owned).collect()
    }

    /// What the official client (aliyun-log-python-sdk 0.9.52) signs with `testid` and `testsecret`.
    #[test]
    fn the_vectors_of_the_official_client() {
        assert_eq!(content_md5(b"\x01\x02 body"), PUT[9].1);
        let signed = Signed {
            method: "POST",
            path: "/logstores/flows/shards/lb",
            query: &[],
            headers: &PUT,
        };
        assert_eq!(
            signed.signature("testsecret"),
            "UMfK4a0HRLa5xWox7qrFidVtI80="
        );
        let key = parameters(&[("key", "0f")]);
        let route = Signed {
            path: "/logstores/flows/shards/route",
            query: &key,
            ..signed
        };
        assert_eq!(
            route.signature("testsecret"),
            "DbyMcBERgGSEdrmUx2P/PsvYgZk="
        );
        let query = parameters(&[
            ("type", "log"),
            ("query", "action:REJECT and dstport: 22 流量~*"),
            ("from", "1"),
            ("powerSql", "False"),
            ("topic", ""),
        ]);
        let get = Signed {
            method: "GET",
            path: "/logstores/flows",
            query: &query,
            headers: &[
                ("x-log-bodyrawsize", "0"),
                ("x-log-apiversion", "0.6.0"),
                ("x-log-signaturemethod", "hmac-sha1"),
                ("date", "Sun, 22 Nov 2026 04:52:11 GMT"),
                // Added after the request was signed.
                ("x-log-date", "Sun, 22 Nov 2026 04:52:11 GMT"),
                ("user-agent", "x"),
            ],
        };
        assert_eq!(get.signature("testsecret"), "vDowOwQlasWbf5Kl1frtvkZm8ig=");
        assert!(get.is_signature("testsecret", "vDowOwQlasWbf5Kl1frtvkZm8ig="));
        assert!(!get.is_signature("testsecret", "vDowOwQlasWbf5Kl1frtvkZm8ih="));
        assert!(!get.is_signature("testsecret", ""));
    }

    #[test]
    fn a_proxy_that_keeps_the_date_back() {
        let headers: Vec<_> = PUT
            .iter()
            .map(|(name, value)| (if *name == "date" { LOG_DATE } else { name }, *value))
            .collect();
        let signed = Signed {
            method: "POST",
            path: "/logstores/flows/shards/lb",
            query: &[],
            headers: &headers,
        };
        assert!(signed.is_signature("testsecret", "UMfK4a0HRLa5xWox7qrFidVtI80="));
    }

    #[test]
    fn authorization_headers() {
        assert_eq!(authorization("LOG id:c2ln"), Some(("id", "c2ln")));
        for bad in [
            "", "LOG", "LOG id", "LOG :x", "LOG id:", "log id:x", "acs id:x", "LOGid:x",
        ] {
            assert_eq!(authorization(bad), None, "{bad}");
        }
        assert!(is_body(None, b"") && !is_body(None, b"a"));
        assert!(is_body(Some("0cc175b9c0f1b6a831c399e269772661"), b"a"));
        assert!(!is_body(Some("0cc175b9c0f1b6a831c399e269772661"), b"b"));
    }

    proptest! {
        #[test]
        fn what_a_client_signs_is_verified(
            query in prop::collection::vec((".{0,6}", ".{0,6}"), 0..5),
            body in prop::collection::vec(any::<u8>(), 0..64),
            secret in ".{0,80}",
            known in prop::collection::vec(("x-(log|acs|log-meta)-[a-z]{1,4}", "[ -~]{0,9}"), 0..5),
        ) {
            let known: Vec<(&str, &str)> = known.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let date = "Sun, 22 Nov 2026 04:52:11 GMT";
            let outgoing = Outgoing { method: "POST", path: "/a", query: &query, headers: &known, body: &body, date };
            let sent = outgoing.headers("id", &secret);
            let mut headers: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (*name, value.as_str())).collect();
            // Headers may arrive in any order of names; those of one name keep theirs.
            headers.extend(&known);
            let shuffled: Vec<Parameter> = query.iter().rev().cloned().collect();
            let signed = Signed { method: "POST", path: "/a", query: &shuffled, headers: &headers };
            let (key_id, signature) = authorization(value(&headers, "authorization").unwrap()).unwrap();
            prop_assert_eq!(key_id, "id");
            prop_assert!(signed.is_signature(&secret, signature));
            prop_assert!(is_body(value(&headers, CONTENT_MD5), &body));
            let longer = format!("{secret}x");
            prop_assert!(!signed.is_signature(&longer, signature));
            let (other, method) = (Signed { path: "/b", ..signed }, Signed { method: "GET", ..signed });
            prop_assert!(!other.is_signature(&secret, signature) && !method.is_signature(&secret, signature));
            let mut changed = headers.clone();
            changed.push(("x-log-added", "1"));
            let added = Signed { headers: &changed, ..signed };
            prop_assert!(!added.is_signature(&secret, signature));
        }
    }
}
