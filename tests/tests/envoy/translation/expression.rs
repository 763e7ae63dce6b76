//! Logic, in Envoy's two languages for it: permissions and principals.

use serde_json::{Value, json};

/// A condition on requests.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// A condition that both languages have under this name.
    Either(Value),
    /// A condition of permissions only: the destination, the path.
    Permission(Value),
    /// A condition of principals only: the peer.
    Principal(Value),
}

impl Expression {
    pub(super) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// As an Envoy policy. It has permissions and principals, which must both match, so a conjunction
    /// can be divided between them; each part may be about one of the two only.
    pub(super) fn policy(self) -> Value {
        let Self::All(parts) = self else {
            unreachable!("a rule is a conjunction")
        };
        let (permissions, principals): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(Self::is_permission);
        json!({
            "permissions": [Self::All(permissions).write(&PERMISSIONS)],
            "principals": [Self::All(principals).write(&PRINCIPALS)],
        })
    }

    fn is_permission(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::is_permission),
            Self::Not(part) => part.is_permission(),
            Self::Permission(_) => true,
            Self::Either(_) | Self::Principal(_) => false,
        }
    }

    fn write(&self, words: &Words) -> Value {
        let all = |parts: &[Self]| {
            parts
                .iter()
                .map(|part| part.write(words))
                .collect::<Vec<_>>()
        };
        match self {
            Self::All(parts) if parts.is_empty() => json!({"any": true}),
            Self::All(parts) => json!({words.and: {words.list: all(parts)}}),
            Self::Any(parts) => json!({words.or: {words.list: all(parts)}}),
            Self::Not(part) => json!({words.not: part.write(words)}),
            Self::Either(value) | Self::Permission(value) | Self::Principal(value) => value.clone(),
        }
    }
}

struct Words {
    and: &'static str,
    or: &'static str,
    not: &'static str,
    list: &'static str,
}

const PERMISSIONS: Words = Words {
    and: "and_rules",
    or: "or_rules",
    not: "not_rule",
    list: "rules",
};

const PRINCIPALS: Words = Words {
    and: "and_ids",
    or: "or_ids",
    not: "not_id",
    list: "ids",
};
