//! The Huffman code of HPACK (RFC 7541, appendix B). It is canonical: symbols of one length have
//! consecutive codes, in their order. So the lengths say everything.

use super::HpackError;

/// The length of the code of each octet, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code. The end-of-string symbol has this length, too, and the last code of it.
const LONGEST: usize = 30;

/// The bits of an octet.
const OCTET: usize = 8;

/// What is left of a string after its last symbol: fewer bits than an octet, all ones.
const PADDING: usize = 7;

/// The codes by length.
struct Codes {
    /// Octets in the order of their codes.
    octets: [u8; 256],
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// The number of codes of each length.
    count: [u32; LONGEST + 1],
    /// The place in `octets` of the first code of each length.
    start: [usize; LONGEST + 1],
}

static CODES: Codes = Codes::new();

impl Codes {
    const fn new() -> Self {
        let mut codes = Self {
            octets: [0; 256],
            first: [0; LONGEST + 1],
            count: [0; LONGEST + 1],
            start: [0; LONGEST + 1],
        };
        let (mut length, mut code, mut place) = (1, 0, 0);
        while length <= LONGEST {
            code <<= 1;
            codes.first[length] = code;
            codes.start[length] = place;
            let mut octet = 0;
            while octet < LENGTHS.len() {
                if LENGTHS[octet] as usize == length {
                    codes.octets[place] = octet as u8;
                    codes.count[length] += 1;
                    place += 1;
                    code += 1;
                }
                octet += 1;
            }
            length += 1;
        }
        codes
    }

    /// Returns the octet whose code is `code`, of `length` bits.
    fn octet(&self, code: u32, length: usize) -> Option<u8> {
        let offset = code.checked_sub(self.first[length])?;
        (offset < self.count[length]).then(|| self.octets[self.start[length] + offset as usize])
    }
}

/// A symbol and the length of its code.
#[derive(Clone, Copy)]
struct Symbol {
    octet: u8,
    length: u8,
}

/// The symbols by the octet that their code begins with. The length is 0 if the code is longer than an octet.
static SHORT_CODES: [Symbol; 256] = short_codes();

const fn short_codes() -> [Symbol; 256] {
    let mut symbols = [Symbol {
        octet: 0,
        length: 0,
    }; 256];
    let mut length = 1;
    while length <= OCTET {
        let mut number = 0;
        while number < CODES.count[length] {
            let octet = CODES.octets[CODES.start[length] + number as usize];
            let free = OCTET - length;
            let begun = ((CODES.first[length] + number) << free) as usize;
            let mut rest = 0;
            while rest < 1 << free {
                symbols[begun + rest] = Symbol {
                    octet,
                    length: length as u8,
                };
                rest += 1;
            }
            number += 1;
        }
        length += 1;
    }
    symbols
}

/// The bits that are not decoded yet: the last `length` of `bits`.
struct Bits {
    bits: u64,
    length: usize,
}

impl Bits {
    /// Returns the first `length` bits.
    const fn first(&self, length: usize) -> u32 {
        (self.bits >> (self.length - length)) as u32 & ((1 << length) - 1)
    }

    /// Takes the next symbol, if all of its code is there.
    fn take(&mut self) -> Option<u8> {
        // Less than an octet is filled up with ones, which are the beginning of no short code.
        let begun = match self.length.checked_sub(OCTET) {
            Some(_) => self.first(OCTET),
            None => {
                let free = OCTET - self.length;
                self.first(self.length) << free | ((1 << free) - 1)
            }
        };
        let Symbol { octet, length } = SHORT_CODES[begun as usize];
        let length = usize::from(length);
        if (1..=self.length).contains(&length) {
            self.length -= length;
            return Some(octet);
        }
        let longer = OCTET + 1..=self.length.min(LONGEST);
        for length in longer {
            if let Some(octet) = CODES.octet(self.first(length), length) {
                self.length -= length;
                return Some(octet);
            }
        }
        None
    }
}

/// Appends the decoded string to `out`.
///
/// # Errors
/// [`HpackError::Huffman`] if the string has the end-of-string symbol in it, or wrong padding.
pub(super) fn decode(encoded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut bits = Bits { bits: 0, length: 0 };
    for octet in encoded {
        bits.bits = bits.bits << OCTET | u64::from(*octet);
        bits.length += OCTET;
        while let Some(octet) = bits.take() {
            out.push(octet);
        }
        if bits.length >= LONGEST {
            return Err(HpackError::Huffman);
        }
    }
    let is_padding = bits.length <= PADDING && bits.first(bits.length) == (1 << bits.length) - 1;
    if is_padding {
        Ok(())
    } else {
        Err(HpackError::Huffman)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(encoded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(encoded, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, C.4.1 and C.4.3.
        let example = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decoded(&example).unwrap(), b"www.example.com");
        let value = [0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
        assert_eq!(decoded(&value).unwrap(), b"custom-value");
    }

    #[test]
    fn wrong_padding_is_refused() {
        // "a" is 00011.
        assert_eq!(decoded(&[0b0001_1111]).unwrap(), b"a");
        for wrong in [&[0b0001_1110][..], &[0b0001_1111, 0xff], &[0xff; 4]] {
            assert!(decoded(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    /// Bit by bit, as the RFC has it.
    fn decoded_slowly(encoded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        let (mut code, mut length) = (0_u32, 0_usize);
        for octet in encoded {
            for bit in (0..8).rev() {
                code = code << 1 | u32::from(octet >> bit & 1);
                length += 1;
                if let Some(decoded) = CODES.octet(code, length) {
                    out.push(decoded);
                    (code, length) = (0, 0);
                } else if length == LONGEST {
                    return Err(HpackError::Huffman);
                }
            }
        }
        let is_padding = length <= PADDING && code == (1 << length) - 1;
        is_padding.then_some(out).ok_or(HpackError::Huffman)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for octet in text {
            let length = usize::from(LENGTHS[usize::from(*octet)]);
            let place = CODES.octets.iter().position(|other| other == octet);
            let code = CODES.first[length] + (place.unwrap() - CODES.start[length]) as u32;
            bits.extend((0..length).rev().map(|bit| code >> bit & 1));
        }
        while bits.len() % OCTET != 0 {
            bits.push(1);
        }
        let octet = |bits: &[u32]| bits.iter().fold(0, |octet, bit| octet << 1 | *bit as u8);
        bits.chunks(OCTET).map(octet).collect()
    }

    proptest! {
        #[test]
        fn every_string_is_read_as_bit_by_bit(encoded: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded), decoded_slowly(&encoded));
        }

        #[test]
        fn every_text_is_read(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }
    }
}
