//! What is given for TLS is checked where it is given, and what is secret of it is never shown.

use pulse_core::{Error, Tls};
use rcgen::{CertificateParams, KeyPair};

/// A certificate and its key, in PEM form.
fn identity() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a-client".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The error's text, which must name what cannot be used.
fn refusal(what: &str, result: Result<Tls, Error>) -> String {
    let error = result.expect_err("this should have been refused");
    assert!(matches!(error, Error::InvalidTls { .. }), "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains(what), "{shown}");
    shown
}

#[test]
fn root_certificates_that_cannot_be_read_are_refused_at_once() {
    let (certificate, key) = identity();
    let begun = "-----BEGIN CERTIFICATE-----\n";
    let cut = certificate[..certificate.len() / 2].to_owned();
    for (pem, hint) in [
        (String::new(), "there is no certificate in it"),
        ("garbage".to_owned(), "there is no certificate in it"),
        (key, "there is no certificate in it"),
        (cut, "the END line is missing"),
        (format!("{begun}!!!!\n-----END CERTIFICATE-----\n"), "not base64"),
        (format!("{begun}AAAA\n-----END CERTIFICATE-----\n"), "no certificate that can be trusted"),
        (format!("{certificate}{begun}AAAA\n-----END CERTIFICATE-----\n"), "no certificate that can be trusted"),
    ] {
        let shown = refusal("root certificates", Tls::new().root_certificates_pem(pem));
        assert!(shown.contains(hint), "{shown}");
    }
}

#[test]
fn a_client_certificate_without_its_own_key_is_refused_at_once() {
    let (certificate, key) = identity();
    let (_, other) = identity();
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (key, hint) in [
        ("", "no private key in it"),
        (&encrypted, "not encrypted"),
        (&certificate, "no private key in it"),
        (&other, "not the key of the certificate"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a key that can be used"),
    ] {
        let shown = refusal("private key", Tls::new().client_certificate_pem(&certificate, key));
        assert!(shown.contains(hint), "{shown}");
    }
    let shown = refusal("client certificate", Tls::new().client_certificate_pem("garbage", &key));
    assert!(shown.contains("there is no certificate in it"), "{shown}");
    assert!(Tls::new().client_certificate_pem(&certificate, &key).is_ok());
    assert!(Tls::new().client_certificate_pem(format!("{certificate}{key}"), format!("{certificate}{key}")).is_ok());
}

#[test]
fn no_error_and_no_debug_text_shows_a_key() {
    let (certificate, key) = identity();
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let hidden = |shown: &str| secret.iter().all(|line| !shown.contains(line) && !shown.contains(&line[..16]));
    let first_line_glued = key.replacen("-----\n", "", 1);
    let cut = key.replace("-----END", "END");
    let spoiled = key.replacen(secret[0], &format!("{}!", secret[0]), 1);
    for broken in [first_line_glued, cut, spoiled] {
        let shown = refusal("private key", Tls::new().client_certificate_pem(&certificate, &broken));
        assert!(hidden(&shown), "{shown}");
        let shown = refusal("root certificates", Tls::new().root_certificates_pem(&broken));
        assert!(hidden(&shown), "{shown}");
    }
    let tls = Tls::new().client_certificate_pem(&certificate, &key).unwrap();
    let shown = format!("{tls:?} {tls:#?}");
    assert!(shown.contains("client_certificate: true") && hidden(&shown), "{shown}");
}

#[test]
fn a_server_name_that_is_none_is_refused_at_once() {
    for name in ["", "two words", "https://redis.example", "redis.example:6379"] {
        refusal("server name", Tls::new().server_name(name));
    }
    for name in ["redis.example", "127.0.0.1", "::1"] {
        assert!(Tls::new().server_name(name).is_ok(), "{name}");
    }
}
