use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::schedule::{
    CaReachability, IN_FLIGHT, IssuePriority, IssueSchedule, IssueSlot, RENEWALS,
};

/// Lets all tasks that can run do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The numbers of those that got a slot, in order.
type Served = Arc<Mutex<Vec<usize>>>;

/// Waits for a slot, and then keeps it for a second.
fn queue(schedule: &IssueSchedule, priority: IssuePriority, number: usize, served: &Served) {
    let (schedule, served) = (schedule.clone(), Arc::clone(served));
    tokio::spawn(async move {
        let slot = schedule.acquire(priority).await;
        served.lock().unwrap().push(number);
        sleep(Duration::from_secs(1)).await;
        slot.finish(CaReachability::Answered);
    });
}

async fn take(schedule: &IssueSchedule, priority: IssuePriority, count: usize) -> Vec<IssueSlot> {
    let mut slots = Vec::new();
    for _ in 0..count {
        slots.push(schedule.acquire(priority).await);
    }
    slots
}

#[tokio::test(start_paused = true)]
async fn renewals_are_requested_a_few_at_a_time() {
    let (schedule, served) = (IssueSchedule::default(), Served::default());
    for number in 0..1000 {
        queue(&schedule, IssuePriority::Renewal, number, &served);
    }
    settle().await;
    assert_eq!(served.lock().unwrap().len(), RENEWALS);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(served.lock().unwrap().len(), 2 * RENEWALS);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(served.lock().unwrap().len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn awaited_certificates_come_first_and_have_slots_of_their_own() {
    let (schedule, served) = (IssueSchedule::default(), Served::default());
    for number in 0..100 {
        queue(&schedule, IssuePriority::Renewal, number, &served);
    }
    settle().await;
    for number in 1000..1010 {
        queue(&schedule, IssuePriority::Awaited, number, &served);
    }
    settle().await;
    // The slots that renewals may not take.
    assert_eq!(served.lock().unwrap()[RENEWALS..], [1000, 1001]);
    sleep(Duration::from_millis(1500)).await;
    let after: Vec<_> = served.lock().unwrap()[IN_FLIGHT..].to_vec();
    assert_eq!(after, (1002..1010).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_cannot_be_reached_gets_no_requests() {
    let (schedule, served) = (IssueSchedule::default(), Served::default());
    let slots = take(&schedule, IssuePriority::Awaited, IN_FLIGHT).await;
    for number in 0..1000 {
        queue(&schedule, IssuePriority::Awaited, number, &served);
    }
    settle().await;
    for slot in slots {
        slot.finish(CaReachability::Unavailable);
    }
    settle().await;
    assert!(schedule.is_resting());
    assert_eq!(served.lock().unwrap().len(), 0);
    // One request probes it. The others follow only after it has been answered.
    sleep(Duration::from_millis(600)).await;
    assert_eq!(served.lock().unwrap().len(), 1);
    sleep(Duration::from_millis(1000)).await;
    assert!(!schedule.is_resting());
    assert_eq!(served.lock().unwrap().len(), 1 + IN_FLIGHT);
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_again_with_growing_pauses_up_to_a_bound() {
    let schedule = IssueSchedule::default();
    let mut tries = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        schedule
            .acquire(IssuePriority::Renewal)
            .await
            .finish(CaReachability::Unavailable);
        tries.push(begun.elapsed());
    }
    assert_eq!(tries[0], Duration::ZERO);
    assert!(tries[1] <= Duration::from_millis(501), "{tries:?}");
    assert!(tries[5] > Duration::from_secs(3), "{tries:?}");
    let longest = Duration::from_millis(30_001);
    assert!(tries.iter().all(|pause| *pause <= longest), "{tries:?}");
    assert!(tries[15] >= Duration::from_secs(15), "{tries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_takes_no_slot() {
    let schedule = IssueSchedule::default();
    let slots = take(&schedule, IssuePriority::Awaited, IN_FLIGHT).await;
    for _ in 0..100 {
        let waiting = schedule.acquire(IssuePriority::Awaited);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting)
                .await
                .is_err()
        );
    }
    drop(slots);
    take(&schedule, IssuePriority::Awaited, IN_FLIGHT).await;
}
