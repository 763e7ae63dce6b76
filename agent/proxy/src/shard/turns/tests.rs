use tokio::runtime::LocalRuntime;
use tokio::task::{spawn_local, yield_now};

use super::*;

/// A fraction of a quantum.
const STEP: Duration = Duration::from_micros(50);

fn work(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Is ready again immediately, like a connection that has received more: without the pause of
/// `yield_now`.
async fn again() {
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

fn run(test: impl AsyncFnOnce(TurnScheduler)) {
    let runtime = LocalRuntime::new().expect("a runtime");
    runtime.block_on(async {
        let turns = TurnScheduler::default();
        spawn_local(turns.clone().run());
        test(turns).await;
    });
}

/// Starts tasks that are always busy and count their steps.
fn flood(budget: &Rc<Budget>, tasks: usize) -> Rc<Cell<u64>> {
    let steps = Rc::new(Cell::new(0));
    for _ in 0..tasks {
        let steps = Rc::clone(&steps);
        spawn_local(budget.pace(Box::pin(async move {
            loop {
                work(STEP);
                steps.set(steps.get() + 1);
                again().await;
            }
        })));
    }
    steps
}

#[test]
fn a_pod_of_many_tasks_gets_no_more_than_a_pod_of_one() {
    run(async |turns| {
        let many = flood(&Budget::new(turns.clone()), 200);
        let one = flood(&Budget::new(turns), 1);
        while many.get() + one.get() < 4000 {
            yield_now().await;
        }
        let ratio = many.get() as f64 / one.get() as f64;
        assert!(ratio < 3.0, "{} steps to {}", many.get(), one.get());
    });
}

#[test]
fn the_tasks_of_a_pod_take_turns() {
    run(async |turns| {
        let budget = Budget::new(turns);
        let (first, second) = (flood(&budget, 1), flood(&budget, 1));
        while first.get() + second.get() < 1000 {
            yield_now().await;
        }
        let (first, second) = (first.get(), second.get());
        assert!(first.abs_diff(second) < 100, "{first} steps to {second}");
    });
}

#[test]
fn a_pod_pays_what_it_overran() {
    run(async |turns| {
        let long = Rc::new(Cell::new(0_u64));
        let (budget, steps) = (Budget::new(turns.clone()), Rc::clone(&long));
        spawn_local(budget.pace(Box::pin(async move {
            loop {
                work(5 * QUANTUM);
                steps.set(steps.get() + 1);
                again().await;
            }
        })));
        let short = flood(&Budget::new(turns), 1);
        while long.get() < 50 {
            yield_now().await;
        }
        // If it paid nothing, it would be five quanta to four steps of a quarter each.
        assert!(short.get() > 10 * long.get(), "{}", short.get());
    });
}

#[test]
fn a_task_that_breathes_stops_when_the_budget_is_used_up() {
    run(async |turns| {
        let budget = Budget::new(turns.clone());
        let (inner, accepted) = (Rc::clone(&budget), Rc::new(Cell::new(0_u64)));
        let count = Rc::clone(&accepted);
        spawn_local(budget.pace(Box::pin(async move {
            loop {
                work(STEP);
                count.set(count.get() + 1);
                inner.breathe().await;
            }
        })));
        let other = flood(&Budget::new(turns), 1);
        while accepted.get() < 500 {
            yield_now().await;
        }
        assert!(2 * other.get() > accepted.get(), "{}", other.get());
    });
}

#[test]
fn a_task_that_is_dropped_while_it_waits_delays_no_other() {
    run(async |turns| {
        let budget = Budget::new(turns);
        let busy = flood(&budget, 1);
        let dropped: Vec<_> = (0..10)
            .map(|_| spawn_local(budget.pace(Box::pin(std::future::pending::<()>()))))
            .collect();
        for task in dropped {
            yield_now().await;
            task.abort();
        }
        let before = busy.get();
        while busy.get() < before + 100 {
            yield_now().await;
        }
        assert!(budget.state.borrow().queue.len() <= 1);
    });
}
