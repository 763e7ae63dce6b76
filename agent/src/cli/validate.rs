//! `ambit validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::offline::MeshArguments;
use super::output::{Format, Output, print_error};
use crate::validate::{Grade, Report, ReportedFinding};

/// What to check, and how to print the result.
#[derive(clap::Args)]
pub(super) struct ValidateArguments {
    /// Files of Kubernetes YAML, directories of them, or - for the standard input.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshArguments,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// The exit status if something could not be read.
const UNREADABLE: u8 = 2;

impl ValidateArguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let files = match self.mesh.read(&self.files) {
            Ok(files) => files,
            Err(error) => {
                print_error(format_args!("the standard input cannot be read: {error}"));
                return Ok(UNREADABLE.into());
            }
        };
        let report = Report::of(&files);
        let output = match self.output {
            Format::Table => Output::lines(lines(&report)),
            Format::Json | Format::Yaml => Output::of(&report, self.output)?,
        };
        output.print()?;
        Ok(status(&report).into())
    }
}

/// 0 if everything is right, 1 if an object is wrong, 2 if something could not be read.
fn status(report: &Report) -> u8 {
    match (report.count(Grade::Unreadable), report.count(Grade::Error)) {
        (0, 0) => 0,
        (0, _) => 1,
        (_, _) => UNREADABLE,
    }
}

/// A line for each finding, and a summary.
fn lines(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report.findings.iter().map(line).collect();
    let skipped = report.skipped.iter();
    lines.extend(skipped.map(|skipped| format!("{skipped}: skipped, the mesh does not read it")));
    let (errors, warnings) = (
        report.count(Grade::Error) + report.count(Grade::Unreadable),
        report.count(Grade::Warning),
    );
    lines.push(format!(
        "{}, {}, {}",
        counted(report.objects, "object"),
        counted(errors, "error"),
        counted(warnings, "warning")
    ));
    lines
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// `FILE:DOCUMENT (line LINE) OBJECT FIELD (VALUE): MESSAGE`, without the parts that are absent.
fn line(finding: &ReportedFinding) -> String {
    let mut place = finding.file.clone().unwrap_or_default();
    if let Some(document) = finding.document {
        place.push_str(&format!(":{document}"));
    }
    let mut words = vec![place];
    words.extend(finding.line.map(|line| format!("(line {line})")));
    words.extend(finding.object.clone());
    words.extend(finding.field.clone());
    let value = finding.value.as_ref();
    words.extend(value.map(|value| format!("= {value}")));
    words.retain(|word| !word.is_empty());
    let grade = match finding.severity {
        Grade::Unreadable | Grade::Error => "",
        Grade::Warning => "warning: ",
    };
    format!("{grade}{}: {}", words.join(" "), finding.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Grade) -> ReportedFinding {
        ReportedFinding {
            file: Some("a.yaml".to_owned()),
            document: Some(2),
            line: Some(7),
            severity,
            object: Some("Pod a/b".to_owned()),
            field: Some("spec.x".to_owned()),
            value: Some("1".to_owned()),
            message: "wrong; correct it".to_owned(),
        }
    }

    fn report(grades: &[Grade]) -> Report {
        Report {
            objects: 1,
            findings: grades.iter().map(|grade| finding(*grade)).collect(),
            skipped: vec!["a.yaml: apps/v1 Deployment".to_owned()],
        }
    }

    #[test]
    fn a_finding_is_a_line_and_the_rest_is_counted() {
        assert_eq!(
            lines(&report(&[Grade::Error, Grade::Warning])),
            [
                "a.yaml:2 (line 7) Pod a/b spec.x = 1: wrong; correct it",
                "warning: a.yaml:2 (line 7) Pod a/b spec.x = 1: wrong; correct it",
                "a.yaml: apps/v1 Deployment: skipped, the mesh does not read it",
                "1 object, 1 error, 1 warning",
            ]
        );
    }

    #[test]
    fn the_status_is_that_of_the_worst_finding() {
        for (grades, expected) in [
            (&[][..], 0),
            (&[Grade::Warning], 0),
            (&[Grade::Warning, Grade::Error], 1),
            (&[Grade::Error, Grade::Unreadable], 2),
        ] {
            assert_eq!(status(&report(grades)), expected, "{grades:?}");
        }
    }
}
