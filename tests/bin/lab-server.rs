//! `lab-server http|echo|banner ADDRESS...`: prints each caller, one line of JSON per connection, and
//! serves as [`ambit_tests::Mode`] says.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

#[derive(Clone, Copy)]
enum Mode {
    Http,
    Echo,
    Banner,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, addresses @ ..] = arguments.as_slice() else {
        return Err("usage: lab-server http|echo|banner ADDRESS...".into());
    };
    let mode = match mode.as_str() {
        "http" => Mode::Http,
        "echo" => Mode::Echo,
        "banner" => Mode::Banner,
        other => return Err(format!("no such mode: {other}").into()),
    };
    let listeners = addresses
        .iter()
        .map(|address| Ok(TcpListener::bind(address.parse::<SocketAddr>()?)?))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    println!("listening");
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| thread::spawn(move || accept(mode, &listener)))
        .collect();
    for thread in accepting {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn accept(mode: Mode, listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, accepted) = listener.accept()?;
        let seen = json!({
            "accepted": accepted.to_string(),
            "peer": stream.peer_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            "local": stream.local_addr()?.to_string(),
        });
        println!("{seen}");
        // How a connection ends does not matter here.
        thread::spawn(move || serve(mode, stream, seen));
    }
}

fn serve(mode: Mode, mut stream: TcpStream, seen: Value) -> io::Result<()> {
    match mode {
        Mode::Http => http(stream, seen),
        Mode::Echo => echo(stream),
        Mode::Banner => {
            writeln!(stream, "{seen}")?;
            echo(stream)
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// Answers every request on the connection; requests have no body.
fn http(mut stream: TcpStream, seen: Value) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(request) = lines.next().transpose()? {
        while lines
            .next()
            .transpose()?
            .is_some_and(|line| !line.is_empty())
        {}
        let mut answer = seen.clone();
        answer["request"] = request.into();
        let body = format!("{answer}\n");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
    Ok(())
}
