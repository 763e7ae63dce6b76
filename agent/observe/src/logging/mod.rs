//! The log, to stderr. Threads that log never wait: a separate thread writes, and lines that it cannot
//! keep up with are dropped and counted.

mod format;
mod queue;

use std::io;
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use format::LineFormatter;
pub use queue::DroppedLines;
use queue::{Queue, QueueLimits, WhenFull, Writer};

/// Bytes of lines that may wait to be written.
const WAITING_BYTES: usize = 4 << 20;

/// How long lines gather before they are written together: under load, a thread that logs need not wake
/// the writer for each line.
const GATHERING: Duration = Duration::from_millis(5);

/// The target of the CA's audit lines.
pub const AUDIT_TARGET: &str = "ambit::ca::audit";

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log. Dropping it writes what still waits to be written.
#[derive(Debug)]
pub struct Log {
    queue: Queue,
    _writer: Writer,
}

impl Log {
    /// Counts the lines that were dropped because the log was not read fast enough.
    pub fn dropped(&self) -> DroppedLines {
        self.queue.dropped()
    }
}

/// Begins to log. `filter` is a level or a list of `target=level`.
///
/// # Errors
/// If the filter cannot be read, or logging has begun already.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<Log> {
    begin(parse(filter)?, format, WhenFull::Drop, GATHERING)
}

/// Begins a log that has every line of the CA's audit, whatever the filter says. A thread that logs
/// waits until there is room for its line.
///
/// # Errors
/// If the filter cannot be read, or logging has begun already.
pub fn init_audited(filter: &str, format: LogFormat) -> anyhow::Result<Log> {
    let audit = format!("{AUDIT_TARGET}=info").parse()?;
    let filter = parse(filter)?.add_directive(audit);
    begin(filter, format, WhenFull::Wait, Duration::ZERO)
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is not a filter; try `info` or `ambit=debug`"))
}

fn begin(
    filter: EnvFilter,
    format: LogFormat,
    when_full: WhenFull,
    gathering: Duration,
) -> anyhow::Result<Log> {
    let queue = Queue::new(QueueLimits {
        bytes: WAITING_BYTES,
        when_full,
    });
    let writer = queue
        .write_to(io::stderr(), gathering)
        .context("the thread that writes the log cannot start")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Its own errors would go to stderr, and a stderr that cannot be written to is a panic.
        .log_internal_errors(false)
        .event_format(LineFormatter(format))
        .with_writer(queue.clone())
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging cannot begin: {error}"))?;
    Ok(Log {
        queue,
        _writer: writer,
    })
}
