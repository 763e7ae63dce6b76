//! The cluster's keys from a file, kept up with it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use ambit_input::{FileFollower, read_bounded};
use ambit_jwt::KeySet;
use ambit_policy::{Jwks, JwksError};

/// How often the file is looked at. A mounted ConfigMap changes by a link further up, of which the
/// kernel tells nobody who watches the file.
const LOOK: Duration = Duration::from_secs(5);

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksFileError {
    /// It cannot be read.
    #[error("the file of keys {path} cannot be read: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// It has no keys.
    #[error(
        "the file of keys {path} cannot be used: {error}; write what the API server has at \
         /openid/v1/jwks to it",
        path = path.display()
    )]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: JwksError,
    },
}

/// A file with the keys of the cluster's issuer (RFC 7517), followed. If the file breaks or goes, the
/// last good keys stay in force.
#[derive(Debug)]
pub struct JwksFile {
    keys: Arc<ArcSwap<KeySet>>,
    _follower: FileFollower,
}

impl JwksFile {
    /// Reads the file, and follows it until this is dropped.
    ///
    /// # Errors
    /// [`JwksFileError`] if it cannot be used at first.
    pub fn follow(path: &Path) -> Result<Self, JwksFileError> {
        let mut read = ReadJwks::open(path)?;
        let keys = Arc::clone(&read.keys);
        let report = |fault: Option<&str>| {
            if let Some(fault) = fault {
                tracing::warn!("{fault}; the last good keys stay in force");
            }
        };
        let follower = FileFollower::start("ambit-jwks", LOOK, move || read.look(), report);
        Ok(Self {
            keys,
            _follower: follower.map_err(|error| JwksFileError::Read {
                path: path.to_owned(),
                error,
            })?,
        })
    }

    /// The keys, always the newest good ones.
    pub fn keys(&self) -> &ArcSwap<KeySet> {
        &self.keys
    }
}

/// What was read from the file.
struct ReadJwks {
    path: PathBuf,
    text: Vec<u8>,
    keys: Arc<ArcSwap<KeySet>>,
}

impl ReadJwks {
    fn open(path: &Path) -> Result<Self, JwksFileError> {
        let text = read(path)?;
        let keys = Arc::new(ArcSwap::from_pointee(parse(path, &text)?));
        Ok(Self {
            path: path.to_owned(),
            text,
            keys,
        })
    }

    /// Reads the file again, and takes over its keys if it has changed.
    fn look(&mut self) -> Result<(), JwksFileError> {
        let text = read(&self.path)?;
        if text == self.text {
            return Ok(());
        }
        let keys = parse(&self.path, &text)?;
        self.keys.store(Arc::new(keys));
        self.text = text;
        tracing::info!(file = %self.path.display(), "the cluster's keys have changed");
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JwksFileError> {
    let file = File::open(path).and_then(|file| read_bounded(file, MAX_FILE));
    file.map_err(|error| JwksFileError::Read {
        path: path.to_owned(),
        error,
    })
}

fn parse(path: &Path, text: &[u8]) -> Result<KeySet, JwksFileError> {
    let jwks = Jwks::parse(text).map_err(|error| JwksFileError::Keys {
        path: path.to_owned(),
        error,
    })?;
    Ok(KeySet::new(&jwks))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;
    use ambit_jwt::testing::TestIssuer;
    use ambit_jwt::{ExpectedToken, verify_bearer};

    #[test]
    fn keys_are_rotated_and_a_broken_file_rotates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        let issuers = [TestIssuer::ec("P-256"), TestIssuer::ec("P-256")];
        let accepted = |keys: &ArcSwap<KeySet>| {
            let expected = ExpectedToken {
                issuer: "i".to_owned(),
                audience: "a".to_owned(),
            };
            let claims = json!({"iss": "i", "aud": "a", "exp": 1});
            let is_accepted = |issuer: &TestIssuer| {
                verify_bearer(&issuer.token(&claims), &expected, &keys.load(), UNIX_EPOCH).is_ok()
            };
            [is_accepted(&issuers[0]), is_accepted(&issuers[1])]
        };
        assert!(matches!(
            JwksFile::follow(&path),
            Err(JwksFileError::Read { .. })
        ));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            JwksFile::follow(&path),
            Err(JwksFileError::Keys { .. })
        ));
        std::fs::write(&path, issuers[0].jwks().to_string()).unwrap();
        let mut file = ReadJwks::open(&path).unwrap();
        let keys = Arc::clone(&file.keys);
        assert_eq!(accepted(&keys), [true, false]);
        for broken in ["", "{}", r#"{"keys": []}"#] {
            std::fs::write(&path, broken).unwrap();
            assert!(file.look().is_err());
            assert_eq!(accepted(&keys), [true, false]);
        }
        std::fs::write(&path, issuers[1].jwks().to_string()).unwrap();
        file.look().unwrap();
        assert_eq!(accepted(&keys), [false, true]);
    }
}
