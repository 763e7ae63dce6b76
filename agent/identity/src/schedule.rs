//! When the CA may be asked for which certificate: awaited certificates first, a bounded number at a
//! time, and none while the CA cannot be reached.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use ambit_backoff::Backoff;

/// How many requests may be under way at a time.
pub(super) const IN_FLIGHT: usize = 8;

/// How many of them may be renewals, so that slow renewals do not keep a pod from starting.
pub(super) const RENEWALS: usize = 6;

/// The pause after which a CA that could not be reached is tried again.
const REST: Backoff =
    Backoff::doubling(Duration::from_millis(500), Duration::from_secs(30)).with_jitter(0.5, 1.0);

/// Which requests come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IssuePriority {
    /// There is no valid certificate yet, and a pod is waiting for it.
    Awaited,
    /// There is a valid certificate.
    Renewal,
}

/// Whether the CA could be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CaReachability {
    /// The CA answered, with whatever result.
    Answered,
    /// The CA cannot be reached, so other requests would fail too.
    Unavailable,
}

/// Hands out the right to send one request to the CA. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct IssueSchedule(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    awaited: Queue,
    renewals: Queue,
    health: Health,
    /// How many times in a row the CA could not be reached.
    failures: u32,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<IssueSlot>>,
    in_flight: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Health {
    #[default]
    Good,
    /// It could not be reached, and gets no requests for a while.
    Resting,
    /// One request finds out whether it can be reached again.
    Probing,
}

/// The right to send one request. If it is dropped without [`IssueSlot::finish`], it says nothing about
/// the CA.
#[derive(Debug)]
pub(super) struct IssueSlot {
    schedule: IssueSchedule,
    priority: IssuePriority,
    outcome: Option<CaReachability>,
    /// `false` if the receiver was gone when it was handed out.
    counted: bool,
}

impl IssueSchedule {
    /// Waits for the right to send a request.
    pub(super) async fn acquire(&self, priority: IssuePriority) -> IssueSlot {
        loop {
            let (give, given) = oneshot::channel();
            {
                let mut state = self.lock();
                state.queue(priority).waiting.push_back(give);
                self.hand_out(&mut state);
            }
            if let Ok(slot) = given.await {
                return slot;
            }
        }
    }

    /// Whether requests are held back because the CA could not be reached.
    pub(super) fn is_resting(&self) -> bool {
        self.lock().health != Health::Good
    }

    /// Hands free slots to those who wait.
    fn hand_out(&self, state: &mut State) {
        while let Some((priority, give)) = state.next() {
            state.queue(priority).in_flight += 1;
            let slot = IssueSlot {
                schedule: self.clone(),
                priority,
                outcome: None,
                counted: true,
            };
            if let Err(mut refused) = give.send(slot) {
                refused.counted = false;
                state.queue(priority).in_flight -= 1;
            }
        }
    }

    fn give_back(&self, priority: IssuePriority, outcome: Option<CaReachability>) {
        let mut state = self.lock();
        state.queue(priority).in_flight -= 1;
        match outcome {
            Some(CaReachability::Answered) => {
                state.health = Health::Good;
                state.failures = 0;
            }
            // Requests that were under way together fail together.
            Some(CaReachability::Unavailable) if state.health != Health::Resting => {
                state.health = Health::Resting;
                state.failures = state.failures.saturating_add(1);
                self.wake_after(REST.pause(state.failures));
            }
            Some(CaReachability::Unavailable) | None => {}
        }
        self.hand_out(&mut state);
    }

    fn wake_after(&self, pause: Duration) {
        let schedule = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let mut state = schedule.lock();
            if state.health == Health::Resting {
                state.health = Health::Probing;
            }
            schedule.hand_out(&mut state);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next in line, if a slot is free for it.
    fn next(&mut self) -> Option<(IssuePriority, oneshot::Sender<IssueSlot>)> {
        let most = match self.health {
            Health::Good => IN_FLIGHT,
            Health::Probing => 1,
            Health::Resting => 0,
        };
        if self.awaited.in_flight + self.renewals.in_flight >= most {
            return None;
        }
        if let Some(give) = self.awaited.waiting.pop_front() {
            return Some((IssuePriority::Awaited, give));
        }
        if self.renewals.in_flight >= RENEWALS {
            return None;
        }
        let give = self.renewals.waiting.pop_front()?;
        Some((IssuePriority::Renewal, give))
    }

    fn queue(&mut self, priority: IssuePriority) -> &mut Queue {
        match priority {
            IssuePriority::Awaited => &mut self.awaited,
            IssuePriority::Renewal => &mut self.renewals,
        }
    }
}

impl IssueSlot {
    /// Returns the slot, and reports whether the CA could be reached.
    pub(super) fn finish(mut self, outcome: CaReachability) {
        self.outcome = Some(outcome);
    }
}

impl Drop for IssueSlot {
    fn drop(&mut self) {
        if self.counted {
            self.schedule.give_back(self.priority, self.outcome);
        }
    }
}
