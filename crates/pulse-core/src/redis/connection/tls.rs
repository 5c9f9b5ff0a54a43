//! TLS in the client library's terms: the configuration of a connection, and what a failed handshake means.

use fred::types::config::{TlsConfig, TlsConnector};

use crate::{ClientBuilder, Error, Tls};

/// How connections are made to servers whose URL asks for TLS or not; `None` if without.
pub(super) fn configure(builder: &ClientBuilder, wanted: bool, shown: &str) -> Result<Option<TlsConfig>, Error> {
    let default = Tls::new();
    let tls = match (&builder.tls, wanted) {
        (None, false) => return Ok(None),
        (Some(_), false) => {
            let reason = "TLS was configured, but the URL asks for none: begin it with rediss".to_owned();
            return Err(Error::InvalidUrl { url: shown.to_owned(), reason });
        }
        (tls, true) => tls.as_ref().unwrap_or(&default),
    };
    Ok(Some(TlsConnector::from(tls.config()?).into()))
}

/// The name that the certificates of servers must hold, if it is not that of the host.
pub(super) fn server_name(builder: &ClientBuilder) -> Option<String> {
    builder.tls.as_ref().and_then(Tls::name).map(str::to_owned)
}

/// What to do about a failed handshake, from the words of the TLS library. `None` if it was no matter of TLS.
pub(crate) fn advice(details: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(words, _)| words.iter().any(|word| details.contains(word))).map(|(_, advice)| *advice)
}

/// What the TLS library calls the cause, and what to do. `BadSignature` and `DecryptError` come where another authority
/// of the same name is trusted.
const ADVICE: [(&[&str], &str); 7] = [
    (
        &["UnknownIssuer", "BadSignature"],
        "the server's certificate comes from an authority that is not trusted here: give the authority's certificate \
         to Tls::root_certificates_pem",
    ),
    (
        &["NotValidForName"],
        "the server's certificate is made out to another name: connect by that name, or set Tls::server_name",
    ),
    (
        &["CaUsedAsEndEntity"],
        "the server presents a certificate that is made for an authority: have it present one made for servers",
    ),
    (&["Expired", "NotValidYet"], "the server's certificate is not valid at this time, or the clock here is wrong"),
    (&["CertificateRequired"], "the server asks for a certificate: give one to Tls::client_certificate_pem"),
    (
        &["UnknownCA", "DecryptError"],
        "the server does not trust the authority of the certificate from Tls::client_certificate_pem",
    ),
    (&["InvalidContentType"], "the server does not speak TLS on this port: connect to its TLS port, or without TLS"),
];
