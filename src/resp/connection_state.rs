//! What a connection carries that another client could see. Decided by replies: what a server refuses changes nothing, but where it
//! is known to act before it fails.

use super::command_table::{ClusterReply, Leaves, Transaction};
use super::request::Request;

/// What is left with a connection, as far as it matters for whether another client could have it, or another connection
/// could take its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionState {
    left: Option<Leaves>,
    transaction: TransactionState,
    watching: bool,
    asking: bool,
    protocol: Protocol,
}

/// The protocol that the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Protocol {
    #[default]
    Resp2,
    Resp3,
    /// EXEC did a HELLO, or not: its reply is not read.
    Unknown,
}

/// Whether commands are queued for EXEC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum TransactionState {
    #[default]
    None,
    /// They are.
    Open(Box<Queue>),
    /// EXEC was refused. Most servers end the transaction all the same (`rejectCommand` in `server.c`); not so Redis before 6.0.6,
    /// nor one that does not know the command.
    Unsure,
}

/// What is queued for EXEC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    /// EXEC will leave this.
    leaves: Option<Leaves>,
    /// HELLO is among them.
    has_hello: bool,
    /// How many commands are queued.
    pub commands: usize,
    /// Those whose replies hold addresses of nodes, by their place.
    pub nodes: Vec<(usize, ClusterReply)>,
}

/// What a reply says of HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloReply {
    /// It answers another request, or refuses.
    None,
    /// The server accepts it.
    Accepted,
    /// EXEC will do it, and EXEC's reply will hold its reply.
    Queued,
}

impl Protocol {
    fn of(resp3: bool) -> Self {
        if resp3 { Self::Resp3 } else { Self::Resp2 }
    }
}

impl ConnectionState {
    /// Of a connection that speaks RESP3, or RESP2, already.
    pub fn speaking(resp3: bool) -> Self {
        Self { protocol: Protocol::of(resp3), ..Self::default() }
    }

    /// A request has its reply, which refuses it or is `+QUEUED`, or neither.
    #[inline]
    pub fn answered(&mut self, request: Request, refused: bool, queued: bool) -> HelloReply {
        self.asking = false;
        if request == Request::Plain && !queued {
            return HelloReply::None;
        }
        self.special(request, refused, queued)
    }

    fn special(&mut self, request: Request, refused: bool, queued: bool) -> HelloReply {
        if queued && let TransactionState::Open(queue) = &mut self.transaction {
            if let Request::Cluster(reply) = request {
                queue.nodes.push((queue.commands, reply));
            }
            queue.commands += 1;
        }
        match request {
            Request::Leaves(leaves) if !refused => self.accept(leaves),
            Request::Transaction(transaction) => self.transaction(transaction, refused),
            Request::Hello { has_options: false, .. } if refused => {}
            Request::Hello { .. } if refused => self.accept(Leaves::UntilReset),
            Request::Hello { leaves, resp3, .. } => {
                self.accept(leaves);
                if let TransactionState::Open(queue) = &mut self.transaction {
                    queue.has_hello = true;
                    return HelloReply::Queued;
                }
                self.protocol = resp3.map_or(self.protocol, Protocol::of);
                return HelloReply::Accepted;
            }
            // It leaves the server's default user, and takes away what pontoon had set up.
            Request::Reset if !refused => {
                let left = self.left.filter(|left| *left == Leaves::UntilClose);
                *self = Self { left: left.or(Some(Leaves::SetUp)), ..Self::default() };
            }
            _ => {}
        }
        HelloReply::None
    }

    /// A command that leaves this was accepted.
    pub fn accept(&mut self, leaves: Leaves) {
        match &mut self.transaction {
            // EXEC does it. Its reply does not tell whether it was done.
            TransactionState::Open(queue) => {
                queue.leaves = queue.leaves.max(Some(leaves.max(Leaves::UntilReset)));
            }
            _ if leaves == Leaves::Asking => self.asking = true,
            _ => self.left = self.left.max(Some(leaves)),
        }
    }

    /// A command about transactions has its reply.
    fn transaction(&mut self, transaction: Transaction, refused: bool) {
        match transaction {
            // Inside a transaction it is refused.
            Transaction::Begins if !refused => self.transaction = TransactionState::Open(Box::default()),
            Transaction::Watches if !refused => self.watching = true,
            // Inside a transaction EXEC does it, and ends watching anyway.
            Transaction::Unwatches if !refused && self.transaction == TransactionState::None => {
                self.watching = false;
            }
            Transaction::Executes => match &self.transaction {
                TransactionState::Open(_) if refused => self.transaction = TransactionState::Unsure,
                TransactionState::Open(queue) => {
                    if queue.has_hello {
                        self.protocol = Protocol::Unknown;
                    }
                    self.end_transaction(queue.leaves);
                }
                // What was queued since is not known.
                TransactionState::Unsure if !refused => self.end_transaction(Some(Leaves::UntilReset)),
                TransactionState::None | TransactionState::Unsure => {}
            },
            Transaction::Ends if !refused => self.end_transaction(None),
            _ => {}
        }
    }

    fn end_transaction(&mut self, leaves: Option<Leaves>) {
        self.left = self.left.max(leaves);
        self.transaction = TransactionState::None;
        self.watching = false;
    }

    /// Whether pushes are told from replies: HELLO 3 was accepted.
    pub fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// Whether nothing but replies comes where nothing is subscribed.
    pub fn is_resp2(&self) -> bool {
        self.protocol == Protocol::Resp2
    }

    /// Whether commands are queued now.
    #[inline]
    pub fn in_transaction(&self) -> bool {
        self.queue().is_some()
    }

    /// What is queued now.
    #[inline]
    pub fn queue(&self) -> Option<&Queue> {
        if let TransactionState::Open(queue) = &self.transaction { Some(queue) } else { None }
    }

    /// Whether the connection is as new.
    pub fn is_untouched(&self) -> bool {
        self.left.is_none() && self.is_free()
    }

    /// Whether nothing is left but what can be set up on another connection.
    pub fn is_free(&self) -> bool {
        self.hold().is_none()
    }

    /// What is left that cannot be set up on another connection, in words.
    pub fn hold(&self) -> Option<&'static str> {
        match (&self.transaction, self.left) {
            (TransactionState::Open(_), _) => Some("transaction open"),
            (TransactionState::Unsure, _) => Some("an EXEC that was refused"),
            _ if self.watching => Some("keys watched (WATCH)"),
            _ if self.asking => Some("ASKING"),
            (_, None | Some(Leaves::Asking | Leaves::SetUp)) => None,
            (_, Some(Leaves::Authenticated)) => Some("an AUTH of its own"),
            (_, Some(Leaves::Subscribed)) => Some("subscribed in RESP3, now or before: until RESET"),
            (_, Some(Leaves::UntilReset)) => Some("state that lasts until RESET (READONLY, CLIENT CACHING)"),
            (_, Some(Leaves::UntilClose)) => {
                Some("state that lasts (CLIENT TRACKING, CLIENT ID, DEBUG, or an unknown command)")
            }
        }
    }

    /// Whether RESET leaves nothing of it.
    pub fn is_undone_by_reset(&self) -> bool {
        self.left != Some(Leaves::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left after these, of which those with `!` were refused.
    fn after(names: &[&str]) -> ConnectionState {
        let mut state = ConnectionState::default();
        for name in names {
            let (name, refused) = name.strip_suffix('!').map_or((*name, false), |name| (name, true));
            let request = match name {
                "MULTI" => Request::Transaction(Transaction::Begins),
                "EXEC" => Request::Transaction(Transaction::Executes),
                "DISCARD" => Request::Transaction(Transaction::Ends),
                "WATCH" => Request::Transaction(Transaction::Watches),
                "UNWATCH" => Request::Transaction(Transaction::Unwatches),
                "SELECT" => Request::Leaves(Leaves::SetUp),
                "ASKING" => Request::Leaves(Leaves::Asking),
                "READONLY" => Request::Leaves(Leaves::UntilReset),
                "TRACKING" => Request::Leaves(Leaves::UntilClose),
                "RESET" => Request::Reset,
                _ => Request::Plain,
            };
            let queued = state.in_transaction() && !refused && matches!(name, "SET" | "SELECT" | "TRACKING");
            state.answered(request, refused, queued);
        }
        state
    }

    #[test]
    fn a_connection_is_as_new_once_all_that_was_begun_has_ended() {
        for names in [
            &["GET"][..],
            &["SELECT!", "TRACKING!", "MULTI!", "WATCH!"],
            &["MULTI", "SET", "EXEC"],
            &["MULTI", "SELECT", "DISCARD"],
            &["MULTI", "SELECT", "EXEC!", "MULTI", "EXEC"],
            &["WATCH", "MULTI", "EXEC!", "DISCARD"],
            &["WATCH", "GET", "UNWATCH"],
            &["WATCH", "MULTI", "DISCARD"],
            &["MULTI", "MULTI!", "EXEC"],
            &["ASKING", "GET"],
        ] {
            assert!(after(names).is_untouched(), "{names:?}");
        }
    }

    #[test]
    fn what_has_not_ended_binds_the_client_to_its_connection() {
        for names in [
            &["MULTI", "SET"][..],
            &["MULTI", "DISCARD!"],
            &["MULTI", "EXEC!"],
            &["MULTI", "EXEC!", "EXEC!"],
            &["MULTI", "EXEC!", "EXEC"],
            &["WATCH", "GET"],
            &["WATCH", "EXEC!"],
            &["WATCH", "MULTI", "UNWATCH"],
            &["ASKING"],
            &["READONLY", "RESET!"],
            &["MULTI", "SELECT", "EXEC"],
        ] {
            let state = after(names);
            assert!(!state.is_free() && state.is_undone_by_reset(), "{names:?}");
        }
    }

    #[test]
    fn what_binds_a_client_to_its_connection_is_told_in_words() {
        for (names, words) in [
            (&["MULTI", "SET"][..], "transaction open"),
            (&["MULTI", "EXEC!"], "EXEC"),
            (&["WATCH"], "WATCH"),
            (&["READONLY"], "READONLY"),
            (&["READONLY", "TRACKING"], "CLIENT TRACKING"),
        ] {
            assert!(after(names).hold().is_some_and(|hold| hold.contains(words)), "{names:?}");
        }
    }

    #[test]
    fn what_can_be_set_up_on_another_connection_touches_this_one() {
        for names in [&["SELECT"][..], &["READONLY", "RESET"], &["WATCH", "MULTI", "RESET"]] {
            let state = after(names);
            assert!(!state.is_untouched() && state.is_free(), "{names:?}");
        }
    }

    #[test]
    fn what_lasts_for_good_outlives_reset() {
        for names in [&["TRACKING", "RESET"][..], &["MULTI", "TRACKING", "EXEC", "RESET"]] {
            assert!(!after(names).is_undone_by_reset(), "{names:?}");
        }
    }

    #[test]
    fn replies_that_name_nodes_are_found_in_a_transaction_by_what_was_queued() {
        let mut state = ConnectionState::default();
        let begins = Request::Transaction(Transaction::Begins);
        let nodes = Request::Cluster(ClusterReply::Nodes);
        state.answered(nodes, false, false);
        state.answered(begins, false, false);
        for (request, refused) in [(Request::Plain, false), (begins, true), (nodes, true), (nodes, false)] {
            state.answered(request, refused, !refused);
        }
        let queue = state.queue().unwrap();
        assert_eq!((queue.commands, &queue.nodes[..]), (2, &[(1, ClusterReply::Nodes)][..]));
    }

    #[test]
    fn the_protocol_is_what_the_server_last_accepted() {
        let mut state = ConnectionState::default();
        let hello =
            |version| Request::Hello { resp3: Some(version), leaves: Leaves::SetUp, has_options: false };
        assert_eq!(state.answered(hello(true), true, false), HelloReply::None);
        assert!(!state.is_resp3() && state.is_untouched());
        assert_eq!(state.answered(hello(true), false, false), HelloReply::Accepted);
        assert!(state.is_resp3() && !state.is_untouched() && state.is_free());
        state.answered(Request::Transaction(Transaction::Begins), false, false);
        assert_eq!(state.answered(hello(false), false, true), HelloReply::Queued);
        assert!(state.is_resp3());
        state.answered(Request::Transaction(Transaction::Executes), false, false);
        assert!(!state.is_resp3(), "EXEC may have done it");
        state.answered(hello(true), false, false);
        assert!(state.is_resp3());
        state.answered(Request::Reset, false, false);
        assert!(!state.is_resp3());
    }

    #[test]
    fn a_hello_with_options_may_have_done_what_it_was_refused_for_later() {
        for has_options in [false, true] {
            let mut state = ConnectionState::default();
            let hello = Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options };
            state.answered(hello, true, false);
            assert_eq!(state.is_untouched(), !has_options);
        }
    }
}
