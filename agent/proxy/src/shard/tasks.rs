//! The tasks of one pod on one shard, which end when the pod is no longer served.

use std::future::Future;
use std::rc::Rc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

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

/// A pod's tasks, which run on the pod's budget.
#[derive(Debug)]
pub(crate) struct PodTasks {
    budget: Rc<Budget>,
    /// Keeps nothing of a task that has ended: after a flood, that would keep the pages around it.
    running: TaskTracker,
    phase: watch::Sender<ServingPhase>,
}

impl PodTasks {
    pub(crate) fn new(budget: Rc<Budget>) -> Self {
        let (phase, _) = watch::channel(ServingPhase::Serving);
        Self {
            budget,
            running: TaskTracker::new(),
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

    /// Whether new connections are accepted.
    pub(crate) fn is_accepting(&self) -> bool {
        *self.phase.borrow() == ServingPhase::Serving
    }

    /// Ends the tasks that accept connections.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(ServingPhase::Draining);
    }

    /// Ends every task, and returns when they have ended. A task that is ready gets to run once more
    /// first.
    pub(crate) async fn close(&self) {
        self.budget.lift();
        self.phase.send_replace(ServingPhase::Closed);
        self.running.close();
        self.running.wait().await;
    }

    fn spawn_until(&self, last: ServingPhase, task: impl Future<Output = ()> + 'static) {
        // On the heap before it begins: select! would reserve its size twice.
        let mut task = self.budget.pace(Box::pin(task));
        let mut phase = self.phase.subscribe();
        self.running.spawn_local(async move {
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

    /// A connection that has been told why it ends reports it, also if its pod has used up its time.
    #[test]
    fn a_task_that_is_ready_runs_once_more_before_it_ends() {
        let runtime = LocalRuntime::new().expect("a runtime");
        runtime.block_on(async {
            let turns = TurnScheduler::default();
            tokio::task::spawn_local(turns.clone().run());
            let tasks = PodTasks::new(Budget::new(turns));
            let (tell, told) = tokio::sync::oneshot::channel();
            let heard = Rc::new(Cell::new(false));
            let hears = Rc::clone(&heard);
            tasks.spawn(async move {
                std::thread::sleep(std::time::Duration::from_millis(1));
                let _ = told.await;
                hears.set(true);
            });
            tokio::task::yield_now().await;
            tell.send(()).expect("it waits");
            tasks.close().await;
            assert!(heard.get());
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
