//! Counts connections that came and went between two surveys: those that the servers received, less those that this bridge and the client
//! lists explain. TLS clients and a provider's monitoring are among them, so the number only says how complete the evidence is.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::client_list;
use super::evidence::is_bridged;
use super::info::Info;
use super::node::{MAX_NODES, NodeReplies};
use super::survey::Round;

/// Counters as of the last survey.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Number of connections that each server has received, by its `run_id`.
    received: BTreeMap<String, u64>,
    /// Number of connections that this bridge had opened.
    dialled: u64,
    at: Option<Instant>,
}

impl Arrivals {
    /// Returns the largest number of connections that can have come and gone unseen since the last survey. `dialled` is the number of
    /// connections that the bridge has opened to the group's servers for clients since it started.
    pub(super) fn unseen<C>(
        &mut self,
        round: &Round<C>,
        dialled: u64,
        bridges: &[String],
        now: Instant,
    ) -> u64 {
        let period = self.at.replace(now).map(|at| now.duration_since(at));
        let own_dials = dialled.saturating_sub(std::mem::replace(&mut self.dialled, dialled));
        if self.received.len() > MAX_NODES {
            self.received.clear();
        }
        let (mut unexplained, mut listed) = (0, 0);
        for all in round.nodes.iter().filter_map(|node| node.replies.as_ref().ok()) {
            let Some(replies) = all.last() else { continue };
            let Some((id, received)) =
                replies.run_id().zip(Info(&replies.info).number("total_connections_received"))
            else {
                continue;
            };
            // Connections that a server received while it did not answer count as unseen, too.
            let before = self.received.insert(id.to_owned(), received);
            let (Some(before), Some(period)) = (before, period) else { continue };
            let young = Young::of(replies, period, bridges);
            // An explanation counts only for its own server.
            let surveying = all.len() as u64;
            let explained = young.direct + young.bridged.max(surveying);
            unexplained += received.saturating_sub(before).saturating_sub(explained);
            listed += young.bridged.saturating_sub(surveying);
        }
        // The lists contain this bridge's connections and those of other bridges. No list says whose connection has come and gone.
        unexplained.saturating_sub(own_dials.saturating_sub(listed))
    }
}

/// Number of listed clients that were not there at the last survey.
#[derive(Default)]
struct Young {
    bridged: u64,
    direct: u64,
}

impl Young {
    fn of(replies: &NodeReplies, period: Duration, bridges: &[String]) -> Self {
        let mut young = Self::default();
        let Some(Ok(list)) = &replies.list else { return young };
        // Ages are whole seconds. A client that may be older is not counted.
        for client in client_list::parse(list).filter(|client| client.age < period.as_secs()) {
            match is_bridged(&client, replies.wants_auth, bridges) {
                Some(true) => young.bridged += 1,
                Some(false) | None => young.direct += 1,
            }
        }
        young
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::group::survey::FoundNode;

    fn round(received: u64, list: &str) -> Round<()> {
        Round { nodes: vec![server("a", received, list)], is_cut_short: false }
    }

    fn server(id: &str, received: u64, list: &str) -> FoundNode<()> {
        let info = format!("run_id:{id}\r\ntotal_connections_received:{received}\r\n");
        let replies = NodeReplies { list: Some(Ok(list.to_owned())), ..NodeReplies::saying(&info) };
        FoundNode {
            shown: id.into(),
            endpoint: None,
            names: [id.to_owned()].into(),
            is_named: true,
            replies: Ok(vec![replies]),
            connection: None,
        }
    }

    #[test]
    fn what_explains_arrivals_at_one_server_hides_none_at_another() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::default();
        let mut unseen = |nodes, second| {
            let now = begin + Duration::from_secs(second);
            arrivals.unseen(&Round { nodes, is_cut_short: false }, 0, &[], now)
        };
        let list = "id=1 addr=10.0.0.9:1 age=5 flags=N name= user=default lib-name=jedis\n".repeat(9);
        assert_eq!(unseen(vec![server("a", 100, ""), server("b", 100, "")], 0), 0);
        assert_eq!(unseen(vec![server("a", 101, &list), server("b", 105, "")], 60), 4);
        // One server did not answer for a while.
        assert_eq!(unseen(vec![server("a", 102, "")], 120), 0);
        assert_eq!(unseen(vec![server("a", 103, ""), server("b", 110, "")], 180), 4);
    }

    #[test]
    fn a_client_that_may_have_come_before_the_last_survey_explains_nothing() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::default();
        let at = |second| begin + Duration::from_secs(second);
        arrivals.unseen(&round(100, ""), 0, &[], at(0));
        let list = "id=1 addr=10.0.0.9:1 age=60 flags=N name= user=default lib-name=jedis\n";
        assert_eq!(arrivals.unseen(&round(103, list), 0, &[], at(60)), 2);
    }

    #[test]
    fn arrivals_that_neither_the_bridge_nor_a_list_explains_are_unseen() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::default();
        let mut unseen = |received, list: &str, dialled, second| {
            let now = begin + Duration::from_secs(second);
            arrivals.unseen(&round(received, list), dialled, &[], now)
        };
        assert_eq!(unseen(100, "", 7, 0), 0, "arrivals before the first survey are not known");
        // The survey's own connection.
        assert_eq!(unseen(101, "", 7, 60), 0);
        assert_eq!(unseen(105, "", 7, 120), 3);
        // Two connections for clients of this bridge.
        assert_eq!(unseen(108, "", 9, 180), 0);
        let list = "id=1 addr=10.0.0.9:1 age=5 flags=N name= user=default lib-name=jedis\n\
            id=2 addr=10.0.0.9:2 age=500 flags=N name= user=default lib-name=jedis\n";
        assert_eq!(unseen(110, list, 9, 240), 0);
        // The server restarted, so its counter starts again.
        assert_eq!(unseen(3, "", 9, 300), 0);
    }
}
