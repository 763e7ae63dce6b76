//! The explanation for one endpoint.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_common::Reason;

use super::explanation::{
    AccessVerdict, AuthenticationMode, Cause, CriterionText, DecidedBy, ExplainedRequest,
    Explanation, PortAuthentication, RuleName, RuleText,
};
use super::names::{ResolvedCaller, no_address};
use super::question::QuestionError;
use super::ruling::{CaseVerdict, DescribedRule, ExplainedCase, Ruling};
use crate::MeshView;
use crate::authorization::{Action, Knowledge};
use crate::decision::{ConnectionAttributes, Decider, Denial};
use crate::index::{Level, PolicyIndex};
use crate::notes::Note;
use crate::peer_authentication::MtlsMode;
use crate::request::RequestAttributes;
use crate::request_authentication::{JwtRule, TokenPresence};
use crate::workload_policies::WorkloadPolicies;
use ambit_model::{Membership, PodEndpoint, PolicyKind, Workload};

/// A question whose names have been resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResolvedQuestion<'a> {
    pub(super) view: &'a MeshView,
    pub(super) caller: &'a ResolvedCaller,
    pub(super) request: Option<&'a RequestAttributes>,
    pub(super) shown: Option<&'a ExplainedRequest>,
}

impl ResolvedQuestion<'_> {
    /// The explanation for an endpoint.
    pub(super) fn of(&self, target: &PodEndpoint) -> Result<Explanation, QuestionError> {
        if let Some(reason) = not_enrolled(&target.workload) {
            return Ok(nothing_enforced(reason));
        }
        let destination = target.address;
        let source = self.caller.address(destination.ip())?;
        let connection = ConnectionAttributes {
            identity: self.caller.identity().cloned(),
            source: source.unwrap_or_else(|| no_address(destination.ip())),
            destination,
        };
        let settings = self.view.snapshot.mesh_settings();
        let providers: BTreeSet<Arc<str>> = settings.extension_providers.keys().cloned().collect();
        let case = ExplainedCase {
            connection: &connection,
            request: self.request,
            providers: &providers,
        };
        let policies = self.view.policies.for_workload(&target.workload);
        Ok(self.explanation(&policies, &case, &target.workload))
    }

    fn explanation(
        &self,
        policies: &WorkloadPolicies,
        case: &ExplainedCase<'_>,
        workload: &Workload,
    ) -> Explanation {
        let ruling = policies.rule_on(case);
        let cause = self.cause(policies, case, &ruling);
        let nearest = match &cause {
            Cause::NoAllowMatched { .. } => policies.nearest(case),
            _ => None,
        };
        let undecided = match ruling.outcome {
            CaseVerdict::OnRequest => policies.undecided(case),
            CaseVerdict::Allowed(_) | CaseVerdict::Denied(_) | CaseVerdict::OnAuthorizer(_) => {
                Vec::new()
            }
        };
        let decider = match &ruling.outcome {
            CaseVerdict::Allowed(decider) => decider.as_ref(),
            CaseVerdict::Denied(denial) => denial.decider.as_ref(),
            CaseVerdict::OnAuthorizer(consultation) => Some(&consultation.decider),
            CaseVerdict::OnRequest => None,
        };
        Explanation {
            verdict: verdict(&ruling.outcome),
            decided: ruling.decided,
            cause,
            matched: decider.map_or_else(Vec::new, |decider| {
                self.criteria(policies.matched(case, decider))
            }),
            nearest: nearest.map(|rule| self.rule_text(rule)),
            undecided: undecided
                .into_iter()
                .map(|rule| self.rule_text(rule))
                .collect(),
            authentication: Some(self.authentication(policies, case, workload)),
            notes: self.notes(policies, case, workload, &ruling),
        }
    }

    fn cause(
        &self,
        policies: &WorkloadPolicies,
        case: &ExplainedCase<'_>,
        ruling: &Ruling,
    ) -> Cause {
        match &ruling.outcome {
            CaseVerdict::Allowed(Some(decider)) => Cause::AllowRule {
                rule: self.name(decider),
            },
            CaseVerdict::Allowed(None) => Cause::NoAllowPolicy,
            CaseVerdict::OnRequest => Cause::Request,
            CaseVerdict::OnAuthorizer(consultation) => Cause::Authorizer {
                rule: self.name(&consultation.decider),
                provider: consultation.provider.to_string(),
            },
            CaseVerdict::Denied(denial) => self.denial(policies, case, denial),
        }
    }

    fn denial(
        &self,
        policies: &WorkloadPolicies,
        case: &ExplainedCase<'_>,
        denial: &Denial,
    ) -> Cause {
        let port = case.connection.destination.port();
        let Some(decider) = denial
            .decider
            .as_ref()
            .filter(|_| denial.reason != Reason::NoAllowMatched)
        else {
            let all = policies.enforced(Action::Allow, port);
            return Cause::NoAllowMatched {
                policies: all.map(|one| self.name(&one.decider(None))).collect(),
            };
        };
        let name = self.name(decider);
        let asks = |action| {
            let mut all = policies.enforced(action, port);
            all.any(|attached| attached.name == decider.name)
        };
        match (denial.reason, decider.kind) {
            (Reason::PolicyNotEnforceable, _) => Cause::NotEnforceable {
                message: self.problem(decider),
                object: name,
            },
            (_, PolicyKind::PeerAuthentication) => Cause::Strict { object: name },
            (_, PolicyKind::AuthorizationPolicy) if asks(Action::Custom) => {
                match policies.names_several_providers(port) {
                    true => Cause::SeveralAuthorizers { rule: name },
                    false => Cause::NoSuchAuthorizer { rule: name },
                }
            }
            (_, PolicyKind::AuthorizationPolicy | PolicyKind::RequestAuthentication) => {
                Cause::DenyRule { rule: name }
            }
        }
    }

    /// The message of an object's condition.
    fn problem(&self, decider: &Decider) -> Option<String> {
        let all = self.view.policies.conditions();
        let mut own = all
            .into_iter()
            .filter(|own| own.kind == decider.kind && own.name == decider.name);
        own.next()?.message
    }

    fn authentication(
        &self,
        policies: &WorkloadPolicies,
        case: &ExplainedCase<'_>,
        workload: &Workload,
    ) -> PortAuthentication {
        let port = case.connection.destination.port();
        let in_force = self.view.policies.authentication(workload, port);
        let mode = match in_force {
            Some((_, MtlsMode::Strict)) => AuthenticationMode::Strict,
            Some((_, MtlsMode::Permissive | MtlsMode::Unset)) | None => {
                AuthenticationMode::Permissive
            }
        };
        let connection = ConnectionAttributes {
            identity: None,
            ..case.connection.clone()
        };
        let in_plaintext = ExplainedCase {
            connection: &connection,
            ..*case
        };
        PortAuthentication {
            mode,
            object: in_force.map(|(decider, _)| self.name(&decider)),
            plaintext: verdict(&policies.rule_on(&in_plaintext).outcome),
        }
    }

    fn notes(
        &self,
        policies: &WorkloadPolicies,
        case: &ExplainedCase<'_>,
        workload: &Workload,
        ruling: &Ruling,
    ) -> Vec<String> {
        let port = case.connection.destination.port();
        let is_http = self.view.snapshot.http_ports(workload).contains(&port);
        let mut notes = Vec::new();
        match (self.shown, is_http) {
            (Some(request), true) if request.is_normalised() => notes.push(format!(
                "the path {:?} is normalised to {:?} before policies and the application see it",
                request.path_and_query, request.path
            )),
            (Some(_), true) => {}
            (Some(_), false) => notes.push(format!(
                "no Service declares port {port} as HTTP (appProtocol, or the port's name), so \
                 requests are not read: the connection is judged as bytes"
            )),
            (None, _) => {}
        }
        notes.extend(self.token_note(policies, case));
        let knowledge = policies.knowledge(case);
        let is_known = !matches!(knowledge, Knowledge::Nothing);
        if is_known && policies.is_worth_noting(case.connection, knowledge) {
            let noted = policies.notes(case.connection, knowledge);
            notes.extend(noted.iter().map(|note| self.note(note)));
        }
        let is_denied = matches!(ruling.outcome, CaseVerdict::Denied(_));
        let is_plaintext = case.connection.identity.is_none();
        if is_denied && is_plaintext && workload.probe_ports.contains(&port) {
            notes.push(format!(
                "port {port} is declared for probes: the node's own probes are let in"
            ));
        }
        notes
    }

    /// A note about the verification of tokens.
    fn token_note(&self, policies: &WorkloadPolicies, case: &ExplainedCase<'_>) -> Option<String> {
        let port = case.connection.destination.port();
        if !policies.carries_http(port) {
            return None;
        }
        let token = case.request.and_then(|request| request.token.as_deref());
        let requires = |rule: &JwtRule| rule.presence == TokenPresence::Required;
        match (policies.verifies_tokens(port), token) {
            (true, _) if policies.jwt_rules(port).iter().any(requires) => Some(
                "RequestAuthentication applies: a request without a required token, or with one that \
                 does not verify, is answered 401"
                    .to_owned(),
            ),
            (true, _) => Some(
                "RequestAuthentication applies: a request with a token that does not verify is \
                 answered 401"
                    .to_owned(),
            ),
            (false, Some(_)) => Some(
                "no RequestAuthentication applies: the node's proxy does not verify tokens here, and \
                 policies do not see them"
                    .to_owned(),
            ),
            (false, None) => None,
        }
    }

    fn note(&self, note: &Note) -> String {
        let name = self.name(note.decider());
        match note {
            Note::Audited(_) => format!("{name} notes it (AUDIT)"),
            Note::WouldDeny(_) => format!("{name} would deny it if it were not a dry run"),
            Note::WouldAllow(_) => format!("{name} would allow it if it were not a dry run"),
            Note::WouldNotAllow(_) => {
                format!("{name} would not allow it if it were not a dry run")
            }
        }
    }

    fn rule_text(&self, rule: DescribedRule) -> RuleText {
        RuleText {
            rule: self.name(&rule.decider),
            action: rule.action.as_str().to_owned(),
            criteria: self.criteria(rule.criteria),
        }
    }

    /// Adds the path as the question has it, if normalisation changed it.
    fn criteria(&self, mut criteria: Vec<CriterionText>) -> Vec<CriterionText> {
        let Some(request) = self.shown.filter(|request| request.is_normalised()) else {
            return criteria;
        };
        let is_path = |one: &&mut CriterionText| matches!(&*one.field, "paths" | "notPaths");
        for criterion in criteria.iter_mut().filter(is_path) {
            criterion.found = format!(
                "{} (from {:?}, normalised)",
                criterion.found, request.path_and_query
            );
        }
        criteria
    }

    fn name(&self, decider: &Decider) -> RuleName {
        let mut objects = self.view.snapshot.policies().iter();
        let object = objects.find(|one| one.kind == decider.kind && one.name == decider.name);
        RuleName {
            kind: decider.kind,
            name: decider.name.clone(),
            rule: decider.rule,
            origin: object.map(|object| object.origin.to_string()),
        }
    }
}

const fn verdict(outcome: &CaseVerdict) -> AccessVerdict {
    match outcome {
        CaseVerdict::Allowed(_) => AccessVerdict::Allow,
        CaseVerdict::Denied(_) => AccessVerdict::Deny,
        CaseVerdict::OnRequest => AccessVerdict::DependsOnRequest,
        CaseVerdict::OnAuthorizer(_) => AccessVerdict::DependsOnAuthorizer,
    }
}

/// Why nothing is enforced for a pod, as a sentence; `None` if its objects opt it in.
fn not_enrolled(workload: &Workload) -> Option<String> {
    let name = &workload.name;
    match workload.membership {
        Membership::OptedIn => None,
        Membership::NotOptedIn => Some(format!(
            "the pod {name} is not in the mesh: neither it nor its namespace has the label \
             istio.io/dataplane-mode: ambient"
        )),
        Membership::Never(never) => Some(format!(
            "the pod {name} is never enrolled: {never}. Callers in the mesh are refused"
        )),
    }
}

fn nothing_enforced(reason: String) -> Explanation {
    Explanation {
        verdict: AccessVerdict::NotEnforced,
        decided: DecidedBy::Nobody,
        cause: Cause::NotEnrolled { reason },
        matched: Vec::new(),
        nearest: None,
        undecided: Vec::new(),
        authentication: None,
        notes: Vec::new(),
    }
}

impl PolicyIndex {
    /// The object that sets the mode of a port, and the mode; `None` if none does, so that plaintext is
    /// accepted. The narrowest level that sets a mode counts, as for the evaluator; here, PERMISSIVE
    /// objects are named too.
    pub(crate) fn authentication(
        &self,
        workload: &Workload,
        port: u16,
    ) -> Option<(Decider, MtlsMode)> {
        let levels = [Level::Workload, Level::Namespace, Level::Mesh];
        levels.into_iter().find_map(|level| {
            let of_level = |parsed: &&_| self.level(parsed, workload) == Some(level);
            let parsed = self.authentications.iter().find(of_level)?;
            let content = parsed.content.as_ref().ok()?;
            let of_port = content.ports.get(&port).copied();
            let mode = of_port
                .filter(|mode| *mode != MtlsMode::Unset)
                .unwrap_or(content.mode);
            let object = Decider {
                kind: PolicyKind::PeerAuthentication,
                name: parsed.object.name.clone(),
                rule: None,
            };
            (mode != MtlsMode::Unset).then_some((object, mode))
        })
    }
}
