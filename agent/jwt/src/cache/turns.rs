//! Turns of fetches, which wait for each other as [`Queue`] says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::queue::{Capacity, Namespaces, Queue, Waiter};

/// Gives fetches their turns.
#[derive(Debug)]
pub(super) struct FetchTurns(Mutex<State>);

#[derive(Debug)]
struct State {
    queue: Queue,
    waiting: HashMap<Waiter, oneshot::Sender<FetchTurn>>,
}

/// Permission to run one fetch, until its last clone is dropped. Whatever a fetch leaves running, such
/// as a look-up of a name, keeps a clone.
#[derive(Clone, Debug)]
pub struct FetchTurn {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    /// `None` for a turn that nothing waits for.
    charged: Option<(Arc<FetchTurns>, Arc<str>)>,
}

impl FetchTurns {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self(Mutex::new(State {
            queue: Queue::new(capacity),
            waiting: HashMap::new(),
        }))
    }

    /// Waits for a turn. Dropping the future gives up the place.
    pub(super) async fn take(self: &Arc<Self>, namespaces: Namespaces) -> FetchTurn {
        let (sender, receiver) = oneshot::channel();
        let waiter = {
            let mut state = self.state();
            let waiter = state.queue.join(namespaces);
            state.waiting.insert(waiter, sender);
            waiter
        };
        let _place = Place {
            turns: self,
            waiter,
        };
        self.serve();
        // The sender stays in the table until it has sent, or this future is dropped.
        receiver.await.unwrap_or_else(|_| FetchTurn::free())
    }

    /// Gives turns to those that may have them. Outside of the lock, since a turn that is not taken
    /// comes back at once.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((waiter, namespace)) = state.queue.next() else {
                return;
            };
            let sender = state.waiting.remove(&waiter);
            drop(state);
            let turn = FetchTurn {
                _held: Arc::new(Held {
                    charged: Some((Arc::clone(self), namespace)),
                }),
            };
            if let Some(sender) = sender {
                let _ = sender.send(turn);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchTurn {
    /// A turn for which nothing waits.
    pub fn free() -> Self {
        Self {
            _held: Arc::new(Held { charged: None }),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((turns, namespace)) = self.charged.take() {
            turns.state().queue.ended(&namespace);
            turns.serve();
        }
    }
}

/// A place in the lines, which is given up when it is dropped.
struct Place<'a> {
    turns: &'a FetchTurns,
    waiter: Waiter,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.queue.leave(self.waiter);
        state.waiting.remove(&self.waiter);
    }
}
