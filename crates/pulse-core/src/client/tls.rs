//! How TLS connections are made: which certificates a client trusts, and which one it presents.
//!
//! [`Tls`] reads and checks everything at the call that gives it, so a mistake shows where it was made and not as a
//! failed handshake. What it holds of a private key can sign and can neither be read back nor be shown. The connections
//! take what they need from `Tls::config` and `Tls::name`; nothing of the TLS library stands in the public interface.

use std::{fmt, sync::Arc};

use fred::rustls::{
    ClientConfig, Error as RustlsError, RootCertStore,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{Error as PemError, PemObject},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::Error;

/// Which certificates to trust and which to present, for URLs that ask for TLS (`rediss://` and the like).
///
/// Given to [`ClientBuilder::tls`](crate::ClientBuilder::tls). Without it a client trusts what the system trusts and
/// presents no certificate, as [`Tls::new`] does. Every connection checks that the server's certificate is valid, leads
/// to a trusted authority, and is made out to the host of the URL; that cannot be turned off.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_core::{ClientBuilder, Tls};
///
/// let tls = Tls::new()
///     .root_certificates_pem(std::fs::read("authority.pem")?)?
///     .client_certificate_pem(std::fs::read("client.pem")?, std::fs::read("client-key.pem")?)?;
/// let client = ClientBuilder::new("rediss://redis.internal:6380").tls(tls).connect().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "it has an effect once it is given to a client builder"]
pub struct Tls {
    trust: Trust,
    /// What is presented to a server that asks.
    identity: Option<Arc<dyn ResolvesClientCert>>,
    /// The name that the server's certificate must hold, in place of the URL's host.
    server_name: Option<Arc<str>>,
}

/// Whom a client trusts.
#[derive(Clone)]
enum Trust {
    System,
    Only(RootCertStore),
    /// All of it was configured with the TLS library.
    #[cfg(feature = "fred")]
    Configured(Arc<ClientConfig>),
}

/// What an error is about.
const ROOTS: &str = "root certificates";
const CERTIFICATE: &str = "client certificate";
const KEY: &str = "private key of the client certificate";

impl Tls {
    /// Trusts the certificates that the operating system trusts, and presents none. Where the environment variable
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, the certificates there take their place.
    pub fn new() -> Self {
        Self { trust: Trust::System, identity: None, server_name: None }
    }

    /// Trusts these certificates, and no longer those of the system. Called again, it adds to them.
    ///
    /// The text may hold several certificates in PEM form; everything else in it is skipped.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTls`] if the text holds no certificate, or one that cannot be read.
    pub fn root_certificates_pem(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let mut roots = match self.trust {
            Trust::Only(roots) => roots,
            Trust::System => RootCertStore::empty(),
            #[cfg(feature = "fred")]
            Trust::Configured(_) => return Err(invalid(ROOTS, CONFIGURED)),
        };
        for certificate in certificates(ROOTS, pem.as_ref())? {
            roots.add(certificate).map_err(|_| invalid(ROOTS, "one of them is no certificate that can be trusted"))?;
        }
        self.trust = Trust::Only(roots);
        Ok(self)
    }

    /// Presents this certificate to servers that ask for one (mutual TLS).
    ///
    /// `chain` is the certificate in PEM form, with those between it and the authority after it; `key` is its private
    /// key in PEM form (PKCS#8, PKCS#1 or SEC1), not encrypted. Both may be the same text. Called again, it replaces
    /// the certificate before.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTls`] if one of the two cannot be read, or if the key does not belong to the certificate. No
    /// error holds anything of the texts.
    pub fn client_certificate_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        #[cfg(feature = "fred")]
        if matches!(self.trust, Trust::Configured(_)) {
            return Err(invalid(CERTIFICATE, CONFIGURED));
        }
        let chain = certificates(CERTIFICATE, chain.as_ref())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_ref()).map_err(|error| match error {
            PemError::NoItemsFound => {
                invalid(KEY, "there is no private key in it: give one that is not encrypted, in PEM form")
            }
            error => unreadable(KEY, &error),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            RustlsError::InconsistentKeys(_) => invalid(KEY, "it is not the key of the certificate"),
            RustlsError::InvalidCertificate(_) => invalid(CERTIFICATE, "it is no certificate that can be read"),
            _ => invalid(KEY, "it is not a key that can be used: RSA, ECDSA and Ed25519 can"),
        })?;
        self.identity = Some(Arc::new(SingleCertAndKey::from(certified)));
        Ok(self)
    }

    /// Expects the certificates of all servers to be made out to this name, in place of the host that the URL or the
    /// cluster names. For connections through a tunnel or a port that is forwarded.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTls`] if it is neither a host name nor an IP address.
    pub fn server_name(mut self, name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        ServerName::try_from(name.as_str())
            .map_err(|_| invalid("server name", "it is neither a host name nor an IP address"))?;
        self.server_name = Some(name.into());
        Ok(self)
    }

    /// The configuration of a connection. Reads the certificates of the system, if those are trusted.
    pub(crate) fn config(&self) -> Result<ClientConfig, Error> {
        let roots = match &self.trust {
            Trust::System => system_roots()?,
            Trust::Only(roots) => roots.clone(),
            #[cfg(feature = "fred")]
            Trust::Configured(config) => return Ok(config.as_ref().clone()),
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("cryptography of the process", error.to_string()))?
            .with_root_certificates(roots);
        Ok(match &self.identity {
            Some(identity) => config.with_client_cert_resolver(identity.clone()),
            None => config.with_no_client_auth(),
        })
    }

    /// The name that the certificates of servers must hold, if it is not that of the host.
    pub(crate) fn name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a configuration of the TLS library as it is; nothing but [`Tls::server_name`] can be set beside it.
#[cfg(feature = "fred")]
#[cfg_attr(docsrs, doc(cfg(feature = "fred")))]
impl From<ClientConfig> for Tls {
    fn from(config: ClientConfig) -> Self {
        Self { trust: Trust::Configured(Arc::new(config)), ..Self::new() }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = match &self.trust {
            Trust::System => "the system's certificates".to_owned(),
            Trust::Only(roots) => format!("{} certificates", roots.len()),
            #[cfg(feature = "fred")]
            Trust::Configured(_) => "as configured".to_owned(),
        };
        f.debug_struct("Tls")
            .field("trust", &trust)
            .field("client_certificate", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

#[cfg(feature = "fred")]
const CONFIGURED: &str = "this was made from a configuration of the TLS library: set it there";

fn invalid(what: &'static str, reason: impl Into<String>) -> Error {
    Error::InvalidTls { what, reason: reason.into() }
}

/// The cryptography that the process has chosen, or else the one that is built in. (The TLS library would panic where
/// another crate builds in a second one.)
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = fred::rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        if let Some(error) = found.errors.first() {
            tracing::debug!(%error, usable, "some of the system's certificates cannot be read");
        }
        return Ok(roots);
    }
    let reason = match found.errors.first() {
        Some(error) => format!("none can be read: {error}"),
        None => "there are none: install them, or name those to trust by Tls::root_certificates_pem".to_owned(),
    };
    Err(invalid("system's certificates", reason))
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| unreadable(what, &error))?;
    if found.is_empty() {
        return Err(invalid(what, "there is no certificate in it: give it in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

/// The library's own words may hold lines of the text, and so of a key.
fn unreadable(what: &'static str, error: &PemError) -> Error {
    let reason = match error {
        PemError::MissingSectionEnd { .. } => "the text ends within a section: the END line is missing",
        PemError::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        PemError::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        _ => "the text is not in PEM form",
    };
    invalid(what, reason)
}
