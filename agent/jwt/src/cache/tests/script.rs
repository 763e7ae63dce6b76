//! A fetcher with scripted answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;

use crate::{Fetch, FetchError, FetchTurn};
use ambit_policy::HttpUrl;

/// Paths that begin with this hang, whatever the answer is.
pub(super) const HANGS: &str = "/hangs/";

/// The result of a fetch.
#[derive(Clone)]
pub(super) enum Answer {
    /// A key with this `kid`.
    Key(&'static str),
    /// A key with this `kid`, after a while.
    Late(&'static str, Duration),
    /// 503.
    Fails,
    Hangs,
}

pub(super) struct Script {
    answer: Mutex<Answer>,
    /// The paths of the fetches that have begun.
    begun: Mutex<Vec<String>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Script {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            answer: Mutex::new(answer),
            begun: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
        }
    }

    pub(super) fn now_answers(&self, answer: Answer) {
        *self.answer.lock().expect("no panic") = answer;
    }

    /// The number of fetches that have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.lock().expect("no panic").len()
    }

    /// The number of fetches of a path that have begun.
    pub(super) fn begun_at(&self, path: &str) -> usize {
        let begun = self.begun.lock().expect("no panic");
        begun.iter().filter(|begun| *begun == path).count()
    }

    /// The most fetches that have run at a time.
    pub(super) fn most_running(&self) -> usize {
        self.most_running.load(Ordering::SeqCst)
    }

    async fn answer(&self, url: &HttpUrl) -> Result<Bytes, FetchError> {
        let path = url.path_and_query().to_owned();
        let hangs = path.starts_with(HANGS);
        self.begun.lock().expect("no panic").push(path);
        let answer = self.answer.lock().expect("no panic").clone();
        match answer {
            _ if hangs => std::future::pending().await,
            Answer::Key(id) => Ok(jwks(id)),
            Answer::Late(id, delay) => {
                tokio::time::sleep(delay).await;
                Ok(jwks(id))
            }
            Answer::Fails => Err(FetchError::Status(StatusCode::SERVICE_UNAVAILABLE)),
            Answer::Hangs => std::future::pending().await,
        }
    }
}

impl Fetch for Script {
    fn fetch<'a>(
        &'a self,
        url: &'a HttpUrl,
        _: &'a FetchTurn,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        struct Running<'a>(&'a AtomicUsize);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        Box::pin(async {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            let _running = Running(&self.running);
            self.most_running.fetch_max(running, Ordering::SeqCst);
            self.answer(url).await
        })
    }
}

/// A set of one key.
pub(super) fn jwks(id: &str) -> Bytes {
    let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{id}", "x": "{key}"}}]}}"#)
        .into()
}
