//! A shared connection that becomes one client's dedicated connection, with all its outstanding replies.
//!
//! A client that writes a long pipeline before it reads would wait for pontoon, which waits for the client to read. Over a dedicated
//! connection the server holds the replies back in the meantime, as it does without pontoon. So the client gets the connection that carries
//! its replies, and other clients get a new one.

use std::collections::VecDeque;

use tokio::sync::OwnedSemaphorePermit;

use super::in_flight::{DueReplies, Recipient};
use crate::resp::command_table::Transaction;
use crate::resp::request::Request;
use crate::resp::scanner::ReplyScanner;
use crate::session::ledger::Ledger;
use crate::session::wire::Wire;

/// What a client gets.
pub(super) struct HandOff {
    pub(super) connection: HandedOff,
    /// The permit for a dedicated connection.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The connection in its present state.
pub(in crate::session) struct HandedOff {
    /// The id of the shared connection.
    pub(in crate::session) id: u64,
    pub(in crate::session) wire: Wire,
    /// The scanner, which may be inside a reply.
    pub(in crate::session) replies: ReplyScanner,
    /// The beginning of an error that may name a node of a cluster.
    pub(in crate::session) held: Option<Vec<u8>>,
    /// The client's outstanding requests.
    pub(in crate::session) ledger: Ledger,
}

/// The ledger of a connection with `due` outstanding, which are all one client's. `resp3`: its protocol.
pub(super) fn ledger(resp3: bool, due: &VecDeque<DueReplies>) -> Ledger {
    let mut ledger = Ledger::speaking(resp3);
    // Noted before any MULTI. Otherwise the ledger takes it for a command that is queued in the transaction.
    ledger.was_set_up();
    for due in due {
        let mut plain = due.count;
        if let Recipient::Transaction(all) = due.recipient {
            let begins = Request::Transaction(Transaction::Begins);
            if due.count == all {
                ledger.request(begins, None);
                plain -= 1;
            } else {
                ledger.has_accepted(begins);
            }
            plain -= 1;
        }
        (0..plain).for_each(|_| ledger.request(Request::Plain, None));
        if let Recipient::Transaction(_) = due.recipient {
            ledger.request(Request::Transaction(Transaction::Executes), None);
        }
    }
    ledger
}
