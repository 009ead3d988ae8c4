//! The user that a client has authenticated as. Commands that pontoon sends for the client over another connection must run as the same
//! user.

use std::fmt;
use std::hash::{Hash, Hasher};

use zeroize::Zeroizing;

use crate::resp::replies::encode_secret;

/// The AUTH command.
#[derive(PartialEq, Eq)]
pub(super) struct ClientUser(Zeroizing<Vec<u8>>);

impl ClientUser {
    /// Takes the arguments of AUTH: a password, or a name and a password. `None`: there is another number of them.
    pub(super) fn of(arguments: &[&[u8]]) -> Option<Self> {
        let auth: &[u8] = b"AUTH";
        match arguments {
            [_] | [_, _] => Some(Self(encode_secret(&[&[auth], arguments].concat()))),
            _ => None,
        }
    }

    /// The AUTH command, encoded.
    pub(super) fn auth(&self) -> &Zeroizing<Vec<u8>> {
        &self.0
    }
}

impl Hash for ClientUser {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

impl fmt::Debug for ClientUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientUser(redacted)")
    }
}
