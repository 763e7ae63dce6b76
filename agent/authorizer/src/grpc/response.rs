//! A unary call, read strictly as gRPC defines it: one message, then trailers with one status. A denial
//! stands whatever follows it. A permission counts only if the whole response is correct.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use prost::Message;
use tonic::Code;

use crate::answer::{Allowance, AuthorizerAnswer, DenialResponse};
use crate::envoy::{
    CHECK_PATH, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse,
};
use crate::headers::{HeaderMutations, HeaderPlacement};
use ambit_model::ProviderService;

/// The largest message that is read, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// The length of a message's prefix: a compression flag and the message's length.
const PREFIX: usize = 5;

/// How much of an authorizer's own text is repeated, in characters.
const SHOWN: usize = 200;

const GRPC: &str = "application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// `google.rpc.Code.OK`.
const OK: i32 = 0;

/// The request for a check; `None` if no request can be sent to a service of this name.
pub(super) fn check_call(
    service: &ProviderService,
    message: &CheckRequest,
) -> Option<Request<Full<Bytes>>> {
    let mut body = vec![0; PREFIX];
    message.encode(&mut body).ok()?;
    let length = u32::try_from(body.len() - PREFIX).ok()?;
    body[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    let uri = format!("http://{}:{}{CHECK_PATH}", service.host, service.port);
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, GRPC)
        .header(TE, "trailers");
    request.body(Full::new(body.into())).ok()
}

/// The meaning of a response.
///
/// # Errors
/// [`NoAnswer`].
pub(super) async fn read(response: Response<Incoming>) -> Result<AuthorizerAnswer, NoAnswer> {
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return of_status(head.status);
    }
    check_head(&head)?;
    if head.headers.contains_key(GRPC_STATUS) {
        return match body.is_end_stream() {
            true => of_code(status(&head.headers)?, &head.headers),
            false => Err(malformed("it has a status before its message")),
        };
    }
    let (data, end) = collect(body).await;
    of_answer(&data, end)
}

fn of_answer(data: &[u8], end: End) -> Result<AuthorizerAnswer, NoAnswer> {
    let first = match first_message(data) {
        Ok((Ok(AuthorizerAnswer::Deny(denial)), _)) => return Ok(AuthorizerAnswer::Deny(denial)),
        first => first,
    };
    let trailers = match end {
        End::Trailers(trailers) => trailers,
        End::NoTrailers => return Err(malformed("it ends without trailers")),
        End::TooLong => return Err(malformed("it is too long")),
        End::Broken(problem) => return Err(malformed(format!("it broke off: {problem}"))),
    };
    let code = status(&trailers)?;
    match (code, first) {
        (Code::Ok, Ok((answer, []))) => answer,
        (Code::Ok, Ok(_)) => Err(malformed("something follows its message")),
        (Code::Ok, Err(problem)) => Err(malformed(problem)),
        (_, _) if data.is_empty() || is_denial(code) => of_code(code, &trailers),
        (_, _) => Err(malformed(format!(
            "it contains a message but failed with {code:?}"
        ))),
    }
}

fn check_head(head: &Parts) -> Result<(), NoAnswer> {
    let kind = head.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_grpc = kind
        .strip_prefix(GRPC)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']));
    let mut encodings = head.headers.get_all(GRPC_ENCODING).iter();
    match (is_grpc, encodings.all(|encoding| encoding == "identity")) {
        (true, true) => Ok(()),
        (false, _) => Err(malformed("its content-type is not application/grpc")),
        (true, false) => Err(malformed("it is compressed, which was not requested")),
    }
}

/// How a response ended.
enum End {
    Trailers(HeaderMap),
    NoTrailers,
    TooLong,
    Broken(String),
}

/// The data of a body as far as it arrives, and how it ended.
async fn collect(mut body: Incoming) -> (BytesMut, End) {
    let mut data = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return (data, End::Broken(error.to_string())),
        };
        match frame.into_data() {
            Ok(more) if data.len() + more.len() > LARGEST_ANSWER + PREFIX => {
                return (data, End::TooLong);
            }
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return (data, End::Trailers(trailers));
                }
            }
        }
    }
    (data, End::NoTrailers)
}

/// The meaning of the first message, and the data that follows it.
///
/// # Errors
/// What is wrong with the message.
fn first_message(data: &[u8]) -> Result<(Result<AuthorizerAnswer, NoAnswer>, &[u8]), &'static str> {
    let (prefix, rest) = data
        .split_first_chunk::<PREFIX>()
        .ok_or("it has no message")?;
    let [compression, length @ ..] = *prefix;
    if compression != 0 {
        return Err("its message is compressed, which was not requested");
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let (message, rest) = rest
        .split_at_checked(length)
        .ok_or("its message is cut short")?;
    let message =
        CheckResponse::decode(message).map_err(|_| "its message is not a CheckResponse")?;
    Ok((answer(message), rest))
}

/// The only status, which is a decimal number.
fn status(headers: &HeaderMap) -> Result<Code, NoAnswer> {
    let mut values = headers.get_all(GRPC_STATUS).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(malformed("it does not have exactly one grpc-status"));
    };
    let text = value.to_str().unwrap_or_default();
    let code = text
        .parse::<u8>()
        .ok()
        .filter(|code| code.to_string() == text);
    match code.map(|code| Code::from_i32(code.into())) {
        Some(code) => Ok(code),
        None => Err(malformed("its grpc-status is not a gRPC status code")),
    }
}

fn is_denial(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated)
}

/// The meaning of a failed call. The codes for missing permissions are denials.
fn of_code(code: Code, headers: &HeaderMap) -> Result<AuthorizerAnswer, NoAnswer> {
    let problem = format!("{code:?}{}", said(headers.get(GRPC_MESSAGE)));
    match code {
        Code::Ok => Err(malformed("it succeeds without a message")),
        Code::PermissionDenied | Code::Unauthenticated => Ok(forbidden()),
        Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange => {
            Err(NoAnswer::NotTaken(problem))
        }
        Code::Unavailable => Err(NoAnswer::Unavailable(problem)),
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Err(NoAnswer::Failed(problem)),
    }
}

/// The meaning of an HTTP status other than 200, which gRPC does not use.
fn of_status(status: StatusCode) -> Result<AuthorizerAnswer, NoAnswer> {
    let problem = format!("it answered with status {status}, not with gRPC");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(forbidden()),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Err(NoAnswer::Unavailable(problem))
        }
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
            Err(NoAnswer::NotTaken(problem))
        }
        status if status.is_server_error() => Err(NoAnswer::Failed(problem)),
        status if status.is_client_error() => Err(NoAnswer::NotTaken(problem)),
        _ => Err(NoAnswer::Malformed(problem)),
    }
}

fn forbidden() -> AuthorizerAnswer {
    AuthorizerAnswer::Deny(DenialResponse {
        status: StatusCode::FORBIDDEN,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    })
}

fn said(message: Option<&HeaderValue>) -> String {
    let text = message.map(|message| String::from_utf8_lossy(message.as_bytes()).into_owned());
    text.map_or_else(String::new, |text| {
        let shown: String = text.chars().take(SHOWN).collect();
        format!(": {shown:?}")
    })
}

fn malformed(problem: impl Into<String>) -> NoAnswer {
    NoAnswer::Malformed(problem.into())
}

/// Why a response contains no usable answer. Displays as a clause without the full stop.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The authorizer says that it failed.
    Failed(String),
    /// It says that it is temporarily unavailable.
    Unavailable(String),
    /// It says that it does not accept this check.
    NotTaken(String),
    /// It asks for something that an authorizer may not do, says nothing, or cannot be read.
    Malformed(String),
}

/// The meaning of a message.
///
/// A denial anywhere in the message denies, whatever else the message contains. Envoy takes a message
/// that says nothing for permission; here it is an error.
///
/// # Errors
/// [`NoAnswer`].
pub(super) fn answer(response: CheckResponse) -> Result<AuthorizerAnswer, NoAnswer> {
    if let Some(denied) = response.denied_response {
        return Ok(AuthorizerAnswer::Deny(denial(denied)));
    }
    if response.error_response.is_some() {
        let problem = "it says that it failed (error_response)";
        return Err(NoAnswer::Failed(problem.to_owned()));
    }
    match (
        response.status.map(|status| status.code),
        response.ok_response,
    ) {
        (Some(code), _) if code != OK => Ok(AuthorizerAnswer::Deny(denial(
            DeniedHttpResponse::default(),
        ))),
        (_, Some(ok)) => allowance(&ok).map(AuthorizerAnswer::Allow),
        (Some(_), None) => Ok(AuthorizerAnswer::Allow(Allowance::default())),
        (None, None) => Err(NoAnswer::Malformed(
            "it neither allows nor denies".to_owned(),
        )),
    }
}

/// The response of a denial. Headers that no response can have are left out.
fn denial(denied: DeniedHttpResponse) -> DenialResponse {
    let mut headers = HeaderMutations::default();
    for option in &denied.headers {
        if let Ok(placement) = placement(option, HeaderPlacement::Set) {
            let _ = change(&mut headers, option, placement);
        }
    }
    let mut map = HeaderMap::new();
    headers.apply(&mut map);
    DenialResponse {
        status: denied
            .status
            .and_then(|status| u16::try_from(status.code).ok())
            .filter(|code| (200..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::FORBIDDEN),
        headers: map,
        body: denied.body,
    }
}

fn allowance(ok: &OkHttpResponse) -> Result<Allowance, NoAnswer> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        let problem = "it asks to change the query, which Ambit does not do for authorizers";
        return Err(NoAnswer::Malformed(problem.to_owned()));
    }
    let mut allowance = Allowance::default();
    for option in &ok.headers {
        let placement = placement(option, HeaderPlacement::Set)?;
        change(&mut allowance.request, option, placement)?;
    }
    for name in &ok.headers_to_remove {
        let removed = allowance.request.remove(name);
        removed.map_err(|error| NoAnswer::Malformed(error.to_string()))?;
    }
    for option in &ok.response_headers_to_add {
        let placement = placement(option, HeaderPlacement::Append)?;
        change(&mut allowance.response, option, placement)?;
    }
    Ok(allowance)
}

fn change(
    mutations: &mut HeaderMutations,
    option: &HeaderValueOption,
    placement: HeaderPlacement,
) -> Result<(), NoAnswer> {
    let Some(header) = &option.header else {
        return Err(NoAnswer::Malformed(
            "it changes a header without a name".to_owned(),
        ));
    };
    let value = if header.raw_value.is_empty() {
        &header.value
    } else {
        &header.raw_value
    };
    let changed = mutations.change(&header.key, value, placement);
    changed.map_err(|error| NoAnswer::Malformed(error.to_string()))
}

/// The placement of a header. The action 0 also means that neither field is set, for which each list of
/// headers has its own default.
fn placement(
    option: &HeaderValueOption,
    default: HeaderPlacement,
) -> Result<HeaderPlacement, NoAnswer> {
    match (
        option.append.map(|append| append.value),
        option.append_action,
    ) {
        (Some(true), _) => Ok(HeaderPlacement::Append),
        (Some(false), _) => Ok(HeaderPlacement::Set),
        (None, 0) => Ok(default),
        (None, 1) => Ok(HeaderPlacement::AddIfAbsent),
        (None, 2) => Ok(HeaderPlacement::Set),
        (None, 3) => Ok(HeaderPlacement::SetIfPresent),
        (None, other) => Err(NoAnswer::Malformed(format!(
            "append_action {other} is not known"
        ))),
    }
}
