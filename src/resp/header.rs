//! Reads the number after a type byte: `3\r\n`, `-1\r\n`, `?\r\n`. It may arrive in pieces.

/// No length has more digits. A longer number is not a length.
const MAX_DIGITS: u8 = 18;

/// A header line that is partly read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header {
    value: u64,
    digits: u8,
    sign: LengthSign,
    carriage_return: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LengthSign {
    #[default]
    Positive,
    Negative,
    Unknown,
}

/// What a complete header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// The number of bytes or elements.
    Known(u64),
    /// `-1`.
    Null,
    /// `?`: an end marker follows the elements.
    Streamed,
}

/// The line is not a header.
#[derive(Debug)]
pub(super) struct NotANumber;

/// Reads the header at `input[*at]`, its type byte included, if all of it is there and its number has at most five digits, as nearly all
/// have. `None`: read it with [`Header`].
#[inline]
pub(super) fn short(input: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
    const DIGITS: usize = 5;
    let (first, rest) = input.get(*at..)?.split_first()?;
    if *first != kind {
        return None;
    }
    let mut value = 0;
    for (digits, byte) in rest.iter().take(DIGITS + 1).enumerate() {
        match byte {
            // Servers refuse numbers with a leading zero (`string2ll`).
            b'0'..=b'9' if digits == 1 && value == 0 => return None,
            b'0'..=b'9' => value = value * 10 + usize::from(byte - b'0'),
            b'\r' if digits > 0 && rest.get(digits + 1) == Some(&b'\n') => {
                *at += 1 + digits + 2;
                return Some(value);
            }
            _ => return None,
        }
    }
    None
}

impl Header {
    /// Continues at `input[*at]`. `None`: the line continues in later input.
    #[inline]
    pub(super) fn read(&mut self, input: &[u8], at: &mut usize) -> Option<Result<Length, NotANumber>> {
        while let Some(&byte) = input.get(*at) {
            *at += 1;
            match byte {
                b'0'..=b'9'
                    if !self.carriage_return
                        && self.digits < MAX_DIGITS
                        && self.sign != LengthSign::Unknown =>
                {
                    self.value = self.value * 10 + u64::from(byte - b'0');
                    self.digits += 1;
                }
                b'\r' if !self.carriage_return => self.carriage_return = true,
                b'\n' if self.carriage_return => return Some(self.finish()),
                b'-' if self.is_empty() => self.sign = LengthSign::Negative,
                b'?' if self.is_empty() => self.sign = LengthSign::Unknown,
                _ => return Some(Err(NotANumber)),
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.digits == 0 && self.sign == LengthSign::Positive && !self.carriage_return
    }

    fn finish(&mut self) -> Result<Length, NotANumber> {
        let header = std::mem::take(self);
        match header.sign {
            LengthSign::Positive if header.digits > 0 => Ok(Length::Known(header.value)),
            LengthSign::Negative if header.digits == 1 && header.value == 1 => Ok(Length::Null),
            LengthSign::Unknown => Ok(Length::Streamed),
            _ => Err(NotANumber),
        }
    }
}
