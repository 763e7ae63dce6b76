//! HTTP/2 frames (RFC 9113, section 4), as far as Ambit reads and writes them itself.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// The length of a frame's head.
pub const FRAME_HEAD: usize = 9;

/// What a client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The payload that a frame may have until a peer allows more.
pub const DEFAULT_FRAME: usize = 16 << 10;

/// The window that streams and connections have until settings change it.
pub const DEFAULT_WINDOW: u32 = (64 << 10) - 1;

/// The largest window (RFC 9113, section 6.9.1).
pub const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// A flag of SETTINGS and PING: this is the answer.
pub const ACK: u8 = 0x1;
/// A flag of DATA and HEADERS: the stream's last frame of this side.
pub const END_STREAM: u8 = 0x1;
/// A flag of HEADERS and CONTINUATION: the header block's last frame.
pub const END_HEADERS: u8 = 0x4;
/// A flag of DATA and HEADERS: the payload begins with the length of padding.
pub const PADDED: u8 = 0x8;
/// A flag of HEADERS: a priority comes before the header block.
pub const PRIORITY: u8 = 0x20;

/// SETTINGS_ENABLE_PUSH (RFC 9113, section 6.5.2).
pub const ENABLE_PUSH: u16 = 2;
/// SETTINGS_MAX_CONCURRENT_STREAMS.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// SETTINGS_INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// SETTINGS_MAX_FRAME_SIZE.
pub const MAX_FRAME_SIZE: u16 = 5;
/// SETTINGS_MAX_HEADER_LIST_SIZE.
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

/// A stream's number; 0 is the connection as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The connection as a whole.
    pub const CONNECTION: Self = Self(0);
    /// The last that there can be.
    pub const LARGEST: Self = Self((1 << 31) - 1);

    /// Whether the client opens it.
    pub const fn is_clients(self) -> bool {
        self.0 % 2 == 1
    }
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are named as in RFC 9113, section 6")]
pub enum FrameKind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Any other. It is skipped (RFC 9113, section 5.5).
    Unknown,
}

impl FrameKind {
    const KNOWN: [Self; 10] = [
        Self::Data,
        Self::Headers,
        Self::Priority,
        Self::ResetStream,
        Self::Settings,
        Self::PushPromise,
        Self::Ping,
        Self::GoAway,
        Self::WindowUpdate,
        Self::Continuation,
    ];

    fn of(octet: u8) -> Self {
        let known = Self::KNOWN.get(usize::from(octet));
        known.copied().unwrap_or(Self::Unknown)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHead {
    /// Of the payload.
    pub length: usize,
    /// What the frame is.
    pub kind: FrameKind,
    /// Its flags.
    pub flags: u8,
    /// The stream that it belongs to.
    pub stream: StreamId,
}

impl FrameHead {
    /// Reads a frame's head.
    pub fn read(bytes: [u8; FRAME_HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind: FrameKind::of(kind),
            flags,
            stream: StreamId(u32::from_be_bytes(stream) & StreamId::LARGEST.0),
        }
    }

    /// Writes a frame's head.
    pub fn write(self) -> [u8; FRAME_HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.0.to_be_bytes();
        [a, b, c, self.kind as u8, self.flags, d, e, f, g]
    }

    /// Whether a flag is set.
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a frame.
pub fn put_frame(out: &mut BytesMut, kind: FrameKind, flags: u8, stream: StreamId, payload: &[u8]) {
    let head = FrameHead {
        length: payload.len(),
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&head.write());
    out.extend_from_slice(payload);
}

/// Writes the settings of one side.
pub fn put_settings(out: &mut BytesMut, settings: &[(u16, u32)]) {
    let mut payload = BytesMut::with_capacity(6 * settings.len());
    for (name, value) in settings {
        payload.put_u16(*name);
        payload.put_u32(*value);
    }
    put_frame(out, FrameKind::Settings, 0, StreamId::CONNECTION, &payload);
}

/// Writes a WINDOW_UPDATE.
pub fn put_window_update(out: &mut BytesMut, stream: StreamId, increment: u32) {
    let payload = increment.to_be_bytes();
    put_frame(out, FrameKind::WindowUpdate, 0, stream, &payload);
}

/// Writes an RST_STREAM.
pub fn put_reset(out: &mut BytesMut, stream: StreamId, code: ErrorCode) {
    let payload = code.0.to_be_bytes();
    put_frame(out, FrameKind::ResetStream, 0, stream, &payload);
}

/// Writes a GOAWAY.
pub fn put_go_away(out: &mut BytesMut, last: StreamId, code: ErrorCode) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.0.to_be_bytes());
    payload[4..].copy_from_slice(&code.0.to_be_bytes());
    let connection = StreamId::CONNECTION;
    put_frame(out, FrameKind::GoAway, 0, connection, &payload);
}

/// Why a stream or a connection was ended (RFC 9113, section 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// An orderly end.
    pub const NO_ERROR: Self = Self(0);
    /// The other side broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// This side failed.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// The other side sent more than it may.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame has a length that it must not have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The stream was not looked at: it may be opened again elsewhere.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is no longer needed.
    pub const CANCEL: Self = Self(8);
    /// A header block cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The connection that the stream leads to was reset, or failed (RFC 9113, section 8.5).
    pub const CONNECT_ERROR: Self = Self(10);
    /// The other side sends too much that is of no use.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_written_is_read() {
        for kind in FrameKind::KNOWN {
            let head = FrameHead {
                length: 0x0001_02ff,
                kind,
                flags: END_STREAM | PADDED,
                stream: StreamId(0x7fff_fffe),
            };
            assert_eq!(FrameHead::read(head.write()), head);
        }
        let reserved_bit = [0, 0, 0, 99, 0, 0x80, 0, 0, 1];
        let head = FrameHead::read(reserved_bit);
        assert_eq!((head.kind, head.stream), (FrameKind::Unknown, StreamId(1)));
    }
}
