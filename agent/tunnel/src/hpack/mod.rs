//! HPACK (RFC 7541): reads every form, with a bounded table, and writes the plainest.

mod encode;
mod huffman;
mod table;

pub(crate) use encode::{write_connect, write_status};
use table::DynamicTable;

/// The size of the dynamic table that a peer may use: HTTP/2's default. An entry counts
/// [`table::ENTRY_OVERHEAD`] bytes more than its text.
pub(crate) const TABLE_SIZE: usize = 4096;

/// A header block that cannot be decoded. It ends the connection, since the table's state is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum HpackError {
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

/// Decodes header blocks, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    table: DynamicTable,
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

impl Decoder {
    /// Decodes a block and hands each field to `field`.
    ///
    /// # Errors
    /// [`HpackError`].
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut block = Block(block);
        let mut may_resize = true;
        while let Some(&first) = block.0.first() {
            // RFC 7541, section 6: the leading bits tell the form.
            match first {
                0x80.. => {
                    let (name, value) = self.table.get(block.number(7)?)?;
                    field(name, value);
                }
                0x40..=0x7f => self.literal(&mut block, 6, Indexing::Entered, &mut field)?,
                0x20..=0x3f => {
                    let size = block.number(5)?;
                    if !may_resize || size > TABLE_SIZE {
                        return Err(HpackError::TableSize);
                    }
                    self.table.resize(size);
                    continue;
                }
                _ => self.literal(&mut block, 4, Indexing::NotEntered, &mut field)?,
            }
            may_resize = false;
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut Block<'_>,
        prefix: u32,
        indexing: Indexing,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        self.name.clear();
        match block.number(prefix)? {
            0 => block.string(&mut self.name)?,
            index => self.name.extend_from_slice(self.table.get(index)?.0),
        }
        self.value.clear();
        block.string(&mut self.value)?;
        field(&self.name, &self.value);
        if indexing == Indexing::Entered {
            self.table.insert(&self.name, &self.value);
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

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
        let mut fields = Fields::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
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
        let mut block = bytes::BytesMut::new();
        write_connect(&mut block, "[fd00::1]:8080", "for=\"10.0.0.1:1\"");
        let expected = [
            (":method", "CONNECT"),
            (":authority", "[fd00::1]:8080"),
            ("forwarded", "for=\"10.0.0.1:1\""),
        ];
        assert_eq!(
            decode(&mut Decoder::default(), &block).unwrap(),
            fields(&expected)
        );
        for status in [200, 400, 401, 503] {
            let mut block = bytes::BytesMut::new();
            write_status(&mut block, status);
            let expected = [(":status", status.to_string())];
            let read = decode(&mut Decoder::default(), &block).unwrap();
            assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value)));
        }
    }
}
