//! What can be done, over few names, so that steps meet each other often.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};

pub(crate) const MAPS: [&str; 2] = ["m", "n"];
pub(crate) const STREAMS: [&str; 2] = ["s", "t"];
pub(crate) const LEASES: usize = 3;
/// Never passes during a test.
pub(crate) const LONG: Duration = Duration::from_secs(100_000);

/// Whether deadlines pass.
#[cfg_attr(not(any(feature = "standalone", feature = "cluster")), expect(dead_code, reason = "only for servers"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    Passes,
    Stands,
}

pub(crate) type Name = &'static str;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Commit(Vec<Expect>, Vec<Do>),
    Sweep,
    /// Lets time pass.
    Pass(Duration),
    CreateGroup(Name, Name, Start),
    DestroyGroup(Name, Name),
    Read(Name, Name, Name, usize),
    Claim {
        stream: Name,
        group: Name,
        consumer: Name,
        idle: Idle,
        limit: usize,
    },
    SetIdle {
        stream: Name,
        group: Name,
        consumer: Name,
        events: Vec<EventRef>,
        idle: Idle,
    },
    RemoveConsumer(Name, Name, Name),
    Missed(Name, Name),
}

/// One of the events ever appended to a stream, by its number (modulo how many there are).
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRef(pub usize);

/// One of the leases.
pub(crate) type Lease = usize;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Newest,
    Oldest,
    After(EventRef),
}

/// Two idle times that no run mixes up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Idle {
    Zero,
    Long,
}

#[derive(Debug, Clone)]
pub(crate) enum Expect {
    Equals(Name, Name, Name),
    Absent(Name, Name),
    Present(Name, Name),
    Version(Name, At),
    FewerThan(Name, u64),
    LeaseAlive(Lease),
    LeaseExpired(Lease),
    StreamExists(Name),
    ShorterThan(Name, u64),
}

/// A version of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Now,
    Earlier,
    Nothing,
}

#[derive(Debug, Clone)]
pub(crate) enum Do {
    Put(Name, Name, Value, Bound),
    Delete(Name, Name),
    Add(Name, Name, i64, Bound),
    ListAppend { map: Name, key: Name, items: Vec<Name>, skip: bool },
    ListRemove(Name, Name, Vec<Name>),
    Clear(Name),
    DestroyMap(Name),
    ExpireMap(Name, Expiry),
    Append(Name, Name),
    AppendOnce { stream: Name, event: Name, once: Name, window: Duration },
    TrimLength(Name, u64),
    TrimBefore(Name, EventRef),
    TrimOlder(Name, Duration),
    TrimConsumed(Name),
    DeleteEvents(Name, Vec<EventRef>),
    Ack(Name, Name, Vec<EventRef>),
    DestroyStream(Name),
    ExpireStream(Name, Expiry),
    Grant(Lease, Duration),
    Renew(Lease, Duration),
    Drop(Lease),
}

pub(crate) type Value = &'static [u8];

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    Permanent,
    Lease(Lease),
    Ttl(Duration),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Expiry {
    IfUnset(Duration),
    Renew(Duration),
    Never,
}

fn map() -> impl Strategy<Value = Name> {
    select(&MAPS[..])
}

fn key() -> impl Strategy<Value = Name> {
    select(&["a", "b", "c"][..])
}

fn stream() -> impl Strategy<Value = Name> {
    select(&STREAMS[..])
}

fn group() -> impl Strategy<Value = Name> {
    select(&["g", "h"][..])
}

fn consumer() -> impl Strategy<Value = Name> {
    select(&["x", "y"][..])
}

fn lease() -> impl Strategy<Value = Lease> {
    0..LEASES
}

fn items() -> impl Strategy<Value = Vec<Name>> {
    vec(select(&["p", "q", ""][..]), 0..4)
}

fn event() -> impl Strategy<Value = EventRef> {
    (0_usize..40).prop_map(EventRef)
}

fn events(least: usize) -> impl Strategy<Value = Vec<EventRef>> {
    vec(event(), least..5)
}

fn idle() -> impl Strategy<Value = Idle> {
    prop_oneof![Just(Idle::Zero), Just(Idle::Long)]
}

fn limit() -> impl Strategy<Value = usize> {
    select(&[1, 2, 100][..])
}

fn ttl(time: Time) -> impl Strategy<Value = Duration> {
    let short = [1, 50, 200].map(Duration::from_millis);
    let all: Vec<Duration> = match time {
        Time::Passes => short.into_iter().chain([LONG]).collect(),
        Time::Stands => vec![LONG],
    };
    select(all)
}

fn value() -> impl Strategy<Value = Value> {
    let values: &'static [Value] =
        &[b"", b"v", b"w", b"41", b"-7", b"9223372036854775807", b"007", b"\x91\xc4\x01p", b"\x90", b"\x91\xc4\x05p"];
    select(values)
}

fn bound(time: Time) -> impl Strategy<Value = Bound> {
    prop_oneof![
        3 => Just(Bound::Permanent),
        2 => lease().prop_map(Bound::Lease),
        1 => ttl(time).prop_map(Bound::Ttl),
    ]
}

fn expiry(time: Time) -> impl Strategy<Value = Expiry> {
    prop_oneof![ttl(time).prop_map(Expiry::IfUnset), ttl(time).prop_map(Expiry::Renew), Just(Expiry::Never)]
}

fn expect() -> impl Strategy<Value = Expect> {
    let at = select(&[At::Now, At::Now, At::Earlier, At::Nothing][..]);
    prop_oneof![
        (map(), key(), select(&["v", "41"][..])).prop_map(|(m, k, v)| Expect::Equals(m, k, v)),
        (map(), key()).prop_map(|(m, k)| Expect::Absent(m, k)),
        (map(), key()).prop_map(|(m, k)| Expect::Present(m, k)),
        (map(), at).prop_map(|(m, at)| Expect::Version(m, at)),
        (map(), 0_u64..4).prop_map(|(m, n)| Expect::FewerThan(m, n)),
        lease().prop_map(Expect::LeaseAlive),
        lease().prop_map(Expect::LeaseExpired),
        stream().prop_map(Expect::StreamExists),
        (stream(), 0_u64..6).prop_map(|(s, n)| Expect::ShorterThan(s, n)),
    ]
}

fn write(time: Time) -> impl Strategy<Value = Do> {
    let delta = select(&[0, 1, -1, 100, i64::MAX, i64::MIN][..]);
    let on_maps = prop_oneof![
        6 => (map(), key(), value(), bound(time)).prop_map(|(m, k, v, b)| Do::Put(m, k, v, b)),
        3 => (map(), key()).prop_map(|(m, k)| Do::Delete(m, k)),
        3 => (map(), key(), delta, bound(time)).prop_map(|(m, k, d, b)| Do::Add(m, k, d, b)),
        2 => (map(), key(), items(), any::<bool>())
            .prop_map(|(map, key, items, skip)| Do::ListAppend { map, key, items, skip }),
        2 => (map(), key(), items()).prop_map(|(m, k, items)| Do::ListRemove(m, k, items)),
        1 => map().prop_map(Do::Clear),
        1 => map().prop_map(Do::DestroyMap),
        1 => (map(), expiry(time)).prop_map(|(m, e)| Do::ExpireMap(m, e)),
    ];
    let on_streams = prop_oneof![
        6 => (stream(), select(&["e", "f"][..])).prop_map(|(s, e)| Do::Append(s, e)),
        3 => (stream(), select(&["e", "f"][..]), select(&["i", "j", "k"][..]), ttl(time))
            .prop_map(|(stream, event, once, window)| Do::AppendOnce { stream, event, once, window }),
        1 => (stream(), 0_u64..6).prop_map(|(s, n)| Do::TrimLength(s, n)),
        1 => (stream(), event()).prop_map(|(s, e)| Do::TrimBefore(s, e)),
        1 => (stream(), ttl(time)).prop_map(|(s, age)| Do::TrimOlder(s, age)),
        1 => stream().prop_map(Do::TrimConsumed),
        1 => (stream(), events(0)).prop_map(|(s, e)| Do::DeleteEvents(s, e)),
        3 => (stream(), group(), events(0)).prop_map(|(s, g, e)| Do::Ack(s, g, e)),
        1 => stream().prop_map(Do::DestroyStream),
        1 => (stream(), expiry(time)).prop_map(|(s, e)| Do::ExpireStream(s, e)),
    ];
    let on_leases = prop_oneof![
        3 => (lease(), ttl(time)).prop_map(|(l, t)| Do::Grant(l, t)),
        1 => (lease(), ttl(time)).prop_map(|(l, t)| Do::Renew(l, t)),
        1 => lease().prop_map(Do::Drop),
    ];
    prop_oneof![5 => on_maps, 3 => on_streams, 2 => on_leases]
}

fn step(time: Time) -> impl Strategy<Value = Step> {
    let start = prop_oneof![Just(Start::Newest), Just(Start::Oldest), event().prop_map(Start::After)];
    let expects = option::weighted(0.3, vec(expect(), 1..3)).prop_map(Option::unwrap_or_default);
    let pass = select(&[1, 49, 50, 51, 200][..]).prop_map(move |millis| match time {
        Time::Passes => Step::Pass(Duration::from_millis(millis)),
        Time::Stands => Step::Sweep,
    });
    prop_oneof![
        12 => (expects, vec(write(time), 1..6)).prop_map(|(expects, writes)| Step::Commit(expects, writes)),
        2 => Just(Step::Sweep),
        2 => pass,
        2 => (stream(), group(), start).prop_map(|(s, g, start)| Step::CreateGroup(s, g, start)),
        1 => (stream(), group()).prop_map(|(s, g)| Step::DestroyGroup(s, g)),
        4 => (stream(), group(), consumer(), limit()).prop_map(|(s, g, c, l)| Step::Read(s, g, c, l)),
        2 => (stream(), group(), consumer(), idle(), limit())
            .prop_map(|(stream, group, consumer, idle, limit)| Step::Claim { stream, group, consumer, idle, limit }),
        2 => (stream(), group(), consumer(), events(1), idle())
            .prop_map(|(stream, group, consumer, events, idle)| Step::SetIdle { stream, group, consumer, events, idle }),
        1 => (stream(), group(), consumer()).prop_map(|(s, g, c)| Step::RemoveConsumer(s, g, c)),
        2 => (stream(), group()).prop_map(|(s, g)| Step::Missed(s, g)),
    ]
}

/// A sequence of steps.
pub(crate) fn sequence(time: Time) -> impl Strategy<Value = Vec<Step>> {
    vec(step(time), 1..40)
}
