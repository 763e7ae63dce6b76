//! A server whose answers end in every way, and clients that read them late, slowly or never.

use std::net::SocketAddr;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::place::Place;
use crate::plan::Family;
use crate::pod::Pod;
use crate::process::Process;
use crate::server::tool;
use crate::wait::eventually;

/// Bytes of which no two stretches are alike, so that a byte that is lost, doubled or moved shows.
pub fn pattern(at: u64, length: usize) -> Vec<u8> {
    (at..at + length as u64)
        .map(|place| {
            let word = (place / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word.to_be_bytes()[(place % 8) as usize]
        })
        .collect()
}

/// A running `lab-source`.
pub struct Source {
    process: Process,
}

impl Source {
    /// Starts one in a pod, on a port of both its addresses, and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn in_pod(lab: &Lab, pod: &Pod, port: u16) -> Result<Self> {
        let mut command = pod.command(&tool("lab-source")?.to_string_lossy())?;
        for family in Family::ALL {
            command.arg(SocketAddr::new(pod.ip(family), port).to_string());
        }
        let mut process = Process::start(&mut command, &lab.new_log("lab-source")?)?;
        process.wait_for_line("a server listening", |line| {
            (line == "listening").then_some(())
        })?;
        Ok(Self { process })
    }

    /// What came on `/late` connections that have ended: `late` (bytes), `intact`, `end`.
    pub fn late(&self) -> Vec<Value> {
        let log = self.process.log();
        let lines = log.lines().filter(|line| line.contains("\"late\""));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

/// When a client reads its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Immediately.
    AtOnce,
    /// So much later.
    After(Duration),
    /// Not at all; the connection is held.
    Never,
    /// Not at all; the connection is closed as soon as the request has been sent.
    Leaves,
}

/// Equal connections of a [`Readers`], each with one request.
#[derive(Clone, Debug)]
pub struct ReaderOrder<'a> {
    /// How many.
    pub count: usize,
    /// The destination.
    pub to: SocketAddr,
    /// The path, as `lab-source` understands it.
    pub path: &'a str,
    /// More lines of the request's head, each with its end.
    pub headers: &'a str,
    /// Bytes of a body to send.
    pub upload: u64,
    /// `SO_RCVBUF`, if not the kernel's choice.
    pub receive_buffer: Option<usize>,
    /// When the answer is read.
    pub reading: Reading,
    /// Which of them are open at the same time.
    pub timing: Timing,
}

/// Which connections are open at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timing {
    /// All.
    AtOnce,
    /// Each after the end of the one before.
    InTurn,
}

impl<'a> ReaderOrder<'a> {
    /// `GET` on connections that are read at once.
    pub fn get(count: usize, to: SocketAddr, path: &'a str) -> Self {
        Self {
            count,
            to,
            path,
            headers: "",
            upload: 0,
            receive_buffer: None,
            reading: Reading::AtOnce,
            timing: Timing::AtOnce,
        }
    }

    fn json(&self) -> Value {
        let Self {
            to, path, headers, ..
        } = self;
        let head = match self.upload {
            0 => format!("GET {path} HTTP/1.1\r\nHost: source\r\n{headers}\r\n"),
            bytes => format!(
                "POST {path} HTTP/1.1\r\nHost: source\r\nContent-Length: {bytes}\r\n{headers}\r\n"
            ),
        };
        let wait = match self.reading {
            Reading::After(wait) => wait,
            Reading::AtOnce | Reading::Never | Reading::Leaves => Duration::ZERO,
        };
        json!({
            "count": self.count, "to": to.to_string(), "head": head, "upload": self.upload,
            "receive_buffer": self.receive_buffer, "wait_ms": wait.as_millis() as u64,
            "reads": self.reading != Reading::Never, "leaves": self.reading == Reading::Leaves,
            "in_turn": self.timing == Timing::InTurn,
        })
    }
}

/// What one connection of a [`Readers`] got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadAnswer {
    /// The index of its order.
    pub order: usize,
    /// The status of the answer, if one came.
    pub status: Option<u64>,
    /// The length of the body.
    pub bytes: u64,
    /// Whether the body is what the server sent, as far as it came.
    pub intact: bool,
    /// `closed`, or the name of an error, for example `ConnectionReset`.
    pub end: String,
    /// From before the connection to its end.
    pub took: Duration,
}

impl ReadAnswer {
    /// Whether this status came, with so many bytes.
    pub fn is(&self, status: u64, bytes: u64) -> bool {
        self.status == Some(status) && self.bytes == bytes && self.intact
    }
}

/// A running `lab-reader`; dropping it ends its connections.
pub struct Readers {
    process: Process,
    _stdin: Option<ChildStdin>,
}

impl Readers {
    /// Opens all connections from somewhere.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(lab: &Lab, place: &Place, orders: &[ReaderOrder<'_>]) -> Result<Self> {
        let orders: Vec<Value> = orders.iter().map(ReaderOrder::json).collect();
        let mut command = place.command(tool("lab-reader")?)?;
        command.arg(Value::from(orders).to_string());
        command.stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &lab.new_log("lab-reader")?)?;
        let stdin = process.take_stdin();
        Ok(Self {
            process,
            _stdin: stdin,
        })
    }

    /// Waits until all connections that are read have ended, or `limit` has passed. Returns what those that have ended
    /// got.
    ///
    /// # Errors
    ///
    /// If its output cannot be understood.
    pub fn answers(&mut self, limit: Duration) -> Result<Vec<ReadAnswer>> {
        // If some do not end, the others tell how many.
        let _ = eventually(limit, "the end of all readers", || {
            let log = self.process.log();
            log.contains("\"finished\"").then_some(())
        });
        self.so_far()
    }

    /// What the connections that have ended got.
    ///
    /// # Errors
    ///
    /// If its output cannot be understood.
    pub fn so_far(&self) -> Result<Vec<ReadAnswer>> {
        let log = self.process.log();
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let lines = complete.lines().filter(|line| line.contains("\"order\""));
        lines
            .map(|line| answer(&serde_json::from_str(line)?))
            .collect()
    }
}

fn answer(said: &Value) -> Result<ReadAnswer> {
    Ok(ReadAnswer {
        order: said["order"].as_u64().context("no order")?.try_into()?,
        status: said["status"].as_u64(),
        bytes: said["bytes"].as_u64().context("no bytes")?,
        intact: said["intact"] == true,
        end: said["end"].as_str().context("no end")?.to_owned(),
        took: Duration::from_millis(said["ms"].as_u64().context("no time")?),
    })
}
