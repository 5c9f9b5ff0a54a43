//! fred alone: what the client library reaches when nothing of ours stands above it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::{ClientLike, HashesInterface, LuaInterface, StreamsInterface},
    types::{Builder, config::Config},
};

use super::PAYLOAD;

/// The least that a server must do for a replicated put: read the old value, write the new one, count the revision and
/// publish the change.
const PUT: &str = "
local previous = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local revision = redis.call('INCR', KEYS[2])
redis.call('SPUBLISH', KEYS[3], ARGV[2])
return {revision, previous}";

/// A client of fred's, with fred's defaults.
#[derive(Debug, Clone)]
pub(crate) struct Bare {
    client: Client,
    put: String,
}

impl Bare {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> Self {
        let config = Config::from_url(url).expect("the URL is one that fred knows");
        let mut builder = Builder::from_config(config);
        builder.with_connection_config(|connection| connection.tcp.nodelay = Some(true));
        let client = builder.build().expect("the configuration is one that fred knows");
        client.init().await.expect("fred cannot connect");
        let put = client.script_load(PUT).await.expect("the server refuses the script");
        Self { client, put }
    }

    /// One `PING`.
    pub(crate) async fn ping(&self) {
        let _: String = self.client.ping(None).await.expect("PING failed");
    }

    /// One `EVALSHA` of the fixed script.
    pub(crate) async fn put(&self, key: &str) {
        let keys = vec!["{bare}:map", "{bare}:revision", "{bare}:feed"];
        let arguments = vec![key.as_bytes(), PAYLOAD.as_slice()];
        let _: fred::types::Value = self.client.evalsha(&self.put, keys, arguments).await.expect("EVALSHA failed");
    }

    /// One `XADD`.
    pub(crate) async fn append(&self) {
        let fields = vec![("n", b"e".as_slice()), ("p", PAYLOAD.as_slice())];
        let _: String = self.client.xadd("{bare}:stream", false, None, "*", fields).await.expect("XADD failed");
    }

    /// Fills a hash with those fields, 100 bytes each.
    pub(crate) async fn fill(&self, key: &str, fields: &[Arc<str>]) {
        for page in fields.chunks(1_000) {
            let values: Vec<(&str, &[u8])> = page.iter().map(|field| (&**field, PAYLOAD.as_slice())).collect();
            let _: i64 = self.client.hset(key, values).await.expect("HSET failed");
        }
    }

    /// One `HGETALL`; returns how many fields there are.
    pub(crate) async fn read_all(&self, key: &str) -> usize {
        let all: HashMap<String, Bytes> = self.client.hgetall(key).await.expect("HGETALL failed");
        all.len()
    }

    /// Closes the connection.
    pub(crate) async fn close(self) {
        // Nothing is lost with a connection that cannot say goodbye.
        let _ = self.client.quit().await;
    }
}
