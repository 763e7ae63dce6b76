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
    /// The embedded object lacks a program: a fault of the build.
    #[error("the embedded object has no program {0}; build the agent with `cargo xtask build`")]
    NoProgram(&'static str),
    /// The embedded object lacks a map: a fault of the build.
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
        /// What was tried.
        action: &'static str,
        /// The kernel's error.
        source: Box<aya::maps::MapError>,
    },
    /// An enrolled pod's slot in the kernel's tables is another's: a fault of an earlier agent, or the
    /// maps were changed by someone else.
    #[error(
        "the kernel's tables have no entry of its own for the pod with netns cookie {}; its traffic is \
         refused. Delete the pod, and it is served when it has been made anew", .0.0
    )]
    SlotTaken(ambit_common::NetnsCookie),
    /// As many pods are enrolled as the tables have room for.
    #[error(
        "the map PODS could not be written: {} pods are enrolled, and there is room for no more; \
         move pods to another node",
        ambit_common::MAX_PODS
    )]
    NoSlot,
    /// Nothing says whether kernel programs still use what was taken away from them.
    #[error("the kernel could not be waited for: {0}; what is out of use stays until it can")]
    Grace(#[source] io::Error),
    /// Several entries could not be written or removed. The others were.
    #[error("{first} ({more} more failed)")]
    Several {
        /// The first error.
        first: Box<DatapathError>,
        /// How many there were besides.
        more: usize,
    },
    /// The pin directory could not be changed.
    #[error("{path} could not be {action}: {source}")]
    Pin {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
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
    /// All numbers of a kind have been given out.
    #[error(
        "all numbers for policy sets or identities are used up: drain the node, stop the agent, \
         remove its pin directory and start it again"
    )]
    IdsExhausted,
    /// A pod that has no policy set: it is being enrolled, or has just been removed.
    #[error("the pod with netns cookie {} has no policy set: it is not enrolled", .0.0)]
    PodUnknown(ambit_common::NetnsCookie),
    /// A socket operation failed.
    #[error("a socket of the agent could not be set up: {0}")]
    Socket(#[source] io::Error),
}

impl DatapathError {
    /// Whether a map has no room for an entry: a trie says ENOSPC, a hash E2BIG.
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

/// The flag with which an entry is only written where there is none. An entry of a hash that is
/// overwritten can be missed by a look-up: the kernel links the new element, then unlinks the old one.
pub(crate) const BPF_NOEXIST: u64 = aya_obj::generated::BPF_NOEXIST as u64;

/// Errors of changes of which each is tried whatever became of the others.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Option<DatapathError>,
    more: usize,
}

impl Failures {
    /// Takes note of an outcome. Whether it is a success.
    pub(crate) fn note(&mut self, outcome: Result<(), DatapathError>) -> bool {
        match outcome {
            Ok(()) => return true,
            Err(error) if self.first.is_none() => self.first = Some(error),
            Err(_) => self.more += 1,
        }
        false
    }

    /// The first error, if there was one.
    pub(crate) fn into_first(self) -> Option<DatapathError> {
        self.first
    }

    /// All of them as one.
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

/// The outcome of removing an entry, where one that is not there is as good as removed.
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
