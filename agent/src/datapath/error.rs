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
    Directory(#[from] super::bpffs::PinDirectoryError),
    /// The pod's network namespace could not be used.
    #[error(transparent)]
    Netns(#[from] super::netns::NetnsError),
    /// A pinned link could not be used.
    #[error(transparent)]
    Link(#[from] super::link::LinkError),
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
    pub(super) fn map(
        map: &'static str,
        action: &'static str,
    ) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map {
            map,
            action,
            source: Box::new(source),
        }
    }

    pub(super) fn pin(path: PathBuf, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Pin {
            path,
            action,
            source,
        }
    }
}

/// The outcome of removing an entry, where one that is not there is as good as removed.
pub(super) fn removed(
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
