//! Values of the configuration that are written as text: paths, sizes and addresses.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use flowlog_model::text::{Text, deserialize_text};
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Longest path, in bytes: Linux's `PATH_MAX` without the ending zero (`include/uapi/linux/limits.h`).
const MAX_PATH_BYTES: usize = 4095;

/// Gives a type that implements [`Text`] the trait `Deserialize`.
macro_rules! deserialized_as_text {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_text(deserializer)
            }
        }
    )+};
}

deserialized_as_text!(AnyPath, AbsolutePath, ListenAddr);

/// A path of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnyPath(pub(super) PathBuf);

impl Text for AnyPath {
    fn allowed() -> String {
        format!("allowed is a path of 1 to {MAX_PATH_BYTES} bytes")
    }

    fn from_text(text: &str) -> Option<Self> {
        let legal =
            (1..=MAX_PATH_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        legal.then(|| Self(text.into()))
    }
}

/// An absolute path to something with a name, in its shortest form: without `//`, `/./` and an ending `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl Text for AbsolutePath {
    fn allowed() -> String {
        "allowed is an absolute path without `..`, and without `/` at its end".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let AnyPath(path) = AnyPath::from_text(text)?;
        let climbs = text.split('/').any(|part| part == "..");
        let names_something = !matches!(text.rsplit('/').next(), Some("" | "."));
        // Collecting the components drops what is superfluous between them.
        (path.is_absolute() && !climbs && names_something)
            .then(|| Self(path.components().collect()))
    }
}

/// Where to listen: an IP address and a port, in brackets if it is IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenAddr(pub(super) SocketAddr);

impl Text for ListenAddr {
    fn allowed() -> String {
        "allowed is an IP address and a port, as in 127.0.0.1:9464 or [::1]:9464".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// A size in bytes: a number, or a text of a number and `KiB`, `MiB`, `GiB` or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(u64);

impl Size {
    /// 1 KiB.
    const MIN: u64 = 1 << 10;
    /// 1 TiB.
    const MAX: u64 = 1 << 40;

    /// 100 MiB.
    pub(super) const DEFAULT: Self = Self(100 << 20);

    const ALLOWED: &str = "allowed are 1KiB to 1024GiB, as in 100MiB, 10KiB, 1GiB or plain bytes";

    pub(super) const fn bytes(self) -> u64 {
        self.0
    }

    fn from_bytes(bytes: u64) -> Option<Self> {
        (Self::MIN..=Self::MAX)
            .contains(&bytes)
            .then_some(Self(bytes))
    }

    fn from_text(text: &str) -> Option<Self> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let with_unit =
            |(unit, bytes): (&str, u64)| text.strip_suffix(unit).map(|number| (number, bytes));
        let (number, unit_bytes) = units.into_iter().find_map(with_unit).unwrap_or((text, 1));
        // `parse` alone would take `+1` too.
        let number: u64 = number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| number.parse().ok())??;
        Self::from_bytes(number.checked_mul(unit_bytes)?)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Size::ALLOWED)
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
        let size = u64::try_from(bytes).ok().and_then(Size::from_bytes);
        size.ok_or_else(|| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
        Size::from_bytes(bytes).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(bytes), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
        Size::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text| Size::from_text(text).map(Size::bytes);
        let good = [
            ("1024", 1024),
            ("10KiB", 10_240),
            ("100MiB", 104_857_600),
            ("1GiB", 1 << 30),
            ("1024GiB", 1 << 40),
        ];
        for (text, expected) in good {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        let bad = [
            "",
            "KiB",
            "1023",
            "0KiB",
            "1025GiB",
            "1TiB",
            "10 KiB",
            "10kib",
            "10MB",
            "+1MiB",
            "-1MiB",
            "1.5GiB",
            "99999999999GiB",
        ];
        for text in bad {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn absolute_paths() {
        let path = |text| AbsolutePath::from_text(text).map(|path| path.0);
        for (text, expected) in [
            ("/a", "/a"),
            ("//a/./b", "/a/b"),
            ("/a/b.", "/a/b."),
            ("/a/...", "/a/..."),
            ("/ä b", "/ä b"),
        ] {
            assert_eq!(path(text).unwrap().as_os_str(), expected, "{text}");
        }
        for text in [
            "", "a", "./a", "/", "/.", "/a/", "/a/.", "/a/..", "/a/../b", "/a\n", "/a\0",
        ] {
            assert_eq!(path(text), None, "{text:?}");
        }
        assert_eq!(path(&format!("/{}", "a".repeat(4095))), None);
    }
}
