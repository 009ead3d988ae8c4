//! What a client leaves on its connection that another client could see.
//!
//! Replies decide this: a request that the server refuses changes nothing, except where servers are known to act before they refuse.

use super::command_table::{AddressReply, Leaves, Transaction};
use super::request::Request;

/// What is left on a connection. It decides whether another client may use this connection, and whether another connection may replace it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionState {
    left: Option<Leaves>,
    transaction: TransactionState,
    watching: bool,
    asking: bool,
    protocol: Protocol,
}

/// The protocol that the server uses on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Protocol {
    #[default]
    Resp2,
    Resp3,
    /// A HELLO was queued for EXEC. Its result is unknown, because EXEC's reply is not read.
    Unknown,
}

/// Whether commands are queued for EXEC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum TransactionState {
    #[default]
    None,
    /// Commands are queued.
    Open(Box<Queue>),
    /// EXEC was refused. Most servers then end the transaction (`rejectCommand` in `server.c`). Redis before 6.0.6 does not, nor does a
    /// server that lacks EXEC.
    Unsure,
}

/// The commands that are queued for EXEC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    /// What EXEC will leave on the connection.
    leaves: Option<Leaves>,
    /// HELLO is among them.
    has_hello: bool,
    /// Number of queued commands.
    pub commands: usize,
    /// The commands whose replies hold addresses of nodes, by index.
    pub nodes: Vec<(usize, AddressReply)>,
}

/// What a reply says about HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloReply {
    /// The reply answers another request, or refuses.
    None,
    /// The server accepts it.
    Accepted,
    /// EXEC will run HELLO, and EXEC's reply will contain HELLO's.
    Queued,
}

impl Protocol {
    fn of(resp3: bool) -> Self {
        if resp3 { Self::Resp3 } else { Self::Resp2 }
    }
}

impl ConnectionState {
    /// The state of a new connection that uses RESP3 (`true`) or RESP2.
    pub fn speaking(resp3: bool) -> Self {
        Self { protocol: Protocol::of(resp3), ..Self::default() }
    }

    /// Notes the reply to a request. `refused`: it is an error. `queued`: it is `+QUEUED`.
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
            if let Request::Addresses(reply) = request {
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
            // RESET logs the connection in as the default user, and undoes what pontoon had set up.
            Request::Reset if !refused => {
                let left = self.left.filter(|left| *left == Leaves::UntilClose);
                *self = Self { left: left.or(Some(Leaves::SetUp)), ..Self::default() };
            }
            _ => {}
        }
        HelloReply::None
    }

    /// Notes that a command that leaves this was accepted.
    pub fn accept(&mut self, leaves: Leaves) {
        match &mut self.transaction {
            // EXEC runs the command. Its reply is not read, so assume the command took effect.
            TransactionState::Open(queue) => {
                queue.leaves = queue.leaves.max(Some(leaves.max(Leaves::UntilReset)));
            }
            _ if leaves == Leaves::Asking => self.asking = true,
            _ => self.left = self.left.max(Some(leaves)),
        }
    }

    /// Notes the reply to a command about transactions.
    fn transaction(&mut self, transaction: Transaction, refused: bool) {
        match transaction {
            // Servers refuse MULTI inside a transaction.
            Transaction::Begins if !refused => self.transaction = TransactionState::Open(Box::default()),
            Transaction::Watches if !refused => self.watching = true,
            // Inside a transaction EXEC runs UNWATCH, and stops watching in any case.
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
                // Commands may have been queued in the meantime.
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

    /// Whether pushes differ from replies, because the server accepted HELLO 3.
    pub fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// Whether the server sends only replies while the connection has no subscriptions.
    pub fn is_resp2(&self) -> bool {
        self.protocol == Protocol::Resp2
    }

    /// Whether a transaction is open.
    #[inline]
    pub fn in_transaction(&self) -> bool {
        self.queue().is_some()
    }

    /// The commands of the open transaction.
    #[inline]
    pub fn queue(&self) -> Option<&Queue> {
        if let TransactionState::Open(queue) = &self.transaction { Some(queue) } else { None }
    }

    /// Whether the connection is like new.
    pub fn is_untouched(&self) -> bool {
        self.left.is_none() && self.is_free()
    }

    /// Whether all that is left can be set up on another connection.
    pub fn is_free(&self) -> bool {
        self.hold().is_none()
    }

    /// What is left that cannot be set up on another connection, in words.
    pub fn hold(&self) -> Option<&'static str> {
        match (&self.transaction, self.left) {
            (TransactionState::Open(_), _) => Some("transaction open"),
            (TransactionState::Unsure, _) => Some("EXEC refused, transaction may be open"),
            _ if self.watching => Some("keys watched (WATCH)"),
            _ if self.asking => Some("ASKING"),
            (_, None | Some(Leaves::Asking | Leaves::SetUp)) => None,
            (_, Some(Leaves::Authenticated)) => Some("authenticated by the client (AUTH)"),
            (_, Some(Leaves::Subscribed)) => Some("subscribed in RESP3, now or earlier (lasts until RESET)"),
            (_, Some(Leaves::UntilReset)) => Some("state that lasts until RESET (READONLY, CLIENT CACHING)"),
            (_, Some(Leaves::UntilClose)) => {
                Some("permanent state (CLIENT TRACKING, CLIENT ID, DEBUG, or an unknown command)")
            }
        }
    }

    /// Whether RESET removes all that is left.
    pub fn is_undone_by_reset(&self) -> bool {
        self.left != Some(Leaves::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state after these commands. The server refuses those with `!`.
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
    fn a_connection_is_like_new_once_all_its_state_has_ended() {
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
    fn state_that_lasts_keeps_the_client_on_its_connection() {
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
    fn the_reason_why_a_client_keeps_its_connection_is_named() {
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
    fn state_that_another_connection_can_take_over_is_not_new() {
        for names in [&["SELECT"][..], &["READONLY", "RESET"], &["WATCH", "MULTI", "RESET"]] {
            let state = after(names);
            assert!(!state.is_untouched() && state.is_free(), "{names:?}");
        }
    }

    #[test]
    fn permanent_state_outlives_reset() {
        for names in [&["TRACKING", "RESET"][..], &["MULTI", "TRACKING", "EXEC", "RESET"]] {
            assert!(!after(names).is_undone_by_reset(), "{names:?}");
        }
    }

    #[test]
    fn replies_with_node_addresses_are_found_in_a_transaction() {
        let mut state = ConnectionState::default();
        let begins = Request::Transaction(Transaction::Begins);
        let nodes = Request::Addresses(AddressReply::Nodes);
        state.answered(nodes, false, false);
        state.answered(begins, false, false);
        for (request, refused) in [(Request::Plain, false), (begins, true), (nodes, true), (nodes, false)] {
            state.answered(request, refused, !refused);
        }
        let queue = state.queue().unwrap();
        assert_eq!((queue.commands, &queue.nodes[..]), (2, &[(1, AddressReply::Nodes)][..]));
    }

    #[test]
    fn the_protocol_is_the_last_one_that_the_server_accepted() {
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
    fn a_refused_hello_with_options_may_have_changed_state() {
        for has_options in [false, true] {
            let mut state = ConnectionState::default();
            let hello = Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options };
            state.answered(hello, true, false);
            assert_eq!(state.is_untouched(), !has_options);
        }
    }
}
