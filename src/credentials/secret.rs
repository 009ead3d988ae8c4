//! A secret in memory.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A password or a token: wiped when the last copy goes, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes `bytes` over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// What people's editors and `echo` put behind a password is not part of it. `None`: nothing is left.
    pub fn without_newline(mut bytes: Vec<u8>) -> Option<Self> {
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        // What is cut off is no secret.
        bytes.truncate(end);
        (!bytes.is_empty()).then(|| Self::new(bytes))
    }

    /// The secret itself, to be sent and for nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
