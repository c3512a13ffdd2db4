//! The options of `flowlog serve` and `flowlog backup`.
use std::net::SocketAddr;
use std::path::PathBuf;

/// The options of `flowlog serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeOptions {
    /// Folder of the state; made if there is none.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/flowlog")]
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 is any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8480")]
    pub listen: SocketAddr,
    /// Configuration: accounts, regions, quota, limits; flowlog.toml in the sources shows all of it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Certificate chain, PEM; with --tls-key the service speaks TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Speak plain HTTP on an address that is not loopback: whoever can listen in reads all but the secrets of access keys that exist.
    #[arg(long)]
    pub allow_plain_http: bool,
}

/// The options of `flowlog backup`.
#[derive(Clone, Debug, clap::Args)]
pub struct BackupOptions {
    /// Folder of the state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/flowlog")]
    pub data_dir: PathBuf,
    /// File to write, which must not exist.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
