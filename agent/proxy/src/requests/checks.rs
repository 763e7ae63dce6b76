//! What is asked about a request before policies judge it: external authorizers first, then the
//! issuers of its tokens, as in Istio's order of filters.

use std::sync::Arc;
use std::time::SystemTime;

use super::body::BodyPrefix;
use super::refusal::RequestRefusal;
use crate::authorizers::{Agreement, ask};
use crate::ends::Ends;
use crate::shard::pod::ServedPod;
use ambit_authorizer::{
    Allowance, BodyPart, CheckedRequest, HeaderMutations, withhold_unjudged, withhold_unseen,
};
use ambit_http::{OutputNames, RequestHead};
use ambit_jwt::{Verified, authenticate};
use ambit_model::{AuthorizerApi, ExtensionProvider, MeshSettings};
use ambit_policy::{Approvals, Consultation, RequestAttributes, WorkloadPolicies, forwarded_for};

/// What tells a request from others, where its client says so.
const REQUEST_ID: &str = "x-request-id";

/// What authorizers agreed to.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) approvals: Approvals,
    /// What they change of the answer's headers.
    pub(crate) amendments: Vec<HeaderMutations>,
    /// The headers of the request that are theirs to write.
    pub(crate) outputs: OutputNames,
}

/// Asks every authorizer that a CUSTOM policy names for this request, and shows each its part of the
/// body; all have to allow it. What they change of its headers is changed, and what only they may write
/// is taken out.
///
/// # Errors
/// [`RequestRefusal::NotApproved`] where one does not.
pub(crate) async fn consult(
    pod: &ServedPod,
    settings: &MeshSettings,
    asked: Vec<Consultation>,
    ends: Ends<'_>,
    (head, body): (&mut RequestHead, &BodyPrefix),
) -> Result<Agreed, RequestRefusal> {
    let mut agreed = Agreed::default();
    let providers = asked
        .iter()
        .filter_map(|one| settings.extension_provider(&one.provider));
    for provider in providers {
        withhold_unseen(provider, &mut head.headers);
        agreed.add_patterns(provider);
    }
    for consultation in asked {
        let provider = settings.extension_provider(&consultation.provider);
        let wanted = provider.and_then(|provider| provider.request_body.as_ref());
        let part = wanted.and_then(|wanted| body.part(wanted));
        match ask(
            pod,
            settings,
            &consultation,
            ends,
            Some(checked(head, part)),
        )
        .await
        {
            Ok(Agreement::Allowed(allowance)) => {
                allowance.request.apply_to_request(&mut head.headers);
                agreed.add(allowance);
            }
            Ok(Agreement::LetThrough) => {
                if let Some(provider) = provider {
                    withhold_unjudged(provider, &mut head.headers);
                }
            }
            Err(disagreement) => {
                return Err(RequestRefusal::NotApproved {
                    consultation,
                    disagreement,
                });
            }
        }
        agreed.approvals.add(consultation.provider);
    }
    Ok(agreed)
}

impl Agreed {
    fn add_patterns(&mut self, provider: &ExtensionProvider) {
        if let AuthorizerApi::Http(api) = &provider.api {
            for pattern in &api.to_upstream_on_allow {
                self.outputs.add_pattern(pattern);
            }
        }
    }

    fn add(&mut self, allowance: Allowance) {
        for name in allowance.request.names() {
            self.outputs.add(name);
        }
        self.amendments.push(allowance.response);
    }
}

fn checked(head: &RequestHead, body: Option<BodyPart>) -> CheckedRequest<'_> {
    let id = head.headers.get(REQUEST_ID);
    CheckedRequest {
        id: id.and_then(|id| id.to_str().ok()).unwrap_or_default(),
        method: &head.method,
        scheme: "http",
        authority: &head.authority,
        path: &head.target,
        headers: &head.headers,
        version: head.version,
        body,
    }
}

/// Verifies the tokens of a request by the rules of its port, and does to its head what they say. Adds
/// the headers that the rules write to `outputs`.
///
/// # Errors
/// [`RequestRefusal::Unauthenticated`] where one is not accepted.
pub(crate) async fn verify_tokens(
    pod: &ServedPod,
    policies: &WorkloadPolicies,
    port: u16,
    (head, outputs): (&mut RequestHead, &mut OutputNames),
) -> Result<Option<Verified>, RequestRefusal> {
    let rules = policies.jwt_rules(port);
    if rules.is_empty() {
        return Ok(None);
    }
    for rule in &*rules {
        let claims = rule.claim_headers.iter().map(|output| &output.header);
        claims
            .chain(&rule.payload_header)
            .for_each(|name| outputs.add(name));
    }
    let as_it_came = ambit_jwt::RequestHead {
        method: &head.method,
        target: &head.target,
        headers: &head.headers,
    };
    let verified = authenticate(&rules, &as_it_came, &pod.keys, SystemTime::now()).await?;
    ambit_jwt::apply(
        &rules,
        verified.as_ref(),
        &mut head.headers,
        &mut head.target,
    );
    Ok(verified)
}

/// What policy knows of a request, as it is passed on.
pub(crate) fn attributes(head: &RequestHead, verified: Option<&Verified>) -> RequestAttributes {
    let path = head.target.split('?').next().unwrap_or_default();
    RequestAttributes {
        method: head.method.to_string(),
        authority: head.authority.clone(),
        path: path.to_owned(),
        path_and_query: head.target.clone(),
        forwarded_for: forwarded_for(&head.headers),
        headers: head.headers.clone(),
        token: verified.map(|verified| Arc::clone(verified.token())),
    }
}
