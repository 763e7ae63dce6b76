//! Expected results of requests.

use ambit_tests::{Backend, RawCall, Site, Until};
use anyhow::{Context, Result, ensure};

/// A policy.
pub(crate) const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";

/// The expected result of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// 403, and the application sees nothing.
    Denied,
    /// The application answers, and has seen a head that begins with `METHOD TARGET HTTP/1.1`.
    Passes(&'static str),
    /// Refused with this status, and the application sees nothing.
    Refused(u16),
}

use Expected::{Denied, Passes, Refused};

/// Makes a call that takes one answer, and ensures that it is the expected one.
pub(crate) fn ensure_comes(
    site: &Site,
    backend: &Backend,
    bytes: &[u8],
    expected: Expected,
) -> Result<()> {
    let shown = String::from_utf8_lossy(bytes).escape_debug().to_string();
    let seen = backend.web.heads().len();
    let call = RawCall {
        to: backend.service.at(),
        bytes,
        until: Until::Answers(1),
    };
    let reply = call.make(site.caller.place())?;
    let name = backend.pod.name();
    let answer = reply.answers.first();
    let answer = answer.with_context(|| format!("{name}: {shown}: {reply:?}"))?;
    let heads = backend.web.heads();
    let as_expected = match expected {
        Denied => answer.is_denial() && heads.len() == seen,
        Refused(status) => answer.status == status && heads.len() == seen,
        Passes(line) => {
            let [head] = &heads[seen..] else {
                anyhow::bail!("{name}: {shown}: the application saw {:?}", &heads[seen..]);
            };
            answer.status == 200 && head.starts_with(&format!("{line} HTTP/1.1\r\n"))
        }
    };
    let seen = &heads[seen..];
    ensure!(
        as_expected,
        "{name}: {shown}: not {expected:?} but {answer:?}, and the application saw {seen:?}"
    );
    Ok(())
}

/// A request with more header lines.
pub(crate) fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: web\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    (text + "\r\n").into_bytes()
}
