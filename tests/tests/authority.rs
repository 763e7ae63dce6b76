//! Which certificates `ambit ca serve` gives to which callers: callers with tokens of all kinds, by curl.

use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::ca_protocol::{
    INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED,
};
use ambit_tests::{
    CaAnswer, CaCall, CaServer, CallerLimits, CallerToken, Lab, NodeName, Place, Reference,
    TokenIssuer, run_tests, signing_request, tests, unsigned,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The longest lifetime that the authority issues.
const LONGEST: Duration = Duration::from_secs(3600);

/// A pod of node A.
const FRONTEND: &str = "spiffe://cluster.local/ns/frontend/sa/default";

/// A pod of node B.
const ORDERS: &str = "spiffe://cluster.local/ns/orders/sa/default";

fn main() -> ExitCode {
    run_tests(tests![
        a_node_gets_the_identities_of_its_own_pods_only,
        a_pod_gets_its_own_identity_only,
        what_a_request_says_of_itself_counts_for_nothing,
        tokens_that_prove_nothing_are_refused,
        invalid_identities_are_refused,
        invalid_requests_are_refused,
        no_lifetime_is_longer_than_configured,
        a_caller_that_asks_without_end_is_held_up,
    ])
}

/// The reference example's pods without agents, and an authority.
struct Cluster<'a> {
    lab: &'a Lab,
    mesh: Reference,
    ca: CaServer,
    node: Place,
}

impl<'a> Cluster<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            lab,
            mesh: Reference::build(lab)?,
            ca: CaServer::start(lab, LONGEST)?,
            node: lab.node(NodeName::A)?,
        })
    }

    fn call(&self, call: &CaCall<'_>) -> Result<CaAnswer> {
        call.make(self.lab, &self.node, &self.ca.endpoint())
    }

    /// Asks with a token, for an identity.
    fn ask(&self, token: &str, identity: Option<&str>) -> Result<CaAnswer> {
        self.call(&CaCall {
            headers: &[bearer(token)],
            request: &signing_request(&[])?,
            seconds: 600,
            identity,
        })
    }

    fn ask_as(&self, token: &CallerToken<'_>, identity: Option<&str>) -> Result<CaAnswer> {
        self.ask(&self.ca.token(token)?, identity)
    }

    fn agent(&self) -> Result<String> {
        self.ca.token(&CallerToken::of_agent(NodeName::A))
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

fn a_node_gets_the_identities_of_its_own_pods_only(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let of = CallerToken::of_agent;
    let given = cluster.ask_as(&of(NodeName::A), Some(FRONTEND))?;
    given.ensure_for(FRONTEND)?;
    let given = cluster.ask_as(&of(NodeName::B), Some(ORDERS))?;
    given.ensure_for(ORDERS)?;
    for (node, identity) in [(NodeName::A, ORDERS), (NodeName::B, FRONTEND)] {
        let answer = cluster.ask_as(&of(node), Some(identity))?;
        let name = identity.trim_start_matches("spiffe://");
        answer.ensure_refused(PERMISSION_DENIED, &[name, node.as_str()])?;
    }
    // If the token does not name a node, its pod's node counts.
    let by_pod = CallerToken {
        node: None,
        ..of(NodeName::A)
    };
    let given = cluster.ask_as(&by_pod, Some(FRONTEND))?;
    given.ensure_for(FRONTEND)?;
    let answer = cluster.ask_as(&by_pod, Some(ORDERS))?;
    answer.ensure_refused(PERMISSION_DENIED, &["ns/orders", "node-a"])?;
    let elsewhere = CallerToken {
        node: Some("node-c"),
        ..of(NodeName::A)
    };
    let answer = cluster.ask_as(&elsewhere, Some(FRONTEND))?;
    answer.ensure_refused(PERMISSION_DENIED, &["node-c"])?;
    let log = cluster.ca.log();
    let audited = |words: &[&str]| {
        let mut lines = log.lines().filter(|line| line.contains("ambit::ca::audit"));
        lines.any(|line| words.iter().all(|word| line.contains(word)))
    };
    ensure!(audited(&["ns/frontend", "node-a", "serial"]), "{log}");
    ensure!(audited(&["ns/orders", "node-a", "refused"]), "{log}");
    Ok(())
}

fn a_pod_gets_its_own_identity_only(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let frontend = CallerToken::of(&cluster.mesh.frontend);
    let given = cluster.ask_as(&frontend, None)?;
    given.ensure_for(FRONTEND)?;
    // Not even its own identity by name, because it is not an agent.
    for identity in [ORDERS, FRONTEND] {
        let answer = cluster.ask_as(&frontend, Some(identity))?;
        answer.ensure_refused(PERMISSION_DENIED, &["frontend", "node-account"])?;
    }
    Ok(())
}

fn what_a_request_says_of_itself_counts_for_nothing(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let answer = cluster.call(&CaCall {
        headers: &[bearer(&cluster.agent()?)],
        request: &signing_request(&[ORDERS, "spiffe://elsewhere/ns/a/sa/b"])?,
        seconds: 600,
        identity: Some(FRONTEND),
    })?;
    answer.ensure_for(FRONTEND)?;
    Ok(())
}

fn tokens_that_prove_nothing_are_refused(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let good = CallerToken::of_agent(NodeName::A);
    let claims = good.claims()?;
    let other = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        cluster.ca.cluster().token(&claims)
    };
    let key = cluster.ca.cluster();
    let header = json!({"alg": "none", "typ": "JWT"});
    let tokens = [
        ("forged", TokenIssuer::new()?.token(&claims)?),
        ("unsigned", format!("{}.", unsigned(&header, &claims))),
        ("HS256", key.token_with_public_key_as_secret(&claims)),
        (
            "expired",
            cluster.ca.token(&CallerToken {
                expires_in: -3600,
                ..good
            })?,
        ),
        (
            "of another audience",
            cluster.ca.token(&CallerToken {
                audience: "https://kubernetes.default.svc",
                ..good
            })?,
        ),
        (
            "of another issuer",
            cluster.ca.token(&CallerToken {
                issuer: "https://elsewhere.example",
                ..good
            })?,
        ),
        (
            "without an expiry",
            other(&|claims| {
                claims.as_object_mut().map(|claims| claims.remove("exp"));
            })?,
        ),
        ("not valid yet", {
            let later = claims["exp"].as_i64().context("no exp")? - 600;
            other(&|claims| claims["nbf"] = later.into())?
        }),
        ("of no service account", {
            other(&|claims| claims["sub"] = "kubernetes-admin".into())?
        }),
        ("of two accounts", {
            other(&|claims| claims["sub"] = "system:serviceaccount:kube-system:admin".into())?
        }),
        ("empty", String::new()),
        ("no token", "a.b.c".to_owned()),
    ];
    for (what, token) in tokens {
        let answer = cluster.ask(&token, Some(FRONTEND))?;
        ensure!(answer.status() == UNAUTHENTICATED, "{what}: {answer:?}");
        let log = cluster.ca.log();
        ensure!(
            token.is_empty() || !log.contains(&token),
            "{what}: the token is in the log"
        );
    }
    let agent = bearer(&cluster.agent()?);
    let basic = agent.replace("Bearer", "Basic");
    for headers in [vec![], vec![basic], vec![agent.clone(), agent.clone()]] {
        let answer = cluster.call(&CaCall {
            headers: &headers,
            request: &signing_request(&[])?,
            seconds: 600,
            identity: Some(FRONTEND),
        })?;
        ensure!(
            answer.status() == UNAUTHENTICATED,
            "{} headers: {answer:?}",
            headers.len()
        );
    }
    // And the same with a good one.
    let given = cluster.ask(&cluster.agent()?, Some(FRONTEND))?;
    given.ensure_for(FRONTEND)
}

fn invalid_identities_are_refused(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let token = cluster.agent()?;
    for identity in [
        "",
        "frontend",
        "spiffe://elsewhere/ns/frontend/sa/default",
        "spiffe://cluster.local/ns/frontend",
        "spiffe://cluster.local/ns/frontend/sa/default/extra",
        "spiffe://cluster.local/ns/frontend/sa/default/",
        "spiffe://cluster.local/ns/frontend/sa/default\0",
        "spiffe://cluster.local/ns/frontend/sa/default%00",
        "spiffe://cluster.local/ns//sa/default",
        "spiffe://cluster.local/ns/../sa/default",
        "spiffe://cluster.local:443/ns/frontend/sa/default",
        "spiffe://user@cluster.local/ns/frontend/sa/default",
        "spiffe://cluster.local/ns/frontend/sa/default?x=y",
        "https://cluster.local/ns/frontend/sa/default",
    ] {
        let answer = cluster.ask(&token, Some(identity))?;
        let status = answer.status();
        ensure!(
            status == INVALID_ARGUMENT || status == PERMISSION_DENIED,
            "{identity:?}: {answer:?}"
        );
    }
    Ok(())
}

fn invalid_requests_are_refused(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let good = signing_request(&[])?;
    let middle = good.len() / 2;
    let tampered = good.replace(
        &good[middle..=middle],
        if &good[middle..=middle] == "A" {
            "B"
        } else {
            "A"
        },
    );
    let huge = "A".repeat(40_000);
    let certificate = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let requests = ["", "no PEM", &tampered, &certificate, &huge];
    for request in requests {
        let answer = cluster.call(&CaCall {
            headers: &[bearer(&cluster.agent()?)],
            request,
            seconds: 600,
            identity: Some(FRONTEND),
        })?;
        let shown = &request[..request.len().min(40)];
        // A request that is too large is not read.
        let refused = [INVALID_ARGUMENT, RESOURCE_EXHAUSTED, 11].contains(&answer.status());
        ensure!(refused, "{shown:?}: {answer:?}");
    }
    Ok(())
}

fn no_lifetime_is_longer_than_configured(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    for (asked, at_most) in [
        (60, 60),
        (0, 3600),
        (-1, 3600),
        (86_400, 3600),
        (i64::MAX, 3600),
    ] {
        let answer = cluster.call(&CaCall {
            headers: &[bearer(&cluster.agent()?)],
            request: &signing_request(&[])?,
            seconds: asked,
            identity: Some(FRONTEND),
        })?;
        let left = answer.seconds_left()?;
        ensure!(
            (1..=at_most).contains(&left),
            "asked for {asked} s: valid for {left} s"
        );
    }
    Ok(())
}

fn a_caller_that_asks_without_end_is_held_up(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let limits = CallerLimits {
        burst: 5,
        per_second: 1,
    };
    cluster.ca.limit(lab, limits)?;
    let frontend = CallerToken::of(&cluster.mesh.frontend);
    let held_up = (0..100).find_map(|_| {
        let answer = cluster.ask_as(&frontend, None).ok()?;
        (answer.status() == RESOURCE_EXHAUSTED).then_some(answer)
    });
    let answer = held_up.context("100 calls were answered")?;
    answer.ensure_refused(RESOURCE_EXHAUSTED, &["too often", "try again"])?;
    // No other caller is.
    let given = cluster.ask(&cluster.agent()?, Some(FRONTEND))?;
    given.ensure_for(FRONTEND)
}
