//! Keeps the first bytes of a word as it passes, which are enough to recognize names.

use crate::resp::words;

/// The first bytes of a word, enough to recognize every name that matters.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::resp) struct Word {
    pub(super) bytes: [u8; Word::KEPT],
    /// Length of the whole word, capped at 255.
    pub(super) length: u8,
}

impl Word {
    /// The length of `GET-PRIMARY-ADDR-BY-NAME`, which follows `SENTINEL`.
    const KEPT: usize = 24;

    #[inline]
    pub(in crate::resp) fn push(&mut self, bytes: &[u8]) {
        let have = usize::from(self.length);
        if have < Self::KEPT {
            let n = bytes.len().min(Self::KEPT - have);
            self.bytes[have..have + n].copy_from_slice(&bytes[..n]);
        }
        self.length = self.length.saturating_add(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    }

    /// Whether a kept byte is zero.
    pub(super) fn has_zero(&self) -> bool {
        self.bytes[..usize::from(self.length).min(Self::KEPT)].contains(&0)
    }

    /// The word up to a zero byte, as servers compare it. Empty if it is longer than any name that matters.
    pub(in crate::resp) fn get(&self) -> &[u8] {
        let length = usize::from(self.length);
        let kept = &self.bytes[..length.min(Self::KEPT)];
        let compared = words::up_to_zero(kept);
        if length <= Self::KEPT || compared.len() < kept.len() { compared } else { &[] }
    }
}
