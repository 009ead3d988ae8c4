//! A secret in memory.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A password or a token. It is wiped when the last copy is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes ownership of `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// Removes line ends at the end, which editors and `echo` add. `None` if nothing is left.
    pub fn without_newline(mut bytes: Vec<u8>) -> Option<Self> {
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        // The removed line ends are not secret.
        bytes.truncate(end);
        (!bytes.is_empty()).then(|| Self::new(bytes))
    }

    /// The secret itself. Use it only to send it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
