//! How Ambit takes what comes from outside: byte order marks, bounded and followed files, and the
//! steps that reading takes.

mod file;
mod marks;
pub mod work;

pub use file::{FileFollower, read_bounded};
pub use marks::{bytes_without_mark, pem_without_marks, without_mark, yaml_without_marks};
