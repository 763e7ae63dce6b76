use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The addresses that belong to the mesh even where no object names them: the cluster's pod and
/// Service ranges, without their exclusions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MeshRanges {
    /// Pod and Service CIDRs.
    pub included: Vec<IpNet>,
    /// Parts of them that are outside.
    pub excluded: Vec<IpNet>,
}

impl MeshRanges {
    /// Whether an address lies in the ranges; the longest prefix decides, and an exclusion wins
    /// over an inclusion of the same length.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let longest = |ranges: &[IpNet]| {
            ranges
                .iter()
                .filter(|net| net.contains(&address))
                .map(IpNet::prefix_len)
                .max()
        };
        match (longest(&self.included), longest(&self.excluded)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(included), Some(excluded)) => included > excluded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let net = |text: &str| text.parse::<IpNet>().expect("valid");
        let ranges = MeshRanges {
            included: vec![net("10.0.0.0/8"), net("10.1.2.0/24"), net("fd00::/16")],
            excluded: vec![net("10.1.0.0/16")],
        };
        for (address, inside) in [
            ("10.9.9.9", true),
            ("::ffff:10.9.9.9", true),
            ("10.1.9.9", false),
            ("10.1.2.9", true),
            ("11.0.0.1", false),
            ("fd00::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(
                ranges.contains(address.parse().expect("valid")),
                inside,
                "{address}"
            );
        }
    }
}
