//! The cluster's keys from a file, kept up with it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

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

/// A file with the keys of the cluster's issuer (RFC 7517).
#[derive(Debug)]
pub struct JwksFile {
    path: PathBuf,
    /// What the keys were read from.
    text: Vec<u8>,
    keys: Arc<ArcSwap<KeySet>>,
}

impl JwksFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// [`JwksFileError`].
    pub fn open(path: &Path) -> Result<Self, JwksFileError> {
        let text = read(path)?;
        let keys = Arc::new(ArcSwap::from_pointee(parse(path, &text)?));
        Ok(Self {
            path: path.to_owned(),
            text,
            keys,
        })
    }

    /// The keys, as they are at the time.
    pub fn keys(&self) -> Arc<ArcSwap<KeySet>> {
        Arc::clone(&self.keys)
    }

    /// Keeps the keys up with the file for as long as it is polled. Of a file that is broken or
    /// gone, the last good keys stay in force.
    pub async fn follow(mut self) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let problem = self.look().err().map(|error| error.to_string());
            if problem != told
                && let Some(problem) = &problem
            {
                tracing::warn!("{problem}; the last good keys stay in force");
            }
            told = problem;
        }
    }

    /// Takes over what has changed.
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
    let failed = |error| JwksFileError::Read {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
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
            JwksFile::open(&path),
            Err(JwksFileError::Read { .. })
        ));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            JwksFile::open(&path),
            Err(JwksFileError::Keys { .. })
        ));
        std::fs::write(&path, issuers[0].jwks().to_string()).unwrap();
        let mut file = JwksFile::open(&path).unwrap();
        let keys = file.keys();
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
