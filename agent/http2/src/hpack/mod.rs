//! HPACK (RFC 7541): reads every form, with a bounded table, and writes the plainest.

mod encode;
mod huffman;
mod table;

pub use encode::{write_literal, write_string};
use table::DynamicTable;

/// The size of the dynamic table that a peer may use: HTTP/2's default. An entry counts
/// 32 bytes more than its text.
pub const TABLE_SIZE: usize = 4096;

/// A header block that cannot be decoded. It ends the connection, since the table's state is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HpackError {
    /// It ends within a field.
    #[error("a header block ends within a field")]
    Truncated,
    /// A number is larger than any that makes sense.
    #[error("a number in a header block is too large")]
    Number,
    /// An index that no table has.
    #[error("a header block names the unknown index {0}")]
    Index(usize),
    /// A string is not in the Huffman code.
    #[error("a string in a header block is not in the Huffman code")]
    Huffman,
    /// The table is resized beyond what it may be, or in the middle of a block.
    #[error("a header block resizes the table as it may not")]
    TableSize,
}

/// Takes the fields of header blocks.
pub trait FieldReader {
    /// What the text of a field says by itself. It is kept with the entries of the table, so that a peer that
    /// names a long entry with one byte causes no long look at it.
    type Note: Copy;

    /// Looks at the text of a field.
    fn note(name: &[u8], value: &[u8]) -> Self::Note;

    /// Takes a field, in the order of the block.
    fn read(&mut self, name: &[u8], value: &[u8], note: Self::Note);
}

/// Decodes header blocks, one after the other.
#[derive(Debug)]
pub struct Decoder<N = ()> {
    table: DynamicTable<N>,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// The bytes of a block that are left.
struct Block<'a>(&'a [u8]);

/// Whether a field is entered into the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexing {
    Entered,
    NotEntered,
}

impl<N> Default for Decoder<N> {
    fn default() -> Self {
        Self {
            table: DynamicTable::default(),
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl<N: Copy> Decoder<N> {
    /// Decodes a block and hands each field to `reader`.
    ///
    /// # Errors
    /// [`HpackError`].
    pub fn decode<R: FieldReader<Note = N>>(
        &mut self,
        block: &[u8],
        reader: &mut R,
    ) -> Result<(), HpackError> {
        let mut block = Block(block);
        let mut may_resize = true;
        while let Some(&first) = block.0.first() {
            // RFC 7541, section 6: the leading bits tell the form.
            match first {
                0x80.. => {
                    let field = self.table.get(block.number(7)?)?;
                    let note = field
                        .note
                        .unwrap_or_else(|| R::note(field.name, field.value));
                    reader.read(field.name, field.value, note);
                }
                0x40..=0x7f => self.literal(&mut block, 6, Indexing::Entered, reader)?,
                0x20..=0x3f => {
                    let size = block.number(5)?;
                    if !may_resize || size > TABLE_SIZE {
                        return Err(HpackError::TableSize);
                    }
                    self.table.resize(size);
                    continue;
                }
                _ => self.literal(&mut block, 4, Indexing::NotEntered, reader)?,
            }
            may_resize = false;
        }
        Ok(())
    }

    fn literal<R: FieldReader<Note = N>>(
        &mut self,
        block: &mut Block<'_>,
        prefix: u32,
        indexing: Indexing,
        reader: &mut R,
    ) -> Result<(), HpackError> {
        self.name.clear();
        match block.number(prefix)? {
            0 => block.string(&mut self.name)?,
            index => self.name.extend_from_slice(self.table.get(index)?.name),
        }
        self.value.clear();
        block.string(&mut self.value)?;
        let note = R::note(&self.name, &self.value);
        reader.read(&self.name, &self.value, note);
        if indexing == Indexing::Entered {
            self.table.insert(&self.name, &self.value, note);
        }
        // A long field keeps no memory when the connection is at rest.
        self.name.shrink_to(TABLE_SIZE / 16);
        self.value.shrink_to(TABLE_SIZE / 16);
        Ok(())
    }
}

impl Block<'_> {
    /// Reads a number whose first octet has `prefix` bits of it (RFC 7541, section 5.1).
    fn number(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let mask = (1_usize << prefix) - 1;
        let mut number = usize::from(self.octet()?) & mask;
        if number < mask {
            return Ok(number);
        }
        for shift in (0..=21).step_by(7) {
            let octet = usize::from(self.octet()?);
            number += (octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(HpackError::Number)
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let is_huffman = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.number(7)?;
        let (string, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if is_huffman {
            huffman::decode(string, out)
        } else {
            out.extend_from_slice(string);
            Ok(())
        }
    }

    fn octet(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(String, String)>;

    impl FieldReader for Fields {
        type Note = usize;

        fn note(name: &[u8], value: &[u8]) -> usize {
            name.len() + value.len()
        }

        fn read(&mut self, name: &[u8], value: &[u8], note: usize) {
            assert_eq!(note, name.len() + value.len());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.push((text(name), text(value)));
        }
    }

    fn decode(decoder: &mut Decoder<usize>, block: &[u8]) -> Result<Fields, HpackError> {
        let mut fields = Fields::new();
        decoder.decode(block, &mut fields)?;
        Ok(fields)
    }

    fn fields(all: &[(&str, &str)]) -> Fields {
        let owned = all
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        owned.collect()
    }

    /// RFC 7541, C.4: three requests on one connection.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let mut decoder = Decoder::default();
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab,
            0x90, 0xf4, 0xff,
        ];
        let common = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ];
        assert_eq!(decode(&mut decoder, &first).unwrap(), fields(&common));
        let second = [
            0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf,
        ];
        let mut expected = common.to_vec();
        expected.push(("cache-control", "no-cache"));
        assert_eq!(decode(&mut decoder, &second).unwrap(), fields(&expected));
        let third = [
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f,
            0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ];
        let expected = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(decode(&mut decoder, &third).unwrap(), fields(&expected));
    }

    #[test]
    fn a_malformed_block_is_refused() {
        for (block, expected) in [
            (&[0x80][..], HpackError::Index(0)),
            (&[0xbe], HpackError::Index(62)),
            (&[0x40, 0x05, b'a'], HpackError::Truncated),
            (&[0x40], HpackError::Truncated),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], HpackError::Number),
            (&[0x3f, 0xe2, 0x1f], HpackError::TableSize),
            (&[0x82, 0x20], HpackError::TableSize),
        ] {
            let refused = decode(&mut Decoder::default(), block);
            assert_eq!(refused, Err(expected), "{block:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 126, 127, 128, 254, 255, 16_000, 60_000] {
            let (name, value) = ("n".repeat(length), "v".repeat(length));
            let mut block = bytes::BytesMut::new();
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
            let read = decode(&mut Decoder::default(), &block).unwrap();
            assert!(read == fields(&[(&name, &value)]), "{length}");
        }
    }
}
