//! The queue of lines between the threads that log and the thread that writes; bounded in bytes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long the writer waits before it tries again what could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// How long the end of the log waits for lines that are not written yet.
const FAREWELL: Duration = Duration::from_secs(1);

/// How many bytes may wait, and what happens to a line that does not fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) bytes: usize,
    pub(super) when_full: WhenFull,
}

/// What happens to a line that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WhenFull {
    /// It is dropped and counted.
    Drop,
    /// The thread that logs waits.
    Wait,
}

/// The lines that wait to be written.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: QueueLimits,
    waiting: Mutex<QueuedLines>,
    /// Something changed in `waiting`.
    changed: Condvar,
    dropped: AtomicUsize,
}

#[derive(Debug, Default)]
struct QueuedLines {
    lines: Vec<u8>,
    /// Bytes that the writer has taken and not written yet.
    being_written: usize,
    phase: Phase,
}

/// The phase of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Open,
    /// There will be no more lines.
    Closed,
    /// The writer has ended.
    Ended,
}

/// How many lines were dropped.
#[derive(Clone, Debug)]
pub struct DroppedLines(Arc<Shared>);

impl DroppedLines {
    /// So far.
    pub fn count(&self) -> usize {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

/// The thread that writes. Dropping it closes the log and waits for the end, for [`FAREWELL`] at
/// most.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

impl Queue {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            dropped: AtomicUsize::new(0),
        }))
    }

    /// Counts the lines that were dropped.
    pub(super) fn dropped(&self) -> DroppedLines {
        DroppedLines(Arc::clone(&self.0))
    }

    /// Starts the thread that writes, and pauses after each time so that lines gather.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn write_to(
        &self,
        out: impl Write + Send + 'static,
        pause: Duration,
    ) -> io::Result<Writer> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new()
            .name("ambit-log".to_owned())
            .spawn(move || shared.write_all(out, pause))?;
        Ok(Writer(Arc::clone(&self.0)))
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.0.lock();
        while !self.0.has_room(&waiting, line.len()) {
            match (self.0.limits.when_full, waiting.phase) {
                (WhenFull::Wait, Phase::Open | Phase::Closed) => {
                    waiting = self.0.wait(waiting);
                }
                (WhenFull::Drop, _) | (WhenFull::Wait, Phase::Ended) => {
                    self.0.dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
        let was_empty = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if was_empty {
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, QueuedLines> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, QueuedLines>) -> MutexGuard<'a, QueuedLines> {
        let waited = self.changed.wait(waiting);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// A line that is larger than the limit fits if nothing else waits and lines may wait.
    fn has_room(&self, waiting: &QueuedLines, bytes: usize) -> bool {
        let used = waiting.lines.len() + waiting.being_written;
        match self.limits.when_full {
            WhenFull::Wait if used == 0 => true,
            WhenFull::Wait | WhenFull::Drop => used + bytes <= self.limits.bytes,
        }
    }

    fn write_all(&self, mut out: impl Write, pause: Duration) {
        while let Some(lines) = self.take() {
            self.write(&mut out, &lines);
            self.lock().being_written = 0;
            self.changed.notify_all();
            if !pause.is_zero() && self.lock().phase == Phase::Open {
                thread::sleep(pause);
            }
        }
        self.lock().phase = Phase::Ended;
        self.changed.notify_all();
    }

    /// Waits for lines; `None` at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            if waiting.phase != Phase::Open {
                return None;
            }
            waiting = self.wait(waiting);
        }
        let lines = std::mem::take(&mut waiting.lines);
        waiting.being_written = lines.len();
        Some(lines)
    }

    /// Writes until everything is written. What a full disk does not accept is retried until the log
    /// ends. Lines stay whole.
    fn write(&self, out: &mut impl Write, mut lines: &[u8]) {
        while !lines.is_empty() {
            match out.write(lines) {
                Ok(written @ 1..) => lines = &lines[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    if self.closes_within(RETRY) {
                        return;
                    }
                }
            }
        }
        // A file or pipe has nothing to flush, and an error would have come before.
        let _ = out.flush();
    }

    fn closes_within(&self, limit: Duration) -> bool {
        let is_open = |waiting: &mut QueuedLines| waiting.phase == Phase::Open;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_open);
        let (waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.phase != Phase::Open
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.phase = Phase::Closed;
        self.0.changed.notify_all();
        let is_writing = |waiting: &mut QueuedLines| waiting.phase != Phase::Ended;
        // If no one reads the log, it ends unread.
        let _ = self
            .0
            .changed
            .wait_timeout_while(waiting, FAREWELL, is_writing);
    }
}

/// Takes one line with each write.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LIMIT: usize = 64 << 10;

    fn queue(when_full: WhenFull) -> Queue {
        Queue::new(QueueLimits {
            bytes: LIMIT,
            when_full,
        })
    }

    /// A disk that the test tells, for each write, how much to take.
    struct Disk {
        takes: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            // If the test tells it nothing more, it takes everything.
            let takes = self.takes.recv().unwrap_or(Ok(usize::MAX))?.min(data.len());
            let _ = self.written.send(data[..takes].to_vec());
            Ok(takes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk() -> (Disk, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let (allow, takes) = channel();
        let (written, seen) = channel();
        (Disk { takes, written }, allow, seen)
    }

    #[test]
    fn an_unread_log_holds_no_more_than_its_limit() {
        let queue = queue(WhenFull::Drop);
        let (disk, allow, seen) = disk();
        let writer = queue.write_to(disk, Duration::ZERO).unwrap();
        let line = [b'x'; 59 << 10];
        for _ in 0..10_000 {
            queue.push(&line);
            let waiting = queue.0.lock();
            assert!(waiting.lines.capacity() + waiting.being_written <= 2 * LIMIT);
        }
        assert_eq!(queue.dropped().count(), 9_999);
        queue.push(b"short");
        drop(allow);
        drop(writer);
        let written: usize = seen.iter().map(|part| part.len()).sum();
        assert_eq!(written, line.len() + "short".len());
    }

    #[test]
    fn a_full_disk_is_tried_again_and_lines_stay_whole() {
        let queue = queue(WhenFull::Drop);
        let (disk, allow, seen) = disk();
        for taken in [Ok(3), Err(io::ErrorKind::StorageFull.into()), Ok(2)] {
            allow.send(taken).unwrap();
        }
        drop(allow);
        let writer = queue.write_to(disk, Duration::ZERO).unwrap();
        (&queue).write_all(b"first\n").unwrap();
        assert_eq!(seen.recv().unwrap(), b"fir");
        assert_eq!(seen.recv().unwrap(), b"st");
        assert_eq!(seen.recv().unwrap(), b"\n");
        drop(writer);
        assert_eq!(queue.dropped().count(), 0);
    }

    #[test]
    fn a_disk_that_stays_full_does_not_keep_the_log_from_ending() {
        let queue = queue(WhenFull::Drop);
        let (disk, allow, _seen) = disk();
        for _ in 0..1000 {
            allow.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        }
        let writer = queue.write_to(disk, Duration::ZERO).unwrap();
        queue.push(b"lost\n");
        drop(writer);
        assert_eq!(queue.0.lock().phase, Phase::Ended);
    }

    #[test]
    fn an_audited_line_waits_for_room() {
        let queue = queue(WhenFull::Wait);
        let (disk, allow, seen) = disk();
        let writer = queue.write_to(disk, Duration::ZERO).unwrap();
        let logs = queue.clone();
        let thread = thread::spawn(move || {
            for _ in 0..10 {
                logs.push(&[b'x'; LIMIT / 2 + 1]);
            }
            logs.push(&[b'x'; 2 * LIMIT]);
        });
        for _ in 0..11 {
            allow.send(Ok(usize::MAX)).unwrap();
        }
        thread.join().unwrap();
        drop(allow);
        drop(writer);
        let written: usize = seen.iter().map(|part| part.len()).sum();
        assert_eq!(written, 10 * (LIMIT / 2 + 1) + 2 * LIMIT);
        assert_eq!(queue.dropped().count(), 0);
    }
}
