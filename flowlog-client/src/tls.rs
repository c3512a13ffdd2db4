//! Whom an HTTPS connection trusts.
use std::{io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

/// A connector that trusts the authorities in `ca_file` alone, in PEM; without one, those that this system trusts.
///
/// # Errors
///
/// If there is no authority to trust.
pub(crate) fn connector(ca_file: Option<&Path>) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let unreadable = |error| {
                let path = path.display();
                io::Error::other(format!("{path} cannot be read as certificates: {error}"))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots
                    .add(certificate.map_err(unreadable)?)
                    .map_err(io::Error::other)?;
            }
        }
        None => {
            // One that cannot be read is not trusted, and that is all.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let place = ca_file.map_or("this system".to_owned(), |path| path.display().to_string());
        return Err(io::Error::other(format!(
            "{place} has no certificate of an authority to trust"
        )));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
