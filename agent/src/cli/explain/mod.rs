//! `ambit explain`.

mod arguments;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;

use super::offline::MeshArguments;
use super::output::{Format, Output};
use super::show::ask;
use ambit_policy::MeshView;
use ambit_policy::explain::{AccessExplanation, AccessQuestion};
use arguments::QuestionArguments;

/// The question, the agent or the files that answer it, and how to print the answer.
#[derive(clap::Args)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    question: QuestionArguments,
    /// Answer from files of Kubernetes YAML, directories of them, or - for the standard input,
    /// instead of asking the agent.
    #[arg(short, long = "file", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshArguments,
    /// The agent's admin socket.
    #[arg(long, env = "AMBIT_SOCKET", default_value = super::run::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl ExplainArguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let question = self.question.question()?;
        let answer = match self.files.as_slice() {
            [] => ask(&self.socket, async |agent| {
                agent.explain(Box::new(question)).await
            })?,
            files => of_files(self.mesh, files, &question)?,
        };
        let output = match self.output {
            Format::Table => Output::lines(text::lines(&answer)),
            Format::Json | Format::Yaml => Output::of(&answer, self.output)?,
        };
        output.print()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A broken object might decide, so there is no answer without it.
fn of_files(
    mesh: MeshArguments,
    files: &[PathBuf],
    question: &AccessQuestion,
) -> anyhow::Result<AccessExplanation> {
    let files = mesh.read(files)?;
    if let Some(unreadable) = files.unreadable.first() {
        bail!("{}: {}", unreadable.path.display(), unreadable.problem);
    }
    if let Some(broken) = files.broken.first() {
        bail!(
            "{}, document {}: {}; `ambit validate` lists every error",
            broken.path.display(),
            broken.document,
            broken.problem
        );
    }
    Ok(MeshView::new(Arc::clone(&files.snapshot)).explain(question)?)
}
