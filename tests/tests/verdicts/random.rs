//! Random policies on connections, out of small pools, so that rules and callers meet.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::site::{PORTS, SERVER};

/// Istio's root namespace, whose policies are the whole mesh's.
const ROOT: &str = "istio-system";

/// The fields of a source that may stand together, and their values.
const SOURCES: [(&str, &[&str]); 6] = [
    (
        "principals",
        &[
            "*",
            "cluster.local/ns/alpha/sa/default",
            "cluster.local/ns/beta/sa/*",
            "*/sa/reader",
            "other/ns/alpha/sa/default",
            "cluster.local/*",
        ],
    ),
    ("namespaces", &["alpha", "beta", "gamma", "*", "*eta", "g*"]),
    ("trustDomains", &["cluster.local", "other", "*", "clus*"]),
    ("ipBlocks", &BLOCKS),
    ("ipBlocks", &BLOCKS),
    (
        "serviceAccounts",
        &["alpha/default", "default", "beta/reader", "gamma/default"],
    ),
];

/// The pods of node A, of node B, the nodes, a few of them, everybody.
const BLOCKS: [&str; 9] = [
    "10.78.1.0/24",
    "10.78.2.0/24",
    "10.78.0.0/24",
    "10.78.1.8/29",
    "fd78:0:0:1::/64",
    "fd78:0:0:2::/64",
    "fd78::/16",
    "0.0.0.0/0",
    "::/0",
];

const PORT_VALUES: [&str; 4] = ["8080", "8081", "9090", "7000"];

/// The keys of conditions, and their values.
const CONDITIONS: [(&str, &[&str]); 7] = [
    ("source.ip", &BLOCKS),
    ("source.namespace", SOURCES[1].1),
    ("source.principal", SOURCES[0].1),
    ("source.trustDomain", SOURCES[2].1),
    ("source.serviceAccount", SOURCES[5].1),
    (
        "destination.ip",
        &["10.78.2.0/24", "10.0.0.0/8", "fd78::/16"],
    ),
    ("destination.port", &PORT_VALUES),
];

/// Policies that are the same for the same seed.
pub(crate) struct Random(StdRng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// One of a pool, which is not empty.
    pub(crate) fn one<T: Clone>(&mut self, pool: &[T]) -> T {
        pool[self.0.random_range(..pool.len())].clone()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability)
    }

    /// A number, at least `least` and at most `most`.
    fn several<T>(
        &mut self,
        least: usize,
        most: usize,
        mut one: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = self.0.random_range(least..=most);
        (0..count).map(|_| one(self)).collect()
    }

    /// The objects of a set. A PeerAuthentication of the whole mesh, which has the name of the set, is
    /// always among them.
    pub(crate) fn policies(&mut self, name: &str) -> Vec<Value> {
        let mesh = json!({"mtls": {"mode": self.one(&["STRICT", "PERMISSIVE", "PERMISSIVE"])}});
        let mut all = vec![object("PeerAuthentication", ROOT, name, mesh)];
        if self.chance(0.5) {
            let spec = self.authentication();
            all.push(object("PeerAuthentication", SERVER, name, spec));
        }
        for number in 0..self.0.random_range(0..=3) {
            let namespace = self.one(&[SERVER, SERVER, SERVER, ROOT]);
            let name = format!("{name}-{number}");
            let spec = self.authorization();
            all.push(object("AuthorizationPolicy", namespace, &name, spec));
        }
        all
    }

    fn mode(&mut self) -> &'static str {
        self.one(&["STRICT", "PERMISSIVE", "PERMISSIVE", "UNSET", "DISABLE"])
    }

    fn authentication(&mut self) -> Value {
        let (port, another) = (self.one(&PORTS), self.one(&PORTS));
        json!({
            "selector": {"matchLabels": {"app": SERVER}},
            "mtls": {"mode": self.mode()},
            "portLevelMtls": {
                port.to_string(): {"mode": self.mode()},
                another.to_string(): {"mode": self.mode()},
            },
        })
    }

    fn authorization(&mut self) -> Value {
        let action = self.one(&["ALLOW", "DENY"]);
        let mut spec = json!({"action": action, "rules": self.several(1, 3, Self::rule)});
        if self.chance(0.5) {
            spec["selector"] = json!({"matchLabels": {"app": SERVER}});
        }
        spec
    }

    fn rule(&mut self) -> Value {
        let mut rule = Map::new();
        let from = self.several(0, 2, |random| json!({"source": random.source()}));
        let to = self.several(0, 1, |random| json!({"operation": random.operation()}));
        let when = match self.chance(0.3) {
            true => self.several(1, 2, Self::condition),
            false => Vec::new(),
        };
        for (name, list) in [("from", from), ("to", to), ("when", when)] {
            // An empty list is refused, unlike an absent one.
            if !list.is_empty() {
                rule.insert(name.to_owned(), json!(list));
            }
        }
        Value::Object(rule)
    }

    fn source(&mut self) -> Value {
        let mut source = Map::new();
        let (name, values) = self.one(&SOURCES);
        self.add(&mut source, name, values);
        if self.chance(0.3) {
            self.add(&mut source, "ipBlocks", &BLOCKS);
        }
        Value::Object(source)
    }

    fn operation(&mut self) -> Value {
        let mut operation = Map::new();
        self.add(&mut operation, "ports", &PORT_VALUES);
        Value::Object(operation)
    }

    /// Adds a field, or its twin, or both.
    fn add(&mut self, fields: &mut Map<String, Value>, name: &str, values: &[&str]) {
        let (first, rest) = name.split_at(1);
        let twin = format!("not{}{rest}", first.to_uppercase());
        let names = self.one(&[[true, false], [true, false], [false, true], [true, true]]);
        for (name, is_meant) in [name, &twin].into_iter().zip(names) {
            if is_meant {
                let list = self.several(1, 3, |random| random.one(values));
                fields.insert(name.to_owned(), json!(list));
            }
        }
    }

    fn condition(&mut self) -> Value {
        let (key, values) = self.one(&CONDITIONS);
        let field = self.one(&["values", "notValues"]);
        json!({"key": key, field: self.several(1, 2, |random| random.one(values))})
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}
