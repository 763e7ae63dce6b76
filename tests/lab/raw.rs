//! An HTTP/1 client that sends bytes as they are, right or wrong.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::place::Place;
use crate::process::output;
use crate::server::tool;

/// When a [`RawCall`] ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Until this many answers have arrived.
    Answers(usize),
    /// Until the other side ends the connection.
    End,
    /// The same; the client ends its own side once everything is sent.
    EndAfterOurs,
}

/// Bytes to send over one connection.
#[derive(Clone, Debug)]
pub struct RawCall<'a> {
    /// The destination.
    pub to: SocketAddr,
    /// What.
    pub bytes: &'a [u8],
    /// Until when.
    pub until: Until,
}

/// The state of a connection after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RawEnd {
    /// It is open.
    Open,
    /// The other side closed it.
    Closed,
    /// The other side reset it.
    Reset,
    /// It could not be established.
    Refused,
    /// Nothing more came; never expected.
    Silent,
}

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// The head, each octet as the character of its number.
    pub head: String,
    /// The body, in the same way.
    pub body: String,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawReply {
    /// The answers, also interim ones.
    pub answers: Vec<RawAnswer>,
    /// The bytes after them, in the same way.
    pub rest: String,
    /// The state of the connection.
    pub end: RawEnd,
}

impl RawCall<'_> {
    /// Makes the call from somewhere.
    ///
    /// # Errors
    ///
    /// If the client cannot be run or does not end.
    pub fn make(&self, from: &Place) -> Result<RawReply> {
        let sent: String = self.bytes.iter().copied().map(char::from).collect();
        let answers = match self.until {
            Until::Answers(count) => Some(count),
            Until::End | Until::EndAfterOurs => None,
        };
        let shutdown = self.until == Until::EndAfterOurs;
        let told = json!({
            "to": self.to.to_string(), "send": sent, "answers": answers, "shutdown": shutdown,
        });
        let outcome = output(from.command(tool("lab-http")?)?.arg(told.to_string()))?;
        ensure!(outcome.status.success(), "lab-http: {}", outcome.stderr);
        let said: Value = serde_json::from_str(&outcome.stdout)?;
        let answers = said["answers"].as_array().context("no answers")?;
        Ok(RawReply {
            answers: answers.iter().map(answer).collect::<Result<_>>()?,
            rest: said["rest"].as_str().unwrap_or_default().to_owned(),
            end: end(&said)?,
        })
    }
}

impl RawReply {
    /// The statuses of the answers.
    pub fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }
}

impl RawAnswer {
    /// Whether a request was denied by policy.
    pub fn is_denial(&self) -> bool {
        self.status == 403 && self.body == "RBAC: access denied"
    }
}

fn answer(said: &Value) -> Result<RawAnswer> {
    let text =
        |field: &str| Ok::<_, anyhow::Error>(said[field].as_str().context("no text")?.into());
    Ok(RawAnswer {
        status: said["status"].as_u64().context("no status")?.try_into()?,
        head: text("head")?,
        body: text("body")?,
    })
}

fn end(said: &Value) -> Result<RawEnd> {
    Ok(match said["end"].as_str().context("no end")? {
        "open" => RawEnd::Open,
        "closed" => RawEnd::Closed,
        "reset" => RawEnd::Reset,
        "refused" => RawEnd::Refused,
        _ => RawEnd::Silent,
    })
}
