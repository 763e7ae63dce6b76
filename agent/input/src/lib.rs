//! What is read from outside: marks in front of text, and the steps that reading takes.

mod marks;
pub mod work;

pub use marks::{bytes_without_mark, pem_without_marks, without_mark, yaml_without_marks};
