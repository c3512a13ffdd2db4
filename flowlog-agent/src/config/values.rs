//! Values of the configuration that are written as text: paths, sizes, ages and addresses.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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

deserialized_as_text!(AnyPath, AbsolutePath, SocketPath, ListenAddr, Age);

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

/// An absolute path to a Unix socket, or none for `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketPath(pub(super) Option<PathBuf>);

impl SocketPath {
    /// Longest path, in bytes: `sun_path` of `struct sockaddr_un` without the ending zero (`include/uapi/linux/un.h`).
    const MAX_BYTES: usize = 107;
}

impl Text for SocketPath {
    fn allowed() -> String {
        format!(
            "allowed is `off`, or an absolute path of at most {} bytes without `..`, and without `/` at its end",
            Self::MAX_BYTES
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self(None));
        }
        let AbsolutePath(path) = AbsolutePath::from_text(text)?;
        (path.as_os_str().len() <= Self::MAX_BYTES).then_some(Self(Some(path)))
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

/// The number that `text` is without its unit, and what the unit stands for.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    let with_unit =
        |(unit, value): &(&str, u64)| text.strip_suffix(unit).map(|number| (number, *value));
    let (number, unit) = units.iter().find_map(with_unit)?;
    // `parse` alone would take `+1` too.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Some((number.parse().ok()?, unit)))?
}

/// How long something is kept: minutes, hours or days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age(pub(super) Duration);

impl Age {
    const UNITS_SECONDS: [(&str, u64); 3] = [("m", 60), ("h", 3600), ("d", 86_400)];
    /// A minute.
    const MIN_SECONDS: u64 = 60;
    /// 365 days.
    const MAX_SECONDS: u64 = 365 * 86_400;
}

impl Text for Age {
    fn allowed() -> String {
        "allowed are 1m to 365d: whole minutes, hours or days, as in 90m, 36h or 7d".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = number_with_unit(text, &Self::UNITS_SECONDS)?;
        let seconds = number.checked_mul(unit)?;
        (Self::MIN_SECONDS..=Self::MAX_SECONDS)
            .contains(&seconds)
            .then(|| Self(Duration::from_secs(seconds)))
    }
}

/// A size of `MIN` to `MAX` bytes: a number, or a text of a number and `KiB`, `MiB`, `GiB` or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(u64);

/// The units of sizes, in bytes.
const UNITS_BYTES: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("", 1),
];

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    pub(super) const fn bytes(self) -> u64 {
        self.0
    }

    fn from_bytes(bytes: u64) -> Option<Self> {
        (MIN..=MAX).contains(&bytes).then_some(Self(bytes))
    }

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = number_with_unit(text, &UNITS_BYTES)?;
        Self::from_bytes(number.checked_mul(unit)?)
    }
}

/// Bytes in the largest unit in which they are a whole number.
fn size_text(bytes: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| bytes.is_multiple_of(*unit);
    let (unit, unit_bytes) = UNITS_BYTES[..3]
        .iter()
        .rev()
        .find(whole)
        .unwrap_or(&("", 1));
    format!("{}{unit}", bytes / unit_bytes)
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Size<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for SizeVisitor<MIN, MAX> {
    type Value = Size<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (size_text(MIN), size_text(MAX));
        write!(
            f,
            "allowed are {min} to {max}, as in 100MiB, 1GiB or plain bytes"
        )
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Self::Value, E> {
        let size = u64::try_from(bytes).ok().and_then(Size::from_bytes);
        size.ok_or_else(|| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Self::Value, E> {
        Size::from_bytes(bytes).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(bytes), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Size::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        type FileSize = Size<1024, 0x100_0000_0000>;
        let bytes = |text| FileSize::from_text(text).map(Size::bytes);
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
    fn sizes_in_words() {
        for (bytes, text) in [
            (1 << 10, "1KiB"),
            (1 << 20, "1MiB"),
            (1 << 40, "1024GiB"),
            (1000, "1000"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn ages() {
        let seconds = |text| Age::from_text(text).map(|age| age.0.as_secs());
        for (text, expected) in [
            ("1m", 60),
            ("90m", 5400),
            ("36h", 129_600),
            ("7d", 604_800),
            ("365d", 31_536_000),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "m",
            "0m",
            "7",
            "60s",
            "7 d",
            "7D",
            "+7d",
            "-7d",
            "1.5d",
            "366d",
            "8761h",
            "99999999999999999999d",
            "300000000000000000d",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn socket_paths() {
        let path = |text: &str| SocketPath::from_text(text).map(|socket| socket.0);
        assert_eq!(path("off"), Some(None));
        assert_eq!(path("/run//a.sock"), Some(Some("/run/a.sock".into())));
        let longest = format!("/{}", "a".repeat(106));
        assert_eq!(path(&longest), Some(Some(longest.clone().into())));
        for text in ["", "on", "a.sock", "/run/", &format!("{longest}a")] {
            assert_eq!(path(text), None, "{text}");
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
