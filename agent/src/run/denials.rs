//! The log of denials: resolves and logs the kernel's denials, and logs how many lines were left out.

use std::sync::Arc;
use std::time::Duration;

use ambit_common::Hook;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::pods::{NodeReport, PodReport};
use ambit_datapath::{DenialReader, KernelDenial, Pins, PolicyTables};
use ambit_model::Direction;
use ambit_observe::event::{EventKind, EventRecord};
use ambit_observe::events::{InLog, RecentEvents};
use ambit_policy::{ConnectionAttributes, ConnectionVerdict, Decider, Layer};

/// How often the log says how many lines were left out of it.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the kernel's denials while the agent runs.
pub(super) async fn follow(
    pins: Pins,
    tables: PolicyTables,
    node: watch::Receiver<NodeReport>,
    recent: Arc<RecentEvents>,
) {
    let mut reader = match DenialReader::open(&pins) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(%error, "the kernel's denials cannot be read");
            return;
        }
    };
    loop {
        let read = reader.read(|denial| {
            let event = resolve(&denial, &tables, &node.borrow().pods);
            match recent.record(event.clone()) {
                InLog::Written => log(&event),
                InLog::LeftOut => {}
            }
        });
        if let Err(error) = read.await {
            tracing::error!(%error, "the kernel's denials can no longer be read");
            return;
        }
    }
}

fn resolve(denial: &KernelDenial, tables: &PolicyTables, pods: &[PodReport]) -> EventRecord {
    let pod = pods.iter().find(|pod| pod.netns == Some(denial.netns));
    EventRecord {
        kind: EventKind::Denial,
        direction: direction(denial.hook).as_str(),
        decided_in: Layer::Kernel,
        hook: Some(denial.hook.as_str()),
        pod: pod.map(|pod| pod.name.clone()),
        source: denial.connection.client.into(),
        destination: denial.connection.server.into(),
        identity: tables.identity(denial.identity),
        request: None,
        reason: denial.reason.as_str(),
        policy: decider(denial, tables).map(|decider| decider.to_string()),
    }
}

/// The direction of the connection, as the pod sees it.
const fn direction(hook: Hook) -> Direction {
    match hook {
        Hook::Connect => Direction::Outbound,
        Hook::Delivery | Hook::SkLookup => Direction::Inbound,
    }
}

fn log(denial: &EventRecord) {
    tracing::warn!(
        target: "ambit::denied",
        direction = denial.direction,
        hook = denial.hook,
        pod = denial.pod.as_ref().map(tracing::field::display),
        source = %denial.source,
        destination = %denial.destination,
        identity = denial.identity.as_ref().map(tracing::field::display),
        reason = denial.reason,
        policy = denial.policy.as_deref(),
        "connection denied"
    );
}

/// The rule that decided, by its number in the kernel's tables. There is no number if no single rule
/// decided, for example if no ALLOW policy matched: then the evaluator names the policy, if it agrees
/// with the verdict.
fn decider(denial: &KernelDenial, tables: &PolicyTables) -> Option<Decider> {
    if let Some(decider) = tables.decider(denial.policy_set, denial.alternative) {
        return Some(decider);
    }
    let connection = ConnectionAttributes {
        identity: tables.identity(denial.identity),
        source: denial.connection.client.address.into(),
        destination: denial.connection.server.into(),
    };
    let policies = tables.policies(denial.policy_set)?;
    match policies.judge_connection(&connection) {
        ConnectionVerdict::Deny(again) if again.reason == denial.reason => again.decider,
        ConnectionVerdict::Deny(_) | ConnectionVerdict::Allow(_) | ConnectionVerdict::Ask => None,
    }
}

/// Says in the log how many lines were left out of it, while the agent runs.
pub(super) async fn report_left_out(events: Arc<RecentEvents>) {
    let mut tick = interval(LEFT_OUT_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for left_out in events.take_left_out() {
            tracing::warn!(
                target: "ambit::denied",
                pod = left_out.pod.as_ref().map(display),
                lines = left_out.lines,
                "lines about denials, refusals and failures were left out to limit their number; \
                 `ambit events` and the metrics count them"
            );
        }
    }
}
