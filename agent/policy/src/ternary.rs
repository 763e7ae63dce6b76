//! Kleene's logic of three values, for what is known before a request has been read.

/// Whether something holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Ternary {
    /// It does not.
    False,
    /// It depends on what is not known yet.
    Unknown,
    /// It does.
    True,
}

impl Ternary {
    /// Whether all hold.
    pub(super) fn all(values: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::True;
        for value in values {
            all = all.min(value);
            if all == Self::False {
                break;
            }
        }
        all
    }

    /// Whether one of them holds.
    pub(super) fn any(values: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Self::False;
        for value in values {
            any = any.max(value);
            if any == Self::True {
                break;
            }
        }
        any
    }
}

impl From<bool> for Ternary {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

#[cfg(test)]
mod tests {
    use super::Ternary::{self, False, True, Unknown};

    #[test]
    fn what_is_unknown_matters_only_where_the_rest_does_not_decide() {
        assert_eq!(Ternary::all([]), True);
        assert_eq!(Ternary::all([True, Unknown]), Unknown);
        assert_eq!(Ternary::all([False, Unknown]), False);
        assert_eq!(Ternary::any([]), False);
        assert_eq!(Ternary::any([True, Unknown]), True);
        assert_eq!(Ternary::any([False, Unknown]), Unknown);
    }
}
