//! Access keys, in files that their owner alone may read.
use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use flowlog_model::text::Text;
use serde::Deserialize;
use thiserror::Error;

/// Largest file with an access key, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Rights that others than the owner must not have.
const OTHERS: u32 = 0o077;

/// An access key: who signs a request, and with what.
///
/// Its file is a JSON object with the two keys `id` and `secret`, and perhaps others: what the service gives when it makes a key. Its
/// `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    id: String,
    secret: String,
}

/// Why there is no access key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the access key file {} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner have rights.
    #[error("the access key file {} is open to others than its owner (mode {mode:04o}): allowed is mode 0600, as by `chmod 600`", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not say what it should.
    #[error("the access key file {} has no access key ({reason}): allowed is a JSON object with `id` and `secret`", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct RawKey {
    id: KeyText,
    secret: KeyText,
}

/// An id or a secret: what can stand in a header without quotes.
struct KeyText(String);

impl Text for KeyText {
    fn allowed() -> String {
        "allowed are 1 to 128 letters, digits and `-._~+/=`".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        ((1..=128).contains(&text.len()) && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        flowlog_model::text::deserialize_text(deserializer)
    }
}

impl AccessKey {
    /// A key that is in no file.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        }
    }

    /// Reads the key in the file `path`, which is to have [`MAX_FILE_BYTES`] at most and no rights for others than its owner.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        let raw: RawKey = serde_json::from_str(&text).map_err(|error| KeyFileError::NoKey {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            id: raw.id.0,
            secret: raw.secret.0,
        })
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The half that signs, and that nobody else is to see.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn read_private(path: &Path) -> Result<String, KeyFileError> {
    let failed = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // Of the file that is open, so that nobody can put another in its place between the look and the reading.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(KeyFileError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    let length = file
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if length as u64 > MAX_FILE_BYTES {
        let error = format!("it is larger than {MAX_FILE_BYTES} bytes");
        return Err(failed(io::Error::other(error)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const KEY: &str = "{\"id\": \"id-1\", \"secret\": \"s/+=\", \"role\": \"agent\"}";

    fn load(text: &str, mode: u32) -> Result<AccessKey, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let shown = folder.path().display().to_string();
        AccessKey::load(&path).map_err(|error| error.to_string().replace(&shown, ""))
    }

    #[test]
    fn a_key_that_is_its_owners_alone_is_read_and_never_shown() {
        for mode in [0o600, 0o400] {
            let key = load(KEY, mode).unwrap();
            assert_eq!((key.id(), key.secret()), ("id-1", "s/+="));
            assert_eq!(format!("{key:?}"), "AccessKey { id: \"id-1\", .. }");
        }
    }

    #[test]
    fn a_key_that_others_could_read_or_change_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o610, 0o602] {
            assert_eq!(
                load(KEY, mode).unwrap_err(),
                format!(
                    "the access key file /key.json is open to others than its owner (mode {mode:04o}): allowed is mode 0600, as by \
                     `chmod 600`"
                )
            );
        }
    }

    #[test]
    fn what_is_no_key_is_told_in_a_sentence() {
        for (text, expected) in [
            ("{\"id\": \"a\"}", "(missing field `secret` at line 1"),
            (
                "{\"id\": \"a b\", \"secret\": \"c\"}",
                "allowed are 1 to 128 letters, digits and `-._~+/=`",
            ),
            (
                "id = 'a'",
                "): allowed is a JSON object with `id` and `secret`",
            ),
            (&"#".repeat(5000), "it is larger than 4096 bytes"),
        ] {
            let error = load(text, 0o600).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let missing = AccessKey::load(Path::new("/nowhere/key")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/key cannot be read"));
    }
}
