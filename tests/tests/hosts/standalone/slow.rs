//! A server that is busy for seconds is not dead: clients wait for it and do not flood it with connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_core::{Client, FeedItem, Transaction};
use pulse_rmap::Map;
use tests::{
    Proxy, Server, in_time,
    scene::{Taker, Writer, connect, map, scope, since, stream},
};

/// A client behind a proxy that counts its connections, and what it does all the time.
struct Busy {
    server: Arc<Server>,
    proxy: Proxy,
    client: Client,
    map: Map<u64>,
    sets: Writer,
    adds: Writer,
    taker: Taker,
    /// How many connections there were before.
    before: usize,
}

impl Busy {
    async fn start() -> Self {
        let server = Arc::new(Server::start());
        let proxy = Proxy::before(server.port()).await;
        let client = connect(&proxy.url()).await;
        let map = map(&client).await;
        let taker = Taker::join(&stream(&client)).await;
        let (sets, adds) = (Writer::of_map(&map), Writer::of_stream(&stream(&client)));
        sets.goes_on(20).await;
        let before = proxy.accepted();
        Self { server, proxy, client, map, sets, adds, taker, before }
    }

    /// Has the server do something that takes long.
    async fn server_does(&self, work: impl FnOnce(&Server) + Send + 'static) {
        let server = self.server.clone();
        let begun = Instant::now();
        tokio::task::spawn_blocking(move || work(&server)).await.unwrap();
        println!("the server was busy for {:?}", begun.elapsed());
    }

    /// Waits until all goes on, and returns how many connections were made and the errors of the writers.
    async fn goes_on(self) -> (usize, Vec<String>) {
        self.sets.goes_on(20).await;
        self.adds.goes_on(20).await;
        let (set, added) = (self.sets.newest(), self.adds.newest());
        let follows = || self.map.is_synced() && self.map.get("n").is_some_and(|found| *found >= set);
        since(Instant::now(), "the map follows", follows).await;
        since(Instant::now(), "the sink delivers", || self.taker.newest() >= added).await;
        let made = self.proxy.accepted() - self.before;
        let (added, mut errors) = self.adds.end().await;
        self.taker.has_all(&added).await;
        errors.extend(self.sets.end().await.1);
        self.client.close().await;
        (made, errors)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_for_seconds_is_waited_for() {
    in_time(async {
        let busy = Busy::start().await;
        let mut feed = busy.client.backend().map_feed(busy.map.id()).await.unwrap();
        // So long a time is the subject: less than the time that a command may take.
        busy.server_does(|server| assert_eq!(server.cli(&["DEBUG", "SLEEP", "5"]), "OK")).await;
        let (made, errors) = busy.goes_on().await;
        assert_eq!(errors, Vec::<String>::new(), "the server was slow, not away");
        assert!(made <= 8, "{made} connections to a server that was slow");
        let mut commits = 0;
        while let Some(item) = feed.try_next() {
            match item {
                FeedItem::Commit(_) => commits += 1,
                FeedItem::Gap(cause) => panic!("the feed reports a gap ({cause:?}) after {commits} commits"),
                other => panic!("{other:?}"),
            }
        }
        assert!(commits > 0, "the feed was silent");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_with_a_script_is_waited_for() {
    in_time(async {
        let busy = Busy::start().await;
        // It answers nothing for five seconds, and then that it is busy.
        let kill = tokio::task::spawn_blocking({
            let server = busy.server.clone();
            move || {
                std::thread::sleep(Duration::from_secs(6));
                server.cli(&["SCRIPT", "KILL"])
            }
        });
        busy.server_does(|server| {
            let ended = server.try_cli(&["EVAL", "while true do end", "0"]);
            assert!(ended.is_err(), "the script ends only when it is killed: {ended:?}");
        })
        .await;
        kill.await.unwrap();
        let (made, errors) = busy.goes_on().await;
        println!("{made} connections, errors: {errors:?}");
        assert!(made <= 12, "{made} connections to a server that was busy");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_the_server_holds_back_are_waited_for() {
    in_time(async {
        let busy = Busy::start().await;
        busy.server_does(|server| assert_eq!(server.cli(&["CLIENT", "PAUSE", "3000", "WRITE"]), "OK")).await;
        let (made, errors) = busy.goes_on().await;
        assert_eq!(errors, Vec::<String>::new(), "the writes were held back, not lost");
        assert!(made <= 8, "{made} connections to a server that answers");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_over_a_slow_link_is_waited_for() {
    in_time(async {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let (near, far) = (connect(&server.url()).await, connect(&proxy.url()).await);
        let large = vec![b'x'; 12 << 20];
        near.commit(Transaction::new(&scope()).put("large", "k", large.clone())).await.unwrap();
        let before = proxy.accepted();
        // Some two seconds, in which nothing else is answered.
        proxy.slow_down(8 << 20);
        let map = scope().map("large").unwrap();
        let backend = far.backend();
        let read = backend.map_get(&map, &["k"]);
        let write = far.commit(Transaction::new(&scope()).add("small", "n", 1));
        let (read, write) = tokio::join!(read, write);
        write.expect("the connection is not given up under a write");
        assert!(read.unwrap()[0].as_ref().is_some_and(|read| read.len() == large.len()));
        let made = proxy.accepted() - before;
        assert!(made <= 8, "{made} connections beside one that is at work");
        near.close().await;
        far.close().await;
    })
    .await;
}
