//! TurnScheduler: a shard's time is shared fairly among the pods that it serves.
//!
//! A runtime gives every task that is ready one turn after the other, so a pod with a thousand busy
//! connections would get a thousand times what a pod with one gets. Here each pod has a budget of
//! [`QUANTUM`] per turn. Its tasks run while the budget lasts; then they wait, in the order in which
//! they became ready, until the turn ends. A turn ends when every task that was ready has run or
//! waits, and the kernel has been asked what else is ready.
//!
//! So a pod waits for no more than a quantum of each other busy pod, and one step of each, which may
//! overrun it. What was overrun is paid back in the next turns, up to [`DEBT`].
//!
//! A pod that is alone is not held up: its turns end at once. What it costs is two readings of the
//! clock for each step of a task.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// What a pod may use of a shard's time in one turn.
const QUANTUM: Duration = Duration::from_micros(200);

/// What a pod may owe. A step that was long because other processes had the CPU must not hold its
/// pod up for long.
const DEBT: Duration = Duration::from_micros(1600);

/// A shard's turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct TurnScheduler(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    number: Cell<u64>,
    /// The pods whose tasks wait for the end of the turn.
    waiting: RefCell<Vec<Rc<Budget>>>,
    wanted: Notify,
}

/// One pod's part of a shard's time.
#[derive(Debug)]
pub(crate) struct Budget {
    turns: TurnScheduler,
    state: RefCell<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    /// The turn that `left` is about.
    turn: u64,
    left: Balance,
    /// Since when a task of the pod has been running.
    running: Option<Instant>,
    /// Tasks that wait, in their order.
    queue: BTreeMap<QueuePosition, Waker>,
    next: QueuePosition,
    /// Whether the pod is among those that wait for the end of the turn.
    listed: bool,
}

/// A task's place in its pod's queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct QueuePosition(u64);

/// Nanoseconds; negative where the pod owes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Balance(i64);

/// A task that runs on its pod's budget.
#[derive(Debug)]
pub(crate) struct Paced<F> {
    budget: Rc<Budget>,
    position: Option<QueuePosition>,
    task: Pin<Box<F>>,
}

impl TurnScheduler {
    /// Ends turns, for as long as the shard lives.
    pub(crate) async fn run(self) {
        loop {
            self.0.wanted.notified().await;
            // The runtime wakes who yields after it has run what was ready, and has asked the kernel
            // for more.
            tokio::task::yield_now().await;
            self.end();
        }
    }

    fn end(&self) {
        self.0.number.set(self.0.number.get() + 1);
        for budget in self.0.waiting.take() {
            budget.call_up();
        }
    }

    fn wait_for_end(&self, budget: &Rc<Budget>) {
        self.0.waiting.borrow_mut().push(Rc::clone(budget));
        self.0.wanted.notify_one();
    }
}

impl Balance {
    const ZERO: Self = Self(0);
    const QUANTUM: Self = Self(QUANTUM.as_nanos() as i64);
    const MOST_OWED: Self = Self(-(DEBT.as_nanos() as i64));

    fn after_turns(self, turns: u64) -> Self {
        let turns = i64::try_from(turns).unwrap_or(i64::MAX);
        let earned = Self::QUANTUM.0.saturating_mul(turns);
        Self(self.0.saturating_add(earned)).min(Self::QUANTUM)
    }

    fn less(self, spent: Duration) -> Self {
        let spent = i64::try_from(spent.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(spent)).max(Self::MOST_OWED)
    }
}

impl Budget {
    pub(crate) fn new(turns: TurnScheduler) -> Rc<Self> {
        let state = BudgetState {
            turn: turns.0.number.get(),
            left: Balance::QUANTUM,
            running: None,
            queue: BTreeMap::new(),
            next: QueuePosition(0),
            listed: false,
        };
        Rc::new(Self {
            turns,
            state: RefCell::new(state),
        })
    }

    /// Has `task` run on this budget.
    pub(crate) fn pace<F: Future>(self: &Rc<Self>, task: Pin<Box<F>>) -> Paced<F> {
        Paced {
            budget: Rc::clone(self),
            position: None,
            task,
        }
    }

    /// For a task that could go on for long: lets the others run once the budget is used up.
    pub(crate) async fn breathe(&self) {
        if !self.is_spent() {
            return;
        }
        let mut yielded = false;
        poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn is_spent(&self) -> bool {
        let state = self.state.borrow();
        let spent = state
            .running
            .map_or(Duration::ZERO, |since| since.elapsed());
        state.left.less(spent) <= Balance::ZERO
    }

    /// Whether a task may run now. Otherwise it is woken when it may.
    fn begin(self: &Rc<Self>, position: &mut Option<QueuePosition>, context: &Context<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        state.catch_up(self.turns.0.number.get());
        let mine = *position.get_or_insert_with(|| state.next_position());
        let is_next = state.queue.keys().next().is_none_or(|first| *first >= mine);
        if is_next && state.left > Balance::ZERO {
            state.queue.remove(&mine);
            state.running = Some(Instant::now());
            *position = None;
            return true;
        }
        match state.queue.get_mut(&mine) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                state.queue.insert(mine, context.waker().clone());
            }
        }
        self.wait(&mut state);
        false
    }

    /// Charges the task that has run since [`Budget::begin`], and lets the next one run.
    fn end(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if let Some(since) = state.running.take() {
            state.left = state.left.less(since.elapsed());
        }
        self.pass_on(&mut state);
    }

    /// Takes a task that ends out of the queue.
    fn forget(self: &Rc<Self>, position: QueuePosition) {
        let mut state = self.state.borrow_mut();
        if state.queue.remove(&position).is_some() {
            self.pass_on(&mut state);
        }
    }

    /// A turn has ended.
    fn call_up(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.listed = false;
        state.catch_up(self.turns.0.number.get());
        self.pass_on(&mut state);
    }

    /// Wakes the task that is next, where one waits and there is some time left.
    fn pass_on(self: &Rc<Self>, state: &mut BudgetState) {
        if state.left > Balance::ZERO {
            if let Some(next) = state.queue.values().next() {
                next.wake_by_ref();
            }
        } else if !state.queue.is_empty() {
            self.wait(state);
        }
    }

    fn wait(self: &Rc<Self>, state: &mut BudgetState) {
        if state.left <= Balance::ZERO && !std::mem::replace(&mut state.listed, true) {
            self.turns.wait_for_end(self);
        }
    }
}

impl BudgetState {
    fn catch_up(&mut self, turn: u64) {
        self.left = self.left.after_turns(turn - self.turn);
        self.turn = turn;
    }

    fn next_position(&mut self) -> QueuePosition {
        let position = self.next;
        self.next = QueuePosition(position.0 + 1);
        position
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.budget.begin(&mut this.position, context) {
            return Poll::Pending;
        }
        let polled = this.task.as_mut().poll(context);
        this.budget.end();
        polled
    }
}

impl<F> Drop for Paced<F> {
    fn drop(&mut self) {
        if let Some(position) = self.position {
            self.budget.forget(position);
        }
    }
}

#[cfg(test)]
mod tests;
