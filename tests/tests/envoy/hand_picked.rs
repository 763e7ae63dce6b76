//! Policies that bugs and attacks are known of, and requests that try them.

use serde_json::{Value, json};

use crate::case::{Case, MODES};
use crate::listener::PORT;
use crate::peer::PEERS;
use crate::request::{Request, get};

/// Targets, as clients write them.
pub(crate) const TARGETS: [&str; 68] = [
    "/",
    "/admin",
    "/admin/",
    "/Admin",
    "/admin?x=1",
    "/admin?",
    "/admin?/../x",
    "/admin#frag",
    "/admin?x#frag",
    "/x#/../admin",
    "/admin%23frag",
    "//admin",
    "///admin//",
    "/%2fadmin",
    "/%2Fadmin",
    "/%5cadmin",
    "/\\admin",
    "/x/../admin",
    "/./admin",
    "/../admin",
    "/x/%2e%2e/admin",
    "/x/.%2E/admin",
    "/x/..\\admin",
    "/x/..%2fadmin",
    "/x/%2e%2e%5Cadmin",
    "/x//../admin",
    "/%61dmin",
    "/adm%69n",
    "/%2561dmin",
    "/%252e%252e/admin",
    "/x/%2%65%2%65/admin",
    "/%%36%31dmin",
    "/%2%66admin",
    "/%",
    "/%6",
    "/%zz/admin",
    "/admin;a=b",
    "/..;/admin",
    "/x/..;a=b/admin",
    "/x/.;/admin",
    "/admin/x/..;",
    "/x/..;\\y/admin",
    "/x/..;%2fadmin",
    "/x/..%3b/admin",
    "/;/admin",
    "/%c0%ae%c0%ae/admin",
    "/%C3%A4",
    "/public",
    "/public/../private",
    "/public/%2E%2E/private",
    "/public/%2e/%2e%2e/private",
    "/public/../public",
    "/public/..",
    "/admin/x",
    "/admin/x/y",
    "/admin/x?y",
    "/admin/a*b",
    "/admin/a%2ab",
    "/admin/\"",
    "/admin/%22",
    "/admin/a|b",
    "/admin/%7C",
    "/admin/{*}",
    "/admin/<^`>",
    "/admin//cart",
    "/admin/x/cart",
    "/admin/cart",
    "/a+b!$&'()*,;=:@~",
];

/// Values of `paths`.
pub(crate) const PATHS: [&str; 17] = [
    "/admin",
    "/admin*",
    "*/admin",
    "*",
    "/a*n",
    "/public*",
    "/private",
    "/admin/{*}",
    "/admin/{**}",
    "/{*}/x",
    "/{**}",
    "/admin/{**}/cart",
    "/{*}",
    "/x/%252e%252e/admin",
    "/admin/%22",
    "/admin/",
    "/",
];

pub(crate) const HOSTS: [&str; 12] = [
    "web",
    "WEB",
    "web:8080",
    "web:",
    "a.web",
    "secret.com",
    "Secret.COM",
    "secret.com:8080",
    "x.secret.com",
    "secret.com.au",
    "[::1]",
    "[::1]:80",
];

pub(crate) const HOST_VALUES: [&str; 9] = [
    "secret.com",
    "SECRET.com",
    "secret.com:*",
    "*.secret.com",
    "web*",
    "*",
    "*:8080",
    "[::1]",
    "w*b",
];

pub(crate) const METHODS: [&str; 7] = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"];

pub(crate) const METHOD_VALUES: [&str; 7] = ["GET", "P*", "*T", "*", "get", "DELETE", "G*T"];

/// Values of a header, none of which has white space around it.
pub(crate) const ROLES: [&str; 8] = [
    "user",
    "admin",
    "Admin",
    "user,admin",
    "",
    "bar",
    "abar",
    "bara",
];

pub(crate) const ROLE_VALUES: [&str; 6] = ["user", "admin", "*", "ba*", "*bar", "user,*"];

/// Values of each field of a source.
pub(crate) const SOURCES: [(&str, &[&str]); 7] = [
    (
        "principals",
        &[
            "*",
            "cluster.local/ns/prod/sa/a",
            "cluster.local/ns/test/sa/*",
            "*/ns/prod/sa/a",
            "*/sa/b",
            "*admin.example",
            "other/ns/prod/sa/a",
            "cluster.local/*",
            "spiffe://cluster.local/ns/prod/sa/a",
        ],
    ),
    (
        "namespaces",
        &["prod", "test", "*", "prod*", "*-b", "t.st", "a.b", "none"],
    ),
    (
        "serviceAccounts",
        &["prod/a", "a", "test/b", "a.b/admin.example", "tXst/a"],
    ),
    (
        "trustDomains",
        &["cluster.local", "other", "*", "*.local", "oth*", "cluster"],
    ),
    (
        "ipBlocks",
        &[
            "127.0.0.2",
            "127.0.0.0/29",
            "127.0.0.9/8",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
        ],
    ),
    (
        "remoteIpBlocks",
        &["127.0.0.2", "127.0.0.0/29", "10.0.0.0/8", "0.0.0.0/0"],
    ),
    (
        "requestPrincipals",
        &[
            "*",
            "iss/sub-1",
            "iss/*",
            "iss/sub*",
            "is*",
            "*1",
            "*/sub-1",
            "*s/sub-1",
            "iss",
            "https://iss.example/a/sub-1",
            "https://iss.example/*",
        ],
    ),
];

/// Payloads of verified tokens.
pub(crate) fn tokens() -> Vec<Value> {
    vec![
        json!({"iss": "iss", "sub": "sub-1", "aud": "foo"}),
        json!({"iss": "iss", "sub": "sub-2", "aud": ["foo", "buzz"], "azp": "me"}),
        json!({"iss": "iss", "aud": []}),
        json!({"iss": "https://iss.example/a", "sub": "sub-1", "aud": {"foo": "foo"}}),
        json!({"iss": "https://iss.example", "sub": "a/sub-1", "scope": "write read"}),
        json!({"iss": "other", "sub": "x", "scope": ["write"], "level": 5, "admin": true}),
        json!({"iss": "iss", "sub": "sub-1", "permission": "read write", "empty": ""}),
        json!({"iss": "iss", "sub": "sub-1", "nested": {"inner": {"key": "value"}, "list": ["a", 1, "value"]}}),
        json!({"iss": "iss", "sub": "sub-1", "nested": {"inner": "value"}}),
    ]
}

/// Claims, each with values.
pub(crate) const CLAIMS: [(&str, &[&str]); 9] = [
    ("request.auth.audiences", &["foo", "*", "b*"]),
    ("request.auth.presenter", &["me", "*"]),
    ("request.auth.principal", &["iss/sub-1", "*"]),
    ("request.auth.claims[scope]", &["write", "write read", "*"]),
    ("request.auth.claims[permission]", &["write", "admin"]),
    ("request.auth.claims[level]", &["5", "*"]),
    ("request.auth.claims[empty]", &["*"]),
    ("request.auth.claims[nested][inner][key]", &["value", "*"]),
    ("request.auth.claims[nested][list]", &["value", "*", "1"]),
];

/// A policy of one rule.
fn policy(action: &str, rule: &Value) -> Value {
    json!({"action": action, "rules": [rule]})
}

/// A policy on each value of a field alone, by itself and by its twin, for each action.
fn each(values: &[&str], rule: impl Fn(&str, bool) -> Value) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for value in values {
        for is_negative in [false, true] {
            for action in ["ALLOW", "DENY"] {
                all.push(vec![policy(action, &rule(value, is_negative))]);
            }
        }
    }
    all
}

fn twin(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("not{}{rest}", first.to_uppercase())
}

fn of_operation(field: &str, value: &str, is_negative: bool) -> Value {
    let field = if is_negative {
        twin(field)
    } else {
        field.to_owned()
    };
    json!({"to": [{"operation": {field: [value]}}]})
}

fn of_source(field: &str, value: &str, is_negative: bool) -> Value {
    let field = if is_negative {
        twin(field)
    } else {
        field.to_owned()
    };
    json!({"from": [{"source": {field: [value]}}]})
}

fn when(key: &str, value: &str, is_negative: bool) -> Value {
    let field = if is_negative { "notValues" } else { "values" };
    json!({"when": [{"key": key, field: [value]}]})
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let base = MODES[1];
    let case = |mode, requests: &[Request]| {
        let requests = requests.to_vec();
        move |policies| Case::undisputed(policies, mode, requests.clone())
    };
    let targets: Vec<_> = TARGETS.iter().map(|target| get(target)).collect();
    let mut all = Vec::new();
    for mode in MODES {
        let by_path = each(&PATHS, |value, is| of_operation("paths", value, is));
        all.extend(by_path.into_iter().map(case(mode, &targets)));
        let by_header = each(&["/admin", "/admin?x=1", "*admin"], |value, is| {
            when("request.headers[:path]", value, is)
        });
        all.extend(by_header.into_iter().map(case(mode, &targets)));
    }
    let hosts: Vec<_> = HOSTS.iter().map(|host| get("/").host(host)).collect();
    let by_host = each(&HOST_VALUES, |value, is| of_operation("hosts", value, is));
    all.extend(by_host.into_iter().map(case(base, &hosts)));
    for key in ["host", ":authority"] {
        let by_header = each(&["secret.com", "*"], |value, is| {
            when(&format!("request.headers[{key}]"), value, is)
        });
        all.extend(by_header.into_iter().map(case(base, &hosts)));
    }
    let methods: Vec<_> = METHODS
        .iter()
        .map(|method| get("/").method(method))
        .collect();
    let by_method = each(&METHOD_VALUES, |value, is| {
        of_operation("methods", value, is)
    });
    all.extend(by_method.into_iter().map(case(base, &methods)));
    let by_role = each(&ROLE_VALUES, |value, is| {
        when("request.headers[X-Role]", value, is)
    });
    all.extend(by_role.into_iter().map(case(base, &roles())));
    for (field, values) in SOURCES {
        let by_source = each(values, |value, is| of_source(field, value, is));
        all.extend(by_source.into_iter().map(case(base, &everybody())));
    }
    for (key, values) in CLAIMS {
        let by_claim = each(values, |value, is| when(key, value, is));
        all.extend(by_claim.into_iter().map(case(base, &everybody())));
    }
    let ports = [PORT.to_string(), "80".to_owned()];
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let by_port = each(&ports, |value, is| of_operation("ports", value, is));
    all.extend(by_port.into_iter().map(case(base, &everybody())));
    let by_destination = each(&["127.0.0.0/8", "10.0.0.0/8"], |value, is| {
        when("destination.ip", value, is)
    });
    all.extend(by_destination.into_iter().map(case(base, &everybody())));
    all.extend(sets().into_iter().map(case(base, &everybody())));
    all
}

/// Lines of `x-role`, of which Ambit and Envoy think alike: none, one, two that are equal.
fn roles() -> Vec<Request> {
    let one = ROLES.map(|role| get("/").header("x-role", role));
    let others = [
        get("/"),
        get("/").header("X-ROLE", "  admin  "),
        get("/").header("x_role", "admin"),
        get("/").header("x-roles", "admin"),
        get("/").header("x-role", "bar").header("x-role", "bar"),
        get("/").header(
            "x-forwarded-client-cert",
            "URI=spiffe://cluster.local/ns/prod/sa/a",
        ),
    ];
    one.into_iter().chain(others).collect()
}

/// A request of each peer from each of two addresses, and one with each token.
fn everybody() -> Vec<Request> {
    let peers = PEERS
        .into_iter()
        .flat_map(|peer| [2, 9].map(|last| get("/").from(peer).at(last)));
    let tokens = tokens().into_iter().map(|token| get("/").token(token));
    peers.chain(tokens).collect()
}

/// Sets of policies whose parts have to be put together rightly.
fn sets() -> Vec<Vec<Value>> {
    let source = |source: Value| json!({"source": source});
    let namespace = |name: &str| source(json!({"namespaces": [name]}));
    let account = |name: &str| source(json!({"serviceAccounts": [name]}));
    vec![
        vec![],
        vec![json!({})],
        vec![json!({"rules": []})],
        vec![json!({"rules": [{}]})],
        vec![json!({"action": "DENY", "rules": [{}]})],
        vec![json!({"rules": [{}]}), json!({})],
        vec![
            policy("ALLOW", &json!({"from": [namespace("prod")]})),
            policy("DENY", &json!({"from": [account("prod/b")]})),
        ],
        vec![policy(
            "ALLOW",
            &json!({"from": [namespace("prod"), account("test/b")]}),
        )],
        vec![policy(
            "ALLOW",
            &json!({"from": [source(json!({"namespaces": ["*"], "notNamespaces": ["prod"]}))]}),
        )],
        vec![policy(
            "ALLOW",
            &json!({
                "from": [source(json!({"principals": ["*"], "ipBlocks": ["127.0.0.2"]}))],
                "when": [
                    {"key": "source.namespace", "values": ["prod", "test"]},
                    {"key": "source.namespace", "notValues": ["test"]},
                ],
            }),
        )],
        vec![policy(
            "DENY",
            &json!({"from": [
                source(json!({"notPrincipals": ["*"]})),
                source(json!({"notIpBlocks": ["127.0.0.0/29"], "namespaces": ["test"]})),
            ]}),
        )],
        vec![policy(
            "ALLOW",
            &json!({
                "from": [namespace("prod"), namespace("test")],
                "to": [{"operation": {"methods": ["POST"]}}, {"operation": {"ports": [PORT.to_string()], "methods": ["GET"]}}],
            }),
        )],
        vec![policy(
            "ALLOW",
            &json!({
                "from": [source(json!({"requestPrincipals": ["iss/*"], "notRequestPrincipals": ["*/sub-1"]}))],
            }),
        )],
        vec![policy(
            "DENY",
            &json!({"from": [source(json!({"notRequestPrincipals": ["*"]}))]}),
        )],
    ]
}
