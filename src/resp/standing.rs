//! What requests leave behind with their connection.

use super::commands::Transaction;
use super::sharing::{Own, Setup, Sharing};

/// What requests have left with a connection, as far as it matters for whether another one could take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// By requests since the last RESET.
    left: Left,
    /// By those before it: the server has not said that it has accepted it.
    before: Left,
    /// RESET without a reply.
    resets: u32,
    /// AUTH does not reach the server.
    auth_stays_here: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Left {
    transaction: bool,
    watching: bool,
    asking: bool,
    stays: bool,
    lasts: bool,
}

impl Left {
    fn is_nothing(self) -> bool {
        !(self.transaction || self.watching || self.asking || self.stays || self.lasts)
    }

    fn and(self, other: Self) -> Self {
        Self {
            transaction: self.transaction || other.transaction,
            watching: self.watching || other.watching,
            asking: self.asking || other.asking,
            stays: self.stays || other.stays,
            lasts: self.lasts || other.lasts,
        }
    }
}

impl Standing {
    /// Nothing is left. `auth_stays_here`: AUTH does not reach the server.
    pub fn new(auth_stays_here: bool) -> Self {
        Self { auth_stays_here, ..Self::default() }
    }

    /// A request was sent.
    pub fn note(&mut self, sharing: Sharing) {
        let left = &mut self.left;
        left.asking = false;
        match sharing {
            // Inside a transaction its reply tells nothing.
            Sharing::Setup(_) if left.transaction => left.stays = true,
            Sharing::Setup(Setup::Replica | Setup::Primary) | Sharing::Unknown => left.stays = true,
            Sharing::Setup(_) | Sharing::Shared => {}
            Sharing::Own(own) => match own {
                Own::Blocking | Own::Wait | Own::Administration => {}
                Own::Transaction(Transaction::Begins) => left.transaction = true,
                Own::Transaction(Transaction::Watches) => left.watching = true,
                // Without MULTI it is an error, and what is watched stays watched.
                Own::Transaction(Transaction::Executes | Transaction::Ends) => {
                    left.watching &= !left.transaction;
                    left.transaction = false;
                }
                // Inside a transaction it is done by EXEC.
                Own::Unwatch => left.watching &= left.transaction,
                Own::Asking => left.asking = true,
                Own::Stays => left.stays = true,
                Own::Lasts => left.lasts = true,
                Own::Auth => left.stays |= !self.auth_stays_here,
                Own::Reset => {
                    self.before = self.before.and(std::mem::take(left));
                    self.resets += 1;
                }
            },
        }
    }

    /// The server has accepted the first RESET that has no reply.
    pub fn reset(&mut self) {
        self.resets = self.resets.saturating_sub(1);
        // Of several on the way, the last is waited for.
        if self.resets == 0 {
            self.before = Left { lasts: self.before.lasts, ..Left::default() };
        }
    }

    /// Whether nothing is left but what was set up.
    pub fn is_free(self) -> bool {
        self.left.and(self.before).is_nothing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::families::Command;
    use crate::resp::sharing::sharing;

    fn of(name: &str, first: &str) -> Sharing {
        sharing(Command::named(name.as_bytes()), first.as_bytes(), 2)
    }

    #[test]
    fn a_connection_is_free_once_all_that_was_begun_has_ended() {
        let after = |names: &[&str]| {
            let mut standing = Standing::default();
            for name in names {
                standing.note(of(name, ""));
            }
            standing.is_free()
        };
        assert!(after(&["GET", "BLPOP", "SELECT", "INFO", "WAIT"]));
        assert!(!after(&["MULTI", "SET"]));
        assert!(after(&["MULTI", "SET", "EXEC"]));
        assert!(!after(&["WATCH", "GET"]));
        assert!(after(&["WATCH", "GET", "UNWATCH"]));
        assert!(after(&["WATCH", "MULTI", "DISCARD"]));
        assert!(!after(&["WATCH", "EXEC"]), "without MULTI it is refused");
        assert!(!after(&["WATCH", "MULTI", "UNWATCH"]));
        assert!(!after(&["MULTI", "SELECT", "EXEC"]), "whether it was selected is not known");
        assert!(!after(&["ASKING"]));
        assert!(after(&["ASKING", "GET"]));
        assert!(!after(&["AUTH"]));
        assert!(!after(&["SOMETHING"]));
        let mut standing = Standing::default();
        standing.note(of("SUBSCRIBE", ""));
        standing.note(of("RESET", ""));
        assert!(!standing.is_free(), "it may be refused");
        standing.note(of("MULTI", ""));
        standing.reset();
        assert!(!standing.is_free(), "what was sent after it is not taken back by it");
        standing.note(of("EXEC", ""));
        assert!(standing.is_free());
        standing.note(of("CLIENT", "ID"));
        standing.note(of("RESET", ""));
        standing.reset();
        assert!(!standing.is_free());
    }
}
