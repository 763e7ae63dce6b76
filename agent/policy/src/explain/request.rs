//! The request that is asked about, as the proxy would show it to the policies.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::answer::ExplainedRequest;
use super::error::QuestionError;
use super::question::HypotheticalRequest;
use crate::normalise_path;
use crate::request::{RequestAttributes, VerifiedToken, forwarded_for};
use ambit_model::Snapshot;

impl HypotheticalRequest {
    /// The attributes of the request to a host.
    pub(super) fn attributes(
        &self,
        host: &str,
        snapshot: &Snapshot,
    ) -> Result<RequestAttributes, QuestionError> {
        let mode = snapshot.mesh_settings().path_normalization;
        let path_and_query = self.path_and_query();
        let path_and_query = match path_and_query {
            "*" => path_and_query.to_owned(),
            path => normalise_path(mode, path).map_err(|problem| QuestionError::Path {
                path: path.to_owned(),
                problem,
            })?,
        };
        let headers = self.headers()?;
        Ok(RequestAttributes {
            method: self.method.clone().unwrap_or_else(|| "GET".to_owned()),
            authority: self.host.clone().unwrap_or_else(|| host.to_owned()),
            path: path_and_query
                .split('?')
                .next()
                .unwrap_or_default()
                .to_owned(),
            path_and_query,
            forwarded_for: forwarded_for(&headers),
            headers,
            token: self.claims.as_ref().map(|claims| Arc::new(token(claims))),
        })
    }

    /// The path as it is asked about.
    pub(super) fn path_and_query(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    fn headers(&self) -> Result<HeaderMap, QuestionError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = (HeaderName::try_from(name), HeaderValue::try_from(value));
            let (Ok(name), Ok(value)) = parsed else {
                return Err(QuestionError::Header(format!("{name}={value}")));
            };
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn token(claims: &Map<String, Value>) -> VerifiedToken {
    let text = |name| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    VerifiedToken {
        issuer: text("iss").to_owned(),
        subject: text("sub").to_owned(),
        claims: claims.clone(),
    }
}

impl ExplainedRequest {
    pub(super) fn of(request: &RequestAttributes, path_and_query: &str) -> Self {
        Self {
            method: request.method.clone(),
            host: request.authority.clone(),
            path: request.path.clone(),
            path_and_query: path_and_query.to_owned(),
        }
    }

    /// Whether normalisation changed the path.
    pub(super) fn is_normalised(&self) -> bool {
        self.path_and_query.split(['?', '#']).next() != Some(&self.path)
    }
}
