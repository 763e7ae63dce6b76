//! Says in the log how many lines were left out of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use ambit_observe::events::RecentEvents;

/// How often it is said.
const INTERVAL: Duration = Duration::from_secs(1);

/// Says it for as long as the agent runs.
pub(super) async fn report(events: Arc<RecentEvents>) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for left_out in events.take_left_out() {
            tracing::warn!(
                target: "ambit::denied",
                pod = left_out.pod.as_ref().map(display),
                lines = left_out.lines,
                "lines about denials, refusals and failures were left out, being too many; \
                 `ambit events` and the metrics count them"
            );
        }
    }
}
