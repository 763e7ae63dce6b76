//! Requests to the admin socket. Whatever a client sends, the response is HTTP, or there is none.

#![no_main]

use std::sync::{Arc, LazyLock};

use ambit::admin::answer::AdminAnswer;
use ambit::admin::request::AdminRequest;
use ambit::admin::server::{AdminState, answer};
use ambit_fuzz::ensure_linear;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};

/// The only path that has an answer.
const POLICIES: &[u8] = b"/v1/policies";

/// More bytes than a request and its response have.
const BUFFER: usize = 64 << 10;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
});

struct NoPolicies;

impl AdminState for NoPolicies {
    async fn answer(&self, request: AdminRequest) -> Result<AdminAnswer, String> {
        match request {
            AdminRequest::Policies => Ok(AdminAnswer::Policies(Vec::new())),
            _ => Err("nothing else is known".to_owned()),
        }
    }
}

fuzz_target!(|request: &[u8]| {
    ensure_linear(request, ask);
    let answered = ask(request);
    assert!(answered.is_empty() || answered.starts_with(b"HTTP/1."));
    let is_served = answered.starts_with(b"HTTP/1.1 200") || answered.starts_with(b"HTTP/1.0 200");
    // An empty line may precede the request, and a host the path.
    let asks = request.windows(POLICIES.len()).any(|part| part == POLICIES);
    assert!(!is_served || asks);
});

fn ask(request: &[u8]) -> Vec<u8> {
    RUNTIME.block_on(async {
        let (mut client, server) = duplex(BUFFER);
        let serving = answer(server, Arc::new(NoPolicies));
        let asking = async {
            client.write_all(request).await?;
            client.shutdown().await?;
            let mut answered = Vec::new();
            client.read_to_end(&mut answered).await.map(|_| answered)
        };
        let (_served, answered) = tokio::join!(serving, asking);
        answered.unwrap_or_default()
    })
}
