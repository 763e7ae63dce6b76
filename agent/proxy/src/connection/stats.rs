//! Counts what a shard has done, by outcome.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::connection::{ConnectionDirection, Path};
use ambit_authorizer::AuthorizerStats;

/// Counts of connections since the proxy started. The keys are words of fixed lists, so their
/// number is bounded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ProxyStats {
    /// Live connections.
    pub live: u64,
    /// Connections that ran to their end, by direction and path.
    pub finished: BTreeMap<&'static str, u64>,
    /// Those of them that carried bytes, by who ended them and how.
    pub ended: BTreeMap<&'static str, u64>,
    /// Connections that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Established connections that were ended, by reason.
    pub terminated: BTreeMap<&'static str, u64>,
    /// Requests that were judged one by one, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Notes of AUDIT policies and dry runs.
    pub noted: BTreeMap<&'static str, u64>,
    /// Checks by external authorizers.
    pub authorizers: AuthorizerStats,
    /// Payload bytes of ended connections, from source to destination.
    pub bytes_sent: u64,
    /// Payload bytes of ended connections, from destination to source.
    pub bytes_received: u64,
}

/// One shard's counts.
#[derive(Debug, Default)]
pub(crate) struct ShardStats(RefCell<ProxyStats>);

impl ProxyStats {
    /// Adds another shard's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            live,
            finished,
            ended,
            refused,
            terminated,
            requests,
            noted,
            authorizers,
            bytes_sent,
            bytes_received,
        } = other;
        self.live += live;
        add_all(&mut self.finished, finished);
        add_all(&mut self.ended, ended);
        add_all(&mut self.refused, refused);
        add_all(&mut self.terminated, terminated);
        add_all(&mut self.requests, requests);
        add_all(&mut self.noted, noted);
        self.authorizers.add(authorizers);
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
    }
}

impl ShardStats {
    pub(crate) fn finished(&self, direction: ConnectionDirection, path: Path) {
        count(
            &mut self.0.borrow_mut().finished,
            direction_and_path(direction, path),
        );
    }

    pub(crate) fn ended(&self, end: &'static str) {
        count(&mut self.0.borrow_mut().ended, end);
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        count(&mut self.0.borrow_mut().refused, reason);
    }

    pub(crate) fn terminated(&self, reason: &'static str) {
        count(&mut self.0.borrow_mut().terminated, reason);
    }

    pub(crate) fn requested(&self, outcome: &'static str) {
        count(&mut self.0.borrow_mut().requests, outcome);
    }

    pub(crate) fn noted(&self, note: &'static str) {
        count(&mut self.0.borrow_mut().noted, note);
    }

    pub(crate) fn carried(&self, bytes_sent: u64, bytes_received: u64) {
        let mut stats = self.0.borrow_mut();
        stats.bytes_sent += bytes_sent;
        stats.bytes_received += bytes_received;
    }

    /// Returns the counts, with those that are kept elsewhere: live connections and external authorizers.
    pub(crate) fn read(&self, live: usize, authorizers: AuthorizerStats) -> ProxyStats {
        ProxyStats {
            live: live as u64,
            authorizers,
            ..self.0.borrow().clone()
        }
    }
}

const fn direction_and_path(direction: ConnectionDirection, path: Path) -> &'static str {
    match (direction, path) {
        (ConnectionDirection::Outbound, Path::Tunnel) => "outbound-tunnel",
        (ConnectionDirection::Outbound, Path::Handoff) => "outbound-handoff",
        (ConnectionDirection::Outbound, Path::Plaintext) => "outbound-plaintext",
        (ConnectionDirection::Outbound, Path::OwnPod) => "outbound-own-pod",
        (ConnectionDirection::Inbound, Path::Tunnel) => "inbound-tunnel",
        (ConnectionDirection::Inbound, Path::Handoff) => "inbound-handoff",
        (ConnectionDirection::Inbound, Path::Plaintext) => "inbound-plaintext",
        (ConnectionDirection::Inbound, Path::OwnPod) => "inbound-own-pod",
        (ConnectionDirection::Authorizer, Path::Tunnel) => "authorizer-tunnel",
        (ConnectionDirection::Authorizer, Path::Handoff) => "authorizer-handoff",
        (ConnectionDirection::Authorizer, Path::Plaintext) => "authorizer-plaintext",
        (ConnectionDirection::Authorizer, Path::OwnPod) => "authorizer-own-pod",
    }
}

fn count(counts: &mut BTreeMap<&'static str, u64>, key: &'static str) {
    *counts.entry(key).or_default() += 1;
}

fn add_all(counts: &mut BTreeMap<&'static str, u64>, others: &BTreeMap<&'static str, u64>) {
    for (&key, &value) in others {
        *counts.entry(key).or_default() += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let (one, two) = (ShardStats::default(), ShardStats::default());
        one.finished(ConnectionDirection::Outbound, Path::Tunnel);
        one.carried(10, 20);
        two.finished(ConnectionDirection::Outbound, Path::Tunnel);
        two.ended("reset-by-client");
        two.refused("over-cap");
        two.terminated("policy-changed");
        one.requested("finished");
        two.requested("finished");
        two.noted("audited");
        let authorizers = || AuthorizerStats {
            allowed: 1,
            ..AuthorizerStats::default()
        };
        let mut all = one.read(3, authorizers());
        all.add(&two.read(4, authorizers()));
        let expected = ProxyStats {
            live: 7,
            finished: [("outbound-tunnel", 2)].into(),
            ended: [("reset-by-client", 1)].into(),
            refused: [("over-cap", 1)].into(),
            terminated: [("policy-changed", 1)].into(),
            requests: [("finished", 2)].into(),
            noted: [("audited", 1)].into(),
            authorizers: AuthorizerStats {
                allowed: 2,
                ..AuthorizerStats::default()
            },
            bytes_sent: 10,
            bytes_received: 20,
        };
        assert_eq!(all, expected);
    }
}
