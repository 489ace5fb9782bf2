//! TLS for hub and store: one client configuration from PEM texts, and what a refused certificate was refused for.
//!
//! Peers are verified by name, always: nothing here switches verification off.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// Certificates and key, each as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// Authorities that are trusted, in place of the system's.
    pub ca: Option<String>,
    /// The client's certificate chain.
    pub cert: Option<String>,
    /// The key of the client's certificate.
    pub key: Option<String>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("ca", &self.ca.is_some())
            .field("cert", &self.cert.is_some())
            .field("key", &self.key.is_some())
            .finish()
    }
}

/// What is wrong with certificates or key that were given.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authorities are not PEM.
    #[error("the CA is not a certificate in PEM form")]
    Ca(#[source] pem::Error),
    /// The authorities are PEM, but one is not a certificate that can be trusted.
    #[error("the CA is not a certificate that can be trusted")]
    Root(#[source] rustls::Error),
    /// There is no certificate in the text.
    #[error("there is no certificate in the CA")]
    NoCa,
    /// The client's certificate is not PEM.
    #[error("the client certificate is not in PEM form")]
    Certificate(#[source] pem::Error),
    /// The client's key is not PEM.
    #[error("the client key is not in PEM form")]
    Key(#[source] pem::Error),
    /// One of two is missing.
    #[error("a client certificate and its key must be given together")]
    Half,
    /// Certificate and key do not fit.
    #[error("the client certificate cannot be used with its key")]
    Client(#[source] rustls::Error),
}

/// Makes a client configuration: the given authorities, or the system's where there are none.
///
/// # Errors
/// If a text is not PEM, or certificate and key do not belong together.
pub fn client_config(material: &Material) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has the default protocol versions")
        .with_root_certificates(roots(material.ca.as_deref())?);
    let config = match (&material.cert, &material.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert).map_err(TlsError::Certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(TlsError::Key)?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Client)?
        }
        _ => return Err(TlsError::Half),
    };
    Ok(Arc::new(config))
}

/// Connects to servers over HTTP, with TLS where the address says `https`; each connection within this time.
#[must_use]
pub fn connector(config: Arc<ClientConfig>, timeout: Duration) -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_nodelay(true);
    HttpsConnectorBuilder::new()
        .with_tls_config(Arc::unwrap_or_clone(config))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

/// A configuration that trusts nobody, where no TLS is spoken.
pub(crate) fn nobody() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has the default protocol versions");
    Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(text) => {
            for certificate in certificates(text).map_err(TlsError::Ca)? {
                roots.add(certificate).map_err(TlsError::Root)?;
            }
            if roots.is_empty() {
                return Err(TlsError::NoCa);
            }
        }
        // Some of a system's certificates may be unreadable. Where none is left, each peer is refused for its authority.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

/// Why a peer's certificate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is signed by nobody who is trusted.
    UnknownAuthority,
    /// It is for another name.
    WrongName,
    /// Its time is over, or has not come.
    Expired,
    /// Anything else in the handshake.
    Other,
}

/// Finds in an error and its causes what a certificate was refused for; `None` where TLS is not the cause.
#[must_use]
pub fn refusal(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(classify(error));
        }
        // An io::Error names the cause of what it wraps, not the wrapped error itself.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn classify(error: &rustls::Error) -> Refusal {
    let rustls::Error::InvalidCertificate(why) = error else { return Refusal::Other };
    match why {
        // Another authority of the same name gives a signature that does not fit.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::UnknownAuthority,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Refusal::WrongName,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Refusal::Expired,
        _ => Refusal::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(why: CertificateError) -> Option<Refusal> {
        let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(why));
        let outer = io::Error::other(inner);
        refusal(&outer)
    }

    #[test]
    fn a_refusal_is_found_through_nested_io_errors() {
        assert_eq!(refused(CertificateError::UnknownIssuer), Some(Refusal::UnknownAuthority));
        assert_eq!(refused(CertificateError::NotValidForName), Some(Refusal::WrongName));
        assert_eq!(refused(CertificateError::Expired), Some(Refusal::Expired));
        assert_eq!(refused(CertificateError::BadEncoding), Some(Refusal::Other));
    }

    #[test]
    fn an_error_without_tls_is_no_refusal() {
        assert_eq!(refusal(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }

    #[test]
    fn the_systems_authorities_serve_where_none_are_given() {
        assert!(client_config(&Material::default()).is_ok());
    }

    #[test]
    fn texts_that_are_no_certificates_are_named() {
        let material = |ca: &str| Material { ca: Some(ca.to_owned()), ..Material::default() };
        assert!(matches!(client_config(&material("")), Err(TlsError::NoCa)));
        assert!(matches!(client_config(&material("-----BEGIN CERTIFICATE-----\n?")), Err(TlsError::Ca(_))));
        let half = Material { cert: Some(String::new()), ..Material::default() };
        assert!(matches!(client_config(&half), Err(TlsError::Half)));
    }

    #[test]
    fn debug_shows_no_key() {
        let material = Material { key: Some("secret".to_owned()), ..Material::default() };
        assert!(!format!("{material:?}").contains("secret"));
    }
}
