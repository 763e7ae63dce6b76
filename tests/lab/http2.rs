//! An HTTP/2 client without TLS, with prior knowledge.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::place::Place;
use crate::process::output;
use crate::server::tool;

/// Requests over one connection.
#[derive(Clone, Debug)]
pub struct Http2Call<'a> {
    /// The destination.
    pub to: SocketAddr,
    /// The request.
    pub requests: &'a [Http2Request],
    /// Whether all are sent before the first answer arrives.
    pub at_once: bool,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Http2Request {
    /// `:method`.
    pub method: &'static str,
    /// `:authority`.
    pub authority: String,
    /// `:path`.
    pub path: String,
    /// More headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: &'static str,
}

impl Http2Request {
    /// A GET.
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET",
            authority: "web".to_owned(),
            path: path.to_owned(),
            headers: &[],
            body: "",
        }
    }
}

impl Http2Call<'_> {
    /// Makes the call from somewhere. Each reply has `status`, `headers`, `body` and `trailers`, or
    /// `failure`.
    ///
    /// # Errors
    ///
    /// If there is no connection, or the client does not end.
    pub fn make(&self, from: &Place) -> Result<Vec<Value>> {
        let requests = self.requests.iter().map(|request| {
            json!({
                "method": request.method,
                "authority": request.authority,
                "path": request.path,
                "headers": request.headers,
                "body": request.body,
            })
        });
        let told = json!({
            "to": self.to.to_string(),
            "requests": requests.collect::<Value>(),
            "at_once": self.at_once,
        });
        let outcome = output(from.command(tool("lab-h2")?)?.arg(told.to_string()))?;
        ensure!(outcome.status.success(), "lab-h2: {}", outcome.stderr);
        Ok(serde_json::from_str(&outcome.stdout)?)
    }
}
