//! HTTP/2 clients without TLS, with prior knowledge: one that keeps the rules, and one that sends any bytes.

use std::collections::BTreeMap;
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

/// Bytes over one connection.
#[derive(Clone, Debug)]
pub struct FramesCall<'a> {
    /// The destination.
    pub to: SocketAddr,
    /// What is sent.
    pub bytes: &'a [u8],
    /// How many streams have to be answered or reset.
    pub streams: usize,
}

impl FramesCall<'_> {
    /// Makes the call from somewhere. Returns for each stream whether it was `answered` or `reset`. Stream 0 is the
    /// connection, and there only if it ended.
    ///
    /// # Errors
    ///
    /// If there is no connection.
    pub fn make(&self, from: &Place) -> Result<BTreeMap<u32, String>> {
        let bytes: String = self.bytes.iter().copied().map(char::from).collect();
        let told = json!({
            "to": self.to.to_string(),
            "bytes": bytes,
            "streams": self.streams,
        });
        let outcome = output(from.command(tool("lab-frames")?)?.arg(told.to_string()))?;
        ensure!(outcome.status.success(), "lab-frames: {}", outcome.stderr);
        Ok(serde_json::from_str(&outcome.stdout)?)
    }
}
