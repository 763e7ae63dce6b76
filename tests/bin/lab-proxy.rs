//! `lab-proxy`, with the environment of a ztunnel: stands in for one in a test. It ends with an error if the
//! environment or the file at LOCAL_XDS_PATH does not describe its workload. Otherwise it relays what is
//! redirected to port 15001 to port 15008 of the original destination, and what arrives there to the port that
//! the first two bytes name. Its own sockets have the mark PACKET_MARK.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

/// The variables without which a ztunnel does something else, and their values.
const EXPECTED: [(&str, &str); 5] = [
    ("FAKE_CA", "true"),
    ("XDS_ADDRESS", ""),
    ("PROXY_MODE", "dedicated"),
    ("ENABLE_ORIG_SRC", "false"),
    ("ISTIO_META_DNS_CAPTURE", "false"),
];

fn main() -> Result<(), Box<dyn Error>> {
    for (name, value) in EXPECTED {
        let set = env::var(name).map_err(|error| format!("{name}: {error}"))?;
        if set != value {
            return Err(format!("{name} is {set:?}").into());
        }
    }
    let mark = env::var("PACKET_MARK")?.parse()?;
    find_own_workload()?;
    let tunnels = TcpListener::bind("[::]:15008")?;
    let redirected = TcpListener::bind("[::]:15001")?;
    thread::spawn(move || serve(&tunnels, move |accepted| leave(accepted, mark)));
    serve(&redirected, move |accepted| enter(accepted, mark))?;
    Ok(())
}

/// Carries each connection on a thread of its own.
fn serve(
    listener: &TcpListener,
    carry: impl Fn(&TcpStream) -> io::Result<SocketAddr> + Copy + Send + 'static,
) -> io::Result<()> {
    loop {
        let (accepted, _) = listener.accept()?;
        thread::spawn(move || println!("carried: {:?}", carry(&accepted)));
    }
}

fn enter(accepted: &TcpStream, mark: u32) -> io::Result<SocketAddr> {
    let destination = SockRef::from(accepted).original_dst_v4()?;
    let destination = destination.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let mut far = dial((destination.ip(), 15008).into(), mark)?;
    far.write_all(&destination.port().to_be_bytes())?;
    relay(accepted, &far)?;
    Ok(destination)
}

fn leave(mut accepted: &TcpStream, mark: u32) -> io::Result<SocketAddr> {
    let mut port = [0; 2];
    accepted.read_exact(&mut port)?;
    let own = accepted.local_addr()?.ip().to_canonical();
    let destination = (own, u16::from_be_bytes(port)).into();
    relay(accepted, &dial(destination, mark)?)?;
    Ok(destination)
}

fn find_own_workload() -> Result<(), Box<dyn Error>> {
    let own = env::var("PROXY_WORKLOAD_INFO")?;
    let node = env::var("NODE_NAME")?;
    let text = fs::read_to_string(env::var("LOCAL_XDS_PATH")?)?;
    let configuration: Value = serde_norway::from_str(&text)?;
    let mut workloads = configuration["workloads"].as_array().into_iter().flatten();
    let found = workloads.any(|workload| {
        let text = |field: &str| workload[field].as_str().unwrap_or_default();
        let info = ["namespace", "name", "serviceAccount"].map(text).join("/");
        info == own && text("node") == node && text("protocol") == "HBONE"
    });
    match found {
        true => Ok(()),
        false => Err(format!("{own} is not a workload of {node} in: {text}").into()),
    }
}

fn dial(destination: SocketAddr, mark: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM, None)?;
    socket.set_mark(mark)?;
    socket.set_tcp_nodelay(true)?;
    socket.connect(&destination.into())?;
    Ok(socket.into())
}

fn relay(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    near.set_nodelay(true)?;
    let carry = |mut from: &TcpStream, mut to: &TcpStream| {
        io::copy(&mut from, &mut to)?;
        to.shutdown(Shutdown::Write)
    };
    thread::scope(|scope| {
        let upwards = scope.spawn(|| carry(near, far));
        carry(far, near)?;
        upwards.join().unwrap_or(Ok(()))
    })
}
