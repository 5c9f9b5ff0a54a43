//! Carries the items of a feed over the link: late, in order, and not at all while it is cut.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::{
    faulty::Inner,
    link::{End, Link, Status},
};
use crate::{FeedItem, FeedSender, GapCause, MapFeed};

/// The most items and bytes that the client's end of a feed holds.
const BUFFER: (usize, usize) = (4096, 64 << 20);

/// Carries one feed.
pub(super) struct Relay {
    link: Arc<Link>,
    /// For the chances; a client that everybody has dropped ends the link, and so the relay.
    client: Weak<Inner>,
    dice: StdRng,
    /// The feed of the store.
    source: MapFeed,
    /// The feed of the client.
    sink: FeedSender,
    /// What is under way, and when it arrives.
    under_way: VecDeque<(Instant, FeedItem)>,
    /// How many cuts of the link the client has been told of.
    cuts_told: u64,
    /// The client was told of a cut but not yet of its end.
    cut: bool,
}

impl Relay {
    /// Puts a relay behind a feed of the store; returns the client's feed and the relay to be run.
    pub(super) fn new(client: &Arc<Inner>, source: MapFeed) -> (MapFeed, Self) {
        let (sink, feed) = MapFeed::channel(BUFFER.0, BUFFER.1);
        let relay = Self {
            link: client.link.clone(),
            client: Arc::downgrade(client),
            dice: client.plan().dice_for_a_feed(),
            source,
            sink,
            under_way: VecDeque::new(),
            cuts_told: client.link.status().partitions,
            cut: false,
        };
        (feed, relay)
    }

    pub(super) async fn run(mut self) {
        let link = self.link.clone();
        while !self.sink.is_closed() {
            let status = link.status();
            match status.end {
                None => {}
                Some(End::Killed) => return self.fall_silent().await,
                Some(End::Closed) => return self.end(),
            }
            self.tell_of_cuts(status);
            let next_arrival = self.under_way.front().map(|(arrival, _)| *arrival);
            tokio::select! {
                biased;
                _ = link.other_than(status) => {}
                () = sleep_until(next_arrival), if !status.paused && !status.is_mute() => self.deliver(),
                item = self.source.next(), if !status.paused => match item {
                    Some(item) => self.carry(item, status),
                    None => return self.end(),
                },
            }
        }
    }

    /// After a kill, nothing more is heard until the client is closed.
    async fn fall_silent(self) {
        self.sink.push(FeedItem::Gap(GapCause::Disconnected));
        let mut status = self.link.status();
        while status.end != Some(End::Closed) {
            status = self.link.other_than(status).await;
        }
        self.sink.end();
    }

    fn end(self) {
        for (_, item) in self.under_way {
            self.sink.push(item);
        }
        self.sink.end();
    }

    fn tell_of_cuts(&mut self, status: Status) {
        if status.partitions > self.cuts_told {
            self.cuts_told = status.partitions;
            self.cut = true;
            self.under_way.clear();
            self.sink.push(FeedItem::Gap(GapCause::Disconnected));
        }
        if self.cut && !status.is_mute() {
            self.cut = false;
            while self.source.try_next().is_some() {}
            self.sink.push(FeedItem::Gap(GapCause::Resubscribed));
        }
    }

    fn carry(&mut self, item: FeedItem, status: Status) {
        if status.is_mute() {
            return;
        }
        let fate = match (&item, self.client.upgrade()) {
            (FeedItem::Commit(_), Some(client)) => client.plan().decide_item(&mut self.dice),
            _ => Some(Duration::ZERO),
        };
        if let Some(delay) = fate {
            let arrival = Instant::now() + delay;
            let arrival = self.under_way.back().map_or(arrival, |(before, _)| arrival.max(*before));
            self.under_way.push_back((arrival, item));
        }
    }

    fn deliver(&mut self) {
        if let Some((_, item)) = self.under_way.pop_front() {
            self.sink.push(item);
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) if instant > Instant::now() => tokio::time::sleep_until(instant).await,
        Some(_) => {}
        None => std::future::pending().await,
    }
}
