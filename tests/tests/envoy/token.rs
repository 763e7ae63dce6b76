//! Verified tokens. Envoy gets their payload from a header, as the message `Value` of
//! `google/protobuf/struct.proto`, and keeps it in the place that its JWT filter would use.

use std::sync::Arc;

use ambit_policy::VerifiedToken;
use serde_json::{Value, json};

/// The header, which Envoy removes.
pub(crate) const HEADER: &str = "x-test-payload";

/// The metadata in which Istio makes Envoy keep a payload.
pub(crate) const FILTER: &str = "envoy.filters.http.jwt_authn";

/// And its key.
pub(crate) const KEY: &str = "payload";

/// Claims that Istio makes Envoy split into lists.
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// What Ambit's evaluator gets.
pub(crate) fn verified(payload: &Value) -> Arc<VerifiedToken> {
    let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
    Arc::new(VerifiedToken {
        issuer: text("iss"),
        subject: text("sub"),
        claims: payload.as_object().cloned().unwrap_or_default(),
    })
}

/// The value of the header.
pub(crate) fn encoded(payload: &Value) -> String {
    let mut payload = payload.clone();
    for name in SPACE_DELIMITED {
        let list = payload[name]
            .as_str()
            .map(|text| json!(text.split(' ').collect::<Vec<_>>()));
        if let Some(list) = list {
            payload[name] = list;
        }
    }
    base64(&message(&payload))
}

fn message(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![0x08, 0],
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            [&[0x11][..], &number.to_le_bytes()].concat()
        }
        Value::String(text) => field(3, text.as_bytes()),
        Value::Bool(value) => vec![0x20, u8::from(*value)],
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| {
                let entry = [field(1, name.as_bytes()), field(2, &message(value))].concat();
                field(1, &entry)
            };
            field(5, &entries.iter().flat_map(entry).collect::<Vec<_>>())
        }
        Value::Array(elements) => {
            let elements = elements.iter().flat_map(|one| field(1, &message(one)));
            field(6, &elements.collect::<Vec<_>>())
        }
    }
}

/// A field of protobuf's wire type 2.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        all.push(length as u8 | 0x80);
        length >>= 7;
    }
    all.push(length as u8);
    all.extend_from_slice(bytes);
    all
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let number = (0..3).fold(0, |all, index| {
            all << 8 | u32::from(chunk.get(index).copied().unwrap_or(0))
        });
        (0..4).map(move |place| match place <= chunk.len() {
            true => char::from(DIGITS[(number >> (18 - 6 * place) & 63) as usize]),
            false => '=',
        })
    });
    digits.collect()
}
