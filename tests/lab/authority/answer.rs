//! The answers of an authority, and checks of them.

use anyhow::{Context, Result, bail, ensure};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// The result of a call.
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

    /// Checks that there is a certificate for this identity, a SPIFFE URI, and for no other.
    ///
    /// # Errors
    ///
    /// If there is none, or one for another identity.
    pub fn ensure_for(&self, identity: &str) -> Result<()> {
        let names = certificate_names(self.leaf()?)?;
        ensure!(names == [identity], "{names:?}, and not {identity}");
        Ok(())
    }

    /// Checks that there is none, with this gRPC status and for a reason that contains all these words.
    ///
    /// # Errors
    ///
    /// If that is not so.
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
    /// If there is none, or it has expired.
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

/// The names of the first certificate in PEM: URIs as they are, others in a form that is not a URI.
///
/// # Errors
///
/// If there is no certificate, or it has no names.
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
