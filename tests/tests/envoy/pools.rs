//! The parts of policies and requests.

use serde_json::{Value, json};

/// Targets, as clients write them.
pub(crate) const TARGETS: [&str; 71] = [
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
    "/admin;",
    "/admin;a=b/x",
    "/x;a/admin",
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

/// Values of a header, without white space around them.
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

/// Those of [`SOURCES`] that are about connections.
pub(crate) const CONNECTION_SOURCES: [(&str, &[&str]); 6] = {
    let [connections @ .., _tokens] = SOURCES;
    connections
};

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
            "*/*",
            "is*/sub-1",
            "iss/*-1",
            "*s/sub*",
            "is*/*",
            "iss/",
            "https://iss.example*/sub-1",
        ],
    ),
];

/// Payloads of verified tokens.
pub(crate) fn tokens() -> Vec<Value> {
    vec![
        json!({"iss": "iss", "sub": ""}),
        json!({"iss": "is*", "sub": "sub-1"}),
        json!({"iss": "iss", "sub": "*"}),
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
