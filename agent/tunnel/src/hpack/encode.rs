//! The two heads that a tunnel sends. Literals without indexing: neither side keeps a table for them.

use bytes::{BufMut, BytesMut};

/// Literals without indexing, by the static table's index of their name (RFC 7541, section 6.2.2).
const METHOD: u8 = 2;
const AUTHORITY: u8 = 1;
const STATUS: u8 = 8;
const NEW_NAME: u8 = 0;

/// `:status: 200` of the static table.
const STATUS_200: u8 = 0x80 | 8;

/// The most that a length takes in one octet.
const SHORT: usize = 0x7f;

/// Writes the head of a CONNECT.
pub(crate) fn write_connect(block: &mut BytesMut, authority: &str, forwarded: &str) {
    block.put_u8(METHOD);
    write_string(block, b"CONNECT");
    block.put_u8(AUTHORITY);
    write_string(block, authority.as_bytes());
    block.put_u8(NEW_NAME);
    write_string(block, b"forwarded");
    write_string(block, forwarded.as_bytes());
}

/// Writes the head of an answer.
pub(crate) fn write_status(block: &mut BytesMut, status: u16) {
    if status == 200 {
        return block.put_u8(STATUS_200);
    }
    block.put_u8(STATUS);
    write_string(block, status.to_string().as_bytes());
}

fn write_string(block: &mut BytesMut, string: &[u8]) {
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
