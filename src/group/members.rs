//! Which nodes a group has. A node that was seen once, or named once, stays one until every source has agreed for a while that it is
//! gone: before that, what it counts is not known, and that is never taken for zero.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::node::NodeReplies;
use super::survey::{FoundNode, Round};
use crate::endpoint::Endpoint;

/// The nodes of a group.
pub(super) struct Members {
    known: Vec<Member>,
    /// Every source must have agreed for so long.
    gone_after: Duration,
}

struct Member {
    shown: String,
    /// Where it can be asked; `None`: no address is known.
    endpoint: Option<Endpoint>,
    names: BTreeSet<String>,
    /// Why it did not answer last.
    problem: Option<String>,
    /// Since when every source agrees that it is gone; `None`: not all do.
    gone_since: Option<Instant>,
}

impl Members {
    /// `remembered`: nodes that an earlier process knew.
    pub(super) fn new(gone_after: Duration, remembered: Vec<Endpoint>) -> Self {
        let known = remembered.into_iter().map(|endpoint| Member {
            shown: endpoint.to_string(),
            names: BTreeSet::from([endpoint.to_string()]),
            endpoint: Some(endpoint),
            problem: None,
            gone_since: None,
        });
        Self { known: known.collect(), gone_after }
    }

    /// Where they can be asked.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.known.iter().filter_map(|member| member.endpoint.clone()).collect()
    }

    /// Learns from a round, and adds to it the nodes that it did not find.
    pub(super) fn learn<C>(&mut self, round: &mut Round<C>, now: Instant) {
        // Who answers at a node's address and is another process is no node of the group, unless a source says so, or it names one itself.
        let named: BTreeSet<String> =
            round.nodes.iter().filter(|node| node.is_named).flat_map(|node| node.names.clone()).collect();
        let names_one = |all: &[NodeReplies]| {
            all.iter().flat_map(|replies| &replies.others).any(|other| !other.all().is_disjoint(&named))
        };
        round.nodes.retain(|node| {
            let member = self.known.iter_mut().find(|member| member.is(node));
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
        for node in &round.nodes {
            let (same, others) =
                std::mem::take(&mut self.known).into_iter().partition(|member| member.is(node));
            self.known = others;
            found.push(Member::of(node, same));
        }
        let (gone_after, agreed) = (self.gone_after, all_answered && !round.is_cut_short);
        self.known.retain_mut(|member| {
            member.gone_since = agreed.then(|| member.gone_since.unwrap_or(now));
            member.gone_since.is_none_or(|since| now.duration_since(since) < gone_after)
        });
        round.nodes.extend(self.known.iter().map(|member| member.missing(gone_after)));
        self.known.extend(found.into_iter().flatten());
    }
}

impl Member {
    /// Whether the node is this one: the same process, or what is named the same and has not said which process it is.
    fn is<C>(&self, node: &FoundNode<C>) -> bool {
        let named =
            |names: &BTreeSet<String>, kind: &str| names.iter().find(|name| name.starts_with(kind)).cloned();
        let label = named(&self.names, "cluster node ");
        if label.is_some() && label == named(&node.names, "cluster node ") {
            return true;
        }
        let run_id = |names: &BTreeSet<String>| named(names, "run_id ");
        match (run_id(&self.names), run_id(&node.names)) {
            (Some(own), Some(other)) if !node.is_named => own == other,
            _ => !self.names.is_disjoint(&node.names),
        }
    }

    /// The member that a node is now. `None`: it is one that the configuration names, has not answered and was never seen.
    fn of<C>(node: &FoundNode<C>, before: Vec<Self>) -> Option<Self> {
        let answered = node.replies.is_ok();
        if before.is_empty() && !answered && node.names.is_empty() {
            return None;
        }
        let mut names = node.names.clone();
        let mut endpoint = node.endpoint.clone();
        for member in before {
            // What a node that answered is not called any more is forgotten.
            if !answered {
                names.extend(member.names);
            }
            endpoint = endpoint.or(member.endpoint);
        }
        Some(Self { shown: node.shown.clone(), endpoint, names, problem: None, gone_since: None })
    }

    fn missing<C>(&self, gone_after: Duration) -> FoundNode<C> {
        let problem = format!(
            "it was a node of the group and does not answer{}; it counts until all others have agreed for {} that it is gone",
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

    /// What a round shows, and whether it answered.
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
        // The primary names it no more, and it serves on.
        assert!(after(&mut members, vec![a(true), b(false, true)], at(60)).contains(&seen));
        // It does not answer any more.
        assert!(after(&mut members, vec![a(true), b(false, false)], at(120)).contains(&missing));
        // A source that says nothing has not agreed.
        assert!(after(&mut members, vec![a(false), b(false, false)], at(600)).contains(&missing));
        assert!(after(&mut members, vec![a(true), b(false, false)], at(660)).contains(&missing));
        assert!(after(&mut members, vec![a(true)], at(1259)).contains(&missing));
        assert_eq!(after(&mut members, vec![a(true)], at(1260)), [("10.0.0.1:6379".into(), true)]);
    }

    #[test]
    fn another_process_at_the_address_of_a_node_does_not_answer_for_it() {
        let mut members = Members::new(GONE_AFTER, Vec::new());
        let now = Instant::now();
        let named = |id: &str| node(&["10.0.0.2:6379", id], true, true);
        let stranger = || node(&["10.0.0.2:6379", "run_id c"], false, true);
        after(&mut members, vec![named("run_id b")], now);
        assert_eq!(after(&mut members, vec![stranger()], now), [("10.0.0.2:6379".into(), false)]);
        // A server that was restarted is the same node.
        assert_eq!(after(&mut members, vec![named("run_id c")], now), [("10.0.0.2:6379".into(), true)]);
    }

    #[test]
    fn nodes_of_an_earlier_process_are_remembered() {
        let mut members = Members::new(GONE_AFTER, vec!["10.0.0.2:6379".parse().unwrap()]);
        let shown = after(&mut members, vec![node(&["10.0.0.1:6379"], true, true)], Instant::now());
        assert_eq!(shown, [("10.0.0.1:6379".into(), true), ("10.0.0.2:6379".into(), false)]);
        assert_eq!(members.endpoints().len(), 2);
    }
}
