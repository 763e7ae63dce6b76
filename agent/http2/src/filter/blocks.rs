//! Header blocks, found among frames.

use std::borrow::Cow;

use super::HeadLimits;
use crate::frame::{
    END_HEADERS, END_STREAM, FRAME_HEAD, FrameHead, FrameKind, PADDED, PRIORITY, StreamId,
};

/// The most CONTINUATION frames of a block before its last (CVE-2024-27316). h2 takes as many of heads that fit
/// into four frames, and ends the connection because of more.
const MOST_CONTINUATIONS: usize = 5;

/// The length of a priority (RFC 9113, section 6.2).
const PRIORITY_LENGTH: usize = 5;

/// What comes next.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A frame that is not part of a header block, of this length with its head. It may end later.
    Frame(usize),
    /// A header block.
    Block(HeaderBlock<'a>),
    /// A header block or the head of a frame, of at least this length, which has not come as a whole.
    Incomplete(usize),
    /// Frames that break a rule of framing. h2 finds that, too, and ends the connection.
    Broken,
}

/// A complete header block of a stream.
#[derive(Debug)]
pub(super) struct HeaderBlock<'a> {
    pub(super) stream: StreamId,
    pub(super) is_last: bool,
    pub(super) depends_on_itself: bool,
    /// As it is compressed.
    pub(super) fields: Cow<'a, [u8]>,
    /// The length of all its frames.
    pub(super) length: usize,
}

/// Returns what the bytes begin with. They begin with a frame.
pub(super) fn next(bytes: &[u8], limits: HeadLimits) -> Next<'_> {
    let Some(head) = head(bytes) else {
        return Next::Incomplete(FRAME_HEAD);
    };
    match head.kind {
        FrameKind::Headers => block(head, bytes, limits),
        // A client must not send PUSH_PROMISE, and a server was told not to.
        FrameKind::PushPromise | FrameKind::Continuation => Next::Broken,
        FrameKind::Data
        | FrameKind::Priority
        | FrameKind::ResetStream
        | FrameKind::Settings
        | FrameKind::Ping
        | FrameKind::GoAway
        | FrameKind::WindowUpdate
        | FrameKind::Unknown => Next::Frame(FRAME_HEAD + head.length),
    }
}

fn head(bytes: &[u8]) -> Option<FrameHead> {
    bytes.first_chunk().copied().map(FrameHead::read)
}

/// Returns the block that HEADERS begins.
fn block(first: FrameHead, bytes: &[u8], limits: HeadLimits) -> Next<'_> {
    if first.length > limits.frame {
        return Next::Broken;
    }
    let mut length = FRAME_HEAD + first.length;
    let Some(payload) = bytes.get(FRAME_HEAD..length) else {
        return Next::Incomplete(length);
    };
    let Some((depends_on, fragment)) = fragment(first, payload) else {
        return Next::Broken;
    };
    let mut fields = Cow::Borrowed(fragment);
    let mut is_complete = first.has(END_HEADERS);
    let mut continuations = 0;
    while !is_complete {
        let begun = length;
        let Some(head) = head(&bytes[begun..]) else {
            return Next::Incomplete(begun + FRAME_HEAD);
        };
        if head.kind != FrameKind::Continuation
            || head.stream != first.stream
            || head.length > limits.frame
        {
            return Next::Broken;
        }
        length = begun + FRAME_HEAD + head.length;
        let Some(fragment) = bytes.get(begun + FRAME_HEAD..length) else {
            return Next::Incomplete(length);
        };
        fields.to_mut().extend_from_slice(fragment);
        is_complete = head.has(END_HEADERS);
        continuations += 1;
        if !is_complete && continuations > MOST_CONTINUATIONS {
            return Next::Broken;
        }
    }
    Next::Block(HeaderBlock {
        stream: first.stream,
        is_last: first.has(END_STREAM),
        depends_on_itself: depends_on == Some(first.stream),
        fields,
        length,
    })
}

/// Returns the stream that another depends on, and the fragment of the block without the padding.
fn fragment(head: FrameHead, payload: &[u8]) -> Option<(Option<StreamId>, &[u8])> {
    let mut fragment = payload;
    let mut padding = 0;
    let mut depends_on = None;
    if head.has(PADDED) {
        let (&length, rest) = fragment.split_first()?;
        (padding, fragment) = (usize::from(length), rest);
    }
    if head.has(PRIORITY) {
        let (priority, rest) = fragment.split_at_checked(PRIORITY_LENGTH)?;
        let [a, b, c, d, ..] = *priority else {
            return None;
        };
        // The first bit says whether it is exclusive.
        let stream = u32::from_be_bytes([a, b, c, d]) & StreamId::LARGEST.0;
        (depends_on, fragment) = (Some(StreamId(stream)), rest);
    }
    let length = fragment.len().checked_sub(padding)?;
    Some((depends_on, &fragment[..length]))
}
