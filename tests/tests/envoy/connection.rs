//! A connection of HTTP/1.1 that carries one request after another.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, Result};

use crate::listener::PATH_HEADER;
use crate::request::Request;

/// Something that can be read from and written to.
pub(crate) trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection.
pub(crate) struct Connection(BufReader<Box<dyn Stream>>);

/// An answer, whose body has been read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The path that was passed on, if one was.
    pub(crate) path: Option<String>,
    /// Whether another request may follow.
    pub(crate) keeps_open: bool,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads the answer.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Answer> {
        let stream = self.0.get_mut();
        stream.write_all(&request.bytes())?;
        stream.flush()?;
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut answer = Answer {
            status: status.with_context(|| format!("no status in {line:?}"))?,
            path: None,
            keeps_open: true,
        };
        let mut length = 0;
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None => break,
                Some((PATH_HEADER, value)) => answer.path = Some(value.to_owned()),
                Some(("content-length", value)) => length = value.parse()?,
                Some(("connection", "close")) => answer.keeps_open = false,
                Some(_) => {}
            }
        }
        if request.method != "HEAD" {
            self.0.read_exact(&mut vec![0; length])?;
        }
        Ok(answer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}
