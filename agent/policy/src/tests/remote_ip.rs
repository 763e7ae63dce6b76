//! `remoteIpBlocks` and `notRemoteIpBlocks`: which clients X-Forwarded-For lets in (case T-11 of the
//! manual).

use serde_json::{Value, json};

use super::TestCaller::Plaintext;
use super::TestMesh;

/// A block with the caller's own address, and one without it.
const OWN: &str = "10.9.0.0/16";
const OTHER: &str = "203.0.113.0/24";

/// Whether a request from 10.9.0.1 with an X-Forwarded-For is allowed.
fn admits(action: &str, source: &Value, forwarded: Option<&str>) -> bool {
    let rule = json!({"from": [{"source": source}]});
    let spec = json!({"action": action, "rules": [rule]});
    let policies = TestMesh::http().authorize("prod/policy", spec).policies();
    let mut request = super::request("GET", "/");
    request.forwarded_for = forwarded.map(|text| text.parse().expect("valid"));
    policies.admits_request(Plaintext, &request)
}

/// Each row has the only list, and whether a request is allowed without the header, and with a client in
/// each of the two blocks.
#[test]
fn t11_a_list_to_let_in_believes_the_header_and_a_list_to_keep_out_does_not() {
    for (action, field, block, expected) in [
        ("ALLOW", "remoteIpBlocks", OWN, [true, true, false]),
        ("ALLOW", "remoteIpBlocks", OTHER, [false, false, true]),
        ("DENY", "notRemoteIpBlocks", OWN, [true, true, false]),
        ("DENY", "notRemoteIpBlocks", OTHER, [false, false, true]),
        ("DENY", "remoteIpBlocks", OWN, [false, false, false]),
        ("DENY", "remoteIpBlocks", OTHER, [true, true, false]),
        ("ALLOW", "notRemoteIpBlocks", OWN, [false, false, false]),
        ("ALLOW", "notRemoteIpBlocks", OTHER, [true, true, false]),
    ] {
        let forwarded = [None, Some("10.9.7.7"), Some("203.0.113.7")];
        let found = forwarded.map(|one| admits(action, &json!({field: [block]}), one));
        assert_eq!(found, expected, "{action} {field} {block}");
    }
}

#[test]
fn an_exception_is_about_the_same_address_as_its_list() {
    let with = |exception: &str| json!({"remoteIpBlocks": [OWN], "notRemoteIpBlocks": [exception]});
    // The caller is excepted, and the client is not on the list.
    assert!(admits("DENY", &with("10.9.0.1"), Some("203.0.113.7")));
    assert!(!admits("DENY", &with("10.9.0.1"), Some("10.9.7.7")));
    // The caller is not excepted, whatever it writes.
    assert!(!admits("DENY", &with("10.9.7.7"), Some("10.9.7.7")));
    assert!(!admits("DENY", &with("10.9.7.7"), Some("203.0.113.7")));
    assert!(admits("ALLOW", &with("10.9.7.7"), Some("10.9.8.8")));
    assert!(!admits("ALLOW", &with("10.9.7.7"), Some("10.9.7.7")));
    assert!(!admits("ALLOW", &with("10.9.0.1"), Some("10.9.8.8")));
}

#[test]
fn an_address_of_ipv4_in_ipv6_is_the_same() {
    let block = json!({"notRemoteIpBlocks": [OTHER]});
    let mapped = Some("::ffff:203.0.113.7");
    assert!(!admits("ALLOW", &block, mapped));
    assert!(admits("DENY", &block, mapped));
}
