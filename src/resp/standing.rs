//! What requests leave behind with their connection. Decided by their replies: what a server refuses changes nothing, but
//! where it is known to act before it fails.

use super::command_table::{Leaves, Transaction};

/// What is left with a connection, as far as it matters for whether another client could have it, or another connection
/// could take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    left: Option<Leaves>,
    queue: Queue,
    watching: bool,
    asking: bool,
}

/// Whether commands are queued for EXEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Queue {
    #[default]
    None,
    /// They are, and will leave this.
    Open(Option<Leaves>),
    /// EXEC was refused. Most servers end the transaction all the same (`rejectCommand` in `server.c`); not so Redis before 6.0.6,
    /// nor one that does not know the command.
    Unsure,
}

impl Standing {
    /// A command that leaves this was accepted.
    pub fn accepted(&mut self, leaves: Leaves) {
        match &mut self.queue {
            // EXEC does it. Its reply does not tell whether it was done.
            Queue::Open(queued) => *queued = (*queued).max(Some(leaves.max(Leaves::UntilReset))),
            _ if leaves == Leaves::Asking => self.asking = true,
            _ => self.left = self.left.max(Some(leaves)),
        }
    }

    /// Any command but ASKING has its reply.
    #[inline]
    pub fn replied(&mut self) {
        self.asking = false;
    }

    /// A command about transactions has its reply.
    pub fn transaction(&mut self, transaction: Transaction, refused: bool) {
        match transaction {
            // Inside a transaction it is refused.
            Transaction::Begins if !refused => self.queue = Queue::Open(None),
            Transaction::Watches if !refused => self.watching = true,
            // Inside a transaction EXEC does it, and ends watching anyway.
            Transaction::Unwatches if !refused && self.queue == Queue::None => self.watching = false,
            Transaction::Executes => match self.queue {
                Queue::Open(_) if refused => self.queue = Queue::Unsure,
                Queue::Open(queued) => {
                    *self = Self { left: self.left.max(queued), ..Self::default() };
                }
                // What was queued since is not known.
                Queue::Unsure if !refused => {
                    *self = Self { left: self.left.max(Some(Leaves::UntilReset)), ..Self::default() };
                }
                Queue::None | Queue::Unsure => {}
            },
            Transaction::Ends if !refused => (self.queue, self.watching) = (Queue::None, false),
            _ => {}
        }
    }

    /// RESET was accepted. It leaves the server's default user, and takes away what pontoon had set up.
    pub fn reset(&mut self) {
        let left = self.left.filter(|left| *left == Leaves::UntilClose);
        *self = Self { left: left.or(Some(Leaves::SetUp)), ..Self::default() };
    }

    /// Whether commands are queued now.
    #[inline]
    pub fn in_transaction(self) -> bool {
        matches!(self.queue, Queue::Open(_))
    }

    /// Whether the connection is as new.
    pub fn is_untouched(self) -> bool {
        self == Self::default()
    }

    /// Whether nothing is left but what can be set up on another connection.
    pub fn is_free(self) -> bool {
        Self { left: self.left.filter(|left| *left != Leaves::SetUp), ..self }.is_untouched()
    }

    /// Whether RESET leaves nothing of it.
    pub fn is_undone_by_reset(self) -> bool {
        self.left != Some(Leaves::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left after these, of which those with `!` were refused.
    fn after(names: &[&str]) -> Standing {
        let mut standing = Standing::default();
        for name in names {
            let (name, refused) = name.strip_suffix('!').map_or((*name, false), |name| (name, true));
            let transaction = match name {
                "MULTI" => Some(Transaction::Begins),
                "EXEC" => Some(Transaction::Executes),
                "DISCARD" => Some(Transaction::Ends),
                "WATCH" => Some(Transaction::Watches),
                "UNWATCH" => Some(Transaction::Unwatches),
                _ => None,
            };
            let leaves = match name {
                "SELECT" => Some(Leaves::SetUp),
                "ASKING" => Some(Leaves::Asking),
                "READONLY" => Some(Leaves::UntilReset),
                "TRACKING" => Some(Leaves::UntilClose),
                _ => None,
            };
            if leaves != Some(Leaves::Asking) {
                standing.replied();
            }
            if let Some(transaction) = transaction {
                standing.transaction(transaction, refused);
            }
            if let Some(leaves) = leaves.filter(|_| !refused) {
                standing.accepted(leaves);
            }
            if name == "RESET" && !refused {
                standing.reset();
            }
        }
        standing
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
            let standing = after(names);
            assert!(!standing.is_free() && standing.is_undone_by_reset(), "{names:?}");
        }
    }

    #[test]
    fn what_can_be_set_up_on_another_connection_touches_this_one() {
        for names in [&["SELECT"][..], &["READONLY", "RESET"], &["WATCH", "MULTI", "RESET"]] {
            let standing = after(names);
            assert!(!standing.is_untouched() && standing.is_free(), "{names:?}");
        }
    }

    #[test]
    fn what_lasts_for_good_outlives_reset() {
        for names in [&["TRACKING", "RESET"][..], &["MULTI", "TRACKING", "EXEC", "RESET"]] {
            assert!(!after(names).is_undone_by_reset(), "{names:?}");
        }
    }
}
