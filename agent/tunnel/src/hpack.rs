//! The two heads that a tunnel sends. Literals without indexing: neither side keeps a table for them.

use ambit_http2::hpack::write_string;
pub(crate) use ambit_http2::hpack::{Decoder, HpackError};
use bytes::{BufMut, BytesMut};

/// Literals without indexing, by the static table's index of their name (RFC 7541, section 6.2.2).
const METHOD: u8 = 2;
const AUTHORITY: u8 = 1;
const STATUS: u8 = 8;
const NEW_NAME: u8 = 0;

/// `:status: 200` of the static table.
const STATUS_200: u8 = 0x80 | 8;

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

#[cfg(test)]
mod tests {
    use ambit_http2::hpack::FieldReader;

    use super::*;

    #[derive(Default)]
    struct Fields(Vec<(String, String)>);

    impl FieldReader for Fields {
        type Note = ();

        fn note(_: &[u8], _: &[u8]) {}

        fn read(&mut self, name: &[u8], value: &[u8], (): ()) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.0.push((text(name), text(value)));
        }
    }

    fn read(block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Fields::default();
        Decoder::default().decode(block, &mut fields).unwrap();
        fields.0
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = BytesMut::new();
        write_connect(&mut block, "[fd00::1]:8080", "for=\"10.0.0.1:1\"");
        let expected = [
            (":method", "CONNECT"),
            (":authority", "[fd00::1]:8080"),
            ("forwarded", "for=\"10.0.0.1:1\""),
        ];
        assert_eq!(
            read(&block),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        for status in [200, 400, 401, 503] {
            let mut block = BytesMut::new();
            write_status(&mut block, status);
            assert_eq!(read(&block), [(":status".to_owned(), status.to_string())]);
        }
    }
}
