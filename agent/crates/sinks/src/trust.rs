//! TLS to servers that are queried by HTTP: a schema registry, an authorization server.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use hyper_rustls::ConfigBuilderExt;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tap53_base::files::read_secret;

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file with certificates.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What the system brings.
    #[error("the system's authorities: {0}")]
    System(String),
}

/// A client that trusts the authorities in a file, or those of the system. The file is read now.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder();
    let builder = match ca_file {
        None => builder.with_native_roots().map_err(|error| Error::System(error.to_string()))?,
        Some(path) => {
            let wrong = |why: &dyn fmt::Display| Error::File {
                path: path.to_owned(),
                why: why.to_string(),
            };
            let mut roots = RootCertStore::empty();
            let pem = read_secret(path).map_err(|error| wrong(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"there is no certificate in it"));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

/// The secret in a file, without the line feed that editors put behind it.
pub(crate) fn secret(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read_secret(path)?).map_err(io::Error::other)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
