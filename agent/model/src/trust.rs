use serde::Serialize;

use super::TrustDomain;

/// The trust domains that count as the mesh's own (Istio's `trustDomain` and `trustDomainAliases`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrustBundle {
    /// The domain in which the mesh's identities are issued.
    pub own: TrustDomain,
    /// Others, for example the former name of the mesh.
    pub aliases: Vec<TrustDomain>,
}

impl TrustBundle {
    /// A mesh with no other trust domain than its own.
    pub fn without_aliases(own: TrustDomain) -> Self {
        Self {
            own,
            aliases: Vec::new(),
        }
    }

    /// Every domain, the mesh's own first.
    pub fn domains(&self) -> impl Iterator<Item = &TrustDomain> {
        std::iter::once(&self.own).chain(&self.aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_domain_comes_first() {
        let domain = |text| TrustDomain::new(text).expect("valid");
        let bundle = TrustBundle {
            own: domain("cluster.local"),
            aliases: vec![domain("old.example"), domain("a.example")],
        };
        let domains: Vec<_> = bundle.domains().map(TrustDomain::as_str).collect();
        assert_eq!(domains, ["cluster.local", "old.example", "a.example"]);
        let alone = TrustBundle::without_aliases(domain("cluster.local"));
        assert_eq!(alone.domains().count(), 1);
    }
}
