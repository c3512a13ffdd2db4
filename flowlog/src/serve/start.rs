//! What has to be there before the service listens: configuration, data folder, lock, state, administrator's access key, TLS.
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowlog_model::input::InputError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rusqlite::{OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use super::config::Config;
use super::error::ApiError;
use super::moment::Moment;
use super::options::ServeOptions;
use super::secrets::{KEY_FILE, Seal, write_owner_only};
use super::service::{Caller, Context, Role, access_keys};
use super::store::{Store, StoreError};
use crate::api;
use crate::log_service::api::OpenError;

/// File in the data folder with the administrator's access key of the first start: an [`AdministratorFile`], owner-only.
pub const ADMINISTRATOR_FILE: &str = "administrator.json";
/// File in the data folder that the running service holds locked.
const LOCK_FILE: &str = "service.lock";
/// Longest configuration, in bytes.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// What [`ADMINISTRATOR_FILE`] holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdministratorFile {
    /// The access key's id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

/// Why the service does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] InputError),
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// A file.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another service.
    #[error("another service is running on the data folder {}", .0.display())]
    Locked(PathBuf),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of nonces.
    #[error("the nonces: {0}")]
    Nonces(rusqlite::Error),
    /// The administrator's access key.
    #[error("the administrator's access key cannot be looked for or made: {0}")]
    Administrator(ApiError),
    /// The certificate or its key.
    #[error("TLS: {}: {problem}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The listener.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The store of logs.
    #[error("the logs: {0}")]
    Logs(#[from] OpenError),
    /// Something else of the system.
    #[error("cannot {what}: {source}")]
    System {
        /// What cannot be done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl StartError {
    /// Whether options or configuration are to be mended.
    #[must_use]
    pub(super) const fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Options(_) | Self::Tls { .. })
    }
}

/// Names the file of an error.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> StartError + '_ {
    move |source| StartError::File {
        path: path.to_owned(),
        source,
    }
}

/// Reads the configuration; the default without a file.
pub(super) fn config(options: &ServeOptions) -> Result<Config, StartError> {
    let Some(path) = &options.config else {
        return Ok(Config::default());
    };
    let size = fs::metadata(path).map_err(at(path))?.len();
    if size > MAX_CONFIG_BYTES {
        let message = format!(
            "{}: it has {size} bytes, and {MAX_CONFIG_BYTES} are allowed",
            path.display()
        );
        return Err(StartError::Options(message));
    }
    let text = fs::read_to_string(path).map_err(at(path))?;
    Ok(Config::parse(&text, &path.display().to_string())?)
}

/// Refuses to send what is signed, but not secret, over a network in plain text, unless told.
pub(super) fn check_plain_http(options: &ServeOptions) -> Result<(), StartError> {
    if options.tls_cert.is_some() || options.allow_plain_http || options.listen.ip().is_loopback() {
        return Ok(());
    }
    Err(StartError::Options(format!(
        "{} is not loopback: give --tls-cert and --tls-key, or --allow-plain-http",
        options.listen
    )))
}

/// Makes the data folder where there is none, and takes its lock. Nobody but its owner may look into it.
pub(super) fn data_folder(folder: &Path) -> Result<Flock<File>, StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(at(folder))?;
    let mode = fs::metadata(folder)
        .map_err(at(folder))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(StartError::Options(format!(
            "the data folder {} can be read by others than its owner: allowed is mode 0700",
            folder.display()
        )));
    }
    let path = folder.join(LOCK_FILE);
    let file = File::create(&path).map_err(at(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => StartError::Locked(folder.to_owned()),
        errno => at(&path)(errno.into()),
    })
}

/// File descriptors besides those of connections: state, listener, runtime.
const OTHER_FILES: u64 = 64;

/// Makes sure that as many connections as are configured can be open, as far as the system lets.
pub(super) fn allow_connections(config: &Config) -> Result<(), StartError> {
    let failed = |errno: Errno| StartError::System {
        what: "set the limit of open files",
        source: errno.into(),
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let wanted = (config.connections as u64).saturating_add(OTHER_FILES);
    if wanted > hard {
        tracing::warn!(
            "the system allows {hard} open files, which is too few for {} connections",
            config.connections
        );
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted.min(hard)), hard).map_err(failed)
}

fn has_access_key(state: &Transaction<'_>) -> Result<bool, ApiError> {
    let any = state
        .query_row("SELECT 1 FROM access_key LIMIT 1", [], |_| Ok(()))
        .optional()?;
    Ok(any.is_some())
}

/// What seals secrets; made at the first start alone.
pub(super) fn seal(folder: &Path, store: &Store) -> Result<Seal, StartError> {
    let is_needed = store
        .write_here(has_access_key)
        .map_err(StartError::Administrator)?;
    Seal::open(folder, is_needed).map_err(at(&folder.join(KEY_FILE)))
}

/// Makes an administrator's access key where there is no access key at all. Its file is written first: a start that is killed in
/// between leaves a file that the next one replaces.
pub(super) fn administrator(
    folder: &Path,
    store: &Store,
    seal: &Seal,
    config: &Arc<Config>,
    now: Moment,
) -> Result<Option<AdministratorFile>, StartError> {
    let path = folder.join(ADMINISTRATOR_FILE);
    let made = store.write_here(|state| {
        if has_access_key(state)? {
            return Ok(None);
        }
        let cx = Context {
            caller: Caller {
                key_id: "service".into(),
                account_id: config.account_id.clone(),
                role: Role::Administrator,
            },
            now,
            request_id: String::new(),
            config: Arc::clone(config),
            uptime_ms: 0,
        };
        let asked = api::CreateAccessKey {
            role: Role::Administrator.to_string(),
            description: "made at the first start".into(),
            account_id: None,
        };
        let created = access_keys::create(state, &cx, seal, &asked)?;
        let file = AdministratorFile {
            id: created.id,
            secret: created.secret,
        };
        let json = serde_json::to_vec_pretty(&file).map_err(ApiError::internal)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ApiError::internal(error));
            }
            _ => {}
        }
        write_owner_only(&path, &json).map_err(ApiError::internal)?;
        Ok(Some(file))
    });
    made.map_err(StartError::Administrator)
}

/// Reads certificate and key.
pub(super) fn tls(options: &ServeOptions) -> Result<Option<TlsAcceptor>, StartError> {
    let (Some(cert), Some(key)) = (&options.tls_cert, &options.tls_key) else {
        return Ok(None);
    };
    let wrong = |path: &Path, problem: &dyn std::fmt::Display| StartError::Tls {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, pem::Error>>)
        .map_err(|error| wrong(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(cert, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong(cert, &error))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
