//! Checks what the documents cite: files and tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::process::output_of;
use crate::workspace;

/// Documents for people who change the code.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "tests/README.md",
    "agent/policy/MANUAL.md",
];

/// The directories that a citation of a file begins with.
const ROOTS: [&str; 6] = ["agent", "common", "deploy", "ebpf", "tests", "xtask"];

/// Ends the name of a test of which only the beginning is cited.
const ELLIPSIS: char = '…';

/// Ensures that each file and each test exists that a document cites between backquotes.
///
/// # Errors
///
/// If one does not, or if a document cannot be read.
pub(crate) fn check() -> Result<()> {
    let functions = functions()?;
    let mut stale = Vec::new();
    for document in DOCUMENTS {
        let path = workspace::root().join(document);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let broken = citations(&text).filter(|cited| is_stale(cited, &functions));
        stale.extend(broken.map(|cited| format!("{document}: {cited}")));
    }
    ensure!(
        stale.is_empty(),
        "documents cite files or tests that do not exist; correct these citations: {stale:#?}"
    );
    Ok(())
}

/// The texts between single backquotes. A block of code has three, and counts for nothing.
fn citations(document: &str) -> impl Iterator<Item = &str> {
    document
        .lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn is_stale(cited: &str, functions: &BTreeSet<String>) -> bool {
    if is_path(cited) {
        return !workspace::root().join(cited).exists();
    }
    let Some(beginning) = cited.strip_suffix(ELLIPSIS) else {
        return false;
    };
    let name = beginning.rsplit("::").next().unwrap_or(beginning);
    let is_name = name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    is_name && !functions.iter().any(|function| function.starts_with(name))
}

/// Whether this is the path of a file or a directory of the project.
fn is_path(cited: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    let root = cited.split_once('/').map(|(root, _)| root);
    root.is_some_and(|root| ROOTS.contains(&root)) && cited.bytes().all(is_plain)
}

/// The names of all functions, tests among them.
fn functions() -> Result<BTreeSet<String>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(workspace::root())
        .args(["ls-files", "-z", "--cached", "--others"])
        .args(["--exclude-standard", "*.rs"]);
    let mut functions = BTreeSet::new();
    for file in output_of(&mut git)?.split_terminator('\0') {
        let path = workspace::root().join(file);
        if path.exists() {
            functions.extend(functions_of(&path)?);
        }
    }
    Ok(functions)
}

fn functions_of(path: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let after_fn = text.lines().filter_map(|line| line.split_once("fn "));
    Ok(after_fn
        .filter_map(|(_, rest)| rest.split(['(', '<']).next())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale(document: &str) -> Vec<&str> {
        let functions = BTreeSet::from(["a_pod_is_served".to_owned()]);
        citations(document)
            .filter(|cited| is_stale(cited, &functions))
            .collect()
    }

    #[test]
    fn files_and_tests_that_do_not_exist_are_found() {
        let document = "`xtask/src/main.rs` and `tests/none.rs` show it, \
                        as do `pods::a_pod_is_…`, `a_pod_was_…`";
        assert_eq!(stale(document), ["tests/none.rs", "a_pod_was_…"]);
    }

    #[test]
    fn what_is_neither_a_file_nor_a_test_is_not_looked_for() {
        assert_eq!(
            stale("`10.0.0.0/8` `a/b` `cargo xtask …` `--all` `::1`"),
            [""; 0]
        );
    }
}
