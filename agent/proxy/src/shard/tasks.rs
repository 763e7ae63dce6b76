//! The tasks of one pod on one shard, which end when the pod is no longer served.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::{Notify, watch};

use crate::shard::turns::Budget;

/// The stages of serving a pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ServingPhase {
    Serving,
    /// Nothing new is accepted.
    Draining,
    /// Everything ends.
    Closed,
}

/// How many tasks run. A `JoinSet` would keep a part of each task that has ended until the next one begins:
/// after a flood, these parts would keep the pages around them from the system.
#[derive(Debug, Default)]
struct Running {
    tasks: Cell<usize>,
    last_ended: Notify,
}

/// A task that runs until this is dropped.
struct RunningTask(Rc<Running>);

impl RunningTask {
    fn new(running: &Rc<Running>) -> Self {
        running.tasks.set(running.tasks.get() + 1);
        Self(Rc::clone(running))
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        let left = self.0.tasks.get() - 1;
        self.0.tasks.set(left);
        if left == 0 {
            self.0.last_ended.notify_one();
        }
    }
}

/// A pod's tasks, which run on the pod's budget.
#[derive(Debug)]
pub(crate) struct PodTasks {
    budget: Rc<Budget>,
    running: Rc<Running>,
    phase: watch::Sender<ServingPhase>,
}

impl PodTasks {
    pub(crate) fn new(budget: Rc<Budget>) -> Self {
        let (phase, _) = watch::channel(ServingPhase::Serving);
        Self {
            budget,
            running: Rc::default(),
            phase,
        }
    }

    /// The budget that the tasks run on.
    pub(crate) fn budget(&self) -> &Rc<Budget> {
        &self.budget
    }

    /// Runs a task until it ends or [`PodTasks::close`] ends it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn_until(ServingPhase::Closed, task);
    }

    /// Runs a task that accepts connections, until [`PodTasks::drain`].
    pub(crate) fn spawn_accepting(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn_until(ServingPhase::Draining, task);
    }

    /// Ends the tasks that accept connections.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(ServingPhase::Draining);
    }

    /// Ends every task, and returns when they have ended. A task that is ready gets to run once more
    /// first.
    pub(crate) async fn close(&self) {
        self.phase.send_replace(ServingPhase::Closed);
        while self.running.tasks.get() > 0 {
            self.running.last_ended.notified().await;
        }
    }

    fn spawn_until(&self, last: ServingPhase, task: impl Future<Output = ()> + 'static) {
        // On the heap before it begins: select! would reserve its size twice.
        let mut task = self.budget.pace(Box::pin(task));
        let mut phase = self.phase.subscribe();
        let running = RunningTask::new(&self.running);
        tokio::task::spawn_local(async move {
            let _running = running;
            tokio::select! {
                biased;
                () = &mut task => {}
                _ = phase.wait_for(|&now| now >= last) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use tokio::runtime::LocalRuntime;

    use super::*;
    use crate::shard::turns::TurnScheduler;

    /// Sets its cell when it is dropped, that is, when the task that owns it has ended.
    struct Ended(Rc<Cell<bool>>);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    fn endless() -> (Rc<Cell<bool>>, impl Future<Output = ()>) {
        let ended = Rc::new(Cell::new(false));
        let guard = Ended(Rc::clone(&ended));
        (ended, async move {
            let _guard = guard;
            pending().await
        })
    }

    #[test]
    fn draining_ends_the_tasks_that_accept_and_closing_ends_the_rest() {
        let runtime = LocalRuntime::new().expect("a runtime");
        runtime.block_on(async {
            let tasks = PodTasks::new(Budget::new(TurnScheduler::default()));
            let (accepting_ended, accepting) = endless();
            let (connection_ended, connection) = endless();
            tasks.spawn(connection);
            tasks.spawn_accepting(accepting);
            tasks.drain();
            while !accepting_ended.get() {
                tokio::task::yield_now().await;
            }
            assert!(!connection_ended.get());
            tasks.close().await;
            assert!(connection_ended.get());
        });
    }

    #[test]
    fn a_task_spawned_by_one_that_ends_is_ended_too() {
        let runtime = LocalRuntime::new().expect("a runtime");
        runtime.block_on(async {
            let tasks = Rc::new(PodTasks::new(Budget::new(TurnScheduler::default())));
            let (ended, late) = endless();
            let spawner = Rc::clone(&tasks);
            tasks.spawn(async move { spawner.spawn(late) });
            tasks.close().await;
            assert!(ended.get());
        });
    }
}
