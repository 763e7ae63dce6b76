//! Judges the requests of one connection, each by the policies in force at its moment.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::connections::Registration;
use super::http::{Exchange, Gate, Grant, Outcome, Rejection, RequestHead};
use super::pod::ServedPod;
use super::relay::Meter;
use super::request_report::{RequestAccount, RequestEnding};
use super::subject::Subject;
use super::verdict::{Basis, Judge, Termination};
use crate::model::PathNormalization;
use crate::policy::{Approvals, Attributes, BadPath, Denial, RequestAttributes, RequestPermit};

/// What a denied client is told, as Istio's proxies put it.
const DENIED: &[u8] = b"RBAC: access denied";

/// The gate of one connection.
pub(crate) struct RequestGate {
    pub(crate) pod: Rc<ServedPod>,
    /// The connection's number.
    pub(crate) id: u64,
    pub(crate) connection: Attributes,
    pub(crate) subject: Rc<Subject>,
    pub(crate) meter: Rc<Meter>,
}

/// A permitted request, registered for as long as it is under way.
pub(crate) struct Granted {
    pod: Rc<ServedPod>,
    id: u64,
    subject: Rc<Subject>,
    request: Rc<RequestAttributes>,
    registration: Registration,
    permit: RequestPermit,
    since: Instant,
    termination: Option<Termination>,
}

/// Why a request is not permitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestRefusal {
    /// Its path is none.
    #[error(transparent)]
    BadPath(#[from] BadPath),
    /// The pod's policies deny it.
    #[error("denied by this pod's policies: {0}")]
    Denied(Denial),
}

impl Gate for RequestGate {
    type Grant = Granted;

    async fn decide(&self, head: &mut RequestHead) -> Result<Granted, Rejection> {
        let since = Instant::now();
        let settings = self.pod.view();
        let mode = settings.snapshot.mesh_settings().path_normalization;
        let request = match attributes(head, mode) {
            Ok(request) => Rc::new(request),
            Err(bad) => {
                self.refuse(None, since, &bad.into());
                return Err(rejection(StatusCode::BAD_REQUEST, b""));
            }
        };
        let approvals = Approvals::default();
        let registration = self.pod.registry.register(
            Rc::clone(&self.subject),
            Basis::Request {
                connection: self.connection.clone(),
                request: Rc::clone(&request),
                approvals: approvals.clone(),
            },
            Rc::clone(&self.meter),
        );
        let view = self.pod.view();
        let judge = Judge::new(&view, &self.pod.workload);
        self.note(&judge, &request);
        match judge.request(&self.connection, &request, &approvals) {
            Ok(permit) => Ok(Granted {
                pod: Rc::clone(&self.pod),
                id: self.id,
                subject: Rc::clone(&self.subject),
                request,
                registration,
                permit,
                since,
                termination: None,
            }),
            Err(denial) => {
                self.refuse(Some(&request), since, &RequestRefusal::Denied(denial));
                Err(rejection(StatusCode::FORBIDDEN, DENIED))
            }
        }
    }
}

impl RequestGate {
    /// Notes what policies want noted of a request, whatever becomes of it.
    fn note(&self, judge: &Judge<'_>, request: &RequestAttributes) {
        let Ok(policies) = judge.policies() else {
            return;
        };
        for note in policies.notes_on_request(&self.connection, request) {
            self.pod.stats.noted(note.as_str());
            tracing::info!(
                target: "ambit::audit", note = note.as_str(), policy = %note.decider(),
                pod = %self.pod.workload.name, source = %self.subject.source.address,
                identity = self.subject.source.identity.as_ref().map(tracing::field::display),
                destination = %self.subject.destination.address,
                method = request.method, path = request.path, host = request.authority,
                connection = self.id, "request"
            );
        }
    }

    fn refuse(
        &self,
        request: Option<&RequestAttributes>,
        since: Instant,
        refusal: &RequestRefusal,
    ) {
        let account = RequestAccount {
            subject: &self.subject,
            connection: self.id,
            request,
            since,
        };
        account.close(&RequestEnding::Refused(refusal), &self.pod.stats);
    }
}

impl Grant for Granted {
    fn permit(&self) -> &RequestPermit {
        &self.permit
    }

    async fn revoked(&mut self) {
        self.termination = Some(self.registration.terminated().await);
    }

    fn finish(self, exchange: &Exchange) {
        let account = RequestAccount {
            subject: &self.subject,
            connection: self.id,
            request: Some(&self.request),
            since: self.since,
        };
        let ending = match (&self.termination, exchange.outcome) {
            (Some(termination), Outcome::Revoked) => {
                RequestEnding::Terminated(termination, exchange)
            }
            _ => RequestEnding::Carried(&self.permit, exchange),
        };
        account.close(&ending, &self.pod.stats);
    }
}

/// What policy knows of a request; its path is normalised in the head, too, so that the application
/// gets what policy has seen.
fn attributes(
    head: &mut RequestHead,
    mode: PathNormalization,
) -> Result<RequestAttributes, BadPath> {
    if head.target != "*" {
        head.target = mode.apply(&head.target)?;
    }
    let path = head.target.split('?').next().unwrap_or_default();
    Ok(RequestAttributes {
        method: head.method.to_string(),
        authority: head.authority.clone(),
        path: path.to_owned(),
        path_and_query: head.target.clone(),
        forwarded_for: forwarded_for(&head.headers),
        headers: head.headers.clone(),
        token: None,
    })
}

/// The last address of the last X-Forwarded-For line: the one that whoever sent the request here
/// wrote, or let stand.
fn forwarded_for(headers: &HeaderMap) -> Option<std::net::IpAddr> {
    let line = headers.get_all("x-forwarded-for").into_iter().next_back()?;
    let last = line.to_str().ok()?.rsplit(',').next()?;
    let address: std::net::IpAddr = last.trim().parse().ok()?;
    Some(address.to_canonical())
}

fn rejection(status: StatusCode, body: &'static [u8]) -> Rejection {
    let text = HeaderValue::from_static("text/plain");
    Rejection {
        status,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, text)]),
        body: Bytes::from_static(body),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::*;

    fn head(target: &str, forwarded: &[&'static str]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(line));
        }
        RequestHead {
            method: Method::GET,
            scheme: None,
            authority: "web".to_owned(),
            target: target.to_owned(),
            headers,
            version: Version::HTTP_11,
        }
    }

    #[test]
    fn the_application_gets_the_path_that_policy_sees() {
        let mut head = head("/order/../admin?x=/../y#z", &[]);
        let request = attributes(&mut head, PathNormalization::Base).expect("a path");
        assert_eq!(request.path, "/admin");
        assert_eq!(request.path_and_query, "/admin?x=/../y");
        assert_eq!(head.target, "/admin?x=/../y");
    }

    #[test]
    fn the_whole_server_has_no_path_to_normalise() {
        let mut head = head("*", &[]);
        let request = attributes(&mut head, PathNormalization::Base).expect("a target");
        assert_eq!((request.path.as_str(), head.target.as_str()), ("*", "*"));
    }

    #[test]
    fn the_client_is_the_last_that_was_forwarded_for() {
        for (lines, client) in [
            (&["10.0.0.1, 10.0.0.2"][..], Some("10.0.0.2")),
            (&["10.0.0.1", "fd00::1"], Some("fd00::1")),
            (&["::ffff:10.0.0.1"], Some("10.0.0.1")),
            (&["10.0.0.1, unknown"], None),
            (&[], None),
        ] {
            let found = forwarded_for(&head("/", lines).headers);
            assert_eq!(
                found,
                client.map(|text| text.parse().expect("valid")),
                "{lines:?}"
            );
        }
    }
}
