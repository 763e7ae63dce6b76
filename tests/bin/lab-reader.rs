//! `lab-reader JSON`: many HTTP/1 connections, each with one request, read at once, late, slowly or never. Its
//! argument is a list of `ambit_tests::ReaderOrder`. Prints one line of JSON for each connection that ended; those that are
//! never read are held until its standard input ends.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ambit_tests::pattern;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Of the threads of one connection.
const STACK: usize = 128 << 10;

/// The limit for a connection to be established, and between two reads.
const PATIENCE: Duration = Duration::from_secs(60);

/// One read or write.
const CHUNK: usize = 16 << 10;

#[derive(Clone)]
struct Order {
    number: usize,
    to: SocketAddr,
    head: String,
    upload: u64,
    receive_buffer: Option<usize>,
    wait: Duration,
    reading: Reading,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    ToTheEnd,
    Never,
    Leaves,
}

fn main() -> Result<(), Box<dyn Error>> {
    let told = std::env::args().nth(1).ok_or("usage: lab-reader JSON")?;
    let told: Vec<Value> = serde_json::from_str(&told)?;
    let mut readers = Vec::new();
    for (number, order) in told.iter().enumerate() {
        let count = order["count"].as_u64().ok_or("no count")?;
        let (lanes, each) = match order["in_turn"] == true {
            true => (1, count),
            false => (count, 1),
        };
        let order = parse(number, order)?;
        for _ in 0..lanes {
            let order = order.clone();
            let thread = thread::Builder::new().stack_size(STACK);
            let ends = order.reading != Reading::Never;
            let running = thread.spawn(move || (0..each).for_each(|_| run(&order)))?;
            if ends {
                readers.push(running);
            }
        }
    }
    for reader in readers {
        reader.join().map_err(|_| "a reader panicked")?;
    }
    println!("{}", json!({"finished": true}));
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn parse(number: usize, told: &Value) -> Result<Order, Box<dyn Error>> {
    let text = |field: &str| told[field].as_str().ok_or_else(|| format!("no {field}"));
    let count = |field: &str| told[field].as_u64();
    Ok(Order {
        number,
        to: text("to")?.parse()?,
        head: text("head")?.to_owned(),
        upload: count("upload").unwrap_or(0),
        receive_buffer: count("receive_buffer").map(usize::try_from).transpose()?,
        wait: Duration::from_millis(count("wait_ms").unwrap_or(0)),
        reading: match (told["reads"] == true, told["leaves"] == true) {
            (_, true) => Reading::Leaves,
            (true, false) => Reading::ToTheEnd,
            (false, false) => Reading::Never,
        },
    })
}

fn run(order: &Order) {
    let began = Instant::now();
    let mut seen = Seen::default();
    let end = match call(order, &mut seen) {
        Ok(()) => "closed".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    println!(
        "{}",
        json!({
            "order": order.number, "status": seen.status(), "head": seen.head, "bytes": seen.body,
            "intact": seen.intact, "end": end, "ms": began.elapsed().as_millis() as u64,
        })
    );
}

/// What came back.
struct Seen {
    head: String,
    body: u64,
    intact: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            head: String::new(),
            body: 0,
            intact: true,
        }
    }
}

impl Seen {
    fn take(&mut self, mut bytes: &[u8]) {
        while let [byte, rest @ ..] = bytes
            && !self.head.ends_with("\r\n\r\n")
        {
            self.head.push(char::from(*byte));
            bytes = rest;
        }
        self.intact &= pattern(self.body, bytes.len()) == bytes;
        self.body += bytes.len() as u64;
    }

    fn status(&self) -> Option<u16> {
        self.head.split(' ').nth(1)?.parse().ok()
    }
}

fn call(order: &Order, seen: &mut Seen) -> io::Result<()> {
    let mut stream = connect(order)?;
    stream.write_all(order.head.as_bytes())?;
    let upload = order.upload;
    if order.reading == Reading::Leaves {
        send(stream, upload);
        return Ok(());
    }
    let writer = stream.try_clone()?;
    let sending = thread::Builder::new().stack_size(STACK);
    sending.spawn(move || send(writer, upload))?;
    if order.reading == Reading::Never {
        loop {
            thread::park();
        }
    }
    thread::sleep(order.wait);
    let mut buffer = [0; CHUNK];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => seen.take(&buffer[..length]),
        }
    }
}

fn connect(order: &Order) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(order.to), Type::STREAM, None)?;
    if let Some(bytes) = order.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect_timeout(&order.to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The server may answer and leave before all of it was sent: its answer counts.
fn send(mut stream: TcpStream, bytes: u64) {
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(CHUNK as u64);
        if stream.write_all(&pattern(at, length as usize)).is_err() {
            return;
        }
        at += length;
    }
}
