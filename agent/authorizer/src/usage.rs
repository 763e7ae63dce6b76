use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long a connection to an authorizer is kept without a check.
const IDLE: Duration = Duration::from_secs(90);

/// Whether a connection is in use.
#[derive(Debug)]
pub(super) struct ConnectionUse {
    checks: Cell<usize>,
    last: Cell<Instant>,
}

/// One check on a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct InUse(Rc<ConnectionUse>);

impl ConnectionUse {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            checks: Cell::new(0),
            last: Cell::new(Instant::now()),
        })
    }

    /// Notes that a check begins.
    pub(super) fn begin(self: &Rc<Self>) -> InUse {
        self.checks.set(self.checks.get() + 1);
        InUse(Rc::clone(self))
    }

    /// Resolves once nobody has used the connection for some time.
    pub(super) async fn ended(&self) {
        loop {
            let due = match self.checks.get() {
                0 => self.last.get() + IDLE,
                _ => Instant::now() + IDLE,
            };
            sleep_until(due).await;
            if self.checks.get() == 0 && self.last.get().elapsed() >= IDLE {
                return;
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.checks.set(self.0.checks.get() - 1);
        self.0.last.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_once_it_is_not_used_and_not_before() {
        let usage = ConnectionUse::new();
        let check = usage.begin();
        let mut ended = Box::pin(usage.ended());
        assert!((&mut ended).now_or_never().is_none());
        advance(3 * IDLE).await;
        assert!((&mut ended).now_or_never().is_none(), "it is in use");
        drop(check);
        advance(IDLE / 2).await;
        assert!((&mut ended).now_or_never().is_none(), "it was in use");
        ended.await;
    }
}
