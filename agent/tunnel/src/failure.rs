//! Why tunnels and streams end.

use std::io;
use std::sync::Arc;

use ambit_account::AccountExhausted;

use crate::frame::ErrorCode;
use crate::hpack::HpackError;

/// Why a tunnel's connection failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TunnelFailure {
    /// The peer broke HTTP/2's rules.
    #[error("the peer broke HTTP/2: {what} ({code})")]
    Protocol {
        /// The rule.
        what: &'static str,
        /// What the peer is told.
        code: ErrorCode,
    },
    /// The peer sent too much that is of no use.
    #[error("the peer sent too many frames that carry nothing (ENHANCE_YOUR_CALM)")]
    Flooded,
    /// The peer closed the connection, and said why.
    #[error("the peer closed the tunnel: {0}")]
    GoneAway(ErrorCode),
    /// The network or TLS failed.
    #[error(transparent)]
    Io(Arc<io::Error>),
    /// The peer closed its socket.
    #[error("the peer's socket was closed")]
    Closed,
    /// Nothing came from the peer, not even the answer to a PING.
    #[error("the peer does not answer")]
    Silent,
    /// This side ended the connection.
    #[error("the tunnel was given up")]
    GivenUp,
}

impl TunnelFailure {
    pub(crate) const fn protocol(what: &'static str) -> Self {
        let code = ErrorCode::PROTOCOL_ERROR;
        Self::Protocol { what, code }
    }

    pub(crate) const fn frame_size() -> Self {
        Self::Protocol {
            what: "a frame has the wrong length",
            code: ErrorCode::FRAME_SIZE_ERROR,
        }
    }

    pub(crate) const fn flow_control() -> Self {
        Self::Protocol {
            what: "more was sent than the window allows",
            code: ErrorCode::FLOW_CONTROL_ERROR,
        }
    }

    /// What the peer is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Protocol { code, .. } => *code,
            Self::Flooded => ErrorCode::ENHANCE_YOUR_CALM,
            Self::GoneAway(_) | Self::Closed | Self::GivenUp => ErrorCode::NO_ERROR,
            Self::Io(_) | Self::Silent => ErrorCode::INTERNAL_ERROR,
        }
    }
}

impl From<io::Error> for TunnelFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl From<HpackError> for TunnelFailure {
    fn from(error: HpackError) -> Self {
        let what = match error {
            HpackError::Truncated => "a header block ends within a field",
            HpackError::Number => "a number in a header block is too large",
            HpackError::Index(_) => "a header block names an unknown index",
            HpackError::Huffman => "a string in a header block is not in the Huffman code",
            HpackError::TableSize => "a header block resizes the table as it may not",
        };
        let code = ErrorCode::COMPRESSION_ERROR;
        Self::Protocol { what, code }
    }
}

/// Why a stream is over before both of its directions have ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamFailure {
    /// The peer reset it.
    #[error("the peer reset the stream: {0}")]
    Reset(ErrorCode),
    /// Its tunnel failed.
    #[error(transparent)]
    Tunnel(#[from] TunnelFailure),
}

impl StreamFailure {
    /// Whether the peer has not looked at the stream, so that it may be opened again elsewhere (RFC 9113,
    /// section 8.7).
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Reset(ErrorCode::REFUSED_STREAM))
    }

    /// Whether the stream ends at once: what came before and was not delivered is discarded. That is how a peer
    /// ends a connection by policy. An application's own end comes after its bytes (CONNECT_ERROR; RFC 9113,
    /// section 8.5), and so does the loss of a tunnel.
    pub fn overtakes(&self) -> bool {
        matches!(self, Self::Reset(ErrorCode::CANCEL))
    }
}

/// Why a stream cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection takes no new streams. Another one may.
    #[error("the tunnel takes no new streams")]
    NotOpen,
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] AccountExhausted),
}
