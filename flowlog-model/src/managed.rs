//! The flow log as the service manages it: the names, limits and states of the API.
//!
//! The API is a little wider than the console and the agent's configuration ([`crate::flow_log`]):
//!
//! | attribute | rule |
//! |---|---|
//! | name | 1 to 128 characters, not starting with `http://` or `https://` |
//! | description | 1 to 256 characters, likewise |
//! | project | 3 to 63 of `a-z`, `0-9` and `-`, a letter or digit at both ends |
//! | logstore | the same, and `_` |
//! | tag key | 1 to 128 characters, not starting with `aliyun`, `acs:`, `http://` or `https://` |
//! | tag value | at most 128 characters, not starting with `acs:`, `http://` or `https://` |
//! | log format | a template of text records ([`crate::template`]) |
//!
//! Characters are Unicode's: a Chinese one counts as one. Control characters are in none of them.
use std::fmt;

use crate::text::Text;
use crate::{spelled_enum, template, text_type};

/// The most tags that a flow log has.
pub const MAX_TAGS: usize = 20;

/// Length of a flow log's id without its prefix, in characters of `[a-z0-9]`.
pub const ID_CHARS: usize = 21;
/// What every flow log's id begins with.
pub const ID_PREFIX: &str = "fl-";

spelled_enum! {
    /// Where a flow log is in its life. The states in `-ing` last until the agents concerned have applied the change.
    pub enum State {
        /// On its way to [`Self::Active`].
        Activating = "Activating",
        /// It captures.
        Active = "Active",
        /// On its way to [`Self::Inactive`].
        Deactivating = "Deactivating",
        /// It is kept, and can be activated again.
        Inactive = "Inactive",
        /// Its attributes are on their way to the agents.
        Modifying = "Modifying",
        /// On its way out: then it is gone.
        Deleting = "Deleting",
    }
}

spelled_enum! {
    /// Which IP versions a flow log records.
    pub enum IpVersion {
        /// IPv4 alone.
        V4 = "IPv4",
        /// IPv6 alone.
        V6 = "IPv6",
        /// Both.
        DualStack = "DualStack",
    }
}

spelled_enum! {
    /// Which traffic's path a flow log records.
    pub enum TrafficPath {
        /// Any.
        All = "all",
        /// By the gateway to the internet.
        InternetGateway = "internetGateway",
    }
}

spelled_enum! {
    /// How the delivery of a flow log's records stands.
    pub enum DeliverStatus {
        /// Records reach the logstore, or there were none to deliver yet.
        Success = "SUCCESS",
        /// They do not, at one agent or several.
        Failed = "FAILED",
    }
}

/// A text of the API that people choose, with its rule.
macro_rules! named_text {
    ($(#[$meta:meta])* $name:ident, $allowed:literal, $valid:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// It as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Text for $name {
            fn allowed() -> String {
                $allowed.into()
            }

            fn from_text(text: &str) -> Option<Self> {
                let valid: fn(&str) -> bool = $valid;
                (valid(text) && !text.contains(char::is_control)).then(|| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_type!($name);
    };
}

named_text!(
    /// The name of a flow log in the API.
    Name,
    "allowed are 1 to 128 characters, not starting with `http://` or `https://`",
    |text| has_chars(text, 1, 128) && !is_link(text)
);
named_text!(
    /// The description of a flow log in the API.
    Description,
    "allowed are 1 to 256 characters, not starting with `http://` or `https://`",
    |text| has_chars(text, 1, 256) && !is_link(text)
);
named_text!(
    /// The name of a project.
    Project,
    "allowed are 3 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends",
    |text| is_store_name(text, "-")
);
named_text!(
    /// The name of a logstore.
    Logstore,
    "allowed are 3 to 63 of a-z, 0-9, `-` and `_`, with a letter or digit at both ends",
    |text| is_store_name(text, "-_")
);
named_text!(
    /// The key of a tag.
    TagKey,
    "allowed are 1 to 128 characters, not starting with `aliyun`, `acs:`, `http://` or `https://`",
    |text| {
        has_chars(text, 1, 128)
            && !is_link(text)
            && !text.starts_with("aliyun")
            && !text.starts_with("acs:")
    }
);
named_text!(
    /// The value of a tag.
    TagValue,
    "allowed are at most 128 characters, not starting with `acs:`, `http://` or `https://`",
    |text| has_chars(text, 0, 128) && !is_link(text) && !text.starts_with("acs:")
);
named_text!(
    /// The format of a flow log's records.
    LogFormat,
    "allowed are at most 4096 bytes with fields in `${…}`, such as `${srcaddr} ${dstaddr}`",
    |text| template::parse(text).is_ok()
);

fn has_chars(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.chars().count())
}

fn is_link(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn is_store_name(text: &str, also: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    has_chars(text, 3, 63)
        && text.chars().all(|c| plain(c) || also.contains(c))
        && text.starts_with(plain)
        && text.ends_with(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Text>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(T::from_text(text).is_some(), "{text:?} must be allowed");
        }
        for text in bad {
            assert!(T::from_text(text).is_none(), "{text:?} must be refused");
        }
    }

    #[test]
    fn names_and_descriptions_at_their_edges() {
        let (most, over) = ("流".repeat(128), "流".repeat(129));
        check::<Name>(
            &["a", "1", "流", "a b/é", "see http://x", "HTTP://x", &most],
            &["", "http://", "https://x", "a\nb", "a\u{7f}", &over],
        );
        let (most, over) = ("流".repeat(256), "流".repeat(257));
        check::<Description>(
            &["a", "流", &most],
            &["", "http://x", "https://x", "\t", &over],
        );
    }

    #[test]
    fn projects_and_logstores_at_their_edges() {
        let (most, over) = ("a".repeat(63), "a".repeat(64));
        let bad = [
            "",
            "ab",
            "-ab",
            "ab-",
            "Abc",
            "a.b",
            "a b",
            "流量日",
            "abc\n",
            &over,
        ];
        check::<Project>(&["abc", "1-2", "a--b", &most], &bad);
        check::<Project>(&[], &["a_b"]);
        check::<Logstore>(&["abc", "a_b", "1-2", &most], &bad);
        check::<Logstore>(&[], &["_ab", "ab_"]);
    }

    #[test]
    fn tags_at_their_edges() {
        let (most, over) = ("键".repeat(128), "键".repeat(129));
        check::<TagKey>(
            &["a", "k acs:", "Aliyun", &most],
            &[
                "",
                "aliyun",
                "aliyunx",
                "acs:x",
                "http://x",
                "https://x",
                &over,
            ],
        );
        check::<TagValue>(
            &["", "a", "aliyun", &most],
            &["acs:x", "http://x", "https://x", "a\n", &over],
        );
    }

    #[test]
    fn log_formats_are_templates() {
        check::<LogFormat>(
            &["${srcaddr}", "${srcaddr} ${dstaddr}"],
            &["", "srcaddr", "${nothing}", "${srcaddr}\n"],
        );
    }
}
