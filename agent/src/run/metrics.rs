//! The agent's metrics.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::answers::AgentState;
use crate::admin::answer::ServingState;
use ambit_account::NodeUsage;
use ambit_identity::{CertificateInfo, CertificateState, CertificateSummary};
use ambit_observe::events::EventLosses;
use ambit_observe::metrics::{MetricFamily, MetricKind, MetricSample, MetricsState};
use ambit_observe::tally::RuleTally;
use ambit_proxy::ProxyStats;

impl MetricsState for AgentState {
    async fn families(&self) -> Vec<MetricFamily> {
        let mut families = certificates(&self.identities.list());
        families.push(self.pod_counts());
        families.push(rules(&self.events.tallies()));
        families.push(gauge(
            "ambit_ca_unavailable",
            "1 while the CA is left alone because it could not be reached",
            vec![MetricSample::plain(
                self.identities.is_ca_unavailable().into(),
            )],
        ));
        families.push(counter(
            "ambit_dropped_log_lines",
            "Log lines that could not be written",
            vec![MetricSample::plain(self.dropped_lines.count() as u64)],
        ));
        families.extend(losses(self.events.losses()));
        families.extend(memory(&self.proxy.memory()));
        // Counters that cannot be read are absent, which an alert can detect.
        if let Ok(counters) = self.counters.read() {
            let help = "Outcomes in the kernel";
            families.push(by_word(
                "ambit_kernel_connections",
                help,
                "outcome",
                &counters,
            ));
        }
        if let Ok(stats) = self.proxy.stats().await {
            families.extend(of_proxy(&stats));
        }
        families
    }
}

impl AgentState {
    fn pod_counts(&self) -> MetricFamily {
        let node = self.node.borrow();
        let count = |state| node.pods.iter().filter(|pod| pod.state == state).count() as u64;
        let samples = ServingState::ALL
            .map(|state| MetricSample::labelled("state", state.as_str(), count(state)));
        gauge("ambit_pods", "This node's pods", samples.into())
    }
}

/// Labels are policies and their rules. Their number is bounded by the configuration and by a limit.
fn rules(tallies: &[RuleTally]) -> MetricFamily {
    let samples = tallies.iter().map(|tally| MetricSample {
        labels: vec![
            ("kind", tally.kind.as_str().to_owned()),
            ("decided_in", tally.decided_in.as_str().to_owned()),
            ("reason", tally.reason.clone().into_owned()),
            ("policy", tally.policy.clone().unwrap_or_default()),
        ],
        value: tally.count,
    });
    counter(
        "ambit_events",
        "Denials and notes, by the policy and rule that decided; of the kernel's denials, those that it reports",
        samples.collect(),
    )
}

/// What was left out.
fn losses(losses: EventLosses) -> [MetricFamily; 2] {
    [
        counter(
            "ambit_events_forgotten",
            "Denials and notes that are no longer listed, to make room for others",
            vec![MetricSample::plain(losses.forgotten)],
        ),
        counter(
            "ambit_log_lines_left_out",
            "Log lines of denials, refusals and failures that were left out to limit their number",
            vec![MetricSample::plain(losses.left_out_of_log)],
        ),
    ]
}

/// The account from which everything that waits draws.
fn memory(usage: &NodeUsage) -> [MetricFamily; 2] {
    let figures = [
        ("limit", usage.limit),
        ("in-use", usage.in_use),
        ("peak", usage.peak),
        ("guaranteed-to-each-pod", usage.guarantee),
    ];
    let figures =
        figures.map(|(figure, bytes)| MetricSample::labelled("figure", figure, bytes as u64));
    [
        gauge(
            "ambit_memory_account_bytes",
            "Memory that waiting connections and requests take",
            figures.into(),
        ),
        counter(
            "ambit_memory_account_refusals",
            "What was refused because the account of memory was used up",
            vec![MetricSample::plain(usage.refused)],
        ),
    ]
}

/// Labels are the identities of this node's pods: as many as it has service accounts.
fn certificates(all: &[CertificateInfo]) -> Vec<MetricFamily> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let of_each = |value: &dyn Fn(&CertificateInfo) -> Option<u64>| -> Vec<MetricSample> {
        let samples = all.iter().filter_map(|one| {
            let identity = one.identity.principal();
            Some(MetricSample::labelled("identity", identity, value(one)?))
        });
        samples.collect()
    };
    let summary = CertificateSummary::of(all);
    let is_degraded = |one: &CertificateInfo| match one.state {
        CertificateState::Pending | CertificateState::Valid => 0,
        CertificateState::Missing | CertificateState::Failing | CertificateState::Expired => 1,
    };
    let by_state = [
        ("missing", summary.missing),
        ("failing", summary.failing),
        ("expired", summary.expired),
    ];
    let by_state =
        by_state.map(|(state, count)| MetricSample::labelled("state", state, count as u64));
    vec![
        gauge(
            "ambit_certificate_expiry_seconds",
            "Seconds until an identity's certificate expires; 0 if it has expired",
            of_each(&|one| Some(one.not_after?.saturating_sub(now.as_secs()))),
        ),
        gauge(
            "ambit_certificate_degraded",
            "1 while an identity's certificate is missing, could not be renewed, or has expired",
            of_each(&|one| Some(is_degraded(one))),
        ),
        counter(
            "ambit_certificate_failures",
            "Failed requests for certificates, by identity",
            of_each(&|one| Some(one.failures)),
        ),
        gauge(
            "ambit_certificates_held",
            "Identities of this node's pods",
            vec![MetricSample::plain(summary.held as u64)],
        ),
        gauge(
            "ambit_certificates_in_trouble",
            "Identities whose certificate is missing, could not be renewed, or has expired",
            by_state.into(),
        ),
    ]
}

fn of_proxy(stats: &ProxyStats) -> Vec<MetricFamily> {
    let bytes = [
        ("to-destination", stats.bytes_sent),
        ("to-source", stats.bytes_received),
    ];
    let bytes = bytes.map(|(way, count)| MetricSample::labelled("direction", way, count));
    vec![
        gauge(
            "ambit_connections",
            "Connections under way",
            vec![MetricSample::plain(stats.live)],
        ),
        by_word(
            "ambit_connections_finished",
            "Connections that ran to their end",
            "path",
            &stats.finished,
        ),
        by_word(
            "ambit_connections_ended",
            "Connections that carried bytes to their end, by who ended them and how",
            "end",
            &stats.ended,
        ),
        by_word(
            "ambit_connections_refused",
            "Connections that were refused",
            "reason",
            &stats.refused,
        ),
        by_word(
            "ambit_connections_terminated",
            "Established connections that were ended",
            "reason",
            &stats.terminated,
        ),
        by_word(
            "ambit_requests",
            "Requests that were judged one by one",
            "outcome",
            &stats.requests,
        ),
        by_word(
            "ambit_noted",
            "Connections and requests that policies noted (AUDIT, dry runs)",
            "note",
            &stats.noted,
        ),
        counter(
            "ambit_bytes",
            "Payload bytes of ended connections",
            bytes.into(),
        ),
    ]
}

fn by_word(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    counts: &BTreeMap<&'static str, u64>,
) -> MetricFamily {
    let samples = counts.iter();
    let samples = samples.map(|(&word, &count)| MetricSample::labelled(label, word, count));
    counter(name, help, samples.collect())
}

fn counter(name: &'static str, help: &'static str, samples: Vec<MetricSample>) -> MetricFamily {
    MetricFamily {
        name,
        help,
        kind: MetricKind::Counter,
        samples,
    }
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<MetricSample>) -> MetricFamily {
    MetricFamily {
        name,
        help,
        kind: MetricKind::Gauge,
        samples,
    }
}
