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
