//! Tracks which nodes a group has. A node that was seen or named once stays a member until every source has agreed for a while that it is
//! gone. Until then its count is unknown, and an unknown count is never taken for zero.

use std::collections::BTreeSet;
use std::iter;
use std::time::Duration;

use tokio::time::Instant;

use super::node::{MAX_NODES, NodeReplies, cluster_node_of, process_name, process_of, run_id_of};
use super::survey::{FoundNode, Round};
use crate::endpoint::Endpoint;

/// Servers report their uptime in whole seconds.
const UPTIME_STEP: Duration = Duration::from_secs(1);

/// The nodes of a group.
pub(super) struct Members {
    known: Vec<Member>,
    /// A node is gone once every source has agreed for this time.
    gone_after: Duration,
    /// When the previous round was, and whether every source agreed in it; `None` in the first round.
    before: Option<(Instant, bool)>,
}

struct Member {
    shown: String,
    /// Where the node can be asked; `None` if no address is known.
    endpoint: Option<Endpoint>,
    names: BTreeSet<String>,
    /// Why the last attempt to ask it failed.
    problem: Option<String>,
    /// When it stopped answering.
    silent_since: Option<Instant>,
    /// For how long every source has agreed that it is gone; `None` if it was there in the last round.
    gone_for: Option<Duration>,
}

impl Members {
    /// `remembered` holds the nodes that an earlier process knew, and the `run_id` of those that had answered.
    pub(super) fn new(gone_after: Duration, remembered: Vec<(Endpoint, Option<String>)>) -> Self {
        let known = remembered.into_iter().map(|(endpoint, run_id)| Member {
            shown: endpoint.to_string(),
            names: iter::once(endpoint.to_string()).chain(run_id.as_deref().map(process_name)).collect(),
            endpoint: Some(endpoint),
            problem: None,
            silent_since: None,
            gone_for: None,
        });
        Self { known: known.collect(), gone_after, before: None }
    }

    /// Returns where the nodes can be asked, and the `run_id` of those that have answered.
    pub(super) fn list(&self) -> Vec<(Endpoint, Option<String>)> {
        let listed =
            |member: &Member| Some((member.endpoint.clone()?, run_id_of(&member.names).map(str::to_owned)));
        self.known.iter().filter_map(listed).collect()
    }

    /// Learns from a round, and adds to it the nodes that it did not find. Returns the longest time in which a node may have had clients
    /// unobserved, because it answered for the first time or again. That is `Duration::MAX` if such a node ran before the last round.
    pub(super) fn learn<C>(&mut self, round: &mut Round<C>, now: Instant) -> Duration {
        let since_before = self.before.map(|(at, _)| now.duration_since(at));
        let processes: BTreeSet<String> =
            round.nodes.iter().filter_map(|node| process_of(&node.names).cloned()).collect();
        // Another process that answers at a node's address belongs to the group only if a source names it, or if it names a member itself.
        let named: BTreeSet<String> =
            round.nodes.iter().filter(|node| node.is_named).flat_map(|node| node.names.clone()).collect();
        let names_one = |all: &[NodeReplies]| {
            all.iter().flat_map(|replies| &replies.others).any(|other| !other.all().is_disjoint(&named))
        };
        round.nodes.retain(|node| {
            let member = self.known.iter_mut().find(|member| member.is(node, &processes));
            match (&node.replies, member) {
                _ if node.is_named => true,
                (Ok(all), member) => member.is_some() || names_one(all),
                (Err(problem), member) => {
                    if let Some(member) = member {
                        member.problem = Some(problem.clone());
                    }
                    false
                }
            }
        });
        let all_answered = round.nodes.iter().all(|node| !node.is_named || node.replies.is_ok());
        let mut found = Vec::new();
        let mut unwatched = Duration::ZERO;
        for node in &round.nodes {
            let (same, others): (Vec<_>, _) =
                std::mem::take(&mut self.known).into_iter().partition(|member| member.is(node, &processes));
            self.known = others;
            if is_new(node, &same) {
                unwatched = unwatched.max(unwatched_time(node, since_before));
            }
            let silent_since = same.iter().filter_map(|member| member.silent_since).min();
            if node.replies.is_ok() {
                unwatched = unwatched.max(silent_since.map(|at| now.duration_since(at)).unwrap_or_default());
            }
            let silent_since = node.replies.is_err().then(|| silent_since.unwrap_or(now));
            found.push(Member::of(node, same, silent_since));
        }
        let (gone_after, agreed) = (self.gone_after, all_answered && !round.is_cut_short);
        let agreed_before = self.before.replace((now, agreed)).is_some_and(|(_, agreed)| agreed);
        let agreed_for = since_before.filter(|_| agreed && agreed_before).unwrap_or_default();
        self.known.retain_mut(|member| {
            let gone_for = member.gone_for.map_or(Duration::ZERO, |time| time.saturating_add(agreed_for));
            member.gone_for = Some(gone_for);
            member.silent_since.get_or_insert(now);
            !agreed || gone_for < gone_after
        });
        round.nodes.extend(self.known.iter().map(|member| member.missing(gone_after)));
        self.known.extend(found.into_iter().flatten());
        round.is_cut_short |= self.known.len() > MAX_NODES;
        self.known.truncate(MAX_NODES);
        unwatched
    }
}

/// Whether a node answers that matches no known member, or answers as another process than before.
fn is_new<C>(node: &FoundNode<C>, same: &[Member]) -> bool {
    let is_known = match process_of(&node.names) {
        Some(process) => same.iter().any(|member| member.names.contains(process)),
        None => !same.is_empty(),
    };
    node.replies.is_ok() && !is_known
}

/// Returns for how long a new node may have had clients: since its process started, if that was after the last round.
fn unwatched_time<C>(node: &FoundNode<C>, since_before: Option<Duration>) -> Duration {
    let uptimes = node.replies.iter().flatten().map(|replies| replies.uptime().unwrap_or(Duration::MAX));
    let uptime = uptimes.max().unwrap_or(Duration::MAX);
    if since_before.is_some_and(|period| uptime <= period.saturating_add(UPTIME_STEP)) {
        uptime
    } else {
        Duration::MAX
    }
}

impl Member {
    /// Whether the node is this member: the same process, or one with a common name whose process is not known. `processes`
    /// holds the processes that answered in this round.
    fn is<C>(&self, node: &FoundNode<C>, processes: &BTreeSet<String>) -> bool {
        if let (Some(own), Some(other)) = (cluster_node_of(&self.names), cluster_node_of(&node.names)) {
            return own == other;
        }
        match (process_of(&self.names), process_of(&node.names)) {
            (Some(own), other) if processes.contains(own) => other == Some(own),
            (Some(own), Some(other)) if !node.is_named => own == other,
            _ => !self.names.is_disjoint(&node.names),
        }
    }

    /// Returns the member that the node is now; `None` for a configured node that has never answered.
    fn of<C>(node: &FoundNode<C>, before: Vec<Self>, silent_since: Option<Instant>) -> Option<Self> {
        let answered = node.replies.is_ok();
        if before.is_empty() && !answered && node.names.is_empty() {
            return None;
        }
        let mut names = node.names.clone();
        let mut endpoint = node.endpoint.clone();
        for member in before {
            // An answer replaces the names that the node had before.
            if !answered {
                names.extend(member.names);
            }
            endpoint = endpoint.or(member.endpoint);
        }
        Some(Self { shown: node.shown.clone(), endpoint, names, problem: None, silent_since, gone_for: None })
    }

    fn missing<C>(&self, gone_after: Duration) -> FoundNode<C> {
        let problem = format!(
            "it was a node of the group and does not answer{}; it counts as one until all other nodes have agreed for {} that it is gone",
            self.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default(),
            humantime::format_duration(gone_after)
        );
        FoundNode {
            shown: self.shown.clone(),
            endpoint: self.endpoint.clone(),
            names: self.names.clone(),
            is_named: false,
            replies: Err(problem),
            connection: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(600);

    fn node(names: &[&str], is_named: bool, answers: bool) -> FoundNode<()> {
        FoundNode {
            shown: names[0].into(),
            endpoint: names[0].parse().ok(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            is_named,
            replies: if answers { Ok(Vec::new()) } else { Err("closed".into()) },
            connection: None,
        }
    }

    /// Returns each node of a round, and whether it answered.
    fn after(members: &mut Members, nodes: Vec<FoundNode<()>>, now: Instant) -> Vec<(String, bool)> {
        let mut round = Round { nodes, is_cut_short: false };
        members.learn(&mut round, now);
        let mut shown: Vec<_> =
            round.nodes.into_iter().map(|node| (node.shown, node.replies.is_ok())).collect();
        shown.sort();
        shown
    }

    #[test]
    fn a_node_is_gone_once_all_sources_have_agreed_for_a_while() {
        let mut members = Members::new(GONE_AFTER, Vec::new());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let a = |answers| node(&["10.0.0.1:6379", "run_id a"], true, answers);
        let b = |is_named, answers| {
            let names: &[&str] = if answers { &["10.0.0.2:6379", "run_id b"] } else { &["10.0.0.2:6379"] };
            node(names, is_named, answers)
        };
        let (seen, missing) = ((String::from("10.0.0.2:6379"), true), (String::from("10.0.0.2:6379"), false));
        assert!(after(&mut members, vec![a(true), b(true, true)], at(0)).contains(&seen));
        // The primary no longer names it, but it still serves.
        assert!(after(&mut members, vec![a(true), b(false, true)], at(60)).contains(&seen));
        // It no longer answers.
        assert!(after(&mut members, vec![a(true), b(false, false)], at(120)).contains(&missing));
        assert!(after(&mut members, vec![a(true), b(false, false)], at(180)).contains(&missing));
        // A source that does not answer does not agree. The time that it agreed before still counts.
        assert!(after(&mut members, vec![a(false), b(false, false)], at(600)).contains(&missing));
        assert!(after(&mut members, vec![a(true), b(false, false)], at(660)).contains(&missing));
        assert!(after(&mut members, vec![a(true)], at(1199)).contains(&missing));
        assert_eq!(after(&mut members, vec![a(true)], at(1200)), [("10.0.0.1:6379".into(), true)]);
    }

    #[test]
    fn another_process_at_the_address_of_a_node_does_not_answer_for_it() {
        let mut members = Members::new(GONE_AFTER, Vec::new());
        let now = Instant::now();
        let named = |id: &str| node(&["10.0.0.2:6379", id], true, true);
        let stranger = || node(&["10.0.0.2:6379", "run_id c"], false, true);
        after(&mut members, vec![named("run_id b")], now);
        assert_eq!(after(&mut members, vec![stranger()], now), [("10.0.0.2:6379".into(), false)]);
        // A restarted server is the same node.
        assert_eq!(after(&mut members, vec![named("run_id c")], now), [("10.0.0.2:6379".into(), true)]);
    }

    #[test]
    fn a_new_node_counts_as_unwatched_since_its_process_started() {
        let aged = |names: &[&str], uptime: u64| {
            let replies = NodeReplies::saying(&format!("uptime_in_seconds:{uptime}\r\n"));
            FoundNode { replies: Ok(vec![replies]), ..node(names, true, true) }
        };
        let begin = Instant::now();
        let mut members =
            Members::new(GONE_AFTER, vec![("10.0.0.1:6379".parse().unwrap(), Some("a".into()))]);
        let mut unwatched = |nodes, second| {
            members.learn(&mut Round { nodes, is_cut_short: false }, begin + Duration::from_secs(second))
        };
        let a = || aged(&["10.0.0.1:6379", "run_id a"], 9000);
        assert_eq!(unwatched(vec![a()], 0), Duration::ZERO, "an earlier process knew it");
        assert_eq!(unwatched(vec![a()], 60), Duration::ZERO);
        let b = |id, uptime| aged(&["10.0.0.2:6379", id], uptime);
        assert_eq!(unwatched(vec![a(), b("run_id b", 7)], 120), Duration::from_secs(8));
        assert_eq!(unwatched(vec![a(), b("run_id b", 67)], 180), Duration::ZERO);
        // The node was restarted.
        assert_eq!(unwatched(vec![a(), b("run_id c", 3)], 240), Duration::from_secs(4));
        // The node was named before and never answered.
        let silent = || node(&["10.0.0.4:6379"], true, false);
        assert_eq!(unwatched(vec![a(), b("run_id c", 63), silent()], 300), Duration::ZERO);
        let late = || aged(&["10.0.0.4:6379", "run_id e"], 300);
        assert_eq!(unwatched(vec![a(), b("run_id c", 123), late()], 360), Duration::MAX);
        // The node had other clients before it joined.
        let c = || aged(&["10.0.0.3:6379", "run_id d"], 300);
        assert_eq!(unwatched(vec![a(), b("run_id c", 183), late(), c()], 420), Duration::MAX);
    }

    #[test]
    fn a_node_that_answers_again_counts_as_unwatched_since_it_stopped() {
        let begin = Instant::now();
        let mut members = Members::new(GONE_AFTER, Vec::new());
        let mut unwatched = |nodes, second| {
            members.learn(&mut Round { nodes, is_cut_short: false }, begin + Duration::from_secs(second))
        };
        let b = |answers| node(&["10.0.0.2:6379"], true, answers);
        unwatched(vec![b(true)], 0);
        assert_eq!(unwatched(vec![b(false)], 60), Duration::ZERO);
        assert_eq!(unwatched(vec![], 120), Duration::ZERO);
        assert_eq!(unwatched(vec![b(true)], 300), Duration::from_secs(240));
        assert_eq!(unwatched(vec![b(true)], 360), Duration::ZERO);
    }

    #[test]
    fn nodes_that_share_a_name_are_distinguished_by_their_replies() {
        let mut members = Members::new(GONE_AFTER, Vec::new());
        let now = Instant::now();
        let a = node(&["10.0.0.1:6379", "shared.test:6379", "cluster node a", "run_id a"], true, true);
        let b = node(&["10.0.0.2:6379", "shared.test:6379", "cluster node b", "run_id b"], true, true);
        after(&mut members, vec![a, b], now);
        let a = node(&["10.0.0.1:6379", "shared.test:6379", "cluster node a", "run_id a"], true, true);
        let shown = after(&mut members, vec![a], now);
        assert_eq!(shown, [("10.0.0.1:6379".into(), true), ("10.0.0.2:6379".into(), false)]);
    }

    #[test]
    fn nodes_of_an_earlier_process_are_remembered() {
        let mut members = Members::new(GONE_AFTER, vec![("10.0.0.2:6379".parse().unwrap(), None)]);
        let shown = after(&mut members, vec![node(&["10.0.0.1:6379"], true, true)], Instant::now());
        assert_eq!(shown, [("10.0.0.1:6379".into(), true), ("10.0.0.2:6379".into(), false)]);
        assert_eq!(members.list().len(), 2);
    }
}
