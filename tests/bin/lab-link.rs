//! `lab-link DEVICE NETNS NETNS DELAY RATE QUEUE`: a link between two network namespaces, as a slow network is one.
//! Makes a TUN device of this name in each, and carries packets between them: each waits its turn at RATE bits a
//! second (0: no limit), is dropped if more than QUEUE bytes wait before it, and arrives DELAY microseconds after
//! its last bit was sent. The devices vanish with this process.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// The longest packet, with room to see that one is longer.
const PACKET: usize = 64 << 10;

/// Packets that are read before others are delivered.
const AT_ONCE: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [device, near, far, delay, rate, queue] = words.as_slice() else {
        return Err("usage: lab-link DEVICE NETNS NETNS DELAY RATE QUEUE".into());
    };
    let pace = Pace {
        delay: Duration::from_micros(delay.parse()?),
        rate: rate.parse()?,
        queue: queue.parse()?,
    };
    let near = open(device, near)?;
    let far = open(device, far)?;
    let back = (far.try_clone()?, near.try_clone()?);
    let returning = thread::spawn(move || carry(&back.0, &back.1, pace));
    println!("up");
    carry(&near, &far, pace)?;
    returning.join().map_err(|_| "a direction panicked")??;
    Ok(())
}

/// Makes a TUN device in a network namespace, on a thread that enters it.
fn open(device: &str, netns: &str) -> Result<File, Box<dyn Error>> {
    let (device, netns) = (device.to_owned(), netns.to_owned());
    let opening = thread::spawn(move || -> io::Result<File> {
        let netns = File::open(format!("/run/netns/{netns}"))?;
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        attach(&file, &device)?;
        Ok(file)
    });
    Ok(opening.join().map_err(|_| "opening a device panicked")??)
}

fn attach(file: &File, device: &str) -> io::Result<()> {
    // SAFETY: all of its fields are numbers or arrays of them, for which zeroes are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(io::Error::other)?;
    // SAFETY: the request is one that TUNSETIFF takes, and lives during the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[derive(Clone, Copy)]
struct Pace {
    delay: Duration,
    /// Bits a second; 0 if there is no limit.
    rate: u64,
    /// Bytes that may wait.
    queue: u64,
}

/// Packets of one direction, and when each arrives.
struct Line {
    pace: Pace,
    /// When all that waits will have been sent.
    free: Instant,
    under_way: VecDeque<(Instant, Vec<u8>)>,
}

impl Line {
    fn take(&mut self, packet: &[u8]) {
        let now = Instant::now();
        let waiting = self.free.saturating_duration_since(now);
        let backlog = waiting.as_micros() as u64 * self.pace.rate / 8_000_000;
        if backlog + packet.len() as u64 > self.pace.queue {
            return;
        }
        let bits = packet.len() as u64 * 8;
        let micros = (bits * 1_000_000).checked_div(self.pace.rate);
        self.free = self.free.max(now) + Duration::from_micros(micros.unwrap_or(0));
        let arrival = self.free + self.pace.delay;
        self.under_way.push_back((arrival, packet.to_vec()));
    }

    fn deliver(&mut self, to: &File) -> io::Result<()> {
        while self.next() == Some(Duration::ZERO)
            && let Some((_, packet)) = self.under_way.pop_front()
        {
            match { to }.write(&packet) {
                Ok(_) => {}
                // As any link does.
                Err(error) if drops(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How long it is until the next packet arrives.
    fn next(&self) -> Option<Duration> {
        let (arrival, _) = self.under_way.front()?;
        Some(arrival.saturating_duration_since(Instant::now()))
    }
}

/// Whether a packet that could not be written is lost, and the link goes on. A device that is not up yet is EIO.
fn drops(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error(),
            Some(libc::ENOBUFS | libc::EIO | libc::EINVAL)
        )
}

fn carry(from: &File, to: &File, pace: Pace) -> io::Result<()> {
    let mut line = Line {
        pace,
        free: Instant::now(),
        under_way: VecDeque::new(),
    };
    let mut packet = vec![0; PACKET];
    loop {
        wait(from.as_raw_fd(), line.next())?;
        for _ in 0..AT_ONCE {
            match { from }.read(&mut packet) {
                Ok(length) => line.take(&packet[..length]),
                Err(error) if drops(&error) => break,
                Err(error) => return Err(error),
            }
        }
        line.deliver(to)?;
    }
}

/// Waits for a packet, at most so long.
fn wait(from: RawFd, limit: Option<Duration>) -> io::Result<()> {
    let mut asked = libc::pollfd {
        fd: from,
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are to values of this function, or null, which means no limit.
    match unsafe { libc::ppoll(&raw mut asked, 1, limit, std::ptr::null()) } {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}
