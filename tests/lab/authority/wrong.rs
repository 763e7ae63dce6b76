//! An authority that answers wrongly.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::access::{CaAccess, CaEndpoint};
use super::server::{DNS_NAME, address};
use crate::lab::Lab;
use crate::plan::NodeName;
use crate::process::Process;
use crate::server::tool;

/// An error in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaFault {
    /// No error.
    Silence,
    /// The caller may not ask for others, in istiod's words.
    Refusal,
    /// The certificate is for another identity.
    OtherIdentity,
    /// The certificate is for a key that was not sent.
    OtherKey,
    /// The certificate has expired.
    Expired,
    /// The certificate is signed by another root than the one that comes with it.
    OtherRoot,
    /// It is not a certificate.
    Garbage,
}

impl CaFault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Silence,
        Self::Refusal,
        Self::OtherIdentity,
        Self::OtherKey,
        Self::Expired,
        Self::OtherRoot,
        Self::Garbage,
    ];

    /// The error with this name.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.to_string() == word)
    }
}

impl fmt::Display for CaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silence => "silence",
            Self::Refusal => "refusal",
            Self::OtherIdentity => "other-identity",
            Self::OtherKey => "other-key",
            Self::Expired => "expired",
            Self::OtherRoot => "other-root",
            Self::Garbage => "garbage",
        })
    }
}

/// A running `lab-ca` in the place of `ambit ca serve`.
pub struct WrongCa {
    directory: PathBuf,
    process: Process,
}

impl WrongCa {
    /// Starts it, and makes the agents that are started from now on get their certificates from it.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory = tempfile::tempdir_in(lab.directory())?.keep();
        let mut command = lab.observer(NodeName::B)?.command(tool("lab-ca")?)?;
        command.arg(address().to_string()).arg(DNS_NAME);
        command.arg(&directory);
        let mut process = Process::start(&mut command, &lab.new_log("lab-ca")?)?;
        process.wait_for_line("an authority listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        let token = directory.join("token");
        fs::write(&token, "a token\n")?;
        lab.set_certificates_from(CaAccess {
            endpoint: CaEndpoint {
                address: address(),
                server_name: DNS_NAME,
                roots: directory.join("root.pem"),
            },
            tokens: [token.clone(), token],
        });
        Ok(Self { directory, process })
    }

    /// Makes its answers wrong, or right, from now on.
    ///
    /// # Errors
    ///
    /// If the fault cannot be written.
    pub fn set_fault(&self, fault: Option<CaFault>) -> Result<()> {
        let word = fault.map(|fault| fault.to_string()).unwrap_or_default();
        let new = self.directory.join("fault.new");
        fs::write(&new, word)?;
        Ok(fs::rename(new, self.directory.join("fault"))?)
    }

    /// Its log, with a line for each request.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The file of the root that agents verify it by.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root.pem")
    }
}
