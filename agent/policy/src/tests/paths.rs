//! Paths: cases P-1 to P-17 of the manual, each in every mode of normalisation.

use serde_json::json;

use super::TestCaller::Peer;
use super::operation;
use crate::WorkloadPolicies;
use crate::normalise_path;
use Outcome::{A, D, X};
use ambit_model::PathNormalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes, None};

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// It is allowed.
    A,
    /// It is denied.
    D,
    /// It is answered 400.
    X,
}

const MODES: [PathNormalization; 4] = [None, Base, MergeSlashes, DecodeAndMergeSlashes];

/// A request target, and what happens to it in each mode if `/admin` is denied.
type Case = (&'static str, [Outcome; 4]);

const P1: &[Case] = &[("/admin?x=1", [D; 4]), ("/admin?", [D; 4])];
const P2: &[Case] = &[("/admin#frag", [D; 4]), ("/admin?x#frag", [D; 4])];
const P3: &[Case] = &[("/admin%23frag", [A; 4])];
const P4: &[Case] = &[("//admin", [A, A, D, D]), ("///admin", [A, A, D, D])];
const P5: &[Case] = &[("/%2fadmin", [A, A, A, D]), ("/%2Fadmin", [A, A, A, D])];
const P6: &[Case] = &[
    ("/%5cadmin", [A, A, A, D]),
    ("/%5Cadmin", [A, A, A, D]),
    ("/\\admin", [A, A, D, D]),
    ("\\admin", [A, D, D, D]),
];
const P7: &[Case] = &[
    ("/x/../admin", [A, D, D, D]),
    ("/./admin", [A, D, D, D]),
    ("/x/%2e%2e/admin", [A, D, D, D]),
    ("/x/.%2E/admin", [A, D, D, D]),
    ("/x/..\\admin", [A, D, D, D]),
    ("/../admin", [A, D, D, D]),
    ("/x/..%2fadmin", [A, A, A, D]),
    ("/x/%2e%2e%5cadmin", [A, A, A, D]),
    ("/..;/admin", [A, D, D, D]),
    ("/x/..;a=b/admin", [A, D, D, D]),
    ("/x/%2e%2e;/admin", [A, D, D, D]),
    ("/.;/admin", [A, D, D, D]),
];
const P8: &[Case] = &[
    ("/%61dmin", [A, D, D, D]),
    ("/adm%69n", [A, D, D, D]),
    ("/%61%64%6D%69%6e", [A, D, D, D]),
];
const P9: &[Case] = &[
    ("/%2561dmin", [A; 4]),
    ("/%252e%252e/admin", [A; 4]),
    ("/x/%252e%252e/admin", [A; 4]),
    ("/x/%2%65%2%65/admin", [A; 4]),
];
const P10: &[Case] = &[
    ("/Admin", [A; 4]),
    ("/admin/", [A; 4]),
    ("/;/admin", [A; 4]),
    ("/..%3b/admin", [A; 4]),
    ("/%c0%ae%c0%ae/admin", [A; 4]),
];
const P11: &[Case] = &[("/admin%00", [X; 4]), ("/x%00/../admin", [X; 4])];

fn outcome(policies: &WorkloadPolicies, mode: PathNormalization, target: &str) -> Outcome {
    let Ok(normal) = normalise_path(mode, target) else {
        return X;
    };
    let (path, _query) = normal.split_once('?').unwrap_or((&normal, ""));
    let mut request = super::request("GET", path);
    request.path_and_query = normal.clone();
    match policies.admits_request(Peer("a/b"), &request) {
        true => A,
        false => D,
    }
}

/// Checks the cases by a policy, in every mode.
fn check(policies: &WorkloadPolicies, cases: &[Case]) {
    for (target, outcomes) in cases {
        for (mode, expected) in MODES.into_iter().zip(outcomes) {
            let found = outcome(policies, mode, target);
            assert_eq!(found, *expected, "{target} {mode:?}");
        }
    }
}

fn denies_admin(cases: &[Case]) {
    check(&operation("DENY", json!({"paths": ["/admin"]})), cases);
}

#[test]
fn p1_a_query() {
    denies_admin(P1);
}

#[test]
fn p2_a_fragment_is_cut() {
    denies_admin(P2);
    for mode in MODES {
        assert_eq!(normalise_path(mode, "/admin#frag").as_deref(), Ok("/admin"));
    }
}

#[test]
fn p3_an_escaped_hash_is_part_of_the_path() {
    denies_admin(P3);
}

#[test]
fn p4_doubled_slashes() {
    denies_admin(P4);
}

#[test]
fn p5_escaped_slashes() {
    denies_admin(P5);
}

#[test]
fn p6_backslashes() {
    denies_admin(P6);
}

#[test]
fn p7_dot_segments() {
    denies_admin(P7);
}

#[test]
fn p8_escaped_letters() {
    denies_admin(P8);
}

#[test]
fn p9_nothing_is_decoded_twice() {
    denies_admin(P9);
}

#[test]
fn p10_what_is_not_normalised_by_design() {
    denies_admin(P10);
}

/// A server that ignores the parameters of segments (Tomcat, Spring) takes each of these for `/admin`.
/// Envoy matches them only if a route ignores parameters (CVE-2026-73511, CVE-2026-73553), which no route
/// of Istio's does. For this kind of server, policies have to deny the parameters too, or allow only paths
/// without them.
#[test]
fn p10_parameters_make_another_path_of_a_segment() {
    const PARAMETERS: &[&str] = &["/admin;a=b", "/admin;", "/admin;/", "/admin;a=b;c/x"];
    let cases = |outcome| {
        PARAMETERS
            .iter()
            .map(|&one| (one, [outcome; 4]))
            .collect::<Vec<_>>()
    };
    let by_path =
        |action: &str, field: &str, paths: &[&str]| operation(action, json!({field: paths}));
    check(&by_path("DENY", "paths", &["/admin"]), &cases(A));
    check(&by_path("ALLOW", "notPaths", &["/admin"]), &cases(A));
    check(&by_path("ALLOW", "paths", &["/admin"]), &cases(D));
    check(&by_path("DENY", "notPaths", &["/admin"]), &cases(D));
    // Policies that work for these servers.
    let working = ["/admin", "/admin;*", "/admin/*"];
    check(&by_path("DENY", "paths", &working), &cases(D));
    check(&by_path("ALLOW", "notPaths", &working), &cases(D));
    check(
        &by_path("DENY", "paths", &["/{*}/x"]),
        &[("/admin;a=b;c/x", [D; 4])],
    );
}

#[test]
fn p11_a_nul() {
    denies_admin(P11);
}

#[test]
fn p12_out_of_what_is_allowed() {
    let policies = operation("ALLOW", json!({"paths": ["/public*"]}));
    check(
        &policies,
        &[
            ("/public/../private", [A, D, D, D]),
            ("/public/%2E%2E/private", [A, D, D, D]),
            ("/public/%2e/%2e%2e/private", [A, D, D, D]),
            ("/public/..%2fprivate", [A, A, A, D]),
            ("/public/../public", [A; 4]),
            ("/public", [A; 4]),
            ("/private", [D; 4]),
        ],
    );
}

#[test]
fn p13_a_segment_with_an_asterisk() {
    let policies = operation("DENY", json!({"paths": ["/admin/{*}"]}));
    check(
        &policies,
        &[
            ("/admin/a*b", [D; 4]),
            ("/admin/*", [D; 4]),
            ("/admin/", [A; 4]),
        ],
    );
}

#[test]
fn p14_characters_that_no_segment_has() {
    const OUTSIDE: [&str; 6] = [
        "/admin/x[0]",
        "/admin/\"",
        "/admin/a|b",
        "/admin/^",
        "/admin/{}",
        "/admin/%",
    ];
    let denying = operation("DENY", json!({"paths": ["/admin/{**}"]}));
    let except = operation("ALLOW", json!({"notPaths": ["/admin/{*}"]}));
    for target in OUTSIDE {
        check(&denying, &[(target, [D; 4])]);
        check(&except, &[(target, [D; 4])]);
    }
    // As in Envoy, the operators of a policy that permits match RFC 3986's characters, which these are
    // after they have been escaped.
    let allowing = operation("ALLOW", json!({"paths": ["/admin/{*}"]}));
    check(
        &allowing,
        &[
            ("/admin/x[0]", [D; 4]),
            ("/admin/\"", [D, A, A, A]),
            ("/admin/x", [A; 4]),
        ],
    );
    let otherwise = operation("DENY", json!({"notPaths": ["/admin/{*}"]}));
    check(&otherwise, &[("/admin/x[0]", [D; 4]), ("/admin/x", [A; 4])]);
}

#[test]
fn p14_an_escape_and_what_it_stands_for_are_one_path() {
    let policies = operation("DENY", json!({"paths": ["/a%7Cb"]}));
    check(&policies, &[("/a|b", [A, D, D, D]), ("/a%7Cb", [D; 4])]);
}

#[test]
fn p15_a_template_does_not_see_the_query() {
    let policies = operation("ALLOW", json!({"paths": ["/allow/admin/{**}"]}));
    check(
        &policies,
        &[
            ("/allow/admin?param=v", [D; 4]),
            ("/allow/admin?/x", [D; 4]),
            ("/allow/admin/?param=v", [A; 4]),
            ("/allow/admin/x?param=v", [A; 4]),
        ],
    );
}

#[test]
fn p16_a_denial_within_what_is_allowed() {
    let rule = |path: &str| json!([{"to": [{"operation": {"paths": [path]}}]}]);
    let policies = super::TestMesh::http()
        .authorize(
            "prod/deny",
            json!({"action": "DENY", "rules": rule("/allow/admin")}),
        )
        .authorize("prod/allow", json!({"rules": rule("/allow*")}))
        .policies();
    check(
        &policies,
        &[
            ("/allow/admin?p=v", [D; 4]),
            ("/allow", [A; 4]),
            ("/allow/admin/x", [A; 4]),
            ("/other", [D; 4]),
        ],
    );
}

#[test]
fn p17_the_same_by_not_paths() {
    let policies = operation("ALLOW", json!({"notPaths": ["/admin"]}));
    for cases in [P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11] {
        check(&policies, cases);
    }
}

#[test]
fn presence_is_of_any_path_and_an_inner_asterisk_is_one() {
    let any = operation("DENY", json!({"paths": ["*"]}));
    check(&any, &[("/", [D; 4]), ("/x", [D; 4])]);
    let inner = operation("DENY", json!({"paths": ["/a*b"]}));
    check(&inner, &[("/a*b", [D; 4]), ("/axb", [A; 4])]);
    let suffix = operation("DENY", json!({"paths": ["*/admin"]}));
    check(&suffix, &[("/x/admin", [D; 4]), ("/x/admin/y", [A; 4])]);
}
