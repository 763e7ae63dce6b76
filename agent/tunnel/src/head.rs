//! The heads that open and answer a tunnel's streams (RFC 9113, section 8).

use ambit_http2::hpack::FieldReader;

/// The most bytes of a head, as HTTP/2 counts them: names, values, and [`FIELD_OVERHEAD`] for each field.
pub(crate) const LARGEST_HEAD: usize = 16 << 10;

/// What a field counts besides its text (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The head of a request on a tunnel. What a tunnel has no use for is left out.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RequestHead {
    /// The method, `CONNECT` in a tunnel.
    pub method: String,
    /// Where to connect.
    pub authority: Option<String>,
    /// The protocol of an extended CONNECT (RFC 8441).
    pub protocol: Option<String>,
    /// The value of the first `forwarded` header (RFC 7239).
    pub forwarded: Option<Vec<u8>>,
}

/// A head that no request or answer may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MalformedHead {
    /// Its form is wrong. The stream is reset.
    Form,
    /// It is longer than [`LARGEST_HEAD`].
    TooLong,
}

/// Takes the fields of a head, one after the other.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    request: RequestHead,
    method: Option<String>,
    scheme: bool,
    path: bool,
    status: Option<u16>,
    regular: bool,
    length: usize,
    malformed: Option<MalformedHead>,
}

impl FieldReader for HeadReader {
    type Note = ();

    fn note(_: &[u8], _: &[u8]) {}

    fn read(&mut self, name: &[u8], value: &[u8], (): ()) {
        self.field(name, value);
    }
}

impl HeadReader {
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.length += name.len() + value.len() + FIELD_OVERHEAD;
        if self.length > LARGEST_HEAD {
            self.malformed = Some(MalformedHead::TooLong);
        }
        if self.malformed.is_none()
            && let Err(malformed) = self.take(name, value)
        {
            self.malformed = Some(malformed);
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedHead> {
        if !is_value(value) {
            return Err(MalformedHead::Form);
        }
        if name.first() != Some(&b':') {
            self.regular = true;
            return self.take_regular(name, value);
        }
        // Pseudo-header fields come first, and once.
        if self.regular {
            return Err(MalformedHead::Form);
        }
        let text = || String::from_utf8(value.to_vec()).map_err(|_| MalformedHead::Form);
        match name {
            b":method" => set(&mut self.method, text()?),
            b":authority" => set(&mut self.request.authority, text()?),
            b":protocol" => set(&mut self.request.protocol, text()?),
            b":status" => {
                let status = text()?.parse().map_err(|_| MalformedHead::Form)?;
                set(&mut self.status, status)
            }
            b":scheme" => once(&mut self.scheme),
            b":path" => once(&mut self.path),
            _ => Err(MalformedHead::Form),
        }
    }

    fn take_regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedHead> {
        if name.is_empty() || !name.iter().copied().all(is_name_octet) {
            return Err(MalformedHead::Form);
        }
        match name {
            b"forwarded" => {
                self.request.forwarded.get_or_insert_with(|| value.to_vec());
            }
            // RFC 9113, section 8.2.2.
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => return Err(MalformedHead::Form),
            b"te" if value != b"trailers" => return Err(MalformedHead::Form),
            _ => {}
        }
        Ok(())
    }

    /// Returns the head of a request.
    ///
    /// # Errors
    /// [`MalformedHead`].
    pub(crate) fn request(self) -> Result<RequestHead, MalformedHead> {
        self.ensure_well_formed()?;
        let method = self.method.ok_or(MalformedHead::Form)?;
        // RFC 9113, section 8.5: a CONNECT has neither, unless it is extended.
        let is_plain_connect = method == "CONNECT" && self.request.protocol.is_none();
        let is_complete = self.scheme && self.path;
        let has_neither = !self.scheme && !self.path && self.request.authority.is_some();
        if self.status.is_some()
            || !(if is_plain_connect {
                has_neither
            } else {
                is_complete
            })
        {
            return Err(MalformedHead::Form);
        }
        Ok(RequestHead {
            method,
            ..self.request
        })
    }

    /// Returns the status of an answer.
    ///
    /// # Errors
    /// [`MalformedHead`].
    pub(crate) fn status(self) -> Result<u16, MalformedHead> {
        self.ensure_well_formed()?;
        self.status.ok_or(MalformedHead::Form)
    }

    fn ensure_well_formed(&self) -> Result<(), MalformedHead> {
        self.malformed.map_or(Ok(()), Err)
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), MalformedHead> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(MalformedHead::Form),
    }
}

fn once(seen: &mut bool) -> Result<(), MalformedHead> {
    if std::mem::replace(seen, true) {
        return Err(MalformedHead::Form);
    }
    Ok(())
}

/// RFC 9113, section 8.2.1: lower case, and none of the separators.
const fn is_name_octet(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'0'..=b'9')
        || matches!(
            octet,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// RFC 9113, section 8.2.1.
fn is_value(value: &[u8]) -> bool {
    let is_blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    let breaks = |octet: &u8| matches!(octet, 0 | b'\r' | b'\n');
    !value.iter().any(breaks) && !is_blank(value.first()) && !is_blank(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> HeadReader {
        let mut reader = HeadReader::default();
        for (name, value) in fields {
            reader.field(name.as_bytes(), value.as_bytes());
        }
        reader
    }

    const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")];

    #[test]
    fn a_connect_is_read() {
        let mut fields = CONNECT.to_vec();
        fields.extend([
            ("baggage", "k=v"),
            ("forwarded", "for=a"),
            ("forwarded", "for=b"),
        ]);
        let head = read(&fields).request().unwrap();
        assert_eq!(head.method, "CONNECT");
        assert_eq!(head.authority.as_deref(), Some("10.0.0.1:80"));
        assert_eq!(head.forwarded.as_deref(), Some(&b"for=a"[..]));
        assert_eq!(read(&[(":status", "200")]).status(), Ok(200));
    }

    #[test]
    fn other_requests_are_read_so_that_they_can_be_refused_by_name() {
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        assert_eq!(read(&get).request().unwrap().method, "GET");
        let mut extended = CONNECT.to_vec();
        extended.extend([
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/"),
        ]);
        let head = read(&extended).request().unwrap();
        assert_eq!(head.protocol.as_deref(), Some("websocket"));
    }

    #[test]
    fn a_malformed_head_is_refused() {
        for extra in [
            (":method", "CONNECT"),
            (":path", "/"),
            (":scheme", "https"),
            (":status", "200"),
            (":unknown", ""),
            ("", "a"),
            ("Upper", "case"),
            ("space ", "x"),
            ("te", "gzip"),
            ("connection", "close"),
            ("x", "line\nbreak"),
            ("x", " blank"),
            ("x", "nul\0"),
        ] {
            let mut fields = CONNECT.to_vec();
            fields.push(extra);
            let refused = read(&fields).request();
            assert_eq!(refused, Err(MalformedHead::Form), "{extra:?}");
        }
        let late = [CONNECT[0], ("a", "b"), CONNECT[1]];
        assert_eq!(read(&late).request(), Err(MalformedHead::Form));
        for incomplete in [&CONNECT[..1], &CONNECT[1..], &[]] {
            assert_eq!(read(incomplete).request(), Err(MalformedHead::Form));
        }
        assert_eq!(read(&[(":status", "x")]).status(), Err(MalformedHead::Form));
    }

    #[test]
    fn a_long_head_is_refused() {
        let long = "x".repeat(LARGEST_HEAD);
        let mut fields = CONNECT.to_vec();
        fields.push(("x", &long));
        assert_eq!(read(&fields).request(), Err(MalformedHead::TooLong));
    }
}
