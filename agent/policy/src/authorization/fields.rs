//! What reading sources, operations and conditions has in common.

use super::Action;
use super::criterion::Criterion;
use crate::matcher::Field;
use crate::reader::{NotEnforced, SpecNode};
use ambit_model::{ObjectName, TrustBundle};

/// What the values of a policy are read with.
pub(super) struct Context<'a> {
    pub(super) policy: &'a ObjectName,
    pub(super) bundle: &'a TrustBundle,
    pub(super) action: Action,
}

/// A field and its twin, each where it is set.
pub(super) fn twins<'a, T>(
    node: &SpecNode<'a>,
    [positive, negative]: [&str; 2],
    read: impl Fn(&SpecNode<'a>) -> Result<Vec<T>, NotEnforced>,
) -> Result<Option<Field<T>>, NotEnforced> {
    let mut field = Field::default();
    for (name, own) in node.fields()? {
        if name == positive {
            field.positive = read(&own)?;
        } else if name == negative {
            field.negative = read(&own)?;
        }
    }
    Ok((!field.is_empty()).then_some(field))
}

/// A CUSTOM policy is evaluated before a token is verified, and Istio refuses it identities too.
pub(super) fn refuse_in_custom(
    node: &SpecNode<'_>,
    context: &Context<'_>,
    criteria: &[Criterion],
) -> Result<(), NotEnforced> {
    let is_refused = |criterion: &Criterion| match criterion {
        Criterion::Principal(_)
        | Criterion::Namespace(_)
        | Criterion::ServiceAccount(_)
        | Criterion::TrustDomain(_)
        | Criterion::RequestPrincipal(_)
        | Criterion::Claim(..) => true,
        Criterion::SourceIp(_)
        | Criterion::RemoteIp(_)
        | Criterion::DestinationIp(_)
        | Criterion::DestinationPort(_)
        | Criterion::Host(_)
        | Criterion::Method(_)
        | Criterion::Path(_)
        | Criterion::Header(..) => false,
    };
    if context.action == Action::Custom && criteria.iter().any(is_refused) {
        return node.fail("a CUSTOM policy can depend on no identity and no token");
    }
    Ok(())
}
