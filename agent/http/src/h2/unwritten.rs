//! Bytes that h2 was given to send. It keeps them until the receiver's window and connection take them, and drops
//! them when it has written them, or when their stream is reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Notify;

/// Counts what h2 has not written yet of one body. The body's window is released only for what it has, so that
/// what waits in h2 counts towards the window.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    waiting: usize,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What has been written and not been reported yet.
    written: AtomicUsize,
    changed: Notify,
}

/// Bytes that tell when they are dropped.
struct Counted {
    bytes: Bytes,
    shared: Arc<Shared>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.written.fetch_add(self.bytes.len(), Relaxed);
        self.shared.changed.notify_one();
    }
}

impl Unwritten {
    /// Returns `bytes` as h2 is to be given them.
    pub(super) fn count(&mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.waiting += bytes.len();
        let shared = Arc::clone(&self.shared);
        Bytes::from_owner(Counted { bytes, shared })
    }

    /// Whether all has been written, and reported.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Waits until some has been written, and returns how much. Cancelling loses nothing.
    pub(super) async fn written(&mut self) -> usize {
        loop {
            match self.shared.written.swap(0, Relaxed) {
                0 => self.shared.changed.notified().await,
                written => {
                    self.waiting -= written;
                    return written;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn bytes_are_written_when_the_last_of_them_is_dropped() {
        let mut unwritten = Unwritten::default();
        let mut first = unwritten.count(Bytes::from_static(b"first"));
        let second = unwritten.count(Bytes::from_static(b"second"));
        assert_eq!(unwritten.written().now_or_never(), None);
        let part = first.split_to(2);
        drop(first);
        assert_eq!(unwritten.written().now_or_never(), None);
        drop(part);
        assert_eq!(unwritten.written().now_or_never(), Some(5));
        assert!(!unwritten.is_empty());
        drop(second);
        assert_eq!(unwritten.written().now_or_never(), Some(6));
        assert!(unwritten.is_empty());
    }
}
