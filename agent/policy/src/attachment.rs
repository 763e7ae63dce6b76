//! What a policy applies to: `selector`, `targetRef`, `targetRefs`.

use super::reader::{NotEnforced, SpecNode, Warning, selector};

/// The most `targetRefs` of a policy.
const MOST_REFERENCES: usize = 16;

/// What a policy applies to, within its namespace or the mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Attachment {
    /// Every workload. Also used if the selection cannot be read.
    Everything,
    /// The workloads that have all of these labels.
    Labels(Vec<(String, String)>),
    /// The pods behind these Services of its namespace, at the Services' target ports.
    Services(Vec<String>),
}

/// The fields that say what a policy applies to.
pub(super) const ATTACHMENT_FIELDS: [&str; 3] = ["selector", "targetRef", "targetRefs"];

/// Reads what a policy applies to.
pub(super) fn attachment(
    spec: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Attachment, NotEnforced> {
    let mut attachment = Attachment::Everything;
    let mut chosen: Option<&str> = None;
    for (name, field) in spec.fields()? {
        let is_absent = name == "targetRefs" && field.is_empty_list();
        if is_absent || !ATTACHMENT_FIELDS.contains(&name) {
            continue;
        }
        if let Some(other) = chosen.replace(name) {
            return field.fail(format!(
                "it cannot be combined with {other}; keep one of them"
            ));
        }
        attachment = match name {
            "selector" => {
                let labels = selector(&field)?;
                if labels.is_empty() {
                    warnings.push(field.warning(
                        "a selector without labels selects every workload; add labels, or remove \
                         the selector",
                    ));
                }
                Attachment::Labels(labels)
            }
            "targetRef" => references(&[field], warnings)?,
            _ => references(&field.at_most(MOST_REFERENCES)?, warnings)?,
        };
    }
    Ok(attachment)
}

/// Reads references to Services. Others are for gateways and waypoints.
fn references(
    nodes: &[SpecNode<'_>],
    warnings: &mut Vec<Warning>,
) -> Result<Attachment, NotEnforced> {
    let mut services = Vec::new();
    for node in nodes {
        let (mut group, mut kind, mut service) = ("", "", None);
        for (name, field) in node.fields()? {
            match name {
                "group" => group = field.optional_text()?,
                "kind" => kind = field.text()?,
                "name" => service = Some(field.text()?),
                "namespace" if field.optional_text()?.is_empty() => {}
                "namespace" => {
                    return field
                        .fail("a reference cannot name another namespace; remove this field");
                }
                _ => return field.unknown(),
            }
        }
        let Some(service) = service else {
            return node.fail("a reference needs a name");
        };
        match (group, kind) {
            ("" | "core", "Service") => services.push(service.to_owned()),
            ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass") => {
                warnings.push(node.warning(format!(
                    "not enforced: a reference to the {kind} {service} is for gateways and waypoints; \
                     refer to a Service, or use a selector"
                )));
            }
            _ => {
                return node.fail(format!(
                    "a policy cannot refer to {kind:?} of the group {group:?}"
                ));
            }
        }
    }
    Ok(Attachment::Services(services))
}
