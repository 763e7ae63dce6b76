//! Reads a YAML document as a JSON value: the form in which policy objects are kept, and from which
//! typed objects are read.
//!
//! With serde_norway alone, the second of two equal keys wins silently inside JSON values, and aliases
//! can blow up a small file. Here both are errors with a position.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::depth::{self, YamlRefusal};
use super::place::{FieldPath, FieldStep, Location};

/// How large the values of one file may become, so that aliases cannot multiply it.
///
/// Each value and each byte of a string costs one. Without aliases no document costs more than
/// twice its length: the dearest notation is the escape `\P`, two characters for three bytes. An
/// empty one costs one.
pub(super) struct AliasBudget(Cell<usize>);

impl AliasBudget {
    /// The budget of a file with this text.
    pub(super) fn of(text: &str) -> Self {
        Self(Cell::new(1 + 2 * text.len()))
    }

    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.0.get().checked_sub(1 + bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom(
                "aliases multiply the file to more than twice its size; write the values out",
            )),
        }
    }
}

/// The documents of a text. They do not nest deeper than can be read quickly.
///
/// # Errors
/// [`YamlRefusal`].
pub(super) fn documents(
    text: &str,
) -> Result<impl Iterator<Item = serde_norway::Deserializer<'_>>, YamlRefusal> {
    depth::check(text)?;
    Ok(serde_norway::Deserializer::from_str(text))
}

/// Reads one document.
///
/// # Errors
/// For a syntax error, a repeated key, a merge key, a tag, a number that JSON does not have, and
/// aliases beyond the budget.
pub(super) fn read<'de>(
    document: serde_norway::Deserializer<'de>,
    budget: &AliasBudget,
) -> Result<Value, serde_norway::Error> {
    ValueReader(budget).deserialize(document)
}

/// The most bytes of a file that are read again to locate its errors. Errors after that have no line.
const MOST_READ_AGAIN: usize = 8 << 20;

/// Locates the errors of one file, in the order in which they are found.
///
/// The documents are read once more for this. Only for the second and further errors of one document,
/// for example those of a list, is the file read again from the beginning, up to 8 MiB in total.
pub(super) struct Locator<'de> {
    text: &'de str,
    documents: serde_norway::Deserializer<'de>,
    /// How many documents were taken out of `documents`.
    passed: usize,
    /// Bytes that may still be read again.
    again: usize,
}

impl<'de> Locator<'de> {
    /// Takes a text that [`documents`] does not refuse.
    pub(super) fn new(text: &'de str) -> Self {
        Self {
            text,
            documents: serde_norway::Deserializer::from_str(text),
            passed: 0,
            again: MOST_READ_AGAIN,
        }
    }

    /// The place of a field, as [`locate`] finds it.
    pub(super) fn locate(&mut self, document: usize, field: &FieldPath) -> Option<Location> {
        let Some(ahead) = document.checked_sub(self.passed + 1) else {
            self.again = self.again.checked_sub(self.text.len())?;
            return locate(self.text, document, field);
        };
        self.passed = document;
        seek(self.documents.nth(ahead)?, field)
    }
}

/// The place of a field of a document, or of the innermost existing field around it. Documents count
/// from 1. [`documents`] must not refuse the text.
pub(super) fn locate(text: &str, document: usize, field: &FieldPath) -> Option<Location> {
    let mut documents = serde_norway::Deserializer::from_str(text);
    seek(documents.nth(document.checked_sub(1)?)?, field)
}

fn seek(document: serde_norway::Deserializer<'_>, field: &FieldPath) -> Option<Location> {
    let found = FieldSeeker(field.steps()).deserialize(document).err()?;
    Location::of(&found)
}

#[derive(Clone, Copy)]
struct ValueReader<'a>(&'a AliasBudget);

impl<'de> DeserializeSeed<'de> for ValueReader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueReader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without a tag")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Null)
    }

    /// An empty document.
    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.0.spend(0)?;
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{value} is not a JSON number")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.0.spend(value.len())?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut fields = Map::new();
        while let Some(key) = mapping.next_key_seed(MappingKey(self.0))? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is repeated")));
            }
            fields.insert(key, mapping.next_value_seed(self)?);
        }
        Ok(Value::Object(fields))
    }
}

/// A key of a mapping. Numbers and booleans become strings, as in the Kubernetes tools: Istio's
/// `portLevelMtls` is usually written with bare port numbers.
struct MappingKey<'a>(&'a AliasBudget);

impl<'de> DeserializeSeed<'de> for MappingKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for MappingKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string as the key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        self.0.spend(key.len())?;
        if key == "<<" {
            return Err(E::custom(
                "merge keys (<<) are not supported; write the fields out",
            ));
        }
        Ok(key.to_owned())
    }

    fn visit_bool<E: Error>(self, key: bool) -> Result<String, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<String, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<String, E> {
        self.visit_str(&key.to_string())
    }
}

/// Walks to a field and fails there: serde_norway gives positions only in errors.
struct FieldSeeker<'a>(&'a [FieldStep]);

impl<'de> DeserializeSeed<'de> for FieldSeeker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeeker<'_> {
    type Value = ();

    /// A value without further fields ends the walk.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the walk")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        if let Some((FieldStep::Index(index), rest)) = self.0.split_first() {
            for _ in 0..*index {
                sequence.next_element::<serde::de::IgnoredAny>()?;
            }
            sequence.next_element_seed(FieldSeeker(rest))?;
        }
        Err(A::Error::custom("here"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<(), A::Error> {
        if let Some((FieldStep::Key(wanted), rest)) = self.0.split_first() {
            while let Some(key) = mapping.next_key::<String>()? {
                if key == *wanted {
                    mapping.next_value_seed(FieldSeeker(rest))?;
                } else {
                    mapping.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Err(A::Error::custom("here"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(text: &str) -> Result<Value, String> {
        let mut documents = serde_norway::Deserializer::from_str(text);
        let document = documents.next().expect("a document");
        read(document, &AliasBudget::of(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn yaml_becomes_json() {
        let text = "{a: [1, -2, 0.5, true, null, ~, yes, 'x'], 8080: {b: \"\\P\\P\\P\\P\"}}";
        assert_eq!(
            tree(text),
            Ok(json!({
                "a": [1, -2, 0.5, true, null, null, "yes", "x"],
                "8080": {"b": "\u{2029}\u{2029}\u{2029}\u{2029}"},
            }))
        );
        for (text, value) in [
            ("", json!(null)),
            ("{a}", json!({"a": null})),
            ("{a,b,c}", json!({"a": null, "b": null, "c": null})),
            ("[[[[]]]]", json!([[[[]]]])),
            ("- - - a", json!([[["a"]]])),
            ("x: &a 1\ny: *a\n", json!({"x": 1, "y": 1})),
        ] {
            assert_eq!(tree(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_could_be_misread_is_refused_with_its_place() {
        for (text, message) in [
            ("a: 1\nb: 2\na: 3\n", "the key \"a\" is repeated"),
            ("80: 1\n'80': 2\n", "the key \"80\" is repeated"),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n",
                "c: merge keys (<<) are not supported; write the fields out at line 3 column 3",
            ),
            (
                "a: !secret x\n",
                "a: invalid type: enum, expected a JSON value without a tag at line 1 \
                 column 4",
            ),
            (
                "a: .inf\n",
                "a: inf is not a JSON number at line 1 column 4",
            ),
            (
                "? [a]\n: b\n",
                "invalid type: sequence, expected a string as the key at line 1 column 3",
            ),
        ] {
            assert_eq!(tree(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn aliases_cannot_multiply_a_file() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let previous = format!("*a{}, ", level - 1).repeat(8);
            bomb += &format!("a{level}: &a{level} [{previous}]\n");
        }
        let message = tree(&bomb).expect_err("a bomb");
        assert!(message.contains("aliases multiply the file"), "{message}");
        let long = format!("a: &a {}\nb: [*a, *a, *a]\n", "x".repeat(100));
        assert!(tree(&long).is_err());
    }

    #[test]
    fn a_field_is_found_in_its_document() {
        let text = "a: 1\n---\nspec:\n  ports:\n  - port: 80\n  - port: 81\n    name: x\n";
        for (field, line, column) in [
            (FieldPath::at("spec.ports").index(1).key("port"), 6, 11),
            (FieldPath::at("spec.ports").index(1), 6, 5),
            (FieldPath::at("spec.ports").index(1).key("absent"), 6, 5),
            (FieldPath::at("spec.ports").index(7), 5, 3),
            (FieldPath::at("metadata.name"), 3, 1),
            (
                FieldPath::at("spec.ports")
                    .index(0)
                    .key("port")
                    .key("deeper"),
                5,
                11,
            ),
            (FieldPath::default(), 3, 1),
        ] {
            let found = locate(text, 2, &field);
            assert_eq!(found, Some(Location { line, column }), "{field}");
        }
        assert_eq!(locate(text, 3, &FieldPath::default()), None);
    }

    #[test]
    fn errors_are_located_in_one_pass_and_again_within_a_document() {
        let text = "a: 1\n---\n- b\n- c\n---\nd: 1\n";
        let mut locator = Locator::new(text);
        let item = |index| FieldPath::default().index(index);
        for (document, field, line) in [
            (2, item(0), 3),
            (2, item(1), 4),
            (3, FieldPath::at("d"), 6),
            (1, FieldPath::at("a"), 1),
        ] {
            let found = locator.locate(document, &field).map(|at| at.line);
            assert_eq!(found, Some(line), "{field} of document {document}");
        }
        assert_eq!(locator.locate(4, &FieldPath::default()), None);
    }
}
