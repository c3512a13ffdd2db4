//! Random ids, and the secrets of access keys at rest.
//!
//! A signature is made with the secret itself, so that a hash of it would not do: secrets are sealed (ChaCha20-Poly1305) with a key that
//! stands in a file of its own, owner-only, beside the state. A copy of the state without that file tells no secret.
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};

use super::error::ApiError;

/// The file with the key, in the data folder.
pub const KEY_FILE: &str = "secret.key";

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// What seals secrets.
pub struct Seal(ChaCha20Poly1305);

impl Seal {
    /// Reads the key from the data folder. Makes one where there is none, but not where `is_needed`: where secrets are sealed already, which
    /// another key does not open.
    ///
    /// # Errors
    /// Where the file cannot be read or written, is not of 32 bytes, or is missing though it is needed. They do not name it.
    pub fn open(folder: &Path, is_needed: bool) -> io::Result<Self> {
        let path = folder.join(KEY_FILE);
        let key = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_needed => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "it is missing, and the secrets of the access keys in the state cannot be opened without it: \
                     put it back, from where the state comes from",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = random::<KEY_BYTES>()?;
                write_owner_only(&path, &key)?;
                key.to_vec()
            }
            read => read?,
        };
        let key: [u8; KEY_BYTES] = key.try_into().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is not a key of {KEY_BYTES} bytes"),
            )
        })?;
        Ok(Self(ChaCha20Poly1305::new(&Key::from(key))))
    }

    /// Seals the secret of an access key, which can be opened for that key alone.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn seal(&self, key_id: &str, secret: &str) -> Result<Vec<u8>, ApiError> {
        let nonce = random::<NONCE_BYTES>().map_err(ApiError::internal)?;
        let payload = Payload {
            msg: secret.as_bytes(),
            aad: key_id.as_bytes(),
        };
        let sealed = self
            .0
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(ApiError::internal)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Self::seal`] has sealed for the same access key.
    ///
    /// # Errors
    /// Where it was sealed with another key, or for another access key.
    pub fn open_secret(&self, key_id: &str, sealed: &[u8]) -> Result<String, ApiError> {
        let broken = || ApiError::internal(format!("the secret of {key_id} cannot be opened"));
        let (nonce, msg) = sealed
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(broken)?;
        let payload = Payload {
            msg,
            aad: key_id.as_bytes(),
        };
        let secret = self
            .0
            .decrypt(&Nonce::from(*nonce), payload)
            .map_err(|_| broken())?;
        String::from_utf8(secret).map_err(|_| broken())
    }
}

/// Writes a new file that only its owner can read, and makes sure that it is on the disk.
///
/// # Errors
/// Where it exists or cannot be written.
pub fn write_owner_only(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn random<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Lower-case letters and digits: the alphabet of ids.
pub const LOWER: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Letters and digits: the alphabet of access keys.
pub const MIXED: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A text of `length` characters, each any of the alphabet with the same chance.
///
/// # Errors
/// Where the system has no random numbers.
pub fn random_text(alphabet: &[u8], length: usize) -> Result<String, ApiError> {
    let count = alphabet.len().clamp(1, 256);
    // Bytes from here on would favour the first characters.
    let fair = 256 - 256 % count;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let bytes = random::<64>().map_err(ApiError::internal)?;
        let characters = bytes
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < fair)
            .filter_map(|byte| alphabet.get(byte % count));
        text.extend(characters.take(length - text.len()).map(|c| char::from(*c)));
    }
    Ok(text)
}

/// An id for a request: a random UUID (RFC 9562, version 4) in capitals, as the product's are.
///
/// # Errors
/// Where the system has no random numbers.
pub fn request_id() -> Result<String, ApiError> {
    let number = u128::from_be_bytes(random::<16>().map_err(ApiError::internal)?);
    let versioned = number & !(0xf << 76) & !(0x3 << 62) | (4 << 76) | (2 << 62);
    let hex = format!("{versioned:032X}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    Ok([
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_open_with_the_same_key_for_the_same_access_key_alone() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealed = Seal::open(folder.path(), false)
            .unwrap()
            .seal("id", "secret")
            .unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        // The key is kept.
        let again = Seal::open(folder.path(), true).unwrap();
        assert_eq!(again.open_secret("id", &sealed).unwrap(), "secret");
        assert!(again.open_secret("other", &sealed).is_err());
        assert!(
            Seal::open(other.path(), false)
                .unwrap()
                .open_secret("id", &sealed)
                .is_err()
        );
        assert!(again.open_secret("id", b"short").is_err());
        let mode = fs::metadata(folder.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEY_FILE), "short").unwrap();
        let error = Seal::open(folder.path(), false).err().unwrap().to_string();
        assert!(error.contains("not a key of 32 bytes"), "{error}");
    }

    #[test]
    fn no_key_is_made_where_another_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let error = Seal::open(folder.path(), true).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!folder.path().join(KEY_FILE).exists());
    }

    #[test]
    fn ids() {
        let id = random_text(LOWER, 200).unwrap();
        assert!(id.len() == 200 && id.bytes().all(|byte| LOWER.contains(&byte)));
        assert_ne!(id, random_text(LOWER, 200).unwrap());
        let request = request_id().unwrap();
        let bytes = request.as_bytes();
        assert_eq!(request.len(), 36, "{request}");
        assert_eq!((bytes[14], bytes[23]), (b'4', b'-'), "{request}");
        assert!(b"89AB".contains(&bytes[19]), "{request}");
    }
}
