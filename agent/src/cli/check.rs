//! `ambit check`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::output::{Format, Output, table};
use ambit_datapath::cgroup::CgroupMount;
use ambit_datapath::check::{CheckReport, Feature, FeatureState};
use ambit_datapath::foreign::{ForeignProgram, foreign_programs_of_cgroup, own_programs};

/// What to check, and how to print the result.
#[derive(clap::Args)]
pub(super) struct CheckArguments {
    /// The cgroup2 directory below which the pods run [default: the whole tree].
    #[arg(long, env = "AMBIT_CGROUP")]
    cgroup: Option<PathBuf>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// The result of `ambit check`.
#[derive(Serialize)]
struct NodeCheck {
    #[serde(flatten)]
    report: CheckReport,
    /// Other projects' programs, or why they could not be listed.
    foreign_programs: Result<Vec<ForeignProgram>, String>,
}

impl CheckArguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let check = NodeCheck {
            report: CheckReport::gather(),
            foreign_programs: self
                .foreign_programs()
                .map_err(|error| format!("{error:#}")),
        };
        let output = match self.output {
            Format::Table => Output::lines(check.lines()?),
            Format::Json | Format::Yaml => Output::of(&check, self.output)?,
        };
        output.print()?;
        Ok(match check.report.missing().next() {
            None => ExitCode::SUCCESS,
            Some(_) => ExitCode::FAILURE,
        })
    }

    fn foreign_programs(&self) -> anyhow::Result<Vec<ForeignProgram>> {
        let mount = CgroupMount::find()?;
        let cgroup = mount.cgroup(self.cgroup.as_deref().unwrap_or(mount.path()))?;
        Ok(foreign_programs_of_cgroup(&cgroup, &own_programs()?)?)
    }
}

impl NodeCheck {
    fn lines(&self) -> anyhow::Result<Vec<String>> {
        let rows: Vec<Value> = self.report.features.iter().map(row).collect();
        let foreign = match &self.foreign_programs {
            Ok(programs) => table(&serde_json::to_value(programs)?),
            Err(error) => vec![format!("could not be listed: {error}")],
        };
        let verdict = match self.report.missing().count() {
            0 => "Ambit runs here.".to_owned(),
            missing => format!(
                "Ambit does not run here: {missing} of the features that it needs are absent."
            ),
        };
        let mut lines = vec![format!("Linux {}", self.report.kernel), String::new()];
        lines.extend(table(&Value::from(rows)));
        lines.push(String::new());
        lines.push("Other projects' programs on Ambit's hooks:".to_owned());
        lines.extend(foreign);
        lines.extend([String::new(), verdict]);
        Ok(lines)
    }
}

fn row(feature: &Feature) -> Value {
    let (state, reason) = match &feature.state {
        FeatureState::Present => ("present", None),
        FeatureState::Absent(reason) => ("absent", Some(reason)),
    };
    json!({
        "feature": feature.name,
        "since": feature.since,
        "need": feature.need,
        "state": state,
        "needed for": feature.needed_for,
        "reason": reason,
    })
}
