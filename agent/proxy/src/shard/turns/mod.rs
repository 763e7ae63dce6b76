//! TurnScheduler: a shard's time is shared fairly among the pods that it serves.
//!
//! A runtime polls every ready task in turn, so a pod with a thousand busy connections would get a thousand
//! times as much time as a pod with one. Here each pod has a budget of [`QUANTUM`] per turn. Its tasks run
//! while the budget lasts; then they wait, in the order in which they became ready, until the turn ends. A
//! turn ends when every ready task has run or waits, and the kernel has been asked what else is ready.
//!
//! So a pod waits for at most a quantum of each other busy pod, and one step of each, which may
//! overrun it. A pod pays back what it overran in its next turns, up to [`DEBT`].
//!
//! A pod that is alone does not wait, since its turns end immediately. The cost is two readings of the
//! clock for each step of a task.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How much of a shard's time a pod may use in one turn.
const QUANTUM: Duration = Duration::from_micros(200);

/// The most time that a pod may owe. A step that was long because other processes had the CPU must not
/// delay its pod for long.
const DEBT: Duration = Duration::from_micros(1600);

/// Counts a shard's turns and ends them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TurnScheduler(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    number: Cell<u64>,
    /// The pods whose tasks wait for the end of the turn.
    waiting: RefCell<Vec<Rc<Budget>>>,
    wanted: Notify,
}

/// One pod's share of a shard's time.
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
    /// When the running task of the pod began, if one runs.
    running: Option<Instant>,
    /// Waiting tasks, in order.
    queue: BTreeMap<QueuePosition, Waker>,
    next: QueuePosition,
    /// Whether the pod is on the list of those that wait for the end of the turn.
    listed: bool,
    limit: Limit,
}

/// Whether a budget limits its tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Limit {
    Quantum,
    /// The pod is not served any more, and each of its tasks runs only once more.
    Lifted,
}

/// A task's place in its pod's queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct QueuePosition(u64);

/// Nanoseconds; negative if the pod owes them.
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
    /// Ends turns while the shard runs.
    pub(crate) async fn run(self) {
        loop {
            self.0.wanted.notified().await;
            // The runtime wakes a task that yields after it has polled the ready ones and has asked the
            // kernel for more.
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
            limit: Limit::Quantum,
        };
        Rc::new(Self {
            turns,
            state: RefCell::new(state),
        })
    }

    /// Makes `task` run on this budget.
    pub(crate) fn pace<F: Future>(self: &Rc<Self>, task: Pin<Box<F>>) -> Paced<F> {
        Paced {
            budget: Rc::clone(self),
            position: None,
            task,
        }
    }

    /// Lets every task run once it is polled. For a pod whose tasks are about to end: one that had to wait for
    /// the next turn would not get to say why it ends.
    pub(crate) fn lift(&self) {
        self.state.borrow_mut().limit = Limit::Lifted;
    }

    /// Yields if the budget is used up. For tasks that could go on for long.
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

    /// Whether a task may run now. If not, it is woken when it may.
    fn begin(self: &Rc<Self>, position: &mut Option<QueuePosition>, context: &Context<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        state.catch_up(self.turns.0.number.get());
        let mine = *position.get_or_insert_with(|| state.next_position());
        let is_next = state.queue.keys().next().is_none_or(|first| *first >= mine);
        let may_run = match state.limit {
            Limit::Quantum => is_next && state.left > Balance::ZERO,
            Limit::Lifted => true,
        };
        if may_run {
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

    /// Removes a task that is dropped from the queue.
    fn forget(self: &Rc<Self>, position: QueuePosition) {
        let mut state = self.state.borrow_mut();
        if state.queue.remove(&position).is_some() {
            self.pass_on(&mut state);
        }
    }

    /// Starts the pod's part of a new turn.
    fn call_up(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.listed = false;
        state.catch_up(self.turns.0.number.get());
        self.pass_on(&mut state);
    }

    /// Wakes the next waiting task if there is time left.
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
