mod http;
mod refresh;
mod script;

use crate::testing;
use ambit_policy::{HttpUrl, JwtRule, KeySource, KeyUrl};

fn published_at(url: &str) -> JwtRule {
    let url = HttpUrl::parse(url).expect("a URL");
    JwtRule {
        keys: KeySource::Published(KeyUrl::Keys(url)),
        ..testing::rule("issuer")
    }
}
