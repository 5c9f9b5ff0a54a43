//! The ways to a server that are not plain TCP: TLS, and the socket of a file system.

use std::{
    net::TcpListener,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_core::{
    Client, ClientBuilder, Error, FeedItem, Tls, Transaction,
    fred::rustls::{ClientConfig, RootCertStore},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tests::{Server, soon};

use super::{map, scope};

/// An authority that is trusted only by clients that were given its certificate.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate of the authority, and its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "identity");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate, key }
    }

    /// For a client that trusts the authority and no other.
    fn trusted(&self) -> Tls {
        Tls::new().root_certificates_pem(self.certificate.pem()).unwrap()
    }

    /// The same for a client that presents a certificate.
    fn trusted_by(&self, identity: &Identity) -> Tls {
        self.trusted().client_certificate_pem(identity.certificate.pem(), identity.key.serialize_pem()).unwrap()
    }
}

/// A server that speaks TLS on a second port.
struct TlsServer {
    plain: Server,
    port: u16,
    _files: tempfile::TempDir,
}

impl TlsServer {
    fn start(authority: &Authority, identity: &Identity, asks_clients: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, content: String| {
            let path = files.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = write("certificate.pem", identity.certificate.pem());
        let key = write("key.pem", identity.key.serialize_pem());
        let trusted = write("authority.pem", authority.certificate.pem());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A server that was built without TLS does not know these options: there the feature `tls` is off.
        let plain = Server::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &trusted,
            "--tls-auth-clients",
            asks_clients,
        ]);
        Self { plain, port, _files: files }
    }

    fn builder(&self, scheme: &str) -> ClientBuilder {
        ClientBuilder::new(format!("{scheme}://127.0.0.1:{}", self.port))
    }
}

/// Writes, and hears of it: both connections work.
async fn works(client: &Client) {
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    let heard = soon("the commit is heard of", feed.next()).await;
    assert!(matches!(heard, Some(FeedItem::Commit(_))), "{heard:?}");
}

/// Fails to connect, and soon.
async fn is_refused(builder: ClientBuilder) -> String {
    let begun = Instant::now();
    let error = builder.connect().await.expect_err("this must not connect");
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?} to say {error}", begun.elapsed());
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    let mut shown = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        shown = format!("{shown}: {error}");
        cause = error.source();
    }
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn a_private_authority_is_trusted_by_a_client_that_was_given_its_certificate() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &authority.identity(&["127.0.0.1"]), "no");
    let client = server.builder("rediss").tls(authority.trusted()).connect().await.unwrap();
    works(&client).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn a_certificate_of_an_unknown_authority_is_refused_with_what_to_do() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &authority.identity(&["127.0.0.1"]), "no");
    let builder = || server.builder("rediss");
    let (stranger, namesake) = (Authority::named("stranger"), Authority::new());
    for builder in [builder(), builder().tls(stranger.trusted()), builder().tls(namesake.trusted())] {
        let shown = is_refused(builder).await;
        assert!(shown.contains("authority that is not trusted"), "{shown}");
        assert!(shown.contains("Tls::root_certificates_pem"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn several_authorities_can_be_trusted() {
    let (first, second) = (Authority::new(), Authority::new());
    let server = TlsServer::start(&second, &second.identity(&["127.0.0.1"]), "no");
    let both = first.certificate.pem() + &second.certificate.pem();
    let together = Tls::new().root_certificates_pem(both).unwrap();
    let one_after_the_other = first.trusted().root_certificates_pem(second.certificate.pem()).unwrap();
    for tls in [together, one_after_the_other] {
        let client = server.builder("rediss").tls(tls).connect().await.unwrap();
        works(&client).await;
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn a_server_that_asks_gets_the_certificate_of_the_client() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &authority.identity(&["127.0.0.1"]), "yes");
    let tls = authority.trusted_by(&authority.identity(&["a-client"]));
    let client = server.builder("rediss").tls(tls).connect().await.unwrap();
    works(&client).await;
    client.close().await;

    let shown = is_refused(server.builder("rediss").tls(authority.trusted())).await;
    assert!(shown.contains("Tls::client_certificate_pem"), "{shown}");
    for stranger in [Authority::named("stranger"), Authority::new()] {
        let tls = authority.trusted_by(&stranger.identity(&["a-client"]));
        let shown = is_refused(server.builder("rediss").tls(tls)).await;
        assert!(shown.contains("does not trust the authority"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn a_certificate_for_another_host_is_accepted_only_by_that_name() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &authority.identity(&["elsewhere.example"]), "no");
    let shown = is_refused(server.builder("rediss").tls(authority.trusted())).await;
    assert!(shown.contains("Tls::server_name"), "{shown}");

    let tls = authority.trusted().server_name("elsewhere.example").unwrap();
    let client = server.builder("rediss").tls(tls).connect().await.unwrap();
    works(&client).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn a_configuration_of_the_tls_library_is_taken_as_it_is() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &authority.identity(&["127.0.0.1"]), "no");
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth();
    let client = server.builder("rediss").tls(config.clone().into()).connect().await.unwrap();
    works(&client).await;
    client.close().await;

    let Err(error) = Tls::from(config).root_certificates_pem(authority.certificate.pem()) else {
        panic!("a configuration that is complete was changed");
    };
    assert!(matches!(error, Error::InvalidTls { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "this server has no TLS")]
async fn tls_on_one_side_alone_is_an_error_that_names_it() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &authority.identity(&["127.0.0.1"]), "no");
    let shown = is_refused(server.builder("redis")).await;
    assert!(shown.contains("TLS"), "{shown}");
    // A plain server takes a greeting in TLS for the begin of a command, and waits for the rest; so does the client.
    let plain = ClientBuilder::new(server.plain.url().replace("redis:", "rediss:"));
    let plain = plain.connect_timeout(Duration::from_millis(500));
    let shown = is_refused(plain.tls(authority.trusted())).await;
    assert!(shown.contains("TLS"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_a_way_to_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a socket");
    let _server = Server::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let url = |socket: &Path| format!("redis+unix://{}", socket.to_str().unwrap().replace(' ', "%20"));
    let client = ClientBuilder::new(url(&socket)).connect().await.unwrap();
    works(&client).await;
    client.close().await;

    let shown = is_refused(ClientBuilder::new(url(&folder.path().join("nobody")))).await;
    assert!(shown.contains("nobody"), "{shown}");
}
