//! What an authority answers, and what has to be in it.

use anyhow::{Context, Result, bail, ensure};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// What came of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaAnswer {
    /// A chain, in PEM, leaf first and roots last.
    Chain(Vec<String>),
    /// gRPC's status, and the reason.
    Refusal(u32, String),
}

impl CaAnswer {
    /// gRPC's status.
    pub fn status(&self) -> u32 {
        match self {
            Self::Chain(_) => 0,
            Self::Refusal(status, _) => *status,
        }
    }

    /// That there is a certificate for this identity, a SPIFFE URI, and no other.
    ///
    /// # Errors
    ///
    /// Where there is none, or for somebody else.
    pub fn ensure_for(&self, identity: &str) -> Result<()> {
        let names = certificate_names(self.leaf()?)?;
        ensure!(names == [identity], "{names:?}, and not {identity}");
        Ok(())
    }

    /// That there is none, with this status of gRPC and for a reason that has all these words.
    ///
    /// # Errors
    ///
    /// Where it is otherwise.
    pub fn ensure_refused(&self, status: u32, words: &[&str]) -> Result<()> {
        let Self::Refusal(own, reason) = self else {
            bail!("it was given: {self:?}");
        };
        let is_it = *own == status && words.iter().all(|word| reason.contains(word));
        ensure!(is_it, "{self:?}, and not {status} with {words:?}");
        Ok(())
    }

    /// How many seconds the certificate is valid from now on.
    ///
    /// # Errors
    ///
    /// Where there is none, or it has expired.
    pub fn seconds_left(&self) -> Result<i64> {
        with_certificate(self.leaf()?, |leaf| {
            let left = leaf.validity().time_to_expiration();
            Ok(left.context("it has expired")?.whole_seconds())
        })
    }

    fn leaf(&self) -> Result<&str> {
        let Self::Chain(chain) = self else {
            bail!("no certificate: {self:?}");
        };
        Ok(chain.first().context("an empty chain")?)
    }
}

/// The names of the first certificate in PEM: URIs as they are, others so that they are no URIs.
///
/// # Errors
///
/// Where there is no certificate, or it has no names.
pub fn certificate_names(pem: &str) -> Result<Vec<String>> {
    with_certificate(pem, |certificate| {
        let names = certificate.subject_alternative_name()?;
        let names = &names.context("no names")?.value.general_names;
        let texts = names.iter().map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => format!("{other:?}"),
        });
        Ok(texts.collect())
    })
}

fn with_certificate<T>(pem: &str, look: impl Fn(&X509Certificate<'_>) -> Result<T>) -> Result<T> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    look(&pem.parse_x509()?)
}
