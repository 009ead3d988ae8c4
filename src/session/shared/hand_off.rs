//! A shared connection that becomes one client's own, with all that is outstanding on it.
//!
//! A client that writes a long pipeline before it reads would wait for pontoon, which waits for the client to read. Over a dedicated
//! connection the server keeps the replies meanwhile, as it does without pontoon. So the client gets the connection that its replies
//! come over, and the others get a new one.

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
    /// Leave to have a dedicated connection.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The connection, as it stands.
pub(in crate::session) struct HandedOff {
    /// Of the shared connection.
    pub(in crate::session) id: u64,
    pub(in crate::session) wire: Wire,
    /// It may stand within a reply.
    pub(in crate::session) replies: ReplyScanner,
    /// The beginning of an error that may name a node of a cluster.
    pub(in crate::session) held: Option<Vec<u8>>,
    /// The client's requests without a reply.
    pub(in crate::session) ledger: Ledger,
}

/// The account of a connection that speaks RESP3 or not, and that `due` are outstanding on: all of them one client's.
pub(super) fn ledger(resp3: bool, due: &VecDeque<DueReplies>) -> Ledger {
    let mut ledger = Ledger::speaking(resp3);
    // Recorded before any MULTI: otherwise the ledger takes it for a command that is queued in the transaction.
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
