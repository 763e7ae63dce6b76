//! A connection that is answered with a reset unless something better becomes of it.

use tokio::net::TcpStream;

/// A connection whose peer sees a reset, never an orderly end, when this is dropped.
#[derive(Debug)]
pub(crate) struct ResetOnDrop(Option<TcpStream>);

impl ResetOnDrop {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Some(stream))
    }

    /// The connection, to be served.
    #[expect(clippy::expect_used, reason = "taken nowhere else but on drop")]
    pub(crate) fn into_inner(mut self) -> TcpStream {
        self.0.take().expect("taken only once, by value")
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        let Some(stream) = self.0.take() else { return };
        if let Err(error) = stream.set_zero_linger() {
            // It is closed in the orderly way then; not a byte was served.
            tracing::debug!(%error, "a refused connection cannot be reset");
        }
    }
}
