//! Files that an operator or Kubernetes replaces: read up to a bound, and followed.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Reads all of a file.
///
/// # Errors
/// What the system answers, and [`io::ErrorKind::FileTooLarge`] for more than `longest` bytes.
pub fn read_bounded(file: File, longest: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    file.take(longest.saturating_add(1))
        .read_to_end(&mut contents)?;
    if contents.len() as u64 > longest {
        let problem = format!("it is longer than {longest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(contents)
}

/// Reads files again and again, on a thread of its own that ends when this is dropped.
///
/// Changes of these files cannot be noticed reliably in another way: the files of a mounted Secret or ConfigMap
/// change by a symbolic link further up, and network file systems send no notice.
#[derive(Debug)]
pub struct FileFollower {
    fault: Fault,
    /// Nothing is sent on it. The thread ends when it is dropped.
    _alive: mpsc::Sender<Infallible>,
}

/// Why the files as they are now are not in use.
#[derive(Clone, Debug, Default)]
struct Fault(Arc<Mutex<Option<String>>>);

impl FileFollower {
    /// Calls `look` each `interval` from now on. It takes over what has changed, or says why it
    /// cannot, and leaves the last good files in use. `report` is called for each change of that reason.
    /// A look that panics counts as one that failed, and the next one follows: otherwise files that
    /// were withdrawn would stay in use without a word.
    ///
    /// # Errors
    /// If the system has no room for the thread.
    pub fn start<E: ToString>(
        thread_name: &str,
        interval: Duration,
        mut look: impl FnMut() -> Result<(), E> + Send + 'static,
        mut report: impl FnMut(Option<&str>) + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel();
        let fault = Fault::default();
        let known = fault.clone();
        let follow = move || {
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let found = fault_of(&mut look);
                let mut known = known.lock();
                if *known != found {
                    report(found.as_deref());
                    *known = found;
                }
            }
        };
        thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(follow)?;
        Ok(Self {
            fault,
            _alive: alive,
        })
    }

    /// Why the files as they are now are not in use; `None` if they are.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }
}

fn fault_of<E: ToString>(look: &mut impl FnMut() -> Result<(), E>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(look)) {
        Ok(looked) => looked.err().map(|error| error.to_string()),
        Err(_) => {
            Some("the files could not be read because of a bug; the log has the panic".to_owned())
        }
    }
}

impl Fault {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "1234").expect("written");
        let open = || File::open(&path).expect("opened");
        assert_eq!(read_bounded(open(), 4).expect("short enough"), b"1234");
        let error = read_bounded(open(), 3).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn each_change_of_the_fault_is_reported_once() {
        let (reports, reported) = mpsc::channel();
        let mut looks = 0;
        let look = move || {
            looks += 1;
            match looks {
                1..=3 => Err("one"),
                4..=6 => Err("other"),
                _ => Ok(()),
            }
        };
        let report = move |fault: Option<&str>| {
            reports.send(fault.map(str::to_owned)).expect("a receiver");
        };
        let follower = FileFollower::start("test", INTERVAL, look, report).expect("a thread");
        let expected = [Some("one".to_owned()), Some("other".to_owned()), None];
        for fault in expected {
            assert_eq!(reported.recv(), Ok(fault));
        }
        // The reporter belongs to the thread, and goes with it.
        drop(follower);
        assert!(reported.recv().is_err());
    }

    #[test]
    fn a_look_that_panics_is_a_fault_and_does_not_end_the_following() {
        let (reports, reported) = mpsc::channel();
        let mut looks = 0;
        let look = move || {
            looks += 1;
            assert!(looks > 1, "a bug in the reader");
            Ok::<(), String>(())
        };
        let report = move |fault: Option<&str>| {
            reports.send(fault.is_some()).expect("a receiver");
        };
        let _follower = FileFollower::start("test", INTERVAL, look, report).expect("a thread");
        assert_eq!(reported.recv(), Ok(true));
        assert_eq!(reported.recv(), Ok(false));
    }
}
