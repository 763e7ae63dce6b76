use std::io;
use std::path::PathBuf;

/// Why the kernel side of the node could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The embedded object was refused.
    #[error(
        "the kernel refused Ambit's {object} object: {source}; `ambit check` says what it lacks"
    )]
    Load {
        /// Which object.
        object: &'static str,
        /// The loader's error.
        source: Box<aya::EbpfError>,
    },
    /// A program was refused, usually by the verifier.
    #[error("the kernel refused the program {program}: {source}; `ambit check` says what it lacks")]
    Program {
        /// Which program.
        program: &'static str,
        /// The kernel's error.
        source: Box<aya::programs::ProgramError>,
    },
    /// The embedded object lacks a program, which is a fault of the build.
    #[error("the embedded object has no program {0}; build the agent with `cargo xtask build`")]
    NoProgram(&'static str),
    /// The embedded object lacks a map, which is a fault of the build.
    #[error("the embedded object has no map {0}; build the agent with `cargo xtask build`")]
    NoMap(&'static str),
    /// The pin directory could not be prepared.
    #[error(transparent)]
    Directory(#[from] crate::pins::directory::PinDirectoryError),
    /// The pod's network namespace could not be used.
    #[error(transparent)]
    Netns(#[from] crate::kernel::netns::NetnsError),
    /// A pinned link could not be used.
    #[error(transparent)]
    Link(#[from] crate::kernel::link::LinkError),
    /// A map could not be read or written.
    #[error("the map {map} could not be {action}: {source}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What failed, as a participle: "opened", "written".
        action: &'static str,
        /// The kernel's error.
        source: Box<aya::maps::MapError>,
    },
    /// The slot of an enrolled pod belongs to another pod: an earlier agent made a mistake, or another program
    /// changed the maps.
    #[error(
        "the kernel's tables have another pod's entry for the pod with netns cookie {}; its traffic is \
         refused. Delete the pod so that it is created again", .0.0
    )]
    SlotTaken(ambit_common::NetnsCookie),
    /// The maps have no room for more pods.
    #[error(
        "the map PODS could not be written: {} pods are enrolled, which is the maximum; move pods to \
         another node",
        ambit_common::MAX_PODS
    )]
    NoSlot,
    /// It is unknown whether kernel programs still use what was taken away from them.
    #[error(
        "waiting for a grace period of the kernel failed: {0}; what is out of use stays until it succeeds"
    )]
    Grace(#[source] io::Error),
    /// Several entries could not be written or removed. The others were.
    #[error("{first} ({more} more failed)")]
    Several {
        /// The first error.
        first: Box<DatapathError>,
        /// The number of further errors.
        more: usize,
    },
    /// The pin directory could not be changed.
    #[error("{path} could not be {action}: {source}")]
    Pin {
        /// The file or directory.
        path: PathBuf,
        /// What failed, as a participle: "opened", "written".
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The hooks do not see this process.
    #[error(
        "Ambit's connect hook does not see the agent's own connections ({0}): the agent has to \
         run in a cgroup below the one given by --cgroup"
    )]
    HookDoesNotSeeAgent(&'static str),
    /// All numbers of policy sets or of identities have been used.
    #[error(
        "all numbers for policy sets or identities are used up: drain the node, stop the agent, \
         remove its pin directory and start it again"
    )]
    IdsExhausted,
    /// The pod has no policy set: it is being enrolled, or has just been removed.
    #[error("the pod with netns cookie {} has no policy set: it is not enrolled", .0.0)]
    PodUnknown(ambit_common::NetnsCookie),
    /// A socket operation failed.
    #[error("a socket of the agent could not be set up: {0}")]
    Socket(#[source] io::Error),
}

impl DatapathError {
    /// Whether the error is that a map has no room for an entry: a trie returns ENOSPC, a hash E2BIG.
    pub(crate) fn is_full(&self) -> bool {
        let Self::Map { source, .. } = self else {
            return false;
        };
        match &**source {
            aya::maps::MapError::SyscallError(error) => {
                let number = error.io_error.raw_os_error();
                matches!(number, Some(libc::ENOSPC | libc::E2BIG))
            }
            _ => false,
        }
    }

    pub(crate) fn map(
        map: &'static str,
        action: &'static str,
    ) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map {
            map,
            action,
            source: Box::new(source),
        }
    }

    pub(crate) fn pin(path: PathBuf, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Pin {
            path,
            action,
            source,
        }
    }
}

/// The flag with which an entry is only written if there is none. A look-up can miss an entry of a hash while
/// it is overwritten, because the kernel links the new element and then unlinks the old one.
pub(crate) const BPF_NOEXIST: u64 = aya_obj::generated::BPF_NOEXIST as u64;

/// The errors of several changes, each of which is tried even if others fail.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Option<DatapathError>,
    more: usize,
}

impl Failures {
    /// Notes the error of a result, if it is one. Returns whether the result is a success.
    pub(crate) fn note(&mut self, outcome: Result<(), DatapathError>) -> bool {
        match outcome {
            Ok(()) => return true,
            Err(error) if self.first.is_none() => self.first = Some(error),
            Err(_) => self.more += 1,
        }
        false
    }

    /// Returns the first error, if there was one.
    pub(crate) fn into_first(self) -> Option<DatapathError> {
        self.first
    }

    /// Returns all errors as one.
    pub(crate) fn into_result(self) -> Result<(), DatapathError> {
        match self {
            Self { first: None, .. } => Ok(()),
            Self {
                first: Some(first),
                more: 0,
            } => Err(first),
            Self {
                first: Some(first),
                more,
            } => Err(DatapathError::Several {
                first: Box::new(first),
                more,
            }),
        }
    }
}

/// Turns the result of a removal into a success if the entry did not exist.
pub(crate) fn removed(
    outcome: Result<(), aya::maps::MapError>,
    map: &'static str,
) -> Result<(), DatapathError> {
    use aya::maps::MapError;
    match outcome {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(error) => Err(DatapathError::map(map, "written")(error)),
    }
}
