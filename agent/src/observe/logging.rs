//! The log, to stderr. Whoever logs in the agent never waits: a thread of its own writes, and lines
//! that it does not keep up with are dropped and counted.

use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written.
const WAITING_LINES: usize = 16_384;

/// How long lines gather before they are written together: under load, whoever logs has no thread
/// to wake for each.
const GATHERING: Duration = Duration::from_millis(5);

/// Bytes of them that are written together at most.
const GATHERED: usize = 64 << 10;

/// The target of the CA's audit lines.
pub const AUDIT_TARGET: &str = "ambit::ca::audit";

/// How a log line looks.
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
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

impl Log {
    /// Counts the lines that were dropped since nobody read the log fast enough.
    pub fn dropped(&self) -> DroppedLines {
        DroppedLines(self.dropped.clone())
    }
}

/// How many lines were dropped.
#[derive(Clone, Debug)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// So far.
    pub fn count(&self) -> usize {
        self.0.dropped_lines()
    }
}

/// Begins to log. `filter` is a level or a list of `target=level`.
///
/// # Errors
/// Where the filter cannot be read, or logging has begun already.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<Log> {
    begin(parse(filter)?, format, WhenFull::Drop)
}

/// Begins a log that has every line of the CA's audit, whatever the filter says: a line waits until
/// it can be written, and with it whoever has written it.
///
/// # Errors
/// Where the filter cannot be read, or logging has begun already.
pub fn init_audited(filter: &str, format: LogFormat) -> anyhow::Result<Log> {
    let audit = format!("{AUDIT_TARGET}=info").parse()?;
    let filter = parse(filter)?.add_directive(audit);
    begin(filter, format, WhenFull::Wait)
}

/// What becomes of a line when [`WAITING_LINES`] wait already.
enum WhenFull {
    Drop,
    Wait,
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is no filter; try `info` or `ambit=debug`"))
}

/// Writes together the lines that wait, and is away for a while after that.
struct Gathered<W: Write> {
    lines: BufWriter<W>,
    pause: Duration,
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.lines.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        // What cannot be written now waits for the next time, as far as there is room. The thread
        // that writes must not hear of it: it would forget that it was told to end.
        let _ = self.lines.flush();
        thread::sleep(self.pause);
        Ok(())
    }
}

fn begin(filter: EnvFilter, format: LogFormat, when_full: WhenFull) -> anyhow::Result<Log> {
    let gathered = Gathered {
        lines: BufWriter::with_capacity(GATHERED, io::stderr()),
        pause: match when_full {
            WhenFull::Drop => GATHERING,
            WhenFull::Wait => Duration::ZERO,
        },
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(matches!(when_full, WhenFull::Drop))
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("ambit-log")
        .finish(gathered);
    let dropped = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Its own errors would go to stderr, and a stderr that cannot be written to is a panic.
        .log_internal_errors(false)
        .with_writer(writer);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot begin: {error}"))?;
    Ok(Log {
        _writer: guard,
        dropped,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A disk that may be full.
    #[derive(Default)]
    struct Disk {
        full: Cell<bool>,
        written: RefCell<Vec<u8>>,
    }

    impl Write for &Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            if self.full.get() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.borrow_mut().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_no_error_and_what_there_is_room_for_is_written_later() {
        let disk = Disk::default();
        let mut gathered = Gathered {
            lines: BufWriter::with_capacity(16, &disk),
            pause: Duration::ZERO,
        };
        disk.full.set(true);
        gathered.write_all(b"first\n").expect("room");
        gathered.flush().expect("no error");
        gathered.write_all(b"second\n").expect("room");
        assert!(gathered.write_all(b"no room for this\n").is_err());
        disk.full.set(false);
        gathered.flush().expect("no error");
        assert_eq!(*disk.written.borrow(), b"first\nsecond\n");
    }
}
