//! Why bytes are no HTTP/1 message.

use http::StatusCode;

/// What is wrong with a message. What one reader could take for something else than another is
/// refused, and never repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// NUL, a control character, or CR or LF by itself.
    #[error("a head has a control character, or CR or LF by itself")]
    ControlCharacter,
    /// The request line is not a method, a target and a version between single spaces.
    #[error("the request line is not METHOD SP TARGET SP VERSION")]
    RequestLine,
    /// The method is not a token in upper case.
    #[error("the method is not a word in upper case")]
    Method,
    /// CONNECT asks for a tunnel.
    #[error("CONNECT is not served")]
    Connect,
    /// The target is neither a path, nor an http URL, nor the `*` of OPTIONS.
    #[error("the request's target is not a path, nor a URL of http")]
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is not HTTP/1.1 or HTTP/1.0")]
    Version,
    /// The status line is none.
    #[error("the status line is not VERSION SP STATUS SP REASON")]
    StatusLine,
    /// Host is missing, repeated, no host, or another than the target's.
    #[error("Host is missing, there twice, not a host, or another than the target's")]
    Host,
    /// A header line is not a name, a colon and a value: white space in the name, a folded line.
    #[error("a header line is not NAME:VALUE")]
    Field,
    /// Content-Length is repeated or no number.
    #[error("Content-Length is there twice or not a number")]
    ContentLength,
    /// Transfer-Encoding is something else than `chunked`, or not of this version.
    #[error("Transfer-Encoding is not chunked, or comes in HTTP/1.0")]
    TransferEncoding,
    /// Both are there.
    #[error("Content-Length and Transfer-Encoding are both there")]
    TwoLengths,
    /// Connection names a header that is not of the connection.
    #[error("Connection is not a list of names, or names a header that has to reach the end")]
    Connection,
    /// Upgrade lists more protocols than are read.
    #[error("Upgrade lists more protocols than are read")]
    Upgrade,
    /// The size of a chunk, its extension or what surrounds it is wrong.
    #[error("a chunk of the body is malformed")]
    Chunk,
    /// The head or the trailers are too long, or have too many lines.
    #[error("a head is longer, or has more lines, than is read")]
    TooLarge,
}

impl Malformed {
    /// The answer to such a request.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ControlCharacter
            | Self::RequestLine
            | Self::Method
            | Self::Target
            | Self::Version
            | Self::StatusLine
            | Self::Host
            | Self::Field
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::TwoLengths
            | Self::Connection
            | Self::Upgrade
            | Self::Chunk => StatusCode::BAD_REQUEST,
        }
    }
}
