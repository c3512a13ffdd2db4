//! The Log Service's signature version 4: `Authorization: SLS4-HMAC-SHA256 Credential=KEY/DATE/REGION/sls/aliyun_v4_request,Signature=…`.
//!
//! What is signed is `SLS4-HMAC-SHA256`, the date, the scope (what follows the key in the credential) and the SHA-256 of the
//! canonical request, a line each:
//!
//! ```text
//! METHOD
//! path
//! name=value&…             parameters sorted by name; values encoded, names not; an empty value has no `=`
//! name:value               a line for content-type, host, and each header of the Log Service, sorted by name
//!
//! name;name;…
//! value of x-log-content-sha256
//! ```
//!
//! Headers of the Log Service are those of [version 1](super::log_v1), and `x-log-date` is one of them.
use super::encoding::{self, Parameter};
use super::{acs3, hex, hmac_sha256, is_log_header, same, sorted, value};

/// The name of the algorithm: the first word of the header, and the first line of what is signed.
pub const ALGORITHM: &str = "SLS4-HMAC-SHA256";
/// Header with the SHA-256 of the body, in hexadecimal digits.
pub const CONTENT_SHA256: &str = "x-log-content-sha256";
/// Header with the date of the request: `20261122T045211Z`.
pub const DATE: &str = "x-log-date";

const SERVICE: &str = "sls";
const TERMINATOR: &str = "aliyun_v4_request";

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
    /// The region in the credential; it may be empty.
    pub region: &'a str,
}

impl<'a> Signed<'a> {
    /// The canonical request.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut canonical = format!("{}\n{}\n", self.method, self.path);
        let mut query: Vec<(&str, String)> = self
            .query
            .iter()
            .map(|(name, value)| (name.as_str(), encoding::encode(value)))
            .collect();
        query.sort_unstable();
        for (index, (name, value)) in query.iter().enumerate() {
            let (separator, equals) = (
                if index == 0 { "" } else { "&" },
                if value.is_empty() { "" } else { "=" },
            );
            canonical.push_str(&format!("{separator}{name}{equals}{value}"));
        }
        canonical.push('\n');
        let headers = sorted(self.headers, |name| {
            matches!(name, "content-type" | "host") || is_log_header(name)
        });
        for (name, value) in &headers {
            canonical.push_str(&format!("{name}:{}\n", value.trim()));
        }
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let content = value(self.headers, CONTENT_SHA256).unwrap_or_default();
        canonical.push_str(&format!("\n{}\n{content}", names.join(";")));
        canonical
    }

    /// The date that is signed; none if the request has none.
    #[must_use]
    pub fn date(&self) -> Option<&'a str> {
        value(self.headers, DATE)
    }

    /// The day in the scope: the first eight characters of the date.
    fn day(&self) -> &str {
        let date = self.date().unwrap_or_default();
        date.get(..8).unwrap_or(date)
    }

    fn scope(&self) -> String {
        format!("{}/{}/{SERVICE}/{TERMINATOR}", self.day(), self.region)
    }

    /// The signature, in hexadecimal digits.
    #[must_use]
    pub fn signature(&self, secret: &str) -> String {
        let text = format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.date().unwrap_or_default(),
            self.scope(),
            acs3::sha256_hex(self.canonical().as_bytes())
        );
        let mut key = format!("aliyun_v4{secret}").into_bytes();
        for part in [self.day(), self.region, SERVICE, TERMINATOR] {
            key = hmac_sha256(&key, part.as_bytes());
        }
        hex(&hmac_sha256(&key, text.as_bytes()))
    }

    /// Whether the header is that of the request, and of its day; compared in constant time.
    #[must_use]
    pub fn is_signed(&self, secret: &str, authorization: &Authorization<'_>) -> bool {
        authorization.day == self.day()
            && authorization.region == self.region
            && same(&self.signature(secret), authorization.signature)
    }

    /// The `Authorization` header.
    #[must_use]
    pub fn authorization(&self, key_id: &str, secret: &str) -> String {
        let (scope, signature) = (self.scope(), self.signature(secret));
        format!("{ALGORITHM} Credential={key_id}/{scope},Signature={signature}")
    }
}

/// Whether a body is the one of which the value of [`CONTENT_SHA256`] tells.
#[must_use]
pub fn is_body(content_sha256: Option<&str>, body: &[u8]) -> bool {
    content_sha256.is_some_and(|hash| hash.eq_ignore_ascii_case(&acs3::sha256_hex(body)))
}

/// The parts of an `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// The access key's id.
    pub key_id: &'a str,
    /// The day: `20261122`.
    pub day: &'a str,
    /// The region; it may be empty.
    pub region: &'a str,
    /// The signature, in hexadecimal digits.
    pub signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the header's value; none if it is not of this version, or has not its two parts.
    #[must_use]
    pub fn parse(header: &'a str) -> Option<Self> {
        let parts = header.trim().strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let (credential, signature) = parts.split_once(',')?;
        let credential = credential.trim().strip_prefix("Credential=")?;
        let signature = signature.trim().strip_prefix("Signature=")?;
        let mut scope = credential.split('/');
        let (key_id, day, region) = (scope.next()?, scope.next()?, scope.next()?);
        let is_whole = scope.eq([SERVICE, TERMINATOR]);
        (is_whole && !key_id.is_empty() && !signature.is_empty()).then_some(Self {
            key_id,
            day,
            region,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the official client (aliyun-log-python-sdk 0.9.52) signs with `testid` and `testsecret`.
    #[test]
    fn the_vectors_of_the_official_client() {
        let query: Vec<Parameter> = [
            ("type", "log"),
            ("query", "action:REJECT and dstport: 22 流量~*"),
            ("from", "1"),
            ("powerSql", "False"),
            ("topic", ""),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec();
        let get = Signed {
            method: "GET",
            path: "/logstores/flows",
            query: &query,
            headers: &[
                ("content-length", "0"),
                ("x-log-bodyrawsize", "0"),
                ("x-log-apiversion", "0.6.0"),
                ("host", "demo-project.127.0.0.1"),
                ("x-log-meta-a", "no"),
                (
                    CONTENT_SHA256,
                    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                ),
                (DATE, "20261122T045211Z"),
            ],
            region: "cn-hangzhou",
        };
        assert_eq!(
            get.authorization("testid", "testsecret"),
            "SLS4-HMAC-SHA256 Credential=testid/20261122/cn-hangzhou/sls/aliyun_v4_request,\
             Signature=160d9a57995d22c971f4ebeced936a60040edec412fd1a796e44ce8925703f06"
        );
        let put = Signed {
            method: "POST",
            path: "/logstores/flows/shards/lb",
            query: &[],
            headers: &[
                ("x-log-bodyrawsize", "60"),
                ("content-type", "application/x-protobuf"),
                ("x-log-compresstype", "lz4"),
                ("x-log-apiversion", "0.6.0"),
                ("host", "demo-project.127.0.0.1"),
                ("x-acs-security-token", "tok"),
                (
                    CONTENT_SHA256,
                    "cf4c6a6912729d2524aca8393f5caf96299c5da6898c5563ecd7bdb98d7daa79",
                ),
                (DATE, "20261122T045211Z"),
            ],
            region: "cn-hangzhou",
        };
        assert_eq!(
            put.signature("testsecret"),
            "24dc215a88d2eef77a1c7d96f4fd6dbdca36095dd2cfac49f4da4d4c4e9b88df"
        );
        assert!(is_body(
            value(put.headers, CONTENT_SHA256),
            b"\x01\x02 body"
        ));
        assert!(!is_body(
            value(put.headers, CONTENT_SHA256),
            b"\x01\x02 bod"
        ));
        assert!(!is_body(None, b""));
    }

    #[test]
    fn authorization_headers() {
        let text = "SLS4-HMAC-SHA256 Credential=id/20261122/r/sls/aliyun_v4_request,Signature=0f";
        let parsed = Authorization::parse(text).unwrap();
        assert_eq!(
            (parsed.key_id, parsed.day, parsed.region, parsed.signature),
            ("id", "20261122", "r", "0f")
        );
        assert_eq!(Authorization::parse(&text.replace(',', ", ")), Some(parsed));
        assert!(Authorization::parse(&text.replace("/r/", "//")).is_some());
        for (part, bad) in [
            ("SLS4", "SLS5"),
            ("id/", "/"),
            ("/r/", "/"),
            ("sls/", "ecs/"),
            ("_v4_", "_v3_"),
            ("_request", "_request/x"),
            ("Signature=0f", ""),
            ("0f", ""),
            ("Credential=", ""),
        ] {
            assert_eq!(
                Authorization::parse(&text.replace(part, bad)),
                None,
                "{part}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_client_signs_is_verified(
            query in prop::collection::vec((".{0,6}", ".{0,6}"), 0..5),
            secret in ".{0,80}",
            region in "[a-z-]{0,9}",
            (headers, shuffled) in prop::collection::btree_map("x-(log|acs|other)-[a-z]{1,4}", "[ -~]{0,9}", 0..5).prop_flat_map(|headers| {
                let headers: Vec<(String, String)> = headers.into_iter().collect();
                (Just(headers.clone()), Just(headers).prop_shuffle())
            }),
        ) {
            let with_date = |headers: &[(String, String)]| {
                let mut all = headers.to_vec();
                all.push((DATE.into(), "20261122T045211Z".into()));
                all
            };
            let (headers, mut shuffled) = (with_date(&headers), with_date(&shuffled));
            fn view(headers: &[(String, String)]) -> Vec<(&str, &str)> {
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
            }
            let sent = Signed { method: "PUT", path: "/a", query: &query, headers: &view(&headers), region: &region };
            let header = sent.authorization("id", &secret);
            let authorization = Authorization::parse(&header).unwrap();
            let reversed: Vec<Parameter> = query.iter().rev().cloned().collect();
            {
                let shuffled = view(&shuffled);
                let received = Signed { query: &reversed, headers: &shuffled, ..sent };
                prop_assert_eq!(received.canonical(), sent.canonical());
                prop_assert!(received.is_signed(&secret, &authorization));
                let other_day = Authorization { day: "20261123", ..authorization };
                prop_assert!(!received.is_signed(&secret, &other_day));
                let longer = format!("{secret}x");
                prop_assert!(!received.is_signed(&longer, &authorization));
                let elsewhere = Signed { region: "elsewhere-1", ..received };
                prop_assert!(!elsewhere.is_signed(&secret, &authorization));
            }
            shuffled.push(("x-log-added".into(), "1".into()));
            let shuffled = view(&shuffled);
            let added = Signed { headers: &shuffled, ..sent };
            prop_assert!(!added.is_signed(&secret, &authorization));
        }
    }
}
