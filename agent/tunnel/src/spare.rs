//! The buffer that the last connection of this thread has sent. The next one fills it again.

use std::cell::RefCell;

use bytes::BytesMut;

thread_local! {
    static SPARE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Takes the buffer, or an empty one.
pub(crate) fn take() -> BytesMut {
    SPARE.take()
}

/// Gives a buffer that is no longer needed. The larger one is kept.
pub(crate) fn give(mut buffer: BytesMut) {
    SPARE.with_borrow_mut(|spare| {
        if buffer.capacity() > spare.capacity() {
            buffer.clear();
            *spare = buffer;
        }
    });
}
