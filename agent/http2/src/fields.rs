//! Whether the fields of a head may be in one (RFC 9113, sections 8.2 and 8.3). It is as strict as h2 and the
//! `http` crate are, and no stricter: what they take is for the readers behind them to judge.

use http::{Method, StatusCode};

use crate::hpack::FieldReader;

/// The longest name that the `http` crate takes.
const LONGEST_NAME: usize = (1 << 16) - 1;

/// What HTTP/2 counts for a field besides its name and value (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Why a head is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the name of a header is empty, or not a token in lower case")]
    Name,
    #[error("a value has a character that it must not have")]
    Value,
    #[error("there is an unknown pseudo-header")]
    UnknownPseudo,
    #[error("a pseudo-header is repeated")]
    RepeatedPseudo,
    #[error("a pseudo-header comes after a header")]
    LatePseudo,
    #[error("there is a header for the connection only")]
    OfConnection,
    #[error("a stream depends on itself")]
    DependsOnItself,
    #[error("it is longer than a head may be")]
    TooLong,
}

/// A pseudo-header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pseudo {
    Authority = 0x1,
    Method = 0x2,
    Path = 0x4,
    Protocol = 0x8,
    Scheme = 0x10,
    Status = 0x20,
}

/// What the text of a field says by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    Pseudo(Pseudo),
    Regular,
    Malformed(Malformed),
}

impl Note {
    /// Looks at a field.
    pub(crate) fn of(name: &[u8], value: &[u8]) -> Self {
        let noted = match name {
            [b':', pseudo @ ..] => Self::of_pseudo(pseudo, value),
            _ => Self::of_regular(name, value),
        };
        noted.unwrap_or_else(Self::Malformed)
    }

    fn of_pseudo(name: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let (pseudo, is_valid) = match name {
            b"authority" => (Pseudo::Authority, is_text(value)),
            b"method" => (Pseudo::Method, Method::from_bytes(value).is_ok()),
            b"path" => (Pseudo::Path, is_text(value)),
            b"protocol" => (Pseudo::Protocol, is_text(value)),
            b"scheme" => (Pseudo::Scheme, is_text(value)),
            b"status" => (Pseudo::Status, StatusCode::from_bytes(value).is_ok()),
            _ => return Err(Malformed::UnknownPseudo),
        };
        is_valid
            .then_some(Self::Pseudo(pseudo))
            .ok_or(Malformed::Value)
    }

    fn of_regular(name: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        if !is_name(name) {
            return Err(Malformed::Name);
        }
        if !is_value(value) {
            return Err(Malformed::Value);
        }
        match name {
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => Err(Malformed::OfConnection),
            b"te" if value != b"trailers" => Err(Malformed::OfConnection),
            _ => Ok(Self::Regular),
        }
    }
}

fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok()
}

/// A token in lower case, or with a quotation mark, which the `http` crate takes.
fn is_name(name: &[u8]) -> bool {
    const NAME_OCTETS: [bool; 256] = name_octets();
    let is_octet = |octet: &u8| NAME_OCTETS[usize::from(*octet)];
    (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(is_octet)
}

const fn name_octets() -> [bool; 256] {
    let others = b"!\"#$%&'*+-.^_`|~";
    let mut octets = [false; 256];
    let mut octet = 0;
    while octet < octets.len() {
        let lower = octet as u8;
        octets[octet] = lower.is_ascii_lowercase() || lower.is_ascii_digit();
        octet += 1;
    }
    let mut place = 0;
    while place < others.len() {
        octets[others[place] as usize] = true;
        place += 1;
    }
    octets
}

/// No control characters but the tab.
fn is_value(value: &[u8]) -> bool {
    // Without an early end, so that many octets are looked at at once.
    let is_control = |octet: &u8| (*octet < b' ' && *octet != b'\t') || *octet == 0x7f;
    !value
        .iter()
        .fold(false, |found, octet| found | is_control(octet))
}

/// Looks at the fields of one head.
#[derive(Debug, Default)]
pub(crate) struct HeadJudge {
    /// The [`Pseudo`] headers so far.
    pseudos: u8,
    has_regular: bool,
    /// As HTTP/2 counts it.
    length: usize,
    malformed: Option<Malformed>,
}

impl HeadJudge {
    /// Takes note of a reason that is not in the fields.
    pub(crate) fn refuse(&mut self, malformed: Malformed) {
        self.malformed.get_or_insert(malformed);
    }

    /// The head's length so far, as HTTP/2 counts it.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether the head is in order, as far as it was read.
    ///
    /// # Errors
    /// [`Malformed`], the first reason.
    pub(crate) fn judgement(&self) -> Result<(), Malformed> {
        self.malformed.map_or(Ok(()), Err)
    }

    fn pseudo(&mut self, pseudo: Pseudo) {
        if self.has_regular {
            self.refuse(Malformed::LatePseudo);
        }
        if self.pseudos & pseudo as u8 != 0 {
            self.refuse(Malformed::RepeatedPseudo);
        }
        self.pseudos |= pseudo as u8;
    }
}

impl FieldReader for HeadJudge {
    type Note = Note;

    fn note(name: &[u8], value: &[u8]) -> Note {
        Note::of(name, value)
    }

    fn read(&mut self, name: &[u8], value: &[u8], note: Note) {
        self.length += name.len() + value.len() + FIELD_OVERHEAD;
        match note {
            Note::Pseudo(pseudo) => self.pseudo(pseudo),
            Note::Regular => self.has_regular = true,
            Note::Malformed(malformed) => self.refuse(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn names_and_values_are_taken_as_the_http_crate_takes_them() {
        for octet in 0..=u8::MAX {
            let text = [b'a', octet, b'a'];
            let is_lower = HeaderName::from_lowercase(&text).is_ok();
            assert_eq!(is_name(&text), is_lower, "{octet}");
            let is_header = HeaderValue::from_bytes(&text).is_ok();
            assert_eq!(is_value(&text), is_header, "{octet}");
        }
        for length in [0, 1, 64, 65, LONGEST_NAME, LONGEST_NAME + 1] {
            let text = vec![b'a'; length];
            let is_lower = HeaderName::from_lowercase(&text).is_ok();
            assert_eq!(is_name(&text), is_lower, "{length}");
        }
    }

    fn judge(fields: &[(&str, &str)]) -> Result<(), Malformed> {
        let mut judge = HeadJudge::default();
        for (name, value) in fields {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            judge.read(name, value, Note::of(name, value));
        }
        judge.judgement()
    }

    #[test]
    fn each_rule_is_kept() {
        for (field, malformed) in [
            (("", ""), Malformed::Name),
            (("Upper", "a"), Malformed::Name),
            (("a b", "a"), Malformed::Name),
            (("a", "line\nbreak"), Malformed::Value),
            (("a", "\u{7f}"), Malformed::Value),
            ((":method", ""), Malformed::Value),
            ((":method", "G T"), Malformed::Value),
            ((":status", "20"), Malformed::Value),
            ((":status", "099"), Malformed::Value),
            ((":", ""), Malformed::UnknownPseudo),
            ((":Path", "/"), Malformed::UnknownPseudo),
            (("connection", "close"), Malformed::OfConnection),
            (("te", "gzip"), Malformed::OfConnection),
        ] {
            assert_eq!(judge(&[field]), Err(malformed), "{field:?}");
        }
        let path = (":path", "/");
        assert_eq!(judge(&[path, path]), Err(Malformed::RepeatedPseudo));
        assert_eq!(judge(&[("a", ""), path]), Err(Malformed::LatePseudo));
        assert_eq!(judge(&[path, ("te", "trailers"), ("a", " \t")]), Ok(()));
        let not_text = Note::of(b":path", b"/\xff");
        assert_eq!(not_text, Note::Malformed(Malformed::Value));
        assert_eq!(Note::of(b"a", b"\xff"), Note::Regular);
    }
}
