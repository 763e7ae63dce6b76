//! Names that somebody may have meant.

use ambit_model::ObjectName;

/// The most names that are offered.
const MOST: usize = 3;

/// How like two names have to be, from 0 to 1.
const LIKENESS: f64 = 0.6;

/// Those that are most like a name, the likest first. One of the same name in another namespace is
/// always among them.
pub(super) fn near<'a>(
    wanted: &ObjectName,
    known: impl Iterator<Item = &'a ObjectName>,
) -> Vec<String> {
    let mut scored: Vec<_> = known
        .map(|name| (likeness(wanted, name), name.to_string()))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .collect();
    scored.sort_by(|(one, a), (other, b)| other.total_cmp(one).then_with(|| a.cmp(b)));
    scored.dedup();
    scored
        .into_iter()
        .take(MOST)
        .map(|(_, name)| name)
        .collect()
}

fn likeness(wanted: &ObjectName, name: &ObjectName) -> f64 {
    if wanted.name == name.name {
        return 1.0;
    }
    strsim::normalized_damerau_levenshtein(&wanted.to_string(), &name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likest_names_come_first_and_strangers_not_at_all() {
        let known = ["shop/cart", "shop/card", "pay/cart", "shop/checkout", "a/b"];
        let known = known.map(|text| {
            let (namespace, name) = text.split_once('/').expect("namespace/name");
            ObjectName::new(namespace, name)
        });
        let of = |name: ObjectName| near(&name, known.iter());
        assert_eq!(
            of(ObjectName::new("shop", "crat")),
            ["shop/cart", "shop/card"]
        );
        assert_eq!(
            of(ObjectName::new("web", "cart")),
            ["pay/cart", "shop/cart"]
        );
        assert!(of(ObjectName::new("x", "y")).is_empty());
    }
}
