//! `lab-client ADDRESS`: connects, prints what it sees, sends each line of its standard input, and
//! prints each line that comes back, and how the connection ends, all as JSON. At the end of its
//! standard input it half-closes the connection.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;

/// The limit for the connection.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .ok_or("usage: lab-client ADDRESS")?
        .parse()?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    println!(
        "{}",
        json!({"opened": {
            "local": stream.local_addr()?.to_string(),
            "peer": stream.peer_addr()?.to_string(),
        }})
    );
    let mut sender = stream.try_clone()?;
    // Its failure shows on the receiving side too.
    thread::spawn(move || {
        io::copy(&mut io::stdin(), &mut sender)?;
        sender.shutdown(Shutdown::Write)
    });
    let end = receive(stream);
    println!("{}", json!({"ended": end}));
    Ok(())
}

fn receive(stream: TcpStream) -> String {
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) => println!("{}", json!({"received": line})),
            Err(error) => return format!("{:?}", error.kind()),
        }
    }
    "closed".to_owned()
}
