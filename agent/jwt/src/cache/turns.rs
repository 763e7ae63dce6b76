//! The turns of fetches: [`Queue`] decides which fetch is next, without tasks or clocks;
//! [`FetchTurns`] has fetches wait for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives fetches their turns.
#[derive(Debug)]
pub(super) struct FetchTurns(Mutex<State>);

#[derive(Debug)]
struct State {
    queue: Queue,
    waiting: HashMap<Waiter, oneshot::Sender<FetchTurn>>,
}

/// Permission to run one fetch, until its last clone is dropped. Anything that a fetch leaves running,
/// such as a name look-up, keeps a clone.
#[derive(Clone, Debug)]
pub struct FetchTurn {
    _charged: Arc<ChargedTurn>,
}

#[derive(Debug)]
struct ChargedTurn {
    /// The namespace that is charged; `None` for a free turn.
    charged: Option<(Arc<FetchTurns>, Arc<str>)>,
}

impl FetchTurns {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self(Mutex::new(State {
            queue: Queue::new(capacity),
            waiting: HashMap::new(),
        }))
    }

    /// Waits for a turn. Dropping the future gives up its place in the queue.
    pub(super) async fn take(self: &Arc<Self>, namespaces: Namespaces) -> FetchTurn {
        let (sender, receiver) = oneshot::channel();
        let waiter = {
            let mut state = self.state();
            let waiter = state.queue.join(namespaces);
            state.waiting.insert(waiter, sender);
            waiter
        };
        let _place = PlaceInQueue {
            turns: self,
            waiter,
        };
        self.serve();
        // The sender stays in the table until it has sent, or this future is dropped.
        receiver.await.unwrap_or_else(|_| FetchTurn::free())
    }

    /// Gives turns to the fetches that may have them. This happens outside of the lock, because a turn
    /// that is not taken comes back immediately.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((waiter, namespace)) = state.queue.next() else {
                return;
            };
            let sender = state.waiting.remove(&waiter);
            drop(state);
            let turn = FetchTurn {
                _charged: Arc::new(ChargedTurn {
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
    /// A turn that is not counted.
    pub fn free() -> Self {
        Self {
            _charged: Arc::new(ChargedTurn { charged: None }),
        }
    }
}

impl Drop for ChargedTurn {
    fn drop(&mut self) {
        if let Some((turns, namespace)) = self.charged.take() {
            turns.state().queue.ended(&namespace);
            turns.serve();
        }
    }
}

/// A place in the queue. Dropping it gives it up.
struct PlaceInQueue<'a> {
    turns: &'a FetchTurns,
    waiter: Waiter,
}

impl Drop for PlaceInQueue<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.queue.leave(self.waiter);
        state.waiting.remove(&self.waiter);
    }
}

/// The namespaces whose policies want a fetch, each once; never empty.
pub(super) type Namespaces = Arc<[Arc<str>]>;

/// A fetch that waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Waiter(u64);

/// How many fetches may run at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// In all.
    pub(super) total: usize,
    /// For one namespace.
    pub(super) share: usize,
}

/// The fetches that wait, by namespace. Namespaces take turns, and each has at most its share of the
/// running fetches. A fetch that several namespaces want waits in the line of each, and is charged to the
/// one whose turn comes first. So no namespace can hold back a URL that it shares with others.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: Capacity,
    /// In order of arrival; no line is empty.
    lines: BTreeMap<Arc<str>, VecDeque<Waiter>>,
    waiting: HashMap<Waiter, Namespaces>,
    /// Only namespaces with running fetches are in it.
    running: HashMap<Arc<str>, usize>,
    total: usize,
    /// The namespace whose turn was the last.
    last: Option<Arc<str>>,
    next_waiter: u64,
}

impl Queue {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            lines: BTreeMap::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            total: 0,
            last: None,
            next_waiter: 0,
        }
    }

    /// Adds a fetch to the lines of its namespaces.
    pub(super) fn join(&mut self, namespaces: Namespaces) -> Waiter {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        for namespace in &*namespaces {
            let line = self.lines.entry(Arc::clone(namespace)).or_default();
            line.push_back(waiter);
        }
        self.waiting.insert(waiter, namespaces);
        waiter
    }

    /// Removes a fetch that no longer waits. A fetch that already has its turn is not affected.
    pub(super) fn leave(&mut self, waiter: Waiter) {
        let Some(namespaces) = self.waiting.remove(&waiter) else {
            return;
        };
        for namespace in &*namespaces {
            if let Some(line) = self.lines.get_mut(namespace) {
                line.retain(|other| *other != waiter);
                if line.is_empty() {
                    self.lines.remove(namespace);
                }
            }
        }
    }

    /// The fetch that may run now, and the namespace that is charged for it until [`Self::ended`].
    pub(super) fn next(&mut self) -> Option<(Waiter, Arc<str>)> {
        if self.total >= self.capacity.total {
            return None;
        }
        let namespace = self.next_namespace()?;
        let waiter = *self.lines.get(&namespace)?.front()?;
        self.leave(waiter);
        self.total += 1;
        *self.running.entry(Arc::clone(&namespace)).or_default() += 1;
        self.last = Some(Arc::clone(&namespace));
        Some((waiter, namespace))
    }

    /// The next namespace, in a circle, that waits and has not used its share.
    fn next_namespace(&self) -> Option<Arc<str>> {
        let start = match &self.last {
            Some(last) => Bound::Excluded(Arc::clone(last)),
            None => Bound::Unbounded,
        };
        let after = self.lines.range::<Arc<str>, _>((start, Bound::Unbounded));
        let around = after.chain(self.lines.iter());
        let has_room = |namespace: &&Arc<str>| {
            let running = self.running.get(*namespace).copied().unwrap_or_default();
            running < self.capacity.share
        };
        around.map(|(name, _)| name).find(has_room).cloned()
    }

    /// A fetch of a namespace has ended.
    pub(super) fn ended(&mut self, namespace: &Arc<str>) {
        self.total -= 1;
        if let Some(running) = self.running.get_mut(namespace) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { total: 3, share: 2 };

    fn of(names: &[&str]) -> Namespaces {
        names.iter().map(|&name| Arc::from(name)).collect()
    }

    /// The namespaces that have their turns now, in order.
    fn turns(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.next())
            .map(|(_, namespace)| namespace.to_string())
            .collect()
    }

    fn end(queue: &mut Queue, namespace: &str) {
        queue.ended(&Arc::from(namespace));
    }

    #[test]
    fn a_namespace_has_no_more_than_its_share() {
        let mut queue = Queue::new(CAPACITY);
        for _ in 0..10 {
            queue.join(of(&["greedy"]));
        }
        assert_eq!(turns(&mut queue), ["greedy", "greedy"]);
        queue.join(of(&["other"]));
        assert_eq!(turns(&mut queue), ["other"]);
        queue.join(of(&["other"]));
        assert_eq!(turns(&mut queue), [""; 0], "all run that may");
        end(&mut queue, "other");
        assert_eq!(turns(&mut queue), ["other"]);
    }

    #[test]
    fn namespaces_take_turns_regardless_of_arrival() {
        let mut queue = Queue::new(Capacity { total: 1, share: 1 });
        for _ in 0..5 {
            queue.join(of(&["a"]));
        }
        queue.join(of(&["b"]));
        queue.join(of(&["c"]));
        let mut order = Vec::new();
        while let Some((_, namespace)) = queue.next() {
            order.push(namespace.to_string());
            queue.ended(&namespace);
        }
        assert_eq!(order, ["a", "b", "c", "a", "a", "a", "a"]);
    }

    #[test]
    fn within_a_namespace_the_first_comes_first() {
        let mut queue = Queue::new(Capacity { total: 1, share: 1 });
        let expected: Vec<_> = (0..4).map(|_| queue.join(of(&["a"]))).collect();
        queue.leave(expected[1]);
        let mut order = Vec::new();
        while let Some((waiter, namespace)) = queue.next() {
            order.push(waiter);
            queue.ended(&namespace);
        }
        assert_eq!(order, [expected[0], expected[2], expected[3]]);
    }

    #[test]
    fn a_fetch_of_several_namespaces_runs_once_at_the_first_turn_of_any() {
        let mut queue = Queue::new(CAPACITY);
        for _ in 0..10 {
            queue.join(of(&["greedy"]));
        }
        let shared = queue.join(of(&["greedy", "modest"]));
        let running: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert!(
            running.contains(&(shared, Arc::from("modest"))),
            "{running:?}"
        );
        for (_, namespace) in running {
            queue.ended(&namespace);
        }
        let later: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert!(later.iter().all(|(waiter, _)| *waiter != shared));
    }

    #[test]
    fn nothing_is_left_when_all_have_run_or_left() {
        let mut queue = Queue::new(CAPACITY);
        let waiters: Vec<_> = (0..20)
            .map(|number| queue.join(of(&[["a", "b", "c"][number % 3], "d"])))
            .collect();
        queue.leave(waiters[7]);
        queue.leave(waiters[7]);
        while let Some((waiter, namespace)) = queue.next() {
            queue.leave(waiter);
            queue.ended(&namespace);
        }
        assert!(queue.lines.is_empty() && queue.waiting.is_empty());
        assert!(queue.running.is_empty() && queue.total == 0);
    }
}
