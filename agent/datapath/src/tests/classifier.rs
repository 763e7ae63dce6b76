//! The classifier, which gives the verdict of the hooks, on maps of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_common::{
    ClassifierInput, ClassifierOutput, Generation, IdentityId, NetnsCookie, PolicySetId,
};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};

use crate::pins::directory::PinDirectory;
use crate::testing::{TestBpffs, is_root, mount_for_test};
use crate::{CLASSIFIER, Pins, PolicyTables};
use ambit_policy::{ConnectionAttributes, WorkloadPolicies};

const MAPS: [&str; 5] = [
    "DESTINATION_BITS",
    "IDENTITY_BITS",
    "POLICY_SETS",
    "PORT_BITS",
    "SOURCE_BITS",
];

/// The one pod whose policies are in force.
const POD: NetnsCookie = NetnsCookie(1);

/// The loaded program and the maps that it reads, which the agent's code writes. They are removed with the
/// value.
pub(super) struct Classifier {
    ebpf: Ebpf,
    tables: PolicyTables,
    pub(super) pins: Pins,
    _directory: PinDirectory,
    _bpffs: TestBpffs,
}

impl Classifier {
    /// Loads the program. Returns `None` if the test has to be skipped.
    pub(super) fn load() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let bpffs = mount_for_test();
        let directory = PinDirectory::prepare(&bpffs.path().join("ambit")).expect("prepares");
        let pins = Pins::open(&directory).expect("opens");
        let object = std::fs::read(CLASSIFIER)
            .unwrap_or_else(|error| panic!("{CLASSIFIER}: {error}; run `cargo xtask build`"));
        let mut loader = EbpfLoader::new();
        for map in MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
        let mut ebpf = loader.load(&object).expect("an object");
        program(&mut ebpf).load().expect("the verifier accepts it");
        Some(Self {
            tables: PolicyTables::open(&pins).expect("opens"),
            ebpf,
            pins,
            _directory: directory,
            _bpffs: bpffs,
        })
    }

    /// Puts the pod's policies in force.
    pub(super) fn enforce(&self, policies: &Arc<WorkloadPolicies>) -> PolicySetId {
        let assigned = self.tables.assign(POD, policies, Generation(0));
        assigned.expect("written").set
    }

    /// Removes the pod, and with it the policies that were in force.
    pub(super) fn forget(&self) {
        self.tables.release(POD);
        let now = Instant::now();
        for time in [now, now + Duration::from_secs(3600)] {
            self.tables.sweep(time, &BTreeSet::new()).expect("removed");
        }
    }

    /// Makes the caller's identity known, and asks the kernel for its verdict.
    pub(super) fn judge(
        &self,
        set: PolicySetId,
        connection: &ConnectionAttributes,
    ) -> ClassifierOutput {
        let admitted = self.tables.admit_peer(POD, connection.identity.as_ref());
        let (identity, _) = admitted.expect("written");
        self.ask(question(set, identity, connection))
    }

    /// Asks the kernel for its verdict.
    pub(super) fn ask(&self, question: ClassifierInput) -> ClassifierOutput {
        self.run(&question.to_bytes())
    }

    /// Runs the program on data that may not be a valid input.
    pub(super) fn run(&self, data: &[u8]) -> ClassifierOutput {
        let program = self.ebpf.program("ambit_classify").expect("a program");
        let program: &Xdp = program.try_into().expect("of this type");
        let result = program.test_run(TestRunOptions {
            data_in: Some(data),
            ..TestRunOptions::new()
        });
        ClassifierOutput(result.expect("runs").return_value)
    }
}

/// Returns the input for a connection.
pub(super) fn question(
    set: PolicySetId,
    identity: IdentityId,
    connection: &ConnectionAttributes,
) -> ClassifierInput {
    ClassifierInput {
        set,
        identity,
        source: connection.source.into(),
        destination: connection.destination.into(),
    }
}

fn program(ebpf: &mut Ebpf) -> &mut Xdp {
    let program = ebpf.program_mut("ambit_classify").expect("a program");
    program.try_into().expect("of this type")
}
