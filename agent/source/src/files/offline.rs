//! Reads files once, without an agent, for `ambit validate` and `ambit explain -f`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SourceSettings;
use super::assembly::{Assembly, Duplicate};
use super::document::{self, DocumentError, MeshObject, ParsedFile};
use super::read::{self, FileReading};
use crate::place::FieldPath;
use crate::tree;
use ambit_input::yaml_without_marks;
use ambit_model::{
    MeshRanges, ObjectName, ObjectOrigin, PolicyKind, Revision, Snapshot, TrustBundle,
};

/// An input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A file, or a directory, of which those files are read that an agent would read.
    Path(PathBuf),
    /// A text and its name in messages.
    Text {
        /// The name.
        name: String,
        /// The text.
        text: String,
    },
}

/// Settings of the mesh that are not in its files.
#[derive(Clone, Debug)]
pub struct OfflineConfig {
    /// The mesh's trust domain and its aliases.
    pub trust_bundle: TrustBundle,
    /// Istio's root namespace, usually `istio-system`.
    pub root_namespace: Arc<str>,
    /// The control plane's revision, whose policies apply.
    pub revision: Revision,
}

/// The mesh of some files, and their errors.
#[derive(Debug)]
pub struct FileSet {
    /// The mesh of the objects that are right.
    pub snapshot: Arc<Snapshot>,
    /// Whether Istio's `MeshConfig` is among them.
    pub has_mesh_config: bool,
    /// How many objects are right.
    pub objects: usize,
    /// Objects that are wrong, and objects that appear twice.
    pub broken: Vec<BrokenObject>,
    /// Files and documents that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Kinds that the mesh does not read.
    pub skipped: Vec<SkippedKind>,
    texts: HashMap<Arc<PathBuf>, String>,
    /// The field of its document in which each policy is.
    policies: HashMap<(PolicyKind, ObjectName), FieldPath>,
}

/// An object that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokenObject {
    /// The file.
    pub path: Arc<PathBuf>,
    /// Its document, from 1.
    pub document: usize,
    /// The line, from 1.
    pub line: Option<usize>,
    /// Kind and name, if they can be read.
    pub object: Option<String>,
    /// The field at fault.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A file or directory that cannot be read, or a document that is not YAML.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// The file or directory.
    pub path: Arc<PathBuf>,
    /// Its document, from 1, if only that one and those after it are unreadable.
    pub document: Option<usize>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

/// A kind that the mesh does not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedKind {
    /// In which file.
    pub path: Arc<PathBuf>,
    /// `apiVersion kind`.
    pub kind: String,
}

/// Reads files as the agent does.
pub fn read_once(inputs: Vec<Input>, config: OfflineConfig) -> FileSet {
    let settings = SourceSettings {
        trust_bundle: config.trust_bundle,
        root_namespace: config.root_namespace,
        revision: config.revision,
        ranges: MeshRanges::default(),
    };
    let mut reading = Reading::default();
    for input in inputs {
        reading.add(input, &settings);
    }
    reading.finish(&settings)
}

impl FileSet {
    /// The line of a field of a policy, or of what is around it if it does not exist.
    pub fn line(
        &self,
        kind: PolicyKind,
        name: &ObjectName,
        origin: &ObjectOrigin,
        field: &str,
    ) -> Option<usize> {
        let ObjectOrigin::File { path, document } = origin else {
            return None;
        };
        let at = self.policies.get(&(kind, name.clone()))?;
        let field = at.join(&FieldPath::parse(field));
        let location = tree::locate(self.texts.get(path)?, *document, &field)?;
        Some(location.line)
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    files: Vec<(Arc<PathBuf>, ParsedFile)>,
    broken: Vec<BrokenObject>,
    unreadable: Vec<Unreadable>,
    texts: HashMap<Arc<PathBuf>, String>,
}

impl Reading {
    fn add(&mut self, input: Input, settings: &SourceSettings) {
        let readings = match input {
            Input::Text { name, text } => vec![FileReading {
                path: Arc::new(PathBuf::from(name)),
                text: Ok(text),
            }],
            Input::Path(path) if path.is_dir() => match read::read(&path) {
                Ok(readings) => readings,
                Err(error) => {
                    let problem = format!("the directory {error}");
                    return self.unreadable.push(unreadable(path, problem));
                }
            },
            Input::Path(path) => vec![FileReading {
                text: read::read_text(&path),
                path: Arc::new(path),
            }],
        };
        for FileReading { path, text } in readings {
            match text {
                Ok(text) => self.add_file(path, text, settings),
                Err(error) => {
                    let path = Arc::unwrap_or_clone(path);
                    let problem = format!("the file {error}");
                    self.unreadable.push(unreadable(path, problem));
                }
            }
        }
    }

    /// A file that is given twice is read once.
    fn add_file(&mut self, path: Arc<PathBuf>, text: String, settings: &SourceSettings) {
        if self.texts.contains_key(&path) {
            return;
        }
        if text.is_empty() {
            let problem = "the file is empty; the agent would assume that it is being written";
            let path = Arc::unwrap_or_clone(path);
            return self.unreadable.push(unreadable(path, problem.to_owned()));
        }
        let (parsed, errors) = document::read(&path, &text, settings);
        for error in errors {
            self.add_error(&path, error);
        }
        self.files.push((Arc::clone(&path), parsed));
        self.texts.insert(path, text);
    }

    fn add_error(&mut self, path: &Arc<PathBuf>, error: DocumentError) {
        let line = error.location.map(|location| location.line);
        match error.field {
            None => self.unreadable.push(Unreadable {
                path: Arc::clone(path),
                document: Some(error.document),
                line,
                problem: error.problem,
            }),
            Some(field) => self.broken.push(BrokenObject {
                path: Arc::clone(path),
                document: error.document,
                line,
                object: error.object,
                field: Some(field.to_string()).filter(|field| !field.is_empty()),
                problem: error.problem,
            }),
        }
    }

    fn finish(self, settings: &SourceSettings) -> FileSet {
        let mut assembly = Assembly::default();
        for (path, parsed) in &self.files {
            assembly.add_file(path, Some(parsed));
        }
        let mut broken = self.broken;
        broken.extend(assembly.duplicates().iter().filter_map(duplicate));
        let has_mesh_config = assembly.has_mesh_config();
        let parts = assembly.finish(settings, Vec::new(), self.unreadable.is_empty());
        let located = self.files.iter().flat_map(|(_, parsed)| &parsed.objects);
        let mut policies = HashMap::new();
        for one in located {
            if let MeshObject::Policy(policy) = &one.object {
                let key = (policy.kind, policy.name.clone());
                policies.entry(key).or_insert_with(|| one.at.clone());
            }
        }
        let skipped = self.files.iter().flat_map(|(path, parsed)| {
            let kinds = parsed.ignored.iter().cloned();
            kinds.map(|kind| SkippedKind {
                path: Arc::clone(path),
                kind,
            })
        });
        FileSet {
            snapshot: Arc::new(Snapshot::new(parts)),
            has_mesh_config,
            objects: self
                .files
                .iter()
                .map(|(_, parsed)| parsed.objects.len())
                .sum(),
            broken,
            unreadable: self.unreadable,
            skipped: skipped.collect(),
            texts: self.texts,
            policies,
        }
    }
}

fn unreadable(path: PathBuf, problem: String) -> Unreadable {
    Unreadable {
        path: Arc::new(path),
        document: None,
        line: None,
        problem,
    }
}

fn duplicate(duplicate: &Duplicate) -> Option<BrokenObject> {
    let ObjectOrigin::File { path, document } = &duplicate.second else {
        return None;
    };
    Some(BrokenObject {
        path: Arc::clone(path),
        document: *document,
        line: None,
        object: Some(duplicate.key.to_string()),
        field: None,
        problem: duplicate.problem(),
    })
}

impl Input {
    /// The path, or the text of the standard input for `-`.
    ///
    /// # Errors
    /// If the standard input cannot be read, or is not UTF-8.
    pub fn named(path: &Path) -> std::io::Result<Self> {
        if path != Path::new("-") {
            return Ok(Self::Path(path.to_owned()));
        }
        let text = std::io::read_to_string(std::io::stdin())?;
        Ok(Self::Text {
            name: "-".to_owned(),
            text: yaml_without_marks(&text).into_owned(),
        })
    }
}
