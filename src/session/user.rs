//! Who a client has said that it is, to a server that believed it: what is sent in its place over another connection must be
//! the same user's.

use std::fmt;
use std::hash::{Hash, Hasher};

use zeroize::Zeroizing;

use crate::resp::replies::encode_secret;

/// AUTH, as a whole.
#[derive(PartialEq, Eq)]
pub(super) struct ClientUser(Zeroizing<Vec<u8>>);

impl ClientUser {
    /// What AUTH takes: a password, or a name and a password. `None`: it is something else.
    pub(super) fn of(arguments: &[&[u8]]) -> Option<Self> {
        let auth: &[u8] = b"AUTH";
        match arguments {
            [_] | [_, _] => Some(Self(encode_secret(&[&[auth], arguments].concat()))),
            _ => None,
        }
    }

    /// AUTH, as it is sent.
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
