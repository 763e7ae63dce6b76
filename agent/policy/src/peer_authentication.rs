//! PeerAuthentication: on which ports a workload accepts plaintext.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authorization::Enforcement;
use super::decision::Decider;
use super::reader::{NotEnforced, Parsed, SpecNode, Warning, refuse_dry_run, selector};
use ambit_model::{PolicyKind, PolicyObject};

/// A mode. The proxy always accepts mutual TLS, so DISABLE is PERMISSIVE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum MtlsMode {
    /// Inherited from the level above.
    Unset,
    /// Plaintext is accepted.
    Permissive,
    /// Plaintext is refused.
    Strict,
}

/// What a PeerAuthentication says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PeerAuthentication {
    pub(super) mode: MtlsMode,
    pub(super) ports: BTreeMap<u16, MtlsMode>,
}

/// A PeerAuthentication that was read. Its labels are empty if it has no selector, or one without
/// labels: it then applies to all of its scope.
pub(super) type ParsedAuthentication = Parsed<Vec<(String, String)>, PeerAuthentication>;

/// Reads a PeerAuthentication. If its selector cannot be read, it selects everything in its scope.
pub(super) fn parse(object: &Arc<PolicyObject>) -> ParsedAuthentication {
    let spec = SpecNode::spec(&object.spec);
    let selected = spec.fields().and_then(|fields| {
        let field = fields.into_iter().find(|(name, _)| *name == "selector");
        field.map_or(Ok(Vec::new()), |(_, field)| selector(&field))
    });
    let mut warnings = Vec::new();
    let (selector, content) = match selected {
        Ok(selector) => {
            let content = refuse_dry_run(object)
                .and_then(|()| content(&spec, selector.is_empty(), &mut warnings));
            (selector, content)
        }
        Err(error) => (Vec::new(), Err(error)),
    };
    Parsed {
        object: Arc::clone(object),
        selector,
        action: None,
        enforcement: Enforcement::Enforced,
        content,
        more_errors: Vec::new(),
        warnings,
    }
}

fn content(
    spec: &SpecNode<'_>,
    no_selector: bool,
    warnings: &mut Vec<Warning>,
) -> Result<PeerAuthentication, NotEnforced> {
    let mut content = PeerAuthentication {
        mode: MtlsMode::Unset,
        ports: BTreeMap::new(),
    };
    for (name, field) in spec.fields()? {
        match name {
            "selector" if no_selector => warnings.push(field.warning(
                "a selector without labels selects every workload; add labels, or remove the \
                 selector",
            )),
            "selector" => {}
            "mtls" => content.mode = mtls(&field, warnings)?,
            "portLevelMtls" => {
                let ports = field.fields()?;
                if ports.is_empty() && !field.is_null() {
                    return field.fail("no port is named; add one, or remove the field");
                }
                for (port, node) in ports {
                    let Some(number) = port.parse().ok().filter(|&port: &u16| port != 0) else {
                        return node.fail(format!("{port:?} is not a port from 1 to 65535"));
                    };
                    if no_selector {
                        return field.fail("port-level modes need a selector");
                    }
                    content.ports.insert(number, mtls(&node, warnings)?);
                }
            }
            _ => return field.unknown(),
        }
    }
    Ok(content)
}

fn mtls(node: &SpecNode<'_>, warnings: &mut Vec<Warning>) -> Result<MtlsMode, NotEnforced> {
    let mut mode = MtlsMode::Unset;
    for (name, field) in node.fields()? {
        mode = match (name, field.text()?) {
            ("mode", "UNSET") => MtlsMode::Unset,
            ("mode", "STRICT") => MtlsMode::Strict,
            ("mode", "PERMISSIVE") => MtlsMode::Permissive,
            ("mode", "DISABLE") => {
                warnings.push(field.warning(
                    "DISABLE means PERMISSIVE here, because tunnels are always accepted; write PERMISSIVE",
                ));
                MtlsMode::Permissive
            }
            ("mode", other) => return field.fail(format!("{other:?} is not a mode")),
            _ => return field.unknown(),
        };
    }
    Ok(mode)
}

/// On which ports a workload refuses plaintext, and which objects say so.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Strictness {
    /// The object that makes all other ports STRICT; `None` if they accept plaintext.
    pub(super) base: Option<Decider>,
    /// Ports with a mode of their own: the object that makes them STRICT, or `None`.
    pub(super) ports: BTreeMap<u16, Option<Decider>>,
}

impl Strictness {
    /// The object that makes a port STRICT, if there is one.
    pub(super) fn of(&self, port: u16) -> Option<&Decider> {
        self.ports.get(&port).unwrap_or(&self.base).as_ref()
    }

    /// Applies the object of the next level: first mesh, then namespace, then workload.
    pub(super) fn apply(&mut self, object: &PolicyObject, content: &PeerAuthentication) {
        let decider = || Decider {
            kind: PolicyKind::PeerAuthentication,
            name: object.name.clone(),
            rule: None,
        };
        match content.mode {
            MtlsMode::Unset => {}
            MtlsMode::Permissive => self.base = None,
            MtlsMode::Strict => self.base = Some(decider()),
        }
        for (&port, mode) in &content.ports {
            match mode {
                MtlsMode::Unset => {}
                MtlsMode::Permissive => drop(self.ports.insert(port, None)),
                MtlsMode::Strict => drop(self.ports.insert(port, Some(decider()))),
            }
        }
    }
}
