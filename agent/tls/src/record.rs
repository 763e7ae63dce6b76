//! The record protocol after the handshake (RFC 8446, section 5), and the messages that may come then.

use bytes::BytesMut;
use rustls::{AlertDescription, ContentType, Error, ExtractedSecrets, HandshakeType};

use crate::key::{Key, Schedule};
use crate::outbox::{Batch, Outbox};

/// The length of a record's header.
pub(crate) const HEADER: usize = 5;

/// What follows a record's content: its type, encrypted, and the tag. All ciphers have a tag of 16 bytes.
pub(crate) const TAIL: usize = 1 + TAG;
const TAG: usize = 16;

/// The most content of a record (section 5.1).
pub(crate) const MOST_CONTENT: usize = 1 << 14;

/// The most that may follow a header (section 5.2).
const MOST_BODY: usize = MOST_CONTENT + 256;

/// The longest record.
pub const LARGEST_RECORD: usize = HEADER + MOST_BODY;

/// The longest message that may come after the handshake. It is rustls' limit.
const MOST_MESSAGE: usize = (64 << 10) - 1;

/// The length of a handshake message's type and length (section 4).
const MESSAGE_HEAD: usize = 4;

/// How many key updates may come without data between them, how many empty records, and how many warnings. All
/// are rustls' limits.
const MOST_UPDATES: u8 = 32;
const MOST_EMPTY: u8 = 32;
const MOST_WARNINGS: u8 = 4;

/// Alert levels (section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What a KeyUpdate asks for (section 4.6.3).
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordFailure {
    /// A record has a type that only unprotected records have.
    #[error("TLS: the peer sent a record that is not protected")]
    Unprotected,
    /// A record, or a message in it, is longer than it may be.
    #[error("TLS: the peer sent a record that is too long")]
    TooLong,
    /// A record was changed, repeated, left out or made by somebody else.
    #[error("TLS: a record does not decrypt")]
    Forged,
    /// Something came that must not come now.
    #[error("TLS: {0}")]
    Unexpected(&'static str),
    /// A message cannot be read.
    #[error("TLS: the peer sent a message that cannot be read")]
    Malformed,
    /// A field has a value that it must not have.
    #[error("TLS: the peer sent a message with an illegal value")]
    Illegal,
    /// The peer said that it has failed.
    #[error("TLS: the peer sent the alert {0:?}")]
    Alert(AlertDescription),
    /// The key must not protect more.
    #[error("TLS: the key has protected as much as it may")]
    UsedUp,
    /// There is no key.
    #[error("TLS: no key: {0}")]
    Keys(Error),
}

impl RecordFailure {
    /// What the peer is told (section 6.2). A peer that has failed is told nothing.
    const fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            Self::Unprotected | Self::Unexpected(_) => AlertDescription::UnexpectedMessage,
            Self::TooLong => AlertDescription::RecordOverflow,
            Self::Forged => AlertDescription::BadRecordMac,
            Self::Malformed => AlertDescription::DecodeError,
            Self::Illegal => AlertDescription::IllegalParameter,
            Self::UsedUp | Self::Keys(_) => AlertDescription::InternalError,
            Self::Alert(_) => return None,
        })
    }
}

/// The next record of what has come.
#[derive(Debug)]
pub enum Split<'a> {
    /// A complete one, and what comes after it.
    Record(Sealed<'a>, &'a mut [u8]),
    /// Only its beginning, or nothing.
    Partial(&'a [u8]),
}

/// A record as it came.
#[derive(Debug)]
pub struct Sealed<'a> {
    header: [u8; HEADER],
    body: &'a mut [u8],
}

/// What a record brought.
#[derive(PartialEq, Eq, Debug)]
pub enum Opened<'a> {
    /// Data.
    Data(&'a [u8]),
    /// Nothing that concerns others.
    Nothing,
    /// The peer sends no more.
    End,
}

/// Whether this side may still send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// An alert was sent.
    Closed,
}

/// Whether anything may still come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Open,
    /// What comes after close_notify is ignored (section 6.1).
    Ended,
    Failed,
}

/// The state of the record protocol.
pub struct Records {
    sealing: Key,
    opening: Key,
    /// What each sealing key may protect.
    most_records: u64,
    schedule: Schedule,
    sending: Sending,
    receiving: Receiving,
    /// The peer wants this side to use its next key before it sends more data.
    update_wanted: bool,
    /// A handshake message that is not complete.
    message: Vec<u8>,
    updates_left: u8,
    empty_left: u8,
    warnings_left: u8,
}

/// The length in a record's header.
pub(crate) fn body_length([_, _, _, high, low]: [u8; HEADER]) -> usize {
    usize::from(u16::from_be_bytes([high, low]))
}

/// Takes the next record off what has come.
///
/// # Errors
/// If no record after a handshake begins like that (section 5.2). [`Records::fail`] has to follow.
pub fn split(input: &mut [u8]) -> Result<Split<'_>, RecordFailure> {
    let Some(header) = input.first_chunk::<HEADER>().copied() else {
        return Ok(Split::Partial(input));
    };
    // The other fields are authenticated with the record.
    if header[0] != u8::from(ContentType::ApplicationData) {
        return Err(RecordFailure::Unprotected);
    }
    let length = body_length(header);
    if length > MOST_BODY {
        return Err(RecordFailure::TooLong);
    }
    if input.len() < HEADER + length {
        return Ok(Split::Partial(input));
    }
    let (record, rest) = input.split_at_mut(HEADER + length);
    let body = &mut record[HEADER..];
    Ok(Split::Record(Sealed { header, body }, rest))
}

impl Records {
    pub(crate) fn new(
        secrets: ExtractedSecrets,
        schedule: Schedule,
    ) -> Result<Self, RecordFailure> {
        Ok(Self {
            sealing: Key::new(secrets.tx)?,
            opening: Key::new(secrets.rx)?,
            most_records: schedule.most_records(),
            schedule,
            sending: Sending::Open,
            receiving: Receiving::Open,
            update_wanted: false,
            message: Vec::new(),
            updates_left: MOST_UPDATES,
            empty_left: MOST_EMPTY,
            warnings_left: MOST_WARNINGS,
        })
    }

    /// Seals data where it is. After an alert was sent, it is discarded.
    ///
    /// # Errors
    /// [`RecordFailure::UsedUp`] or [`RecordFailure::Keys`].
    pub fn seal(&mut self, data: BytesMut, out: &mut Outbox) -> Result<(), RecordFailure> {
        if data.is_empty() || self.sending == Sending::Closed {
            return Ok(());
        }
        let records = data.len().div_ceil(MOST_CONTENT) as u64;
        if self.update_wanted || !self.has_room_for(records) {
            self.update_sealing(out)?;
        }
        if !self.has_room_for(records) {
            return Err(RecordFailure::UsedUp);
        }
        self.push(ContentType::ApplicationData, data, out)
    }

    /// Whether the key may protect so many records, and the KeyUpdate that ends it (section 5.5).
    const fn has_room_for(&self, records: u64) -> bool {
        self.sealing.used().saturating_add(records) < self.most_records
    }

    /// Goes on with the next key, and says so (section 4.6.3).
    fn update_sealing(&mut self, out: &mut Outbox) -> Result<(), RecordFailure> {
        let kind = u8::from(HandshakeType::KeyUpdate);
        let message = [kind, 0, 0, 1, UPDATE_NOT_REQUESTED];
        self.push(ContentType::Handshake, BytesMut::from(&message[..]), out)?;
        self.sealing = self.schedule.next_sealing()?;
        self.update_wanted = false;
        Ok(())
    }

    /// Seals content of any length.
    fn push(
        &mut self,
        kind: ContentType,
        mut content: BytesMut,
        out: &mut Outbox,
    ) -> Result<(), RecordFailure> {
        let records = content.len().div_ceil(MOST_CONTENT);
        let mut rims = Vec::with_capacity(records * (HEADER + TAIL));
        for chunk in content.chunks_mut(MOST_CONTENT) {
            let header = header(chunk.len());
            let mut tail = [0; TAIL];
            self.sealing
                .seal(header, chunk, u8::from(kind), &mut tail)?;
            rims.extend_from_slice(&header);
            rims.extend_from_slice(&tail);
        }
        out.push(Batch::new(content, rims));
        Ok(())
    }

    /// Says that this side sends no more (section 6.1).
    pub fn close(&mut self, out: &mut Outbox) {
        self.push_alert(WARNING, AlertDescription::CloseNotify, out);
    }

    /// Ends both directions after a failure, and says why.
    pub fn fail(&mut self, failure: &RecordFailure, out: &mut Outbox) {
        self.receiving = Receiving::Failed;
        match failure.alert() {
            Some(alert) => self.push_alert(FATAL, alert, out),
            None => self.sending = Sending::Closed,
        }
    }

    fn push_alert(&mut self, level: u8, alert: AlertDescription, out: &mut Outbox) {
        if self.sending == Sending::Closed {
            return;
        }
        let alert = [level, u8::from(alert)];
        // Without a key there is no way to say it.
        let _ = self.push(ContentType::Alert, BytesMut::from(&alert[..]), out);
        self.sending = Sending::Closed;
    }

    /// Opens a record where it is.
    ///
    /// # Errors
    /// [`RecordFailure`]. [`Records::fail`] has to follow.
    pub fn open<'a>(&mut self, record: Sealed<'a>) -> Result<Opened<'a>, RecordFailure> {
        match self.receiving {
            Receiving::Open => {}
            Receiving::Ended | Receiving::Failed => return Ok(Opened::End),
        }
        let inner = self.opening.open(record.header, record.body)?;
        if inner.len() > MOST_CONTENT + 1 {
            return Err(RecordFailure::TooLong);
        }
        // Zeros after the type are padding (section 5.4).
        let end = inner.iter().rposition(|&byte| byte != 0);
        let end = end.ok_or(RecordFailure::Unexpected("a record has no type"))?;
        let (content, kind) = (&inner[..end], ContentType::from(inner[end]));
        if !self.message.is_empty() && kind != ContentType::Handshake {
            return Err(RecordFailure::Unexpected("a message is interrupted"));
        }
        match kind {
            ContentType::ApplicationData => self.data(content),
            ContentType::Handshake => self.messages(content),
            ContentType::Alert => self.alert(content),
            _ => Err(RecordFailure::Unexpected(
                "a record has a type that must not come after the handshake",
            )),
        }
    }

    fn data<'a>(&mut self, content: &'a [u8]) -> Result<Opened<'a>, RecordFailure> {
        self.updates_left = MOST_UPDATES;
        if !content.is_empty() {
            self.empty_left = MOST_EMPTY;
            return Ok(Opened::Data(content));
        }
        let too_many = RecordFailure::Unexpected("too many empty records");
        self.empty_left = self.empty_left.checked_sub(1).ok_or(too_many)?;
        Ok(Opened::Nothing)
    }

    /// Takes in handshake messages. Only the last one may go on in the next record (section 5.1).
    fn messages<'a>(&mut self, content: &[u8]) -> Result<Opened<'a>, RecordFailure> {
        if content.is_empty() {
            return Err(RecordFailure::Unexpected("a handshake record is empty"));
        }
        let mut waiting = std::mem::take(&mut self.message);
        waiting.extend_from_slice(content);
        let mut rest = &waiting[..];
        while let Some((head, after)) = rest.split_first_chunk::<MESSAGE_HEAD>() {
            let [kind, a, b, c] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MOST_MESSAGE {
                return Err(RecordFailure::TooLong);
            }
            let Some((message, after)) = after.split_at_checked(length) else {
                break;
            };
            self.message_of(HandshakeType::from(kind), message, after.is_empty())?;
            rest = after;
        }
        let done = waiting.len() - rest.len();
        waiting.drain(..done);
        if !waiting.is_empty() {
            self.message = waiting;
        }
        Ok(Opened::Nothing)
    }

    fn message_of(
        &mut self,
        kind: HandshakeType,
        message: &[u8],
        ends_record: bool,
    ) -> Result<(), RecordFailure> {
        match kind {
            HandshakeType::KeyUpdate => self.key_update(message, ends_record),
            HandshakeType::NewSessionTicket => self.schedule.take_ticket(message),
            _ => Err(RecordFailure::Unexpected(
                "a message must not come after the handshake",
            )),
        }
    }

    /// Goes on with the peer's next key (sections 4.6.3 and 5.1).
    fn key_update(&mut self, message: &[u8], ends_record: bool) -> Result<(), RecordFailure> {
        if !ends_record {
            return Err(RecordFailure::Unexpected("a message follows a key update"));
        }
        let too_many = RecordFailure::Unexpected("too many key updates");
        self.updates_left = self.updates_left.checked_sub(1).ok_or(too_many)?;
        match message {
            [UPDATE_NOT_REQUESTED] => {}
            [UPDATE_REQUESTED] => self.update_wanted = true,
            [_] => return Err(RecordFailure::Illegal),
            _ => return Err(RecordFailure::Malformed),
        }
        self.opening = self.schedule.next_opening()?;
        Ok(())
    }

    /// Takes in an alert (section 6).
    fn alert<'a>(&mut self, content: &[u8]) -> Result<Opened<'a>, RecordFailure> {
        let &[level, alert] = content else {
            return Err(RecordFailure::Malformed);
        };
        match (level, AlertDescription::from(alert)) {
            (WARNING | FATAL, AlertDescription::CloseNotify) => {
                self.receiving = Receiving::Ended;
                Ok(Opened::End)
            }
            (WARNING, AlertDescription::UserCanceled) => {
                let too_many = RecordFailure::Unexpected("too many warnings");
                self.warnings_left = self.warnings_left.checked_sub(1).ok_or(too_many)?;
                Ok(Opened::Nothing)
            }
            (WARNING | FATAL, alert) => Err(RecordFailure::Alert(alert)),
            _ => Err(RecordFailure::Illegal),
        }
    }

    /// Lets each sealing key protect only so many records.
    #[cfg(test)]
    pub(crate) fn limit(&mut self, most_records: u64) {
        self.most_records = most_records;
    }

    /// Seals one record as it is, to be refused.
    #[cfg(test)]
    pub(crate) fn forge(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (mut content, mut tail) = (content.to_vec(), [0; TAIL]);
        let header = header(content.len());
        let sealed = self.sealing.seal(header, &mut content, kind, &mut tail);
        sealed.expect("a key");
        [&header[..], &content, &tail].concat()
    }

    /// Goes on with the next key without a word.
    #[cfg(test)]
    pub(crate) fn skip_key(&mut self) {
        self.sealing = self.schedule.next_sealing().expect("a key");
    }
}

fn header(content: usize) -> [u8; HEADER] {
    let [high, low] = ((content + TAIL) as u16).to_be_bytes();
    [u8::from(ContentType::ApplicationData), 3, 3, high, low]
}
