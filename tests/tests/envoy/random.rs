//! Random policies and requests, made from small pools, so that they match often.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::case::{Case, MODES};
use crate::listener::PORT;
use crate::peer::PEERS;
use crate::pools::{
    CLAIMS, CONNECTION_SOURCES, HOST_VALUES, HOSTS, METHOD_VALUES, METHODS, PATHS, ROLE_VALUES,
    ROLES, SOURCES, TARGETS, tokens,
};
use crate::request::{Request, get};

/// How many sets of policies there are, and requests for each.
const CASES: usize = 100;
const REQUESTS: usize = 40;

/// How many sets of policies are tried on bytes that are not HTTP, and connections for each.
const OPAQUE_CASES: usize = 150;
const OPAQUE_CONNECTIONS: usize = 10;

/// Cases that are the same for the same seed.
pub(crate) fn cases(seed: u64) -> Vec<Case> {
    let mut random = Random::new(seed, About::Requests);
    (0..CASES).map(|_| random.case()).collect()
}

/// The parts of targets.
const PIECES: [&str; 30] = [
    "/", "/", "/", "//", ".", "..", "/..", "/./", "%2e", "%2E", "%2f", "%5C", "\\", ";", ";a=b",
    "a", "admin", "%61", "%", "%2", "%6", "5", "e", "F", "%25", "%c3", "[", "|", "?", "#",
];

/// How many targets there are.
const TARGET_COUNT: usize = 2000;

/// Targets that are the same for the same seed.
pub(crate) fn targets(seed: u64) -> Vec<String> {
    let mut random = Random::new(seed, About::Requests);
    let target = |random: &mut Random| random.several(0, 8, |random| random.one(&PIECES)).concat();
    (0..TARGET_COUNT)
        .map(|_| format!("/{}", target(&mut random)))
        .collect()
}

/// Cases of connections that do not carry HTTP.
pub(crate) fn opaque_cases(seed: u64) -> Vec<Case> {
    let mut random = Random::new(seed, About::Connections);
    let mut case = || {
        let policies = random.several(1, 3, Random::policy);
        let connections = (0..OPAQUE_CONNECTIONS).map(|_| random.request());
        Case::opaque(policies, connections.collect())
    };
    (0..OPAQUE_CASES).map(|_| case()).collect()
}

struct Random {
    numbers: StdRng,
    about: About,
}

/// The subject of policies.
#[derive(Clone, Copy)]
enum About {
    Requests,
    /// Connections; a few fields are about requests.
    Connections,
}

impl Random {
    fn new(seed: u64, about: About) -> Self {
        let numbers = StdRng::seed_from_u64(seed);
        Self { numbers, about }
    }

    /// Whether a field may be about requests.
    fn is_about_requests(&mut self) -> bool {
        match self.about {
            About::Requests => true,
            About::Connections => self.chance(0.1),
        }
    }

    /// One of a pool, which is not empty.
    fn one<T: Clone>(&mut self, pool: &[T]) -> T {
        pool[self.numbers.random_range(..pool.len())].clone()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.numbers.random_bool(probability)
    }

    /// A number, at least `least` and at most `most`.
    fn several<T>(
        &mut self,
        least: usize,
        most: usize,
        mut one: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = self.numbers.random_range(least..=most);
        (0..count).map(|_| one(self)).collect()
    }

    fn case(&mut self) -> Case {
        Case::undisputed(
            self.several(1, 3, Self::policy),
            self.one(&MODES),
            (0..REQUESTS).map(|_| self.request()).collect(),
        )
    }

    fn policy(&mut self) -> Value {
        let action = self.one(&["ALLOW", "ALLOW", "DENY"]);
        json!({"action": action, "rules": self.several(1, 3, Self::rule)})
    }

    fn rule(&mut self) -> Value {
        let mut rule = Map::new();
        let from = self.several(0, 2, |random| json!({"source": random.source()}));
        let to = self.several(0, 2, |random| json!({"operation": random.operation()}));
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
        let mut names = Vec::new();
        let pools = match self.is_about_requests() {
            true => &SOURCES[..],
            false => &CONNECTION_SOURCES[..],
        };
        for (name, values) in self.several(1, 2, |random| random.one(pools)) {
            names.push(name);
            // Istio does not allow service accounts together with either of these.
            let identities = ["principals", "namespaces"];
            if names.contains(&"serviceAccounts")
                && identities.iter().any(|one| names.contains(one))
            {
                break;
            }
            self.add(&mut source, name, values);
        }
        Value::Object(source)
    }

    fn operation(&mut self) -> Value {
        let port = PORT.to_string();
        let ports = [port.as_str(), "80"];
        let pools = [
            ("hosts", &HOST_VALUES[..]),
            ("methods", &METHOD_VALUES[..]),
            ("paths", &PATHS[..]),
            ("paths", &PATHS[..]),
            ("ports", &ports[..]),
        ];
        let pools = match self.is_about_requests() {
            true => &pools[..],
            false => &pools[4..],
        };
        let mut operation = Map::new();
        for (name, values) in self.several(1, 3, |random| random.one(pools)) {
            self.add(&mut operation, name, values);
        }
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
        let of_connections = [
            ("source.principal", SOURCES[0].1),
            ("source.namespace", SOURCES[1].1),
            ("source.serviceAccount", SOURCES[2].1),
            ("source.trustDomain", SOURCES[3].1),
            ("source.ip", SOURCES[4].1),
            ("remote.ip", SOURCES[5].1),
            ("destination.ip", &["127.0.0.0/8", "10.0.0.0/8"][..]),
        ];
        let of_requests = [
            ("request.headers[x-role]", &ROLE_VALUES[..]),
            ("request.headers[:method]", &METHOD_VALUES[..]),
            ("request.headers[Host]", &["web", "secret.com", "*"][..]),
            ("request.headers[:path]", &["/admin*", "*", "/"][..]),
        ];
        let all = match self.is_about_requests() {
            true => [&of_connections[..], &of_requests[..], &CLAIMS[..]].concat(),
            false => of_connections.to_vec(),
        };
        let (key, values) = self.one(&all);
        let field = self.one(&["values", "notValues"]);
        json!({"key": key, field: self.several(1, 2, |random| random.one(values))})
    }

    fn request(&mut self) -> Request {
        let mut request = get(self.one(&TARGETS))
            .method(self.one(&METHODS))
            .host(self.one(&HOSTS))
            .from(self.one(&PEERS))
            .at(self.one(&[2, 3, 9]));
        if self.chance(0.5) {
            request = request.header("x-role", self.one(&ROLES));
        }
        if self.chance(0.5) {
            request = request.token(self.one(&tokens()));
        }
        request
    }
}
