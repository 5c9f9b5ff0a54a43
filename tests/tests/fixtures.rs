//! The fixtures keep their own promises.

#[cfg(feature = "standalone")]
mod standalone {
    use tests::Server;

    #[test]
    fn a_durable_server_has_its_data_after_a_kill_and_a_restart() {
        let mut server = Server::start_durable();
        server.cli(&["SET", "key", "value"]);
        server.kill();
        server.restart();
        assert_eq!(server.cli(&["GET", "key"]), "value");
    }

    #[test]
    fn a_plain_server_is_empty_after_a_restart() {
        let mut server = Server::start();
        server.cli(&["SET", "key", "value"]);
        server.restart();
        assert_eq!(server.cli(&["EXISTS", "key"]), "0");
    }

    #[test]
    fn a_server_takes_options_of_the_command_line() {
        let server = Server::start_with(&["--requirepass", "secret"]);
        assert_eq!(server.cli(&["--no-auth-warning", "-a", "secret", "PING"]), "PONG");
    }

    #[test]
    fn a_server_ends_with_its_fixture() {
        let server = Server::start();
        let port = server.port();
        drop(server);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}

mod proxies {
    use std::time::Duration;

    use tests::{Proxy, SilentHost};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// Answers every connection with its name.
    async fn host(name: u8) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while connection.read_u8().await.is_ok() && connection.write_u8(name).await.is_ok() {}
                });
            }
        });
        port
    }

    async fn dial(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
    }

    /// What the host says; `None` if nothing comes while another connection would have had its answer.
    async fn ask(connection: &mut TcpStream) -> Option<u8> {
        connection.write_u8(0).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(300), connection.read_u8()).await;
        answer.ok().map(|answer| answer.expect("the connection stands"))
    }

    #[tokio::test]
    async fn a_proxy_that_swallows_keeps_connections_open_and_lets_new_ones_pass() {
        let proxy = Proxy::before(host(1).await).await;
        let mut old = dial(&proxy).await;
        assert_eq!(ask(&mut old).await, Some(1));
        proxy.swallow();
        assert_eq!(ask(&mut old).await, None);
        assert_eq!(ask(&mut dial(&proxy).await).await, Some(1));
        proxy.swallow_all();
        assert_eq!(ask(&mut dial(&proxy).await).await, None);
        proxy.mend();
        assert_eq!(ask(&mut old).await, None);
        assert_eq!(ask(&mut dial(&proxy).await).await, Some(1));
        assert_eq!(proxy.accepted(), 4);
    }

    #[tokio::test]
    async fn a_name_that_moves_leaves_its_connections_where_they_are() {
        let proxy = Proxy::before(host(1).await).await;
        let mut old = dial(&proxy).await;
        assert_eq!(ask(&mut old).await, Some(1));
        proxy.redirect(host(2).await);
        assert_eq!(ask(&mut old).await, Some(1));
        assert_eq!(ask(&mut dial(&proxy).await).await, Some(2));
    }

    #[tokio::test]
    async fn a_silent_host_accepts_and_says_nothing() {
        let host = SilentHost::start().await;
        let mut connection = TcpStream::connect(("127.0.0.1", host.port())).await.unwrap();
        assert_eq!(ask(&mut connection).await, None);
    }
}
