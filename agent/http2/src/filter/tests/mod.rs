//! Connections of raw frames, read by h2 through the filter.

mod answers;
mod requests;
mod same_meaning;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use h2::server::Builder;
use http::Response;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};

use super::{HeadFilter, HeadLimits};
use crate::frame::{
    ACK, END_HEADERS, END_STREAM, FRAME_HEAD, FrameHead, FrameKind, PREFACE, StreamId, put_frame,
    put_settings,
};
use crate::hpack::write_literal;

const LIMITS: HeadLimits = HeadLimits {
    frame: 16 << 10,
    list: 8 << 10,
};

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

type Field = (Vec<u8>, Vec<u8>);

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    (name.into(), value.as_ref().into())
}

/// The pseudo-headers of a GET.
fn get(path: impl AsRef<[u8]>) -> Vec<Field> {
    vec![
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "a.com"),
        field(":path", path),
    ]
}

/// Literals without indexing.
fn literals(fields: &[Field]) -> BytesMut {
    let mut block = BytesMut::new();
    for (name, value) in fields {
        write_literal(&mut block, name, value);
    }
    block
}

/// Literals that are entered into the table.
fn entered(fields: &[Field]) -> BytesMut {
    let mut block = BytesMut::new();
    for field in fields {
        let at = block.len();
        block.extend_from_slice(&literals(std::slice::from_ref(field)));
        block[at] = 0x40;
    }
    block
}

/// A block in one frame, which ends the stream.
fn whole(stream: u32, block: &[u8]) -> BytesMut {
    frame(FrameKind::Headers, END_STREAM | END_HEADERS, stream, block)
}

fn frame(kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    put_frame(&mut frame, kind, flags, StreamId(stream), payload);
    frame
}

/// What a client sends first.
fn begun() -> BytesMut {
    let mut begun = BytesMut::from(&PREFACE[..]);
    put_settings(&mut begun, &[]);
    begun
}

/// Reads a few bytes at once.
struct Pieces {
    stream: DuplexStream,
    most: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = vec![0; self.most.min(buffer.remaining())];
        let mut read = ReadBuf::new(&mut piece);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut read);
        buffer.put_slice(read.filled());
        polled
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What a server of h2 made of a client's bytes.
#[derive(Default, Debug)]
struct Served {
    /// The fields of requests, and of trailers behind them, in the order of their names.
    requests: BTreeMap<u32, Vec<Field>>,
    /// The errors with which streams were reset.
    resets: BTreeMap<u32, u32>,
    /// The error with which the connection was ended.
    ended: Option<u32>,
}

impl Served {
    /// The streams whose requests arrived.
    fn arrived(&self) -> Vec<u32> {
        self.requests.keys().copied().collect()
    }

    /// The streams that were reset, all of them with PROTOCOL_ERROR.
    fn refused(&self) -> Vec<u32> {
        assert!(
            self.resets.values().all(|error| *error == PROTOCOL_ERROR),
            "{self:?}"
        );
        self.resets.keys().copied().collect()
    }
}

/// Lets h2 serve a client through the filter. At most `piece` bytes are read at once.
fn serve(sent: &[u8], piece: usize) -> Served {
    serve_through(sent, piece, |stream| HeadFilter::of_client(stream, LIMITS))
}

/// Lets h2 serve a client that sends these bytes, and ends when they have been read.
fn serve_through<S: AsyncRead + AsyncWrite + Unpin>(
    sent: &[u8],
    piece: usize,
    filter: impl FnOnce(Pieces) -> S,
) -> Served {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut client, stream) = duplex(1 << 20);
        let stream = Pieces {
            stream,
            most: piece,
        };
        let filtered = filter(stream);
        client.write_all(sent).await.unwrap();
        let ping = frame(FrameKind::Ping, 0, 0, &[0; 8]);
        client.write_all(&ping).await.unwrap();
        let mut answered = Vec::new();
        let reading = async {
            let is_read = |head: FrameHead| {
                head.kind == FrameKind::GoAway || (head.kind == FrameKind::Ping && head.has(ACK))
            };
            while !frames(&answered).into_iter().any(|(head, _)| is_read(head)) {
                if client.read_buf(&mut answered).await.unwrap() == 0 {
                    break;
                }
            }
            client.shutdown().await.unwrap();
            client.read_to_end(&mut answered).await.unwrap();
        };
        let (requests, ()) = tokio::join!(accept(filtered), reading);
        let mut served = Served {
            requests,
            ..Served::default()
        };
        for (head, payload) in frames(&answered) {
            let number = |at: usize| {
                let bytes = payload[at..].first_chunk().copied();
                u32::from_be_bytes(bytes.unwrap())
            };
            match head.kind {
                FrameKind::ResetStream => {
                    let before = served.resets.insert(head.stream.0, number(0));
                    assert_eq!(before, None, "{:?}", head.stream);
                }
                FrameKind::GoAway => served.ended = Some(number(4)),
                _ => {}
            }
        }
        served
    })
}

fn frames(mut bytes: &[u8]) -> Vec<(FrameHead, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD>() {
        let head = FrameHead::read(*head);
        let Some((payload, rest)) = rest.split_at_checked(head.length) else {
            break;
        };
        frames.push((head, payload));
        bytes = rest;
    }
    frames
}

async fn accept(stream: impl AsyncRead + AsyncWrite + Unpin) -> BTreeMap<u32, Vec<Field>> {
    let mut builder = Builder::new();
    builder
        .max_frame_size(LIMITS.frame as u32)
        .max_header_list_size(LIMITS.list as u32)
        .max_concurrent_reset_streams(1000)
        .enable_connect_protocol();
    let mut requests = BTreeMap::new();
    let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let mut under_way = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let id = respond.stream_id().as_u32();
        let (parts, body) = request.into_parts();
        let mut fields = vec![field(":method", parts.method.as_str())];
        let uri = parts.uri.into_parts();
        if let Some(scheme) = uri.scheme {
            fields.push(field(":scheme", scheme.as_str()));
        }
        if let Some(authority) = uri.authority {
            fields.push(field(":authority", authority.as_str()));
        }
        if let Some(path) = uri.path_and_query {
            fields.push(field(":path", path.as_str()));
        }
        fields.extend(headers(&parts.headers));
        fields.sort();
        requests.insert(id, fields);
        let _ = respond.send_response(Response::new(()), true);
        under_way.push((id, body, respond));
    }
    for (id, mut body, _respond) in under_way {
        if let Ok(Some(trailers)) = body.trailers().await {
            requests.get_mut(&id).unwrap().extend(headers(&trailers));
        }
    }
    requests
}

fn headers(headers: &http::HeaderMap) -> Vec<Field> {
    let fields = headers.iter();
    let mut fields: Vec<Field> = fields
        .map(|(name, value)| field(name.as_str(), value.as_bytes()))
        .collect();
    fields.sort();
    fields
}
