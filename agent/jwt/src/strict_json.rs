//! Reads JSON objects in which no key is repeated. If a key were repeated, policies and the application
//! could see different values.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads an object. `None` if the text is not JSON or not an object, or has a repeated key at any depth.
pub(super) fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(Strict(Value::Object(fields))) => Some(fields),
        _ => None,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number is too large"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, _>()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is repeated"));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_serde_json_does() {
        let json = r#"{"a": [1, -2, 1.5, true, null, "t", {"b": {}}], "c": 18446744073709551615}"#;
        let expected: Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(object(json.as_bytes()).map(Value::Object), Some(expected));
    }

    #[test]
    fn a_repeated_key_is_refused_at_any_depth_and_however_it_is_spelt() {
        for json in [
            r#"{"sub": "a", "sub": "b"}"#,
            r#"{"sub": "a", "\u0073ub": "b"}"#,
            r#"{"a": {"b": 1, "b": 1}}"#,
            r#"{"a": [{"b": 1, "b": 1}]}"#,
        ] {
            assert_eq!(object(json.as_bytes()), None, "{json}");
        }
        assert!(object(br#"{"a": {"b": 1}, "b": {"b": 1}, "B": 1}"#).is_some());
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for json in [
            "",
            "null",
            "[]",
            "\"a\"",
            "7",
            "{} {}",
            "{\"a\": 1e999}",
            "{\"a\": NaN}",
        ] {
            assert_eq!(object(json.as_bytes()), None, "{json}");
        }
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "1");
        assert_eq!(object(deep.as_bytes()), None);
        assert_eq!(object(b"{\"a\": \"\xff\"}"), None);
    }
}
