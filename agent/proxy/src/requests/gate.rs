//! Judges the requests of one connection, each by the policies in force at its moment.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::body::{BodyDemand, BodyPrefix, BodyReader};
use super::checks::{Agreed, attributes, consult, verify_tokens};
use super::refusal::RequestRefusal;
use super::report::{RequestAccount, RequestEnding};
use crate::connection::Subject;
use crate::connection::events::{CALLERS_BYTES, Matter};
use crate::connection::registry::Registration;
use crate::ends::Ends;
use crate::limits::places::{ConnectionPlaces, OccupiedPlaces};
use crate::shard::pod::ServedPod;
use crate::verdict::{Judge, Requirement, Termination};
use ambit_authorizer::HeaderMutations;
use ambit_datapath::DeliveryCaller;
use ambit_http::{Exchange, Gate, Grant, JudgedBody, Outcome, OutputNames, Rejection, RequestHead};
use ambit_model::PathNormalization;
use ambit_observe::text::cut;
use ambit_policy::normalise_path;
use ambit_policy::{Attributes, BadPath, Consultation, MeshView, RequestAttributes, RequestPermit};
use ambit_relay::Meter;

/// The gate of one connection.
pub(crate) struct RequestGate {
    pub(crate) pod: Rc<ServedPod>,
    /// The connection's number.
    pub(crate) id: u64,
    pub(crate) caller: DeliveryCaller,
    pub(crate) to: SocketAddr,
    pub(crate) subject: Rc<Subject>,
    pub(crate) meter: Rc<Meter>,
    /// What is used while a request is under way.
    pub(crate) places: ConnectionPlaces,
}

/// A permitted request, registered for as long as it is under way.
pub(crate) struct Granted {
    pod: Rc<ServedPod>,
    id: u64,
    subject: Rc<Subject>,
    request: Rc<RequestAttributes>,
    registration: Registration,
    permit: RequestPermit,
    amendments: Vec<HeaderMutations>,
    outputs: OutputNames,
    since: Instant,
    termination: Option<Termination>,
    _in_use: OccupiedPlaces,
}

impl Gate for RequestGate {
    type Grant = Granted;

    async fn decide(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<Granted, Rejection> {
        let since = Instant::now();
        match self.judge(head, body, since).await {
            Ok(granted) => Ok(granted),
            Err(refusal) => {
                let request = attributes(head, None);
                self.report(&request, since, &RequestEnding::Refused(&refusal));
                let url = format!("http://{}{}", request.authority, request.path);
                Err(refusal.rejection(&url))
            }
        }
    }
}

impl RequestGate {
    /// Who calls whom.
    pub(crate) fn ends(&self) -> Ends<'_> {
        Ends {
            caller: &self.caller,
            to: self.to,
        }
    }

    /// What policy knows of the connection.
    pub(crate) fn connection(&self) -> Attributes {
        self.ends().attributes()
    }

    async fn judge(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
        since: Instant,
    ) -> Result<Granted, RequestRefusal> {
        normalise(
            head,
            self.pod.view().snapshot.mesh_settings().path_normalization,
        )?;
        let connection = self.connection();
        let (asked_in, asked, body) = self.read_ahead(head, body, &connection).await?;
        let settings = asked_in.snapshot.mesh_settings();
        let judge = Judge::new(&asked_in, &self.pod.workload);
        let policies = judge.policies().map_err(RequestRefusal::Denied)?;
        let agreed = consult(&self.pod, settings, asked, self.ends(), (head, &body)).await?;
        let Agreed {
            approvals,
            amendments,
            mut outputs,
        } = agreed;
        let port = self.to.port();
        let verified = verify_tokens(&self.pod, policies, port, (head, &mut outputs)).await?;
        let request = Rc::new(attributes(head, verified.as_ref()));
        let registration = self.pod.registry.register(
            Rc::clone(&self.subject),
            Requirement::Request {
                connection: connection.clone(),
                request: Rc::clone(&request),
                approvals: approvals.clone(),
            },
            Rc::clone(&self.meter),
        );
        // Of another moment, since others were asked meanwhile. Whom only these policies would have
        // had asked has not agreed, and a token that only they would have had verified is none.
        let view = self.pod.view();
        let judge = Judge::new(&view, &self.pod.workload);
        self.note(&judge, &connection, &request);
        let permit = judge
            .request(&connection, &request, &approvals)
            .map_err(RequestRefusal::Denied)?;
        Ok(Granted {
            pod: Rc::clone(&self.pod),
            id: self.id,
            subject: Rc::clone(&self.subject),
            request,
            registration,
            permit,
            amendments,
            outputs,
            since,
            termination: None,
            _in_use: self.places.occupy(),
        })
    }

    /// Who is to be asked, by policies of which moment, and as much of the body as they want. Those
    /// may change while it comes.
    async fn read_ahead(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
        connection: &Attributes,
    ) -> Result<(Arc<MeshView>, Vec<Consultation>, BodyPrefix), RequestRefusal> {
        let mut ahead = BodyReader::new(&self.pod.caps, self.pod.limits.body_timeout);
        loop {
            let view = self.pod.view();
            let judge = Judge::new(&view, &self.pod.workload);
            let policies = judge.policies().map_err(RequestRefusal::Denied)?;
            let asked = policies.consultations_on_request(connection, &attributes(head, None));
            match BodyDemand::by(view.snapshot.mesh_settings(), &asked) {
                Some(wanted) if !ahead.has(wanted) => ahead.read(wanted, head, body).await?,
                Some(_) | None => return Ok((view, asked, ahead.finish(body))),
            }
        }
    }

    fn report(&self, request: &RequestAttributes, since: Instant, ending: &RequestEnding<'_>) {
        let account = RequestAccount {
            subject: &self.subject,
            connection: self.id,
            request,
            since,
        };
        account.close(ending, &self.pod);
    }

    /// Notes what policies want noted of a request, whatever becomes of it.
    fn note(&self, judge: &Judge<'_>, connection: &Attributes, request: &RequestAttributes) {
        let Ok(policies) = judge.policies() else {
            return;
        };
        for note in policies.notes_on_request(connection, request) {
            Matter::between(self.ends())
                .request(request)
                .noted(&self.pod, &note);
            tracing::info!(
                target: "ambit::audit", note = note.as_str(), policy = %note.decider(),
                pod = %self.pod.workload.name, source = %self.subject.source.address,
                identity = self.subject.source.identity.as_ref().map(tracing::field::display),
                destination = %self.subject.destination.address,
                method = &*cut(&request.method, CALLERS_BYTES),
                path = &*cut(&request.path, CALLERS_BYTES),
                host = &*cut(&request.authority, CALLERS_BYTES),
                connection = self.id, "request"
            );
        }
    }
}

impl Grant for Granted {
    fn permit(&self) -> &RequestPermit {
        &self.permit
    }

    fn amendments(&mut self) -> Vec<HeaderMutations> {
        std::mem::take(&mut self.amendments)
    }

    fn outputs(&mut self) -> OutputNames {
        std::mem::take(&mut self.outputs)
    }

    async fn revoked(&mut self) {
        self.termination = Some(self.registration.terminated().await);
    }

    fn finish(self, exchange: &Exchange) {
        let account = RequestAccount {
            subject: &self.subject,
            connection: self.id,
            request: &self.request,
            since: self.since,
        };
        let ending = match (&self.termination, exchange.outcome) {
            (Some(termination), Outcome::Revoked) => {
                RequestEnding::Terminated(termination, exchange)
            }
            _ => RequestEnding::Carried(&self.permit, exchange),
        };
        account.close(&ending, &self.pod);
    }
}

/// Normalises the path, so that the application gets what policy sees. `*` is no path.
fn normalise(head: &mut RequestHead, mode: PathNormalization) -> Result<(), BadPath> {
    if head.target != "*" {
        head.target = normalise_path(mode, &head.target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::*;

    fn head(target: &str) -> RequestHead {
        RequestHead {
            method: Method::GET,
            scheme: None,
            authority: "web".to_owned(),
            target: target.to_owned(),
            headers: http::HeaderMap::new(),
            version: Version::HTTP_11,
        }
    }

    #[test]
    fn the_application_gets_the_path_that_policy_sees() {
        let mut head = head("/order/../admin?x=/../y#z");
        normalise(&mut head, PathNormalization::Base).expect("a path");
        let request = attributes(&head, None);
        assert_eq!(request.path, "/admin");
        assert_eq!(request.path_and_query, "/admin?x=/../y");
        assert_eq!(head.target, "/admin?x=/../y");
    }

    #[test]
    fn the_whole_server_has_no_path_to_normalise() {
        let mut head = head("*");
        normalise(&mut head, PathNormalization::Base).expect("a target");
        assert_eq!(attributes(&head, None).path, "*");
        assert_eq!(head.target, "*");
    }
}
