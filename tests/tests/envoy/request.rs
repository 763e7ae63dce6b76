//! A request, as a client sends it and as policy sees it.

use std::net::Ipv4Addr;

use ambit_model::PathNormalization;
use ambit_policy::{BadPath, RequestAttributes, forwarded_for, normalise_path};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::peer::Peer;
use crate::token;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The sender.
    pub(crate) peer: Peer,
    /// Its source, a loopback address.
    pub(crate) source: Ipv4Addr,
    pub(crate) method: String,
    /// Path and query, and maybe a fragment, as they are sent.
    pub(crate) target: String,
    /// The Host.
    pub(crate) host: String,
    /// Lines of headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The payload of a token that has been verified.
    pub(crate) token: Option<Value>,
}

/// `GET` for a target, without headers, of the host `web`, without an identity, from 127.0.0.2.
pub(crate) fn get(target: &str) -> Request {
    Request {
        peer: Peer::Nobody,
        source: Ipv4Addr::new(127, 0, 0, 2),
        method: "GET".to_owned(),
        target: target.to_owned(),
        host: "web".to_owned(),
        headers: Vec::new(),
        token: None,
    }
}

impl Request {
    pub(crate) fn method(self, method: &str) -> Self {
        let method = method.to_owned();
        Self { method, ..self }
    }

    pub(crate) fn host(self, host: &str) -> Self {
        let host = host.to_owned();
        Self { host, ..self }
    }

    pub(crate) fn from(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    pub(crate) fn at(self, last: u8) -> Self {
        let source = Ipv4Addr::new(127, 0, 0, last);
        Self { source, ..self }
    }

    /// With one more line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn token(self, payload: Value) -> Self {
        let token = Some(payload);
        Self { token, ..self }
    }

    /// All lines of headers but Host, the payload's among them.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (String, String)> {
        let payload = self.token.as_ref();
        let payload = payload.map(|one| (token::HEADER.to_owned(), token::encoded(one)));
        self.headers.iter().cloned().chain(payload)
    }

    /// The bytes that the client sends over HTTP/1.1.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in self.lines() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// What policy sees of it, after Ambit's parser and normalisation.
    pub(crate) fn attributes(&self, mode: PathNormalization) -> Result<RequestAttributes, BadPath> {
        let path_and_query = normalise_path(mode, &self.target)?;
        let path = path_and_query.split('?').next().unwrap_or_default();
        let headers = self.header_map();
        Ok(RequestAttributes {
            method: self.method.clone(),
            authority: self.host.clone(),
            path: path.to_owned(),
            forwarded_for: forwarded_for(&headers),
            headers,
            token: self.token.as_ref().map(token::verified),
            path_and_query,
        })
    }

    fn header_map(&self) -> HeaderMap {
        let lines = self.headers.iter().filter_map(|(name, value)| {
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }
}
