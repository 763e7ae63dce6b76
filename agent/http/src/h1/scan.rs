//! Finds the end of a head or of trailers: lines that end in CR LF, up to an empty one.

use super::malformed::Malformed;

/// Looks at each byte once, however they come. Any byte that no head has is an error at once, so
/// that what is found consists of lines of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Scanner {
    scanned: usize,
    line: usize,
    after_cr: bool,
}

impl Scanner {
    /// The length up to and with the empty line; `None` until it has come. `bytes` begin where
    /// they began before.
    ///
    /// # Errors
    /// [`Malformed::ControlCharacter`], and [`Malformed::TooLarge`] where the end is not within the
    /// first `most` bytes.
    pub(super) fn scan(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Malformed> {
        while let Some(&byte) = bytes.get(self.scanned) {
            if self.scanned >= most {
                return Err(Malformed::TooLarge);
            }
            if self.step(byte)? {
                return Ok(Some(self.scanned));
            }
        }
        Ok(None)
    }

    /// Takes a byte: whether it ends an empty line.
    fn step(&mut self, byte: u8) -> Result<bool, Malformed> {
        self.scanned += 1;
        if self.after_cr {
            if byte != b'\n' {
                return Err(Malformed::ControlCharacter);
            }
            self.after_cr = false;
            return Ok(std::mem::take(&mut self.line) == 0);
        }
        match byte {
            b'\r' => self.after_cr = true,
            b'\t' | b' '..=b'~' | 0x80.. => self.line += 1,
            _ => return Err(Malformed::ControlCharacter),
        }
        Ok(false)
    }
}
