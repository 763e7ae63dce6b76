//! `lab-relay THREADS FROM=TO …`: accepts connections at each address FROM and carries their bytes to and from
//! TO. Each thread has its own runtime and listeners, as a shard of the agent has, and a connection stays on
//! the thread that accepted it. No TLS, no HTTP/2: what relaying alone costs.

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// The most that one system call carries.
const CHUNK: usize = 64 << 10;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

#[derive(Clone, Copy)]
struct Route {
    from: SocketAddr,
    to: SocketAddr,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().ok_or("how many threads?")?.parse()?;
    let routes = arguments.map(|text| route(&text));
    let routes = routes.collect::<Result<Vec<_>, _>>()?;
    let mut workers = Vec::new();
    for _ in 0..threads {
        let listeners = routes.iter().map(|route| listen(route.from));
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let routes = routes.clone();
        workers.push(thread::spawn(move || serve(listeners, &routes)));
    }
    println!("listening");
    for worker in workers {
        worker.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn route(text: &str) -> Result<Route, Box<dyn Error>> {
    let (from, to) = text.split_once('=').ok_or("FROM=TO is needed")?;
    Ok(Route {
        from: from.parse()?,
        to: to.parse()?,
    })
}

fn listen(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn serve(listeners: Vec<Socket>, routes: &[Route]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut accepting = Vec::new();
        for (socket, route) in listeners.into_iter().zip(routes) {
            let listener = TcpListener::from_std(socket.into())?;
            accepting.push(spawn_local(accept(listener, route.to)));
        }
        for task in accepting {
            task.await??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, to: SocketAddr) -> io::Result<()> {
    loop {
        let (accepted, _) = listener.accept().await?;
        spawn_local(async move {
            // What ends one connection ends that one only.
            let _ = relay(accepted, to).await;
        });
    }
}

async fn relay(mut near: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_reads, near_writes) = near.split();
    let (far_reads, far_writes) = far.split();
    tokio::try_join!(carry(near_reads, far_writes), carry(far_reads, near_writes))?;
    Ok(())
}

/// Carries bytes in one direction to its end. A buffer belongs to the thread and not to the connection: what
/// cannot be written at once is copied out of it.
async fn carry(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    loop {
        let (read, left) = poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut from).poll_read(context, &mut buffer))?;
                let filled = buffer.filled();
                let written = match to.try_write(filled) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    written => written?,
                };
                Poll::Ready(io::Result::Ok((filled.len(), filled[written..].to_vec())))
            })
        })
        .await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&left).await?;
    }
}
