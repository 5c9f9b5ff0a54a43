//! Which node of a cluster owns which slots: read from the nodes' answers, and settled where they differ. Pure.

use fred::types::{Resp3Frame, config::Server};

use super::super::reply::{self, Misfit};

/// How many slots a cluster has.
pub(crate) const SLOTS: usize = 16_384;

/// What one node says of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// The first and the last slot of each range, and the primary that owns it.
    pub(crate) ranges: Vec<(usize, usize, Server)>,
    /// Every node that is named, replicas included.
    pub(crate) nodes: Vec<Server>,
}

impl View {
    /// Reads the answer to `CLUSTER SLOTS` of the node at that host.
    pub(crate) fn read(reply: Resp3Frame, host: &str) -> Result<Self, Misfit> {
        let mut view = Self { ranges: Vec::new(), nodes: Vec::new() };
        for range in reply::list(reply)? {
            let mut parts = reply::list(range)?.into_iter();
            let (first, last) = (read_slot(parts.next())?, read_slot(parts.next())?);
            let nodes: Vec<Server> = parts.filter_map(|node| read_node(node, host)).collect();
            if let Some(owner) = nodes.first() {
                view.ranges.push((first, last, owner.clone()));
            }
            for node in nodes {
                if !view.nodes.contains(&node) {
                    view.nodes.push(node);
                }
            }
        }
        Ok(view)
    }

    /// Settles several views, the first of which came first: each slot belongs to the node that most of them name.
    /// Returns the owners of the slots as places in a list of primaries.
    pub(crate) fn settle(views: &[Self]) -> Settled {
        let mut primaries: Vec<Server> = Vec::new();
        let mut nodes: Vec<Server> = Vec::new();
        let mut told: Vec<Vec<Option<usize>>> = Vec::with_capacity(views.len());
        for view in views {
            let mut owners = vec![None; SLOTS];
            for (first, last, owner) in &view.ranges {
                let place = place_of(&mut primaries, owner);
                owners[*first..=*last].fill(Some(place));
            }
            told.push(owners);
            for node in &view.nodes {
                place_of(&mut nodes, node);
            }
        }
        let owners: Vec<Option<usize>> =
            (0..SLOTS).map(|slot| majority(told.iter().map(|owners| owners[slot]))).collect();
        // Who owns nothing any more is no primary.
        let mut kept: Vec<Server> = Vec::new();
        let mut last: Option<(usize, usize)> = None;
        let slots = owners
            .into_iter()
            .map(|owner| {
                let owner = owner?;
                match last {
                    Some((before, place)) if before == owner => Some(place),
                    _ => {
                        let place = place_of(&mut kept, &primaries[owner]);
                        last = Some((owner, place));
                        Some(place)
                    }
                }
            })
            .collect();
        Settled { slots, primaries: kept, nodes }
    }
}

/// What counts after the views were settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    /// For each slot its owner's place in `primaries`.
    pub(crate) slots: Vec<Option<usize>>,
    pub(crate) primaries: Vec<Server>,
    /// Every node that any view names.
    pub(crate) nodes: Vec<Server>,
}

/// The answer that most give; of several, the one that was given first.
fn majority(answers: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for answer in answers.flatten() {
        match counts.iter_mut().find(|(given, _)| *given == answer) {
            Some((_, count)) => *count += 1,
            None => counts.push((answer, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(answer, _)| answer)
}

fn place_of(servers: &mut Vec<Server>, server: &Server) -> usize {
    servers.iter().position(|known| known == server).unwrap_or_else(|| {
        servers.push(server.clone());
        servers.len() - 1
    })
}

fn read_slot(frame: Option<Resp3Frame>) -> Result<usize, Misfit> {
    let slot = reply::count(frame.unwrap_or(Resp3Frame::Null))?;
    usize::try_from(slot).ok().filter(|slot| *slot < SLOTS).ok_or_else(|| format!("there is no slot {slot}"))
}

/// A node is a list of its host, its port, and more. A host that is not known to the node itself is that of the
/// connection.
fn read_node(node: Resp3Frame, host: &str) -> Option<Server> {
    let mut parts = reply::list(node).ok()?.into_iter();
    let named = reply::optional_bytes(parts.next()?).ok()?;
    let named = named.and_then(|named| String::from_utf8(named.into()).ok());
    let named = named.filter(|named| !named.is_empty() && named != "?");
    let port = reply::count(parts.next()?).ok().and_then(|port| u16::try_from(port).ok())?;
    Some(Server::new(named.unwrap_or_else(|| host.to_owned()), port))
}

/// Reads what `MOVED` says: the slot, and the node that owns it now.
pub(crate) fn read_moved(message: &str, host: &str) -> Option<(usize, Server)> {
    let mut words = message.strip_prefix("MOVED ")?.split(' ');
    let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
    let (named, port) = words.next()?.rsplit_once(':')?;
    let named = if named.is_empty() || named == "?" { host } else { named };
    Some((slot, Server::new(named.to_owned(), port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Resp3Frame {
        Resp3Frame::BlobString { data: text.to_owned().into(), attributes: None }
    }

    fn number(data: i64) -> Resp3Frame {
        Resp3Frame::Number { data, attributes: None }
    }

    fn list(data: Vec<Resp3Frame>) -> Resp3Frame {
        Resp3Frame::Array { data, attributes: None }
    }

    fn node(host: Resp3Frame, port: i64) -> Resp3Frame {
        list(vec![host, number(port), text("an id"), list(Vec::new())])
    }

    fn view(ranges: &[(usize, usize, u16)]) -> View {
        let server = |port| Server::new("h", port);
        let nodes = ranges.iter().map(|(_, _, port)| server(*port)).collect();
        View { ranges: ranges.iter().map(|(first, last, port)| (*first, *last, server(*port))).collect(), nodes }
    }

    #[test]
    fn a_view_names_owners_and_replicas_and_knows_the_host_that_a_node_does_not_know() {
        let reply = list(vec![
            list(vec![number(0), number(5460), node(text("a"), 1), node(text("b"), 2)]),
            list(vec![number(5461), number(16_383), node(Resp3Frame::Null, 3), node(text(""), 4), node(text("?"), 5)]),
        ]);
        let view = View::read(reply, "asked").unwrap();
        assert_eq!(view.ranges, [(0, 5460, Server::new("a", 1)), (5461, 16_383, Server::new("asked", 3))]);
        let named: Vec<String> = view.nodes.iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
        assert_eq!(named, ["a:1", "b:2", "asked:3", "asked:4", "asked:5"]);
    }

    #[test]
    fn garbage_is_an_error_and_not_a_view() {
        for reply in [
            text("OK"),
            list(vec![text("OK")]),
            list(vec![list(vec![number(0), number(16_384), node(text("a"), 1)])]),
            list(vec![list(vec![number(-1), number(5), node(text("a"), 1)])]),
        ] {
            assert!(View::read(reply.clone(), "h").is_err(), "{reply:?}");
        }
    }

    #[test]
    fn most_views_decide_who_owns_a_slot_and_the_first_one_between_equals() {
        let (old, new) = (view(&[(0, 16_383, 1)]), view(&[(0, 9, 2), (10, 16_383, 1)]));
        let owner = |settled: &Settled, slot: usize| settled.primaries[settled.slots[slot].unwrap()].port;
        let settled = View::settle(&[old.clone(), new.clone(), new.clone()]);
        assert_eq!((owner(&settled, 0), owner(&settled, 10)), (2, 1));
        let settled = View::settle(&[old.clone(), new.clone()]);
        assert_eq!(owner(&settled, 0), 1);
        assert_eq!(settled.primaries, [Server::new("h", 1)], "who owns nothing is no primary");
        assert_eq!(settled.nodes.len(), 2);
        let settled = View::settle(&[new, old]);
        assert_eq!(owner(&settled, 0), 2);
    }

    #[test]
    fn a_slot_that_no_view_names_belongs_to_no_node() {
        let settled = View::settle(&[view(&[(0, 9, 1)])]);
        assert_eq!((settled.slots[9], settled.slots[10]), (Some(0), None));
        assert_eq!(View::settle(&[]).slots, vec![None; SLOTS]);
    }

    #[test]
    fn a_redirection_names_slot_and_node() {
        assert_eq!(read_moved("MOVED 3999 10.0.0.1:6381", "h"), Some((3999, Server::new("10.0.0.1", 6381))));
        assert_eq!(read_moved("MOVED 3999 :6381", "h"), Some((3999, Server::new("h", 6381))));
        assert_eq!(read_moved("MOVED 3999 ::1:6381", "h"), Some((3999, Server::new("::1", 6381))));
        for other in ["MOVED", "MOVED 16384 h:1", "MOVED x h:1", "MOVED 1 h", "ASK 1 h:1", "MOVED 1 h:99999"] {
            assert_eq!(read_moved(other, "h"), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_redirection_makes_the_reader_panic(text in "(MOVED )?.*") {
            let _ = read_moved(&text, "h");
        }
    }
}
