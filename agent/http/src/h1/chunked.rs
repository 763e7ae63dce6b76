//! The chunked coding (RFC 9112, section 7.1): a decoder that does no I/O.
//!
//! Extensions are dropped. Sizes are hexadecimal digits. Only an application may pad them with blanks,
//! and only behind the digits: all readers that take such a size read the same number.

use bytes::{Buf, Bytes, BytesMut};
#[cfg(any(test, feature = "testing"))]
use http::HeaderMap;

use super::body::Sender;
use super::fields::{Fields, Malformed, Scanner, parse_fields};

/// The most digits of a size: those of a `u64`.
const MOST_DIGITS: u8 = 16;

/// The most bytes of a chunk's padding, and of its extensions.
const LONGEST_EXTENSION: usize = 256;

/// A part of a body that was decoded.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum BodyPiece {
    /// Some bytes.
    Data(Bytes),
    /// The end, with the trailers.
    End(Fields),
    /// More input is needed.
    NeedsMore,
}

/// The position in the coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Size { value: u64, digits: u8 },
    Padding { value: u64, length: usize },
    Extension { value: u64, length: usize },
    SizeLf { value: u64 },
    Data { rest: u64 },
    DataCr,
    DataLf,
    Trailers(Scanner),
    Ended,
}

/// A decoder for one body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ChunkDecoder {
    state: State,
    most: usize,
    sender: Sender,
}

impl ChunkDecoder {
    /// A decoder at the beginning of a body; the trailers may have `most` bytes.
    pub(super) fn new(most: usize, sender: Sender) -> Self {
        let state = FIRST;
        Self {
            state,
            most,
            sender,
        }
    }

    /// The next piece, taken from the beginning of `input`. After [`BodyPiece::NeedsMore`], call again
    /// with what is left in `input` and more bytes behind it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        loop {
            match self.state {
                State::Data { rest } if !input.is_empty() => {
                    let length = usize::try_from(rest).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(length).freeze();
                    self.state = match rest - length as u64 {
                        0 => State::DataCr,
                        rest => State::Data { rest },
                    };
                    return Ok(BodyPiece::Data(data));
                }
                State::Trailers(_) => return self.trailers(input),
                State::Ended => return Ok(BodyPiece::End(Fields::default())),
                _ if input.is_empty() => return Ok(BodyPiece::NeedsMore),
                _ => self.state = step(self.state, input.get_u8(), self.sender)?,
            }
        }
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        let State::Trailers(scanner) = &mut self.state else {
            return Ok(BodyPiece::NeedsMore);
        };
        let Some(end) = scanner.scan(input, self.most)? else {
            return Ok(BodyPiece::NeedsMore);
        };
        let text = input.split_to(end);
        self.state = State::Ended;
        parse_fields(&text).map(BodyPiece::End)
    }
}

const FIRST: State = State::Size {
    value: 0,
    digits: 0,
};

/// Takes a byte that does not belong to the data.
fn step(state: State, byte: u8, sender: Sender) -> Result<State, Malformed> {
    match (state, byte) {
        (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
            let digit = char::from(byte).to_digit(16).ok_or(Malformed::Chunk)?;
            Ok(State::Size {
                value: (value << 4) | u64::from(digit),
                digits: digits + 1,
            })
        }
        (State::Size { value, digits: 1.. }, b'\r') => Ok(State::SizeLf { value }),
        (State::Size { value, digits: 1.. }, b';') => Ok(State::Extension { value, length: 0 }),
        (State::Size { value, digits: 1.. }, b' ' | b'\t') if sender == Sender::Application => {
            Ok(State::Padding { value, length: 1 })
        }
        (State::Padding { value, length }, b' ' | b'\t') if length < LONGEST_EXTENSION => {
            Ok(State::Padding {
                value,
                length: length + 1,
            })
        }
        (State::Padding { value, .. }, b'\r') => Ok(State::SizeLf { value }),
        (State::Padding { value, .. }, b';') => Ok(State::Extension { value, length: 0 }),
        (State::Extension { value, .. }, b'\r') => Ok(State::SizeLf { value }),
        (State::Extension { value, length }, b'\t' | b' '..=b'~' | 0x80..)
            if length < LONGEST_EXTENSION =>
        {
            Ok(State::Extension {
                value,
                length: length + 1,
            })
        }
        (State::SizeLf { value: 0 }, b'\n') => Ok(State::Trailers(Scanner::default())),
        (State::SizeLf { value: rest }, b'\n') => Ok(State::Data { rest }),
        (State::DataCr, b'\r') => Ok(State::DataLf),
        (State::DataLf, b'\n') => Ok(FIRST),
        _ => Err(Malformed::Chunk),
    }
}

/// What has been decoded of a body, for tests and fuzz targets.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DecodedChunks {
    /// The data of all chunks.
    pub data: Vec<u8>,
    /// The trailers, once the body has ended.
    pub trailers: Option<HeaderMap>,
    /// The bytes after the body.
    pub rest: Vec<u8>,
}

/// Decodes a client's body whose bytes arrive in `parts`; its trailers may have `most` bytes.
///
/// # Errors
/// [`Malformed`].
#[cfg(any(test, feature = "testing"))]
pub fn decode_chunks(parts: &[&[u8]], most: usize) -> Result<DecodedChunks, Malformed> {
    decode_chunks_of(Sender::Client, parts, most)
}

#[cfg(any(test, feature = "testing"))]
fn decode_chunks_of(
    sender: Sender,
    parts: &[&[u8]],
    most: usize,
) -> Result<DecodedChunks, Malformed> {
    let mut decoder = ChunkDecoder::new(most, sender);
    let mut decoded = DecodedChunks::default();
    let mut input = BytesMut::new();
    for part in parts {
        input.extend_from_slice(part);
        while decoded.trailers.is_none() {
            match decoder.decode(&mut input)? {
                BodyPiece::Data(data) => decoded.data.extend_from_slice(&data),
                BodyPiece::End(trailers) => decoded.trailers = Some(trailers.headers),
                BodyPiece::NeedsMore => break,
            }
        }
    }
    decoded.rest = input.to_vec();
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1024;

    fn decode(parts: &[&[u8]]) -> Result<DecodedChunks, Malformed> {
        decode_chunks(parts, MOST)
    }

    #[test]
    fn chunks_and_trailers_are_decoded() {
        let text = b"5\r\nhello\r\n00A;name=\"v\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
        let decoded = decode(&[text]).unwrap();
        assert_eq!(decoded.data, b"hello0123456789");
        assert_eq!(decoded.trailers.unwrap()["x-sum"], "1");
        assert_eq!(decoded.rest, b"GET /");
    }

    #[test]
    fn a_bad_size_is_refused() {
        for size in [
            "0x5",
            "-1",
            "+5",
            " 5",
            "5 ",
            "",
            ";",
            "g",
            "5\n",
            "5\r5",
            "\n",
            "10000000000000000",
            "5;a\n",
            "5;a\0",
            "5;a\rb",
            "5\t",
        ] {
            let text = format!("{size}\r\nhello\r\n0\r\n\r\n");
            assert_eq!(
                decode(&[text.as_bytes()]),
                Err(Malformed::Chunk),
                "{size:?}"
            );
        }
    }

    #[test]
    fn an_application_may_pad_sizes_with_blanks() {
        let decode = |text: &str| decode_chunks_of(Sender::Application, &[text.as_bytes()], MOST);
        let decoded = decode("5  \r\nhello\r\n2 \t;x=y\r\n, \r\n0 \r\n\r\n").unwrap();
        assert_eq!(decoded.data, b"hello, ");
        assert!(decoded.trailers.is_some());
        for size in [" 5", "\t5", " ", "5 5", "5 x", "5 \n", "0x5", "+5"] {
            let refused = decode(&format!("{size}\r\nhello\r\n0\r\n\r\n"));
            assert_eq!(refused, Err(Malformed::Chunk), "{size:?}");
        }
        let padded = |length| decode(&format!("0{}\r\n\r\n", " ".repeat(length)));
        assert!(padded(LONGEST_EXTENSION).is_ok());
        assert_eq!(padded(LONGEST_EXTENSION + 1), Err(Malformed::Chunk));
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let decoded = decode(&[b"ffffffffffffffff\r\nabc"]).unwrap();
        assert_eq!((&*decoded.data, decoded.trailers), (&b"abc"[..], None));
    }

    #[test]
    fn data_that_is_not_followed_by_crlf_is_refused() {
        for text in [
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\rX",
            "5\nhello\r\n",
        ] {
            assert_eq!(
                decode(&[text.as_bytes()]),
                Err(Malformed::Chunk),
                "{text:?}"
            );
        }
    }

    #[test]
    fn an_endless_extension_is_refused() {
        let text = format!("5;{}", "x".repeat(LONGEST_EXTENSION + 1));
        assert_eq!(decode(&[text.as_bytes()]), Err(Malformed::Chunk));
    }

    #[test]
    fn bad_trailers_are_refused() {
        for (text, expected) in [
            ("0\r\na: b\n\r\n", Malformed::ControlCharacter),
            ("0\r\na : b\r\n\r\n", Malformed::Field),
            ("0\r\na: b\r\n c\r\n\r\n", Malformed::Field),
        ] {
            assert_eq!(decode(&[text.as_bytes()]), Err(expected), "{text:?}");
        }
        let long = format!("0\r\na: {}\r\n\r\n", "x".repeat(MOST));
        assert_eq!(decode(&[long.as_bytes()]), Err(Malformed::TooLarge));
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_in_one_part_or_two(
            text in "([0-9a-f]{1,2}(;x)?\r\n[a-z]{0,20}(\r\n)?){0,3}(0\r\n(a: b\r\n)?\r\n)?[a-z]{0,3}",
            at in 0usize..64,
        ) {
            let at = at.min(text.len());
            let (first, second) = text.as_bytes().split_at(at);
            prop_assert_eq!(decode(&[first, second]), decode(&[text.as_bytes()]));
        }
    }
}
