//! Checks files of configuration: what `ambit validate` reports, object by object.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use ambit_model::ObjectOrigin;
use ambit_policy::{Finding, PolicyIndex, Severity};
use ambit_source::files::offline::{BrokenObject, FileSet};

/// The findings about some files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// How many objects could be read.
    pub objects: usize,
    /// What is wrong, in the order of files.
    pub findings: Vec<ReportedFinding>,
    /// Kinds that the mesh does not read: `FILE: apiVersion kind`.
    pub skipped: Vec<String>,
}

/// A finding: something is wrong, or may be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct ReportedFinding {
    /// The file or directory; `None` if it is about several objects.
    pub file: Option<String>,
    /// Its document, from 1.
    pub document: Option<usize>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// How bad it is.
    pub severity: Grade,
    /// Kind and name, if they can be read.
    pub object: Option<String>,
    /// The field.
    pub field: Option<String>,
    /// Its value, if it is short.
    pub value: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// The file could not be read.
    Unreadable,
    /// The object is not enforced as it is written.
    Error,
    /// The object is enforced, but may not mean what was intended.
    Warning,
}

impl Report {
    /// Judges what has been read.
    pub fn of(files: &FileSet) -> Self {
        let index = PolicyIndex::build(&files.snapshot);
        let settings = files.snapshot.mesh_settings();
        let providers: BTreeSet<Arc<str>> = settings.extension_providers.keys().cloned().collect();
        let known = files.has_mesh_config.then_some(&providers);
        let of_policies = index.findings().into_iter().chain(index.cross_check(known));
        let mut findings: Vec<_> = unreadable(files)
            .chain(files.broken.iter().map(broken))
            .chain(of_policies.map(|finding| of_policy(files, finding)))
            .chain(faults(files))
            .collect();
        findings.sort();
        let skipped = files.skipped.iter();
        Self {
            objects: files.objects,
            findings,
            skipped: skipped
                .map(|skipped| format!("{}: {}", skipped.path.display(), skipped.kind))
                .collect(),
        }
    }

    /// The number of findings of a grade.
    pub fn count(&self, grade: Grade) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.severity == grade).count()
    }
}

fn unreadable(files: &FileSet) -> impl Iterator<Item = ReportedFinding> {
    files.unreadable.iter().map(|unreadable| ReportedFinding {
        file: Some(shown(&unreadable.path)),
        document: unreadable.document,
        line: unreadable.line,
        severity: Grade::Unreadable,
        object: None,
        field: None,
        value: None,
        message: unreadable.problem.clone(),
    })
}

fn broken(broken: &BrokenObject) -> ReportedFinding {
    ReportedFinding {
        file: Some(shown(&broken.path)),
        document: Some(broken.document),
        line: broken.line,
        severity: Grade::Error,
        object: broken.object.clone(),
        field: broken.field.clone(),
        value: None,
        message: broken.problem.clone(),
    }
}

fn of_policy(files: &FileSet, finding: Finding) -> ReportedFinding {
    let Finding {
        kind, name, origin, ..
    } = &finding;
    let line = files.line(*kind, name, origin, &finding.field);
    let (file, document) = match origin {
        ObjectOrigin::File { path, document } => (Some(shown(path)), Some(*document)),
        ObjectOrigin::Kubernetes => (None, None),
    };
    ReportedFinding {
        file,
        document,
        line,
        severity: match finding.severity {
            Severity::Error => Grade::Error,
            Severity::Warning => Grade::Warning,
        },
        object: Some(format!("{kind} {name}")),
        field: Some(finding.field),
        value: finding.value,
        message: finding.problem,
    }
}

/// Faults between objects: an address that two of them claim, trust domains that differ from the
/// agent's. Duplicates are among the broken objects.
fn faults(files: &FileSet) -> impl Iterator<Item = ReportedFinding> {
    let duplicates: BTreeSet<&str> = files
        .broken
        .iter()
        .map(|broken| broken.problem.as_str())
        .collect();
    let faults = files.snapshot.faults().iter();
    faults
        .filter(move |fault| !duplicates.contains(fault.message.as_str()))
        .map(|fault| ReportedFinding {
            file: None,
            document: None,
            line: None,
            severity: Grade::Warning,
            object: Some(fault.subject.clone()),
            field: None,
            value: None,
            message: fault.message.clone(),
        })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
