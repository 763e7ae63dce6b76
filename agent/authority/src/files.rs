//! The files of an authority, read as one set.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use nix::unistd::{getegid, getgroups};

use super::error::{CaFilesError, file};
use ambit_input::read_bounded;

/// The signing certificate.
pub(super) const CERTIFICATE: &str = "ca-cert.pem";
/// The signing certificate's key.
pub(super) const KEY: &str = "ca-key.pem";
/// From the signing certificate up towards the root.
pub(super) const CHAIN: &str = "cert-chain.pem";
/// The trusted roots.
pub(super) const ROOTS: &str = "root-cert.pem";

/// All names of an authority's files.
pub const CA_FILES: [&str; 4] = [CERTIFICATE, KEY, CHAIN, ROOTS];

/// The longest file that is read, in bytes: as long as a Secret may be.
const LONGEST: u64 = 1024 * 1024;

/// How often the files are read before they are said to change all the time.
const ATTEMPTS: usize = 4;

/// What the files of an authority hold, all at one time.
#[derive(PartialEq, Eq)]
pub(super) struct CaFileSet {
    pub(super) directory: PathBuf,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) chain: Option<Vec<u8>>,
    pub(super) roots: Vec<u8>,
}

/// Tells one set of files from another, without the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint([u8; 32]);

impl CaFileSet {
    /// Reads the files until they are the same twice: a Secret's are all replaced at once, between
    /// two reads.
    pub(super) fn read(directory: &Path) -> Result<Self, CaFilesError> {
        let mut last = Self::read_once(directory)?;
        for _ in 1..ATTEMPTS {
            let again = Self::read_once(directory)?;
            if last == again {
                return Ok(again);
            }
            last = again;
        }
        Err(CaFilesError::Changing(directory.to_owned()))
    }

    fn read_once(directory: &Path) -> Result<Self, CaFilesError> {
        let read = |name: &str| read_file(&directory.join(name));
        Ok(Self {
            directory: directory.to_owned(),
            certificate: read(CERTIFICATE)?,
            key: read_key(&directory.join(KEY))?,
            chain: match read(CHAIN) {
                Err(CaFilesError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    None
                }
                chain => Some(chain?),
            },
            roots: read(ROOTS)?,
        })
    }

    /// The path of a file, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut context = Context::new(&SHA256);
        let chain = self.chain.as_deref().unwrap_or_default();
        for contents in [&self.certificate, &self.key, chain, &self.roots] {
            context.update(&contents.len().to_be_bytes());
            context.update(contents);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Fingerprint(digest)
    }
}

/// Reads a file that anybody may read.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, CaFilesError> {
    let opened = File::open(path).map_err(file(path))?;
    contents(opened, path)
}

/// Reads a key that nobody else can read or replace.
pub(super) fn read_key(path: &Path) -> Result<Vec<u8>, CaFilesError> {
    let opened = File::open(path).map_err(file(path))?;
    let metadata = opened.metadata().map_err(file(path))?;
    let groups = own_groups().map_err(file(path))?;
    if is_exposed(metadata.mode(), metadata.gid(), &groups) {
        return Err(CaFilesError::KeyExposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
        });
    }
    contents(opened, path)
}

fn own_groups() -> io::Result<BTreeSet<u32>> {
    let others = getgroups()?.into_iter().chain([getegid()]);
    Ok(others.map(|group| group.as_raw()).collect())
}

/// Whether more than this process and its like can use a key. A group may read it if it is one of
/// this process: a Secret's volume gives files to a process that is not root by its `fsGroup`.
fn is_exposed(mode: u32, group: u32, own_groups: &BTreeSet<u32>) -> bool {
    mode & 0o027 != 0 || (mode & 0o040 != 0 && !own_groups.contains(&group))
}

fn contents(opened: File, path: &Path) -> Result<Vec<u8>, CaFilesError> {
    read_bounded(opened, LONGEST).map_err(file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_a_group_of_ours_may_read_a_key() {
        let own = BTreeSet::from([0, 1337]);
        for (mode, group, exposed) in [
            (0o100_600, 0, false),
            (0o100_400, 99, false),
            (0o100_440, 1337, false),
            (0o100_640, 0, false),
            (0o100_440, 99, true),
            (0o100_660, 1337, true),
            (0o100_644, 0, true),
            (0o100_604, 0, true),
            (0o100_602, 0, true),
        ] {
            assert_eq!(is_exposed(mode, group, &own), exposed, "{mode:o} {group}");
        }
    }
}
