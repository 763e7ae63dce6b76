//! What is in force: the last good version of each file. Does not access disks or clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SourceSettings;
use super::assembly::Assembly;
use super::document::{self, DocumentError, ParsedFile};
use super::read::{FileReading, ReadError};
use ambit_model::{Fault, SnapshotParts};

/// The configuration in force.
pub(super) struct FilesInForce {
    directory: PathBuf,
    settings: SourceSettings,
    files: BTreeMap<Arc<PathBuf>, FileState>,
    /// Files that are gone while another file is broken, to which their objects may have moved.
    retained: BTreeMap<Arc<PathBuf>, ParsedFile>,
    unlisted: Option<ReadError>,
    complete: bool,
}

/// A kind that the mesh does not read, seen in a file for the first time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct IgnoredKind {
    pub(super) path: Arc<PathBuf>,
    /// `apiVersion kind`.
    pub(super) kind: String,
}

/// One file.
#[derive(Default)]
struct FileState {
    last_good: Option<ParsedFile>,
    errors: Vec<FileError>,
}

/// An error in a file. A sentence without its full stop.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("the file {0}")]
    Read(#[from] ReadError),
    /// An editor may have truncated the file before it writes it.
    #[error("the file is empty; delete it to remove its objects")]
    Empty,
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl FilesInForce {
    /// Nothing is known yet.
    pub(super) fn new(directory: PathBuf, settings: SourceSettings) -> Self {
        Self {
            directory,
            settings,
            files: BTreeMap::new(),
            retained: BTreeMap::new(),
            unlisted: None,
            complete: false,
        }
    }

    /// Takes over a reading of the directory. Returns the ignored kinds to log.
    ///
    /// Once complete, the configuration stays complete: a new file that is broken does not close pods
    /// that were served before it appeared.
    pub(super) fn load(
        &mut self,
        reading: Result<Vec<FileReading>, ReadError>,
    ) -> Vec<IgnoredKind> {
        let readings = match reading {
            Ok(readings) => readings,
            Err(error) => {
                self.unlisted = Some(error);
                return Vec::new();
            }
        };
        self.unlisted = None;
        let ignored = self.take_over(readings);
        self.complete |= self.files.values().all(|file| file.last_good.is_some());
        ignored
    }

    fn take_over(&mut self, readings: Vec<FileReading>) -> Vec<IgnoredKind> {
        let mut known = std::mem::take(&mut self.files);
        let mut gone = std::mem::take(&mut self.retained);
        let mut ignored = Vec::new();
        for FileReading { path, text } in readings {
            let last_good = known.remove(&path).and_then(|file| file.last_good);
            let last_good = last_good.or_else(|| gone.remove(&path));
            let told = last_good
                .as_ref()
                .map(|parsed| parsed.ignored.clone())
                .unwrap_or_default();
            let file = FileState::read(&path, text, last_good, &self.settings);
            let kinds = file.ignored_kinds(&told);
            ignored.extend(kinds.map(|kind| IgnoredKind {
                path: Arc::clone(&path),
                kind,
            }));
            self.files.insert(path, file);
        }
        if self.files.values().any(FileState::is_broken) {
            let objects = |(path, file): (_, FileState)| Some((path, file.last_good?));
            gone.extend(known.into_iter().filter_map(objects));
            self.retained = gone;
        }
        ignored
    }

    /// The mesh that is in force, with all faults.
    pub(super) fn parts(&self) -> SnapshotParts {
        let mut assembly = Assembly::default();
        for (path, file) in &self.files {
            assembly.add_file(path, file.last_good.as_ref());
        }
        for (path, parsed) in &self.retained {
            assembly.add_retained(path, parsed);
        }
        let faults = self
            .unlisted
            .iter()
            .map(|error| self.directory_fault(error));
        let of_files = self
            .files
            .iter()
            .flat_map(|(path, file)| self.file_faults(path, file));
        let of_retained = self.retained.keys().map(|path| retained_fault(path));
        let faults = faults.chain(of_files).chain(of_retained).collect();
        assembly.finish(&self.settings, faults, self.complete)
    }

    fn directory_fault(&self, error: &ReadError) -> Fault {
        let in_force = !self.files.is_empty();
        Fault {
            subject: self.directory.display().to_string(),
            message: format!(
                "the directory {error}. {}",
                self.consequence("it", in_force)
            ),
            last_good_in_force: in_force,
        }
    }

    fn file_faults(&self, path: &Path, file: &FileState) -> impl Iterator<Item = Fault> {
        let in_force = file.last_good.is_some();
        let consequence = self.consequence("this file", in_force);
        file.errors.iter().map(move |error| Fault {
            subject: error.subject(path),
            message: format!("{error}. {consequence}"),
            last_good_in_force: in_force,
        })
    }

    fn consequence(&self, what: &str, last_good_in_force: bool) -> String {
        if last_good_in_force {
            format!(
                "The last good version of the whole of {what} stays in force until this is corrected."
            )
        } else if self.complete {
            format!("Nothing of {what} is in force until this is corrected.")
        } else {
            "Every pod of this node stays closed until this is corrected.".to_owned()
        }
    }
}

impl FileState {
    fn read(
        path: &Arc<PathBuf>,
        text: Result<String, ReadError>,
        last_good: Option<ParsedFile>,
        settings: &SourceSettings,
    ) -> Self {
        match parse(path, text, settings) {
            Ok(parsed) => Self {
                last_good: Some(parsed),
                errors: Vec::new(),
            },
            Err(errors) => Self { last_good, errors },
        }
    }

    fn is_broken(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The ignored kinds that have not been logged yet.
    fn ignored_kinds(&self, told: &BTreeSet<String>) -> impl Iterator<Item = String> {
        let kinds = self.last_good.iter().flat_map(|parsed| &parsed.ignored);
        kinds.filter(|kind| !told.contains(*kind)).cloned()
    }
}

impl FileError {
    fn subject(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Read(_) | Self::Empty => path.to_string(),
            Self::Document(error) => match &error.object {
                Some(object) => format!("{path}, document {} ({object})", error.document),
                None => format!("{path}, document {}", error.document),
            },
        }
    }
}

fn parse(
    path: &Arc<PathBuf>,
    text: Result<String, ReadError>,
    settings: &SourceSettings,
) -> Result<ParsedFile, Vec<FileError>> {
    let text = text.map_err(|error| vec![error.into()])?;
    if text.is_empty() {
        return Err(vec![FileError::Empty]);
    }
    document::parse(path, &text, settings)
        .map_err(|errors| errors.into_iter().map(FileError::from).collect())
}

fn retained_fault(path: &Path) -> Fault {
    Fault {
        subject: path.display().to_string(),
        message:
            "the file is gone, but its objects stay in force while another file is broken, to \
                  which they may have moved."
                .to_owned(),
        last_good_in_force: true,
    }
}

#[cfg(test)]
mod tests;
