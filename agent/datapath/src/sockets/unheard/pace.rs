//! How often it is found out what the look-up may miss.
//!
//! A caller that calls a port without a listener in a loop must not take the time of others. So an answer is kept
//! for [`KEPT`] for the whole pod, whatever ports are called. The work is done on another thread than the
//! shard's, once at a time for the whole agent, which then rests [`REST`] times as long as the work took.
//! A delivery that would wait longer than [`PATIENCE`] goes on without an answer: the connect shows who listens.
//!
//! A listener of the usual kind is found by the look-up itself, at once. Only one that the look-up misses is
//! called missing for up to [`KEPT`] after it has begun to listen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Missable, Unheard};

/// How long an answer is kept for a pod and a shard.
const KEPT: Duration = Duration::from_secs(1);

/// How long a delivery waits for an answer.
const PATIENCE: Duration = Duration::from_millis(250);

/// How many times as long as the work the agent rests after it: nine, so that it takes at most a tenth of one
/// processor.
const REST: u32 = 9;

/// The agent's turn to look at listeners. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LookTurn(Arc<Mutex<Instant>>);

impl LookTurn {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Runs `look` on a thread for blocking work, when it is its turn. A caller that leaves does not end the
    /// turn before the work has ended.
    async fn take(&self, look: impl FnOnce() -> Missable + Send + 'static) -> Missable {
        let mut not_before = Arc::clone(&self.0).lock_owned().await;
        sleep_until(*not_before).await;
        let looking = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let found = look();
            *not_before = Instant::now() + begun.elapsed() * REST;
            found
        });
        looking.await.unwrap_or(Missable::All)
    }
}

/// What was found for a pod, on one shard.
#[derive(Debug, Default)]
pub(crate) struct KeptAnswer(Mutex<Option<(Instant, Missable)>>);

impl KeptAnswer {
    /// Returns what it means that the look-up found no listener at `to`. It calls `look` if no answer is kept.
    pub(crate) async fn about(
        &self,
        to: SocketAddr,
        turn: &LookTurn,
        look: impl FnOnce() -> Missable + Send + 'static,
    ) -> Unheard {
        let mut kept = self.0.lock().await;
        let known = match kept.take() {
            Some((until, known)) if Instant::now() < until => (until, known),
            Some(_) | None => {
                let found = timeout(PATIENCE, turn.take(look)).await;
                (Instant::now() + KEPT, found.unwrap_or(Missable::All))
            }
        };
        kept.insert(known).1.about(to)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, 2], port))
    }

    /// Counts how many times it is looked, and finds nothing.
    #[derive(Clone, Default)]
    struct Looks(Arc<AtomicUsize>);

    impl Looks {
        fn look(&self) -> impl FnOnce() -> Missable + Send + 'static {
            let looks = Arc::clone(&self.0);
            move || {
                looks.fetch_add(1, Ordering::SeqCst);
                Missable::Ports(vec![9])
            }
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_in_a_loop_causes_one_look_for_each_time_that_an_answer_is_kept() {
        let (turn, kept, looks) = (LookTurn::new(), KeptAnswer::default(), Looks::default());
        for seconds in 1..=3 {
            for port in 10..2000 {
                let answer = kept.about(to(port), &turn, looks.look()).await;
                assert_eq!(answer, Unheard::Certainly);
            }
            let answer = kept.about(to(9), &turn, looks.look()).await;
            assert_eq!(answer, Unheard::Perhaps, "of the same look");
            assert_eq!(looks.count(), seconds);
            tokio::time::advance(KEPT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_at_the_same_time_share_one_look() {
        let (turn, kept, looks) = (LookTurn::new(), KeptAnswer::default(), Looks::default());
        let call = |port| kept.about(to(port), &turn, looks.look());
        let answers = tokio::join!(call(10), call(11), call(12));
        assert_eq!(
            answers,
            (Unheard::Certainly, Unheard::Certainly, Unheard::Certainly)
        );
        assert_eq!(looks.count(), 1);
    }

    #[tokio::test]
    async fn after_a_look_the_agent_rests() {
        const WORK: Duration = Duration::from_millis(10);
        let turn = LookTurn::new();
        let look = || {
            std::thread::sleep(WORK);
            Missable::All
        };
        turn.take(look).await;
        let begun = Instant::now();
        turn.take(look).await;
        assert!(begun.elapsed() >= WORK * (REST + 1));
    }

    #[tokio::test]
    async fn a_look_that_does_not_end_delays_each_pod_once_and_no_second_one_begins() {
        let (turn, looks) = (LookTurn::new(), Looks::default());
        let (release, blocked) = mpsc::channel::<()>();
        let stuck = KeptAnswer::default();
        let answer = stuck.about(to(80), &turn, move || {
            let _ = blocked.recv();
            Missable::Ports(Vec::new())
        });
        assert_eq!(answer.await, Unheard::Perhaps);
        let other = KeptAnswer::default();
        for _ in 0..100 {
            let answer = other.about(to(80), &turn, looks.look()).await;
            assert_eq!(answer, Unheard::Perhaps);
        }
        assert_eq!(looks.count(), 0);
        release.send(()).expect("it waits");
        let answer = KeptAnswer::default();
        answer.about(to(80), &turn, looks.look()).await;
    }
}
