//! `extensionProviders` of `MeshConfig`: those that authorize.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;

use ambit_model::{
    AuthorizerApi, BodyEncoding, BodyExcess, BodyInCheck, ExtensionProvider, HeaderPattern,
    HttpApi, OnError, ProviderService,
};

use super::{ObjectError, port};
use crate::place::FieldPath;

/// Istio's default time-out for a check.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The headers by which HTTP itself frames and routes messages.
const FRAMING: [HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::HOST,
];

/// One of `extensionProviders`. Kinds that do not authorize (tracing, metrics, logs) are fields that
/// are not listed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProviderEntry {
    name: Option<String>,
    #[serde(alias = "envoy_ext_authz_grpc")]
    envoy_ext_authz_grpc: Option<GrpcSettings>,
    #[serde(alias = "envoy_ext_authz_http")]
    envoy_ext_authz_http: Option<HttpSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GrpcSettings {
    service: Option<String>,
    port: Option<i32>,
    timeout: Option<String>,
    fail_open: Option<bool>,
    status_on_error: Option<String>,
    include_request_body_in_check: Option<BodySettings>,
    /// Only matters for Envoy's routes.
    #[serde(rename = "clearRouteCache")]
    _clear_route_cache: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpSettings {
    service: Option<String>,
    port: Option<i32>,
    timeout: Option<String>,
    fail_open: Option<bool>,
    status_on_error: Option<String>,
    include_request_body_in_check: Option<BodySettings>,
    path_prefix: Option<String>,
    include_request_headers_in_check: Option<Vec<String>>,
    /// The former name of `includeRequestHeadersInCheck`.
    include_headers_in_check: Option<Vec<String>>,
    include_additional_headers_in_check: Option<BTreeMap<String, String>>,
    headers_to_upstream_on_allow: Option<Vec<String>>,
    headers_to_downstream_on_deny: Option<Vec<String>>,
    headers_to_downstream_on_allow: Option<Vec<String>>,
    /// Only matters for Envoy's routes.
    #[serde(rename = "clearRouteCache")]
    _clear_route_cache: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BodySettings {
    max_request_bytes: Option<u32>,
    allow_partial_message: Option<bool>,
    pack_as_bytes: Option<bool>,
}

/// The settings that both kinds have.
struct CommonSettings<'a> {
    service: Option<&'a str>,
    port: Option<i32>,
    timeout: Option<&'a str>,
    fail_open: Option<bool>,
    status_on_error: Option<&'a str>,
    body: Option<&'a BodySettings>,
}

/// The authorizers among the providers, by name.
///
/// # Errors
/// If one cannot be used as it is written, or two have the same name.
pub(super) fn extension_providers(
    entries: Vec<ProviderEntry>,
    at: &FieldPath,
) -> Result<BTreeMap<Arc<str>, Arc<ExtensionProvider>>, ObjectError> {
    let mut providers = BTreeMap::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let at = at.index(index);
        let Some(provider) = provider(entry, &at)? else {
            continue;
        };
        let name = Arc::clone(&provider.name);
        if providers.insert(name, Arc::new(provider)).is_some() {
            let problem = "another provider has the same name";
            return Err(ObjectError::new(at.key("name"), problem));
        }
    }
    Ok(providers)
}

fn provider(
    entry: ProviderEntry,
    at: &FieldPath,
) -> Result<Option<ExtensionProvider>, ObjectError> {
    let (common, api, inner) = match (&entry.envoy_ext_authz_grpc, &entry.envoy_ext_authz_http) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let problem = "a provider is of one kind; this one has two";
            return Err(ObjectError::new(at.key("envoyExtAuthzHttp"), problem));
        }
        (Some(grpc), None) => {
            let inner = at.key("envoyExtAuthzGrpc");
            (grpc.common(), AuthorizerApi::Grpc, inner)
        }
        (None, Some(http)) => {
            let inner = at.key("envoyExtAuthzHttp");
            (
                http.common(),
                AuthorizerApi::Http(http_api(http, &inner)?),
                inner,
            )
        }
    };
    let name = entry.name.as_deref().filter(|name| !name.is_empty());
    let Some(name) = name else {
        let problem = "missing; policies name their provider by it";
        return Err(ObjectError::new(at.key("name"), problem));
    };
    Ok(Some(ExtensionProvider {
        name: name.into(),
        service: service(&common, &inner)?,
        timeout: timeout(common.timeout, inner.key("timeout"))?,
        on_error: on_error(&common, inner.key("statusOnError"))?,
        request_body: common
            .body
            .map(|body| request_body(body, &inner.key("includeRequestBodyInCheck")))
            .transpose()?,
        api,
    }))
}

impl GrpcSettings {
    fn common(&self) -> CommonSettings<'_> {
        CommonSettings {
            service: self.service.as_deref(),
            port: self.port,
            timeout: self.timeout.as_deref(),
            fail_open: self.fail_open,
            status_on_error: self.status_on_error.as_deref(),
            body: self.include_request_body_in_check.as_ref(),
        }
    }
}

impl HttpSettings {
    fn common(&self) -> CommonSettings<'_> {
        CommonSettings {
            service: self.service.as_deref(),
            port: self.port,
            timeout: self.timeout.as_deref(),
            fail_open: self.fail_open,
            status_on_error: self.status_on_error.as_deref(),
            body: self.include_request_body_in_check.as_ref(),
        }
    }
}

fn service(common: &CommonSettings<'_>, at: &FieldPath) -> Result<ProviderService, ObjectError> {
    let text = common.service.unwrap_or_default();
    let (namespace, host) = match text.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, text),
    };
    if !is_host(host) || namespace.is_some_and(|namespace| !is_host(namespace)) {
        let problem = format!(
            "{text:?} does not name a service; write [namespace/]host, for example authz.tools.svc.cluster.local"
        );
        return Err(ObjectError::new(at.key("service"), problem));
    }
    Ok(ProviderService {
        namespace: namespace.map(Into::into),
        host: host.into(),
        port: port(common.port.unwrap_or_default(), at.key("port"))?,
    })
}

/// Whether a string can be a DNS name or an IPv4 address.
fn is_host(text: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(valid)
}

/// A protobuf Duration in JSON: seconds, with at most nine decimals, and an `s`.
fn timeout(text: Option<&str>, field: FieldPath) -> Result<Duration, ObjectError> {
    let Some(text) = text else {
        return Ok(DEFAULT_TIMEOUT);
    };
    let duration = text.strip_suffix('s').and_then(|seconds| {
        let digits = seconds.chars().all(|c| c.is_ascii_digit() || c == '.');
        let decimals = seconds.split_once('.').map_or(0, |(_, part)| part.len());
        let seconds = seconds.parse().ok().filter(|_| digits && decimals <= 9)?;
        Duration::try_from_secs_f64(seconds).ok()
    });
    duration
        .filter(|duration| *duration >= Duration::from_millis(1))
        .ok_or_else(|| {
            let problem =
                format!("{text:?} is not a duration of at least 0.001s; write, for example, 0.5s");
            ObjectError::new(field, problem)
        })
}

fn on_error(common: &CommonSettings<'_>, field: FieldPath) -> Result<OnError, ObjectError> {
    let text = common.status_on_error.filter(|text| !text.is_empty());
    let status = match text {
        None => StatusCode::FORBIDDEN,
        Some(text) => text
            .parse()
            .ok()
            .filter(|status: &StatusCode| status.is_client_error() || status.is_server_error())
            .ok_or_else(|| {
                let problem = format!("{text:?} is not an error status; write 400 to 599");
                ObjectError::new(field, problem)
            })?,
    };
    Ok(match common.fail_open {
        Some(true) => OnError::LetThrough,
        Some(false) | None => OnError::Refuse(status),
    })
}

fn request_body(body: &BodySettings, at: &FieldPath) -> Result<BodyInCheck, ObjectError> {
    let max_bytes = body.max_request_bytes.unwrap_or_default();
    if max_bytes == 0 {
        let problem = "missing or 0; say how many bytes the authorizer may see";
        return Err(ObjectError::new(at.key("maxRequestBytes"), problem));
    }
    Ok(BodyInCheck {
        max_bytes,
        excess: match body.allow_partial_message {
            Some(true) => BodyExcess::Cut,
            Some(false) | None => BodyExcess::Refuse,
        },
        encoding: match body.pack_as_bytes {
            Some(true) => BodyEncoding::Bytes,
            Some(false) | None => BodyEncoding::Text,
        },
    })
}

fn http_api(http: &HttpSettings, at: &FieldPath) -> Result<HttpApi, ObjectError> {
    let of = |list: &Option<Vec<String>>, field: &str| patterns(list.as_deref(), &at.key(field));
    let mut request_headers = of(
        &http.include_request_headers_in_check,
        "includeRequestHeadersInCheck",
    )?;
    if request_headers.is_empty() {
        request_headers = of(&http.include_headers_in_check, "includeHeadersInCheck")?;
    }
    Ok(HttpApi {
        path_prefix: path_prefix(http.path_prefix.as_deref(), at.key("pathPrefix"))?,
        request_headers,
        additional_headers: additional_headers(http, &at.key("includeAdditionalHeadersInCheck"))?,
        to_upstream_on_allow: of(
            &http.headers_to_upstream_on_allow,
            "headersToUpstreamOnAllow",
        )?,
        to_downstream_on_deny: of(
            &http.headers_to_downstream_on_deny,
            "headersToDownstreamOnDeny",
        )?,
        to_downstream_on_allow: of(
            &http.headers_to_downstream_on_allow,
            "headersToDownstreamOnAllow",
        )?,
    })
}

fn patterns(texts: Option<&[String]>, at: &FieldPath) -> Result<Vec<HeaderPattern>, ObjectError> {
    let pattern = |(index, text): (usize, &String)| {
        HeaderPattern::new(text).map_err(|e| ObjectError::new(at.index(index), e.to_string()))
    };
    texts
        .into_iter()
        .flatten()
        .enumerate()
        .map(pattern)
        .collect()
}

fn path_prefix(text: Option<&str>, field: FieldPath) -> Result<String, ObjectError> {
    let text = text.unwrap_or_default();
    let valid = |c: char| c.is_ascii_graphic() && !"?#".contains(c);
    if text.is_empty() || (text.starts_with('/') && text.chars().all(valid)) {
        return Ok(text.to_owned());
    }
    let problem =
        format!("{text:?} is not a path: it must begin with / and contain neither ? nor #");
    Err(ObjectError::new(field, problem))
}

fn additional_headers(
    http: &HttpSettings,
    at: &FieldPath,
) -> Result<Vec<(HeaderName, HeaderValue)>, ObjectError> {
    let header = |(name, value): (&String, &String)| {
        let refused = |problem: &str| ObjectError::new(at.key(name), problem);
        let parsed =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("not a header name"))?;
        if FRAMING.contains(&parsed) {
            return Err(refused("HTTP itself needs this header; remove it"));
        }
        let value =
            HeaderValue::from_str(value).map_err(|_| refused("no header can have this value"))?;
        Ok((parsed, value))
    };
    let additional = http.include_additional_headers_in_check.iter().flatten();
    additional.map(header).collect()
}
