//! Fields as literals without indexing (RFC 7541, section 6.2.2): the reader keeps no table for them.

use bytes::{BufMut, BytesMut};

/// A literal without indexing, whose name follows.
const NEW_NAME: u8 = 0;

/// The most that a length takes in one octet.
const SHORT: usize = 0x7f;

/// Writes a field.
pub fn write_literal(block: &mut BytesMut, name: &[u8], value: &[u8]) {
    block.put_u8(NEW_NAME);
    write_string(block, name);
    write_string(block, value);
}

/// Writes a string, without the Huffman code.
pub fn write_string(block: &mut BytesMut, string: &[u8]) {
    let mut length = string.len();
    if length < SHORT {
        block.put_u8(length as u8);
    } else {
        block.put_u8(SHORT as u8);
        length -= SHORT;
        while length > SHORT {
            block.put_u8(0x80 | (length & SHORT) as u8);
            length >>= 7;
        }
        block.put_u8(length as u8);
    }
    block.extend_from_slice(string);
}
