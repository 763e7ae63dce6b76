//! The program `classify`, on tables that the agent's own code writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::{ClassifierInput, ClassifierOutput, Generation, KernelVerdict, NetnsCookie};
use ambit_datapath::PinDirectory;
use ambit_datapath::{CLASSIFIER, Pins, PolicyTables};
use ambit_policy::{ConnectionAttributes, WorkloadPolicies};
use anyhow::{Context, Result};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};

const MAPS: [&str; 5] = [
    "DESTINATION_BITS",
    "IDENTITY_BITS",
    "POLICY_SETS",
    "PORT_BITS",
    "SOURCE_BITS",
];

/// The kernel, with the policies of one pod.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    tables: PolicyTables,
    directory: PinDirectory,
    base: PathBuf,
}

impl Kernel {
    /// Loads the program. Needs root.
    pub(crate) fn load() -> Result<Self> {
        let base = PathBuf::from(format!("/sys/fs/bpf/ambit-bench-{}", std::process::id()));
        let directory = PinDirectory::prepare(&base)?;
        let pins = Pins::open(&directory)?;
        let object = std::fs::read(CLASSIFIER)
            .with_context(|| format!("{CLASSIFIER} cannot be read: run `cargo xtask build`"))?;
        let mut loader = EbpfLoader::new();
        for map in MAPS {
            loader.map_pin_path(map, directory.path().join("maps").join(map));
        }
        let mut ebpf = loader.load(&object)?;
        let program = ebpf.program_mut("ambit_classify").context("no program")?;
        <&mut Xdp>::try_from(program)?.load()?;
        Ok(Self {
            tables: PolicyTables::open(&pins)?,
            ebpf,
            directory,
            base,
        })
    }

    /// Puts policies in force, and makes of a connection what the program is asked.
    pub(crate) fn question(
        &self,
        policies: &Arc<WorkloadPolicies>,
        connection: &ConnectionAttributes,
    ) -> Result<ClassifierInput> {
        const POD: NetnsCookie = NetnsCookie(1);
        let assigned = self.tables.assign(POD, policies, Generation(0))?;
        let (identity, _) = self.tables.admit_peer(POD, connection.identity.as_ref())?;
        Ok(ClassifierInput {
            set: assigned.set,
            identity,
            source: connection.source.into(),
            destination: connection.destination.into(),
        })
    }

    /// Asks the same many times: the verdict, and how long one took, by the kernel's own clock.
    pub(crate) fn ask(
        &self,
        question: &ClassifierInput,
        times: u32,
    ) -> Result<(KernelVerdict, Duration)> {
        let program = self.ebpf.program("ambit_classify").context("no program")?;
        let result = <&Xdp>::try_from(program)?.test_run(TestRunOptions {
            data_in: Some(&question.to_bytes()),
            repeat: times,
            ..TestRunOptions::new()
        })?;
        let judgement = ClassifierOutput(result.return_value).judgement();
        let judgement = judgement.context("the program came to no verdict")?;
        Ok((judgement.verdict, result.duration))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let pins = self.directory.path();
        if let Err(error) = std::fs::remove_dir_all(pins).and(std::fs::remove_dir(&self.base)) {
            eprintln!("{} is left: {error}", self.base.display());
        }
    }
}
