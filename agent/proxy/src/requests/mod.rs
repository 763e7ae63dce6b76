//! Judges the requests of one connection, each by the policies in force when it comes: authorizers are
//! consulted first, then tokens are verified, then the evaluator decides.

mod body;
mod checks;
mod refusal;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use self::body::{BodyDemand, BodyPrefix, BodyReader};
use self::checks::{Agreed, attributes, consult, verify_tokens};
pub(crate) use self::refusal::RequestRefusal;
use crate::connection::events::{CALLERS_BYTES, EventSubject};
use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::RequestEnding;
use crate::connection::{ConnectionContext, RequestContext};
use crate::inbound::deliver_again;
use crate::limits::Slot;
use crate::limits::places::{ConnectionPlaces, OccupiedPlaces};
use crate::verdict::{Judge, Requirement, Termination};
use ambit_account::{AccountExhausted, Charge, PodAccount};
use ambit_authorizer::HeaderMutations;
use ambit_datapath::RequestStream;
use ambit_http::{
    Gate, InjectedHeaders, JudgedBody, PermittedRequest, Rejection, RequestHead, RequestOutcome,
    RequestSummary,
};
use ambit_model::PathNormalization;
use ambit_observe::text::cut;
use ambit_policy::normalise_path;
use ambit_policy::{
    BadPath, ConnectionAttributes, Consultation, MeshView, RequestAttributes, RequestPermit,
};
use ambit_relay::Party;

/// The gate of one connection.
pub(crate) struct RequestGate {
    pub(crate) connection: Rc<ConnectionContext>,
    /// The places that are occupied while a request is under way.
    pub(crate) places: ConnectionPlaces,
    /// Those of further connections to the application, held until the client's connection ends.
    pub(crate) descriptors: RefCell<Vec<Slot>>,
}

/// A permitted request, registered while it is under way.
pub(crate) struct GrantedRequest {
    context: RequestContext,
    registration: Registration,
    permit: RequestPermit,
    response_mutations: Vec<HeaderMutations>,
    injected_headers: InjectedHeaders,
    termination: Option<Termination>,
    _memory: Charge,
    _occupied: OccupiedPlaces,
}

/// What is known before authorizers are consulted.
struct ReadAhead {
    /// The view whose policies name the authorizers.
    view: Arc<MeshView>,
    consultations: Vec<Consultation>,
    /// As much of the body as they want.
    body: BodyPrefix,
}

impl Gate for RequestGate {
    type Permitted = GrantedRequest;

    async fn decide(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<GrantedRequest, Rejection> {
        let started = Instant::now();
        match self.judge(head, body, started).await {
            Ok(granted) => Ok(granted),
            Err(refusal) => {
                let request = Rc::new(attributes(head, None));
                let url = format!("http://{}{}", request.authority, request.path);
                self.context(request, started)
                    .close(&RequestEnding::Refused(&refusal));
                Err(refusal.rejection(&url))
            }
        }
    }

    fn memory(&self) -> PodAccount {
        self.connection.pod.caps.memory.clone()
    }

    fn has_closed(&self, party: Party, socket: &TcpStream) -> bool {
        self.connection.has_closed(party, socket)
    }

    fn out_of_memory(&self, exhausted: AccountExhausted) {
        let refusal = Refusal::from(exhausted);
        let pod = &self.connection.pod;
        pod.stats.refused(refusal.as_str());
        tracing::debug!(%refusal, pod = %pod.workload.name, "a request was refused");
    }

    async fn reconnect(&self) -> Option<RequestStream> {
        let (stream, descriptor) = deliver_again(&self.connection).await?;
        self.descriptors.borrow_mut().push(descriptor);
        Some(stream)
    }
}

impl RequestGate {
    async fn judge(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
        started: Instant,
    ) -> Result<GrantedRequest, RequestRefusal> {
        let pod = &self.connection.pod;
        let memory = pod.caps.memory.take(head.memory())?;
        normalise(head, pod.view().snapshot.mesh_settings().path_normalization)?;
        let connection = self.connection.attributes();
        let ReadAhead {
            view: asked_in,
            consultations,
            body,
        } = self.read_ahead(head, body, &connection).await?;
        let settings = asked_in.snapshot.mesh_settings();
        let judge = Judge::new(&asked_in, &pod.workload);
        let policies = judge.policies().map_err(RequestRefusal::Denied)?;
        let Agreed {
            approvals,
            response_mutations,
            mut injected_headers,
        } = consult(&self.connection, settings, consultations, head, &body).await?;
        let verified =
            verify_tokens(&self.connection, policies, head, &mut injected_headers).await?;
        let request = Rc::new(attributes(head, verified.as_ref()));
        let registration = pod.registry.register(
            Rc::clone(&self.connection),
            Requirement::Request {
                connection: connection.clone(),
                request: Rc::clone(&request),
                approvals: approvals.clone(),
            },
        );
        // The view of a later moment, since authorizers and issuers took their time. An authorizer that only
        // these policies name has not agreed, and a token that only they would verify does not count.
        let view = pod.view();
        let judge = Judge::new(&view, &pod.workload);
        self.note(&judge, &connection, &request);
        let permit = judge
            .request(&connection, &request, &approvals)
            .map_err(RequestRefusal::Denied)?;
        Ok(GrantedRequest {
            context: self.context(request, started),
            registration,
            permit,
            response_mutations,
            injected_headers,
            termination: None,
            _memory: memory,
            _occupied: self.places.occupy(),
        })
    }

    /// Finds the authorizers to consult, and reads as much of the body as they want. Policies may change
    /// while the body comes, and then others may want more.
    async fn read_ahead(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
        connection: &ConnectionAttributes,
    ) -> Result<ReadAhead, RequestRefusal> {
        let pod = &self.connection.pod;
        let mut reader = BodyReader::new(&pod.caps.memory, pod.limits.body_timeout);
        loop {
            let view = pod.view();
            let judge = Judge::new(&view, &pod.workload);
            let policies = judge.policies().map_err(RequestRefusal::Denied)?;
            let consultations =
                policies.consultations_on_request(connection, &attributes(head, None));
            match BodyDemand::of(view.snapshot.mesh_settings(), &consultations) {
                Some(demand) if !reader.has(demand) => reader.read(demand, head, body).await?,
                Some(_) | None => {
                    return Ok(ReadAhead {
                        view,
                        consultations,
                        body: reader.finish(body),
                    });
                }
            }
        }
    }

    fn context(&self, attributes: Rc<RequestAttributes>, started: Instant) -> RequestContext {
        RequestContext {
            connection: Rc::clone(&self.connection),
            attributes,
            started,
        }
    }

    /// Notes what policies want noted about a request, whatever the verdict on it will be.
    fn note(
        &self,
        judge: &Judge<'_>,
        connection: &ConnectionAttributes,
        request: &RequestAttributes,
    ) {
        let Ok(policies) = judge.policies() else {
            return;
        };
        let ConnectionContext {
            pod,
            source,
            destination,
            number,
            ..
        } = &*self.connection;
        for note in policies.notes_on_request(connection, request) {
            EventSubject::request(&self.connection, request).noted(pod, &note);
            tracing::info!(
                target: "ambit::audit", note = note.as_str(), policy = %note.decider(),
                pod = %pod.workload.name, source = %source.address,
                identity = source.identity.as_ref().map(tracing::field::display),
                destination = %destination.address,
                method = &*cut(&request.method, CALLERS_BYTES),
                path = &*cut(&request.path, CALLERS_BYTES),
                host = &*cut(&request.authority, CALLERS_BYTES),
                connection = number.get(), "request"
            );
        }
    }
}

impl PermittedRequest for GrantedRequest {
    fn permit(&self) -> &RequestPermit {
        &self.permit
    }

    fn response_mutations(&mut self) -> Vec<HeaderMutations> {
        std::mem::take(&mut self.response_mutations)
    }

    fn injected_headers(&mut self) -> InjectedHeaders {
        std::mem::take(&mut self.injected_headers)
    }

    async fn revoked(&mut self) {
        self.termination = Some(self.registration.terminated().await);
    }

    fn finish(self, exchange: &RequestSummary) {
        let ending = match (&self.termination, exchange.outcome) {
            (Some(termination), RequestOutcome::Revoked) => {
                RequestEnding::Terminated(termination, exchange)
            }
            _ => RequestEnding::Carried(&self.permit, exchange),
        };
        self.context.close(&ending);
    }
}

/// Normalises the path, so that the application gets what policy sees. `*` (of OPTIONS) is not a path.
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
