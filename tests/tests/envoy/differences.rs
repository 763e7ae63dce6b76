//! The differences from Envoy, and their reasons. Each is the stricter reading of something that a
//! server behind them may read in two ways, or something that Ambit refuses to guess.

use std::sync::LazyLock;

use ambit_model::PathNormalization;
use serde_json::{Value, json};

use crate::case::{Case, Protocol};
use crate::evaluator::Outcome;
use crate::evaluator::Outcome::{Allowed, Denied, Malformed};
use crate::request::{Request, get};

/// A request that Ambit and Envoy judge differently.
pub(crate) struct Difference {
    pub(crate) reason: &'static str,
    pub(crate) ambit: Outcome,
    pub(crate) envoy: Outcome,
    mode: PathNormalization,
    policy: Value,
    request: Request,
}

impl Difference {
    /// It alone.
    pub(crate) fn case(&self) -> Case {
        Case {
            policies: vec![self.policy.clone()],
            mode: self.mode,
            protocol: Protocol::Http1,
            requests: vec![self.request.clone()],
        }
    }
}

const LINES: &str = "several lines of a header: nobody knows which one the application reads, so all \
                     have to satisfy an ALLOW policy, and one, or all joined, is enough for a DENY \
                     policy";

const DOT: &str = "a dot at the end of a host: it is the same host";

const OUTSIDE: &str = "Envoy's templates match RFC 3986's characters only: what keeps out does so \
                       whatever a segment is made of";

/// Characters to which this applies if they are not normalised.
const OUTSIDE_CHARACTERS: &str = "\"<>[\\]^`{|}";

/// All of them.
pub(crate) static DIFFERENCES: LazyLock<Vec<Difference>> = LazyLock::new(|| {
    let role = |action, field, value: &str| when(action, "request.headers[x-role]", field, value);
    let roles =
        |first: &str, second: &str| get("/").header("x-role", first).header("x-role", second);
    let base = |reason, outcomes: (Outcome, Outcome), policy, request| Difference {
        reason,
        ambit: outcomes.0,
        envoy: outcomes.1,
        mode: PathNormalization::Base,
        policy,
        request,
    };
    let stricter = (Denied, Allowed);
    vec![
        base(
            LINES,
            stricter,
            role("ALLOW", "values", "user"),
            roles("user", "admin"),
        ),
        base(
            LINES,
            stricter,
            role("ALLOW", "values", "user"),
            roles("admin", "user"),
        ),
        base(
            LINES,
            stricter,
            role("ALLOW", "notValues", "a,b"),
            roles("a", "b"),
        ),
        base(
            LINES,
            stricter,
            role("DENY", "values", "a,b"),
            roles("a", "b"),
        ),
        base(
            LINES,
            stricter,
            role("DENY", "notValues", "user"),
            roles("user", "admin"),
        ),
        base(
            LINES,
            stricter,
            when("DENY", "request.headers[cookie]", "values", "a=1; b=2"),
            get("/").header("cookie", "a=1").header("cookie", "b=2"),
        ),
        base(
            DOT,
            stricter,
            operation("DENY", "hosts", "secret.com"),
            get("/").host("secret.com."),
        ),
        base(
            DOT,
            stricter,
            operation("ALLOW", "notHosts", "secret.com"),
            get("/").host("secret.com."),
        ),
        base(
            DOT,
            (Allowed, Denied),
            operation("ALLOW", "hosts", "ok.com"),
            get("/").host("ok.com."),
        ),
        base(
            OUTSIDE,
            stricter,
            operation("DENY", "paths", "/admin/{*}"),
            get("/admin/x[0]"),
        ),
        base(
            OUTSIDE,
            stricter,
            operation("ALLOW", "notPaths", "/admin/{**}"),
            get("/admin/x[0]"),
        ),
        Difference {
            mode: PathNormalization::None,
            ..base(
                OUTSIDE,
                stricter,
                operation("DENY", "paths", "/admin/{*}"),
                get("/admin/\""),
            )
        },
        base(
            "a dot segment with parameters is one where its dots are escaped, too: Envoy passes it on \
             decoded",
            stricter,
            operation("DENY", "paths", "/admin"),
            get("/x/%2e%2e;/admin"),
        ),
        base(
            "a dot segment with parameters is one where it stands behind a backslash, too",
            stricter,
            operation("DENY", "paths", "/admin"),
            get("/x\\..;/admin"),
        ),
        Difference {
            mode: PathNormalization::MergeSlashes,
            ..base(
                "slashes are merged where there is nothing else, too",
                stricter,
                operation("DENY", "paths", "/"),
                get("//"),
            )
        },
        Difference {
            mode: PathNormalization::None,
            ..base(
                "%00 is refused without normalisation, too",
                (Malformed, Allowed),
                operation("DENY", "paths", "/other"),
                get("/admin%00"),
            )
        },
        base(
            "X-Forwarded-For, which any pod of the mesh can write, excludes no caller from a DENY policy",
            stricter,
            json!({
                "action": "DENY",
                "rules": [{"from": [{"source": {"remoteIpBlocks": ["127.0.0.2"]}}]}],
            }),
            get("/").header("x-forwarded-for", "10.0.0.1"),
        ),
        base(
            "X-Forwarded-For admits no caller that an ALLOW policy excludes by the peer's own address",
            stricter,
            json!({"rules": [{"from": [{"source": {"notRemoteIpBlocks": ["127.0.0.2"]}}]}]}),
            get("/").header("x-forwarded-for", "10.0.0.1"),
        ),
        base(
            "connection.sni is refused: what reaches a workload has come through a tunnel",
            stricter,
            when("DENY", "connection.sni", "values", "secret.com"),
            get("/"),
        ),
    ]
});

/// Whether a target under some policies is one of these.
pub(crate) fn is_disputed(policies: &[Value], mode: PathNormalization, target: &str) -> bool {
    let has_template = || {
        policies
            .iter()
            .any(|policy| policy.to_string().contains("{*"))
    };
    let is_outside = |letter| OUTSIDE_CHARACTERS.contains(letter);
    mode == PathNormalization::None && target.contains(is_outside) && has_template()
}

fn operation(action: &str, field: &str, value: &str) -> Value {
    let operation = json!({field: [value]});
    json!({"action": action, "rules": [{"to": [{"operation": operation}]}]})
}

fn when(action: &str, key: &str, field: &str, value: &str) -> Value {
    json!({"action": action, "rules": [{"when": [{"key": key, field: [value]}]}]})
}
