//! Connections that came and went between two surveys: how many the servers received, less those that this bridge and the lists of
//! clients explain. TLS clients and a provider's monitoring are among them, so the number says how good the evidence is, and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::client_list;
use super::evidence::is_bridged;
use super::info::Info;
use super::node::NodeReplies;
use super::survey::Round;

/// What was counted at the last survey.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Connections that each server has received, by its `run_id`.
    received: BTreeMap<String, u64>,
    /// Connections that this bridge had opened.
    dialled: u64,
    at: Option<Instant>,
}

impl Arrivals {
    /// Connections that came and went unseen since the last survey, at most. `dialled`: connections that the bridge has opened to the group's
    /// servers for clients, since it began.
    pub(super) fn unseen<C>(
        &mut self,
        round: &Round<C>,
        dialled: u64,
        bridges: &[String],
        now: Instant,
    ) -> u64 {
        let period = self.at.replace(now).map(|at| now.duration_since(at));
        let own_dials = dialled.saturating_sub(std::mem::replace(&mut self.dialled, dialled));
        let before = std::mem::take(&mut self.received);
        let (mut came, mut surveying, mut young) = (0, 0, Young::default());
        for all in round.nodes.iter().filter_map(|node| node.replies.as_ref().ok()) {
            let Some(replies) = all.last() else { continue };
            let Some((id, received)) =
                replies.run_id().zip(Info(&replies.info).number("total_connections_received"))
            else {
                continue;
            };
            self.received.insert(id.to_owned(), received);
            let (Some(before), Some(period)) = (before.get(id), period) else { continue };
            came += received.saturating_sub(*before);
            surveying += all.len() as u64;
            young.count(replies, period, bridges);
        }
        // The list names this bridge's connections as well as those of others.
        came.saturating_sub(young.direct + young.bridged.max(own_dials + surveying))
    }
}

/// Clients that are listed, and were not at the last survey.
#[derive(Default)]
struct Young {
    bridged: u64,
    direct: u64,
}

impl Young {
    fn count(&mut self, replies: &NodeReplies, period: Duration, bridges: &[String]) {
        let Some(Ok(list)) = &replies.list else { return };
        for client in client_list::parse(list).filter(|client| client.age <= period.as_secs()) {
            match is_bridged(&client, replies.wants_auth, bridges) {
                Some(true) => self.bridged += 1,
                Some(false) | None => self.direct += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::node::NodeNames;
    use crate::group::survey::FoundNode;

    fn round(received: u64, list: &str) -> Round<()> {
        let replies = NodeReplies {
            own_id: None,
            wants_auth: false,
            info: format!("run_id:a\r\ntotal_connections_received:{received}\r\n"),
            list: Some(Ok(list.to_owned())),
            own: NodeNames::default(),
            others: Vec::new(),
        };
        let node = FoundNode {
            shown: "a".into(),
            endpoint: None,
            names: ["a".to_owned()].into(),
            is_named: true,
            replies: Ok(vec![replies]),
            connection: None,
        };
        Round { nodes: vec![node], is_cut_short: false }
    }

    #[test]
    fn connections_are_unseen_that_neither_the_bridge_nor_a_list_explains() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::default();
        let mut unseen = |received, list: &str, dialled, second| {
            let now = begin + Duration::from_secs(second);
            arrivals.unseen(&round(received, list), dialled, &[], now)
        };
        assert_eq!(unseen(100, "", 7, 0), 0, "what was before is not known");
        // The survey's own.
        assert_eq!(unseen(101, "", 7, 60), 0);
        assert_eq!(unseen(105, "", 7, 120), 3);
        // Two for clients of this bridge.
        assert_eq!(unseen(108, "", 9, 180), 0);
        let list = "id=1 addr=10.0.0.9:1 age=5 flags=N name= user=default lib-name=jedis\n\
            id=2 addr=10.0.0.9:2 age=500 flags=N name= user=default lib-name=jedis\n";
        assert_eq!(unseen(110, list, 9, 240), 0);
        // The server was restarted, and counts anew.
        assert_eq!(unseen(3, "", 9, 300), 0);
    }
}
