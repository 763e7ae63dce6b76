//! Reads the directory and its files from disk.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ambit_input::yaml_without_marks;

/// The largest file that is read, in bytes: enough for thousands of pods.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

/// A file and its text.
#[derive(Debug)]
pub(super) struct FileReading {
    /// The file.
    pub(super) path: Arc<PathBuf>,
    /// Its text.
    pub(super) text: Result<String, ReadError>,
}

/// Why a file or the directory cannot be read. A sentence without its subject and full stop.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The system returned an error.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A directory, pipe or device.
    #[error("cannot be read: it is not a regular file")]
    NotAFile,
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("is larger than {MAX_FILE_BYTES} bytes, the most that is read; split it")]
    TooLarge,
    /// Not UTF-8.
    #[error("is not UTF-8 text (byte {0} is the first that is not)")]
    NotUtf8(usize),
}

/// Tells one version of a file from another without reading it. The change time moves even if a tool
/// resets the modification time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The configuration files of a directory; without a stamp if a file's metadata cannot be read. `None`
/// if the directory cannot be listed.
pub(super) type Survey = Option<BTreeMap<PathBuf, Option<Stamp>>>;

/// Surveys a directory without reading its files.
pub(super) fn survey(directory: &Path) -> Survey {
    let paths = list(directory).ok()?;
    let stamped = paths.into_iter().map(|path| {
        let stamp = fs::metadata(&path).ok().as_ref().map(Stamp::of);
        (path, stamp)
    });
    Some(stamped.collect())
}

/// Reads the files of a directory, in order of their names.
///
/// # Errors
/// If the directory cannot be listed. If a file cannot be read, its reading has the error.
pub(super) fn read(directory: &Path) -> Result<Vec<FileReading>, ReadError> {
    let reading = |path: PathBuf| FileReading {
        text: read_text(&path),
        path: Arc::new(path),
    };
    Ok(list(directory)?.into_iter().map(reading).collect())
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if is_configuration(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// `.yaml` and `.yml` files whose name does not begin with a dot: editors use these names for locks and swap files.
fn is_configuration(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml"))
}

/// Reads one file.
///
/// # Errors
/// If it cannot be read, is too large, or is not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| ReadError::NotUtf8(error.utf8_error().valid_up_to()))?;
    Ok(yaml_without_marks(&text).into_owned())
}

/// Opens a file; does not block if it is a named pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(directory: &Path, name: &str) -> String {
        let readings = read(directory).expect("listed");
        let reading = readings
            .into_iter()
            .find(|reading| reading.path.ends_with(name));
        reading.expect(name).text.expect_err(name).to_string()
    }

    #[test]
    fn only_visible_yaml_files_are_configuration() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["b.yaml", "a.yml", ".c.yaml", "d.yaml.swp", "e.json", "yaml"] {
            fs::write(directory.path().join(name), name).expect("written");
        }
        let readings = read(directory.path()).expect("listed");
        let texts: Vec<_> = readings
            .into_iter()
            .map(|r| r.text.expect("read"))
            .collect();
        assert_eq!(texts, ["a.yml", "b.yaml"]);
    }

    #[test]
    fn a_byte_order_mark_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.yaml");
        fs::write(&file, "\u{feff}kind: Pod\n").expect("written");
        assert_eq!(read_text(&file).expect("read"), "kind: Pod\n");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("folder.yaml")).expect("made");
        fs::write(at("latin.yaml"), b"a: \xe9").expect("written");
        File::create(at("huge.yaml"))
            .and_then(|f| f.set_len(MAX_FILE_BYTES + 1))
            .expect("made");
        std::os::unix::fs::symlink("nowhere", at("dangling.yaml")).expect("made");
        nix::unistd::mkfifo(&at("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        for (name, expected) in [
            ("folder.yaml", "cannot be read: it is not a regular file"),
            ("pipe.yaml", "cannot be read: it is not a regular file"),
            (
                "latin.yaml",
                "is not UTF-8 text (byte 3 is the first that is not)",
            ),
            (
                "huge.yaml",
                "is larger than 4194304 bytes, the most that is read; split it",
            ),
            (
                "dangling.yaml",
                "cannot be read: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(message(directory.path(), name), expected);
        }
        assert!(read(&at("absent")).is_err());
    }

    #[test]
    fn a_survey_sees_a_replacement_of_the_same_size_and_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, other) = (
            directory.path().join("a.yaml"),
            directory.path().join("other"),
        );
        fs::write(&file, "a: 1").expect("written");
        fs::write(&other, "a: 2").expect("written");
        let modified = fs::metadata(&file)
            .and_then(|m| m.modified())
            .expect("known");
        File::options()
            .write(true)
            .open(&other)
            .and_then(|f| f.set_modified(modified))
            .expect("set");
        let before = survey(directory.path());
        assert_eq!(survey(directory.path()), before);
        fs::rename(&other, &file).expect("renamed");
        assert_ne!(survey(directory.path()), before);
        assert_eq!(survey(&file), None);
    }
}
