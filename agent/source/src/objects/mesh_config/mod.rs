use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;
use serde_json::Value;

use ambit_input::without_mark;
use ambit_model::{Fault, MeshSettings, ObjectName, ObjectOrigin, PathNormalization, TrustBundle};

use super::extension_provider::{ProviderEntry, extension_providers};
use super::{ObjectError, namespaced_name, typed};
use crate::place::FieldPath;
use crate::tree;

/// The name of the ConfigMap that has Istio's `MeshConfig`, in the root namespace. Those of other
/// revisions of Istio have other names.
pub(crate) const MESH_CONFIG_NAME: &str = "istio";

/// The ConfigMap with Istio's `MeshConfig`, as far as Ambit uses it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MeshConfigObject {
    /// Namespace and name.
    pub(crate) name: ObjectName,
    /// What it says.
    pub(crate) settings: MeshSettings,
    trust_domain: Option<String>,
    trust_domain_aliases: Option<Vec<String>>,
}

/// The fields of `MeshConfig` that Ambit reads; Istio has hundreds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshConfig {
    #[serde(alias = "trust_domain")]
    trust_domain: Option<String>,
    #[serde(alias = "trust_domain_aliases")]
    trust_domain_aliases: Option<Vec<String>>,
    #[serde(alias = "path_normalization")]
    path_normalization: Option<ProxyPathNormalization>,
    #[serde(alias = "extension_providers")]
    extension_providers: Option<Vec<ProviderEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyPathNormalization {
    normalization: Option<Normalization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Normalization {
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

impl From<Normalization> for PathNormalization {
    fn from(normalization: Normalization) -> Self {
        match normalization {
            Normalization::None => Self::None,
            Normalization::Default | Normalization::Base => Self::Base,
            Normalization::MergeSlashes => Self::MergeSlashes,
            Normalization::DecodeAndMergeSlashes => Self::DecodeAndMergeSlashes,
        }
    }
}

/// Reads the ConfigMap.
///
/// # Errors
/// If `data.mesh` is missing or not YAML, or if a field that Ambit reads cannot be used as it is written.
pub(crate) fn mesh_config(object: &ConfigMap) -> Result<MeshConfigObject, ObjectError> {
    let name = namespaced_name(&object.metadata)?;
    let at = FieldPath::at("data.mesh");
    let Some(text) = object.data.as_ref().and_then(|data| data.get("mesh")) else {
        let problem = "missing; Istio keeps its MeshConfig under this key, as YAML";
        return Err(ObjectError::new(at, problem));
    };
    let value = embedded(text, &at)?;
    let config: Option<MeshConfig> = typed(value, &at)?;
    let Some(config) = config else {
        return Ok(MeshConfigObject::empty(name));
    };
    let normalization = config.path_normalization.and_then(|p| p.normalization);
    let providers = config.extension_providers.unwrap_or_default();
    Ok(MeshConfigObject {
        name,
        settings: MeshSettings {
            path_normalization: normalization.map(Into::into).unwrap_or_default(),
            extension_providers: extension_providers(providers, &at.key("extensionProviders"))?,
        },
        trust_domain: config.trust_domain.filter(|text| !text.is_empty()),
        trust_domain_aliases: config.trust_domain_aliases,
    })
}

/// The only YAML document in a string.
fn embedded(text: &str, at: &FieldPath) -> Result<Value, ObjectError> {
    let refused = |problem: String| ObjectError::new(at.clone(), problem);
    let of_this = |error: String| format!("{error} (in the string of this field)");
    let mut documents =
        tree::documents(without_mark(text)).map_err(|error| refused(of_this(error.to_string())))?;
    let value = match documents.next() {
        None => Value::Null,
        Some(document) => tree::read(document, &tree::AliasBudget::of(text))
            .map_err(|error| refused(of_this(error.to_string())))?,
    };
    match documents.next() {
        None => Ok(value),
        Some(_) => Err(refused("it contains more than one document".to_owned())),
    }
}

impl MeshConfigObject {
    fn empty(name: ObjectName) -> Self {
        Self {
            name,
            settings: MeshSettings::default(),
            trust_domain: None,
            trust_domain_aliases: None,
        }
    }

    /// The faults if it names other trust domains than the agent's settings, which are in force.
    pub(crate) fn faults(&self, origin: &ObjectOrigin, trust: &TrustBundle) -> Vec<Fault> {
        let other_domain = self
            .trust_domain
            .as_deref()
            .filter(|domain| *domain != trust.own.as_str())
            .map(|domain| {
                format!(
                    "field data.mesh.trustDomain: {domain:?} is not this agent's trust domain, \
                     which is {:?} (--trust-domain) and stays in force. Make them the same.",
                    trust.own.as_str()
                )
            });
        let other_aliases = self
            .trust_domain_aliases
            .as_ref()
            .filter(|aliases| !same_aliases(aliases, trust))
            .map(|aliases| {
                let own: Vec<_> = trust.aliases.iter().map(|alias| alias.as_str()).collect();
                format!(
                    "field data.mesh.trustDomainAliases: {aliases:?} are not this agent's \
                     aliases, which are {own:?} (--trust-domain-alias) and stay in force. Make \
                     them the same."
                )
            });
        let messages = other_domain.into_iter().chain(other_aliases);
        let fault = |message| Fault {
            subject: format!("{origin} (ConfigMap {})", self.name),
            message,
            last_good_in_force: false,
        };
        messages.map(fault).collect()
    }
}

fn same_aliases(texts: &[String], trust: &TrustBundle) -> bool {
    let named = |alias: &str| texts.iter().any(|text| text == alias);
    let known = |text: &String| trust.aliases.iter().any(|alias| alias.as_str() == text);
    texts.iter().all(known) && trust.aliases.iter().all(|alias| named(alias.as_str()))
}

#[cfg(test)]
mod tests;
