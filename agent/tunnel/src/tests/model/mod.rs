//! Two connections of this crate, joined by a network without time, under acts in any order. Everything runs
//! only when it was woken. At the end all is given room and read, and no one may still wait for anything.

mod half;
mod network;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ambit_account::{Charge, PodAccount};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{KEEP, memory};
use crate::frame::{INITIAL_WINDOW_SIZE, put_settings};
use crate::session::FIRST_WINDOW;
use crate::{Connection, Incoming, Opener, Responder, TunnelFailure, accept, connect};
use half::{Ending, Half, Left};
use network::{End, Flag, Pipe};

/// What each side's account has.
const ACCOUNT: usize = 8 << 20;

/// More than everything.
const ALL: usize = 1 << 30;

/// What each half is given to send at the end: more than any window that it may have been left with.
const LAST: usize = 160 << 10;

/// How many rounds it takes at most until all is carried.
const MOST_ROUNDS: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Client,
    Server,
}

const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// What happens next. An index chooses among the streams, or requests, that there are.
#[derive(Clone, Debug)]
enum Act {
    Open,
    Answer(Index),
    Refuse(Index),
    Give(Side, Index, usize),
    End(Side, Index),
    Read(Side, Index, usize),
    Attach(Side, Index),
    Discard(Side, Index),
    Leave(Side, Index, Left),
    /// A side lets its peer have other windows.
    Settings(Side, usize),
    /// The network takes, or delivers, what a side sends.
    Take(Side, usize),
    Arrive(Side, usize),
    Run(Side),
    /// Something else uses memory.
    Exhaust(Side, usize),
    Relieve(Side),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![1..100_usize, 1..20_000_usize, 10_000..70_000_usize]
}

fn act() -> impl Strategy<Value = Act> {
    let stream = any::<Index>;
    let left = prop_oneof![Just(Left::AfterAll), Just(Left::AtOnce)];
    prop_oneof![
        3 => Just(Act::Open),
        3 => stream().prop_map(Act::Answer),
        1 => stream().prop_map(Act::Refuse),
        8 => (side(), stream(), bytes()).prop_map(|(side, stream, most)| Act::Give(side, stream, most)),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::End(side, stream)),
        6 => (side(), stream(), bytes()).prop_map(|(side, stream, most)| Act::Read(side, stream, most)),
        2 => (side(), stream()).prop_map(|(side, stream)| Act::Attach(side, stream)),
        1 => (side(), stream()).prop_map(|(side, stream)| Act::Discard(side, stream)),
        1 => (side(), stream(), left).prop_map(|(side, stream, how)| Act::Leave(side, stream, how)),
        1 => (side(), 0..=FIRST_WINDOW).prop_map(|(side, window)| Act::Settings(side, window)),
        6 => (side(), bytes()).prop_map(|(side, bytes)| Act::Take(side, bytes)),
        8 => (side(), bytes()).prop_map(|(side, bytes)| Act::Arrive(side, bytes)),
        12 => side().prop_map(Act::Run),
        1 => (side(), 0..ACCOUNT).prop_map(|(side, bytes)| Act::Exhaust(side, bytes)),
        1 => side().prop_map(Act::Relieve),
    ]
}

/// What happens while the client has not heard of the server's settings.
fn early_act() -> impl Strategy<Value = Act> {
    let stream = any::<Index>;
    let (client, server) = (Side::Client, Side::Server);
    prop_oneof![
        1 => Just(Act::Open),
        2 => stream().prop_map(Act::Answer),
        2 => (stream(), bytes()).prop_map(move |(stream, most)| Act::Give(client, stream, most)),
        4 => (stream(), bytes()).prop_map(move |(stream, most)| Act::Read(server, stream, most)),
        3 => bytes().prop_map(move |bytes| Act::Take(client, bytes)),
        3 => bytes().prop_map(move |bytes| Act::Arrive(client, bytes)),
        6 => side().prop_map(Act::Run),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let early = prop::collection::vec(early_act(), 0..60);
    let later = prop::collection::vec(act(), 1..160);
    (early, later).prop_map(|(early, later)| [early, later].concat())
}

/// One side: its connection, and its halves of the streams in the order in which they were opened.
struct Node {
    connection: Option<Connection<End>>,
    woken: Arc<Flag>,
    to_peer: Rc<Pipe>,
    memory: PodAccount,
    /// What something else uses.
    used: Vec<Charge>,
    halves: Vec<Option<Half>>,
}

struct World {
    opener: Opener,
    client: Node,
    server: Node,
    /// Requests that wait for their answer, by stream.
    requests: Vec<(usize, Responder)>,
    failure: Option<TunnelFailure>,
}

impl Node {
    fn new(connection: Connection<End>, to_peer: Rc<Pipe>, memory: PodAccount) -> Self {
        Self {
            connection: Some(connection),
            woken: Flag::raised(),
            to_peer,
            memory,
            used: Vec::new(),
            halves: Vec::new(),
        }
    }

    fn half(&mut self, index: Index) -> Option<&mut Half> {
        if self.halves.is_empty() {
            return None;
        }
        let index = index.index(self.halves.len());
        self.halves[index].as_mut()
    }
}

impl World {
    fn new() -> Self {
        let (up, down) = (Rc::<Pipe>::default(), Rc::<Pipe>::default());
        let (near, far) = (memory(ACCOUNT), memory(ACCOUNT));
        let (opener, client) = connect(End::new(&down, &up), near.clone(), KEEP);
        let server = accept(End::new(&up, &down), far.clone(), KEEP);
        Self {
            opener,
            client: Node::new(client, up, near),
            server: Node::new(server, down, far),
            requests: Vec::new(),
            failure: None,
        }
    }

    fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Open => self.open(),
            Act::Answer(index) if !self.requests.is_empty() => {
                let index = index.index(self.requests.len());
                self.answer(index);
            }
            Act::Refuse(index) if !self.requests.is_empty() => {
                let index = index.index(self.requests.len());
                self.requests.remove(index).1.refuse(401);
            }
            Act::Answer(_) | Act::Refuse(_) => {}
            Act::Run(side) => self.run(side),
            Act::Settings(side, window) => self.set_window(side, window),
            Act::Take(side, bytes) => self.node(side).to_peer.make_room(bytes),
            Act::Arrive(side, bytes) => self.node(side).to_peer.arrive(bytes),
            Act::Exhaust(side, bytes) => {
                let node = self.node(side);
                node.used.extend(node.memory.take(bytes));
            }
            Act::Relieve(side) => self.node(side).used.clear(),
            Act::Give(side, stream, bytes) => self.half(side, stream, |half| {
                half.give(bytes);
                half.run_sender();
            }),
            Act::End(side, stream) => self.half(side, stream, |half| {
                half.end();
                half.run_sender();
            }),
            Act::Read(side, stream, most) => self.half(side, stream, |half| half.run_reader(most)),
            Act::Attach(side, stream) => self.half(side, stream, Half::attach),
            Act::Discard(side, stream) => self.half(side, stream, Half::discard),
            Act::Leave(side, stream, how) => self.half(side, stream, |half| half.leave(how)),
        }
    }

    fn half(&mut self, side: Side, stream: Index, act: impl FnOnce(&mut Half)) {
        if let Some(half) = self.node(side).half(stream) {
            act(half);
        }
    }

    fn open(&mut self) {
        let Ok(stream) = self.opener.open("10.0.0.1:80", "") else {
            return;
        };
        let number = self.client.halves.len();
        let half = Half::new(stream, 2 * number, 2 * number + 1, false);
        self.client.halves.push(Some(half));
        self.server.halves.push(None);
    }

    fn answer(&mut self, index: usize) {
        let (number, responder) = self.requests.remove(index);
        let half = Half::new(responder.accept(), 2 * number + 1, 2 * number, true);
        self.server.halves[number] = Some(half);
    }

    /// Tells the peer of a window that is not larger than what it was told of.
    fn set_window(&mut self, side: Side, window: usize) {
        let node = self.node(side);
        if let Some(connection) = &node.connection {
            let window = window as u32;
            connection.with_outgoing(|out| put_settings(out, &[(INITIAL_WINDOW_SIZE, window)]));
            node.woken.raise();
        }
    }

    /// Runs a side's connection while it is woken.
    fn run(&mut self, side: Side) {
        while self.run_once(side) {}
    }

    /// Returns whether the connection may have more to do.
    fn run_once(&mut self, side: Side) -> bool {
        let node = self.node(side);
        let Some(connection) = &mut node.connection else {
            return false;
        };
        if !node.woken.take() {
            return false;
        }
        let waker = Waker::from(Arc::clone(&node.woken));
        let polled = pin!(connection.next()).poll(&mut Context::from_waker(&waker));
        match polled {
            Poll::Pending => return false,
            Poll::Ready(Ok(Some(incoming))) => {
                node.woken.raise();
                if let Incoming::Request(_, responder) = incoming {
                    let number = (responder.stream_id() as usize - 1) / 2;
                    self.requests.push((number, responder));
                }
            }
            Poll::Ready(Ok(None)) => node.connection = None,
            Poll::Ready(Err(failure)) => {
                node.connection = None;
                self.failure = Some(failure);
            }
        }
        true
    }

    /// Lets everything go on until no one has anything to do.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..MOST_ROUNDS {
            prop_assert!(self.failure.is_none(), "{:?}", self.failure);
            let before = self.progress();
            for side in SIDES {
                self.run(side);
                let node = self.node(side);
                node.to_peer.make_room(1 << 20);
                node.to_peer.arrive(ALL);
                for half in node.halves.iter_mut().flatten() {
                    half.run_sender();
                    half.run_reader(ALL);
                }
            }
            while !self.requests.is_empty() {
                self.answer(0);
            }
            if before == self.progress() && SIDES.iter().all(|side| self.is_quiet(*side)) {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("they never come to rest"))
    }

    fn is_quiet(&mut self, side: Side) -> bool {
        let node = self.node(side);
        node.to_peer.pending() == 0 && (node.connection.is_none() || !node.woken.is_raised())
    }

    fn progress(&self) -> (usize, usize, usize) {
        let halves = || {
            self.client
                .halves
                .iter()
                .chain(&self.server.halves)
                .flatten()
        };
        let ended = halves().filter(|half| half.ending.is_some() || half.stopped.is_some());
        (
            halves().map(|half| half.sent).sum(),
            halves().map(Half::received).sum(),
            ended.count(),
        )
    }

    /// Everything that was in the way is gone. All arrives, and then all ends.
    fn finish(mut self) -> Result<(), TestCaseError> {
        for side in SIDES {
            self.set_window(side, FIRST_WINDOW);
            self.node(side).used.clear();
        }
        self.settle()?;
        self.check()?;
        for side in SIDES {
            for half in self.node(side).halves.iter_mut().flatten() {
                half.give(LAST);
            }
        }
        self.settle()?;
        self.check()?;
        for side in SIDES {
            for half in self.node(side).halves.iter_mut().flatten() {
                half.end();
            }
        }
        self.settle()?;
        self.check()?;
        for side in SIDES {
            for half in self.node(side).halves.iter_mut().flatten() {
                half.close();
            }
        }
        self.opener.leave();
        self.settle()?;
        prop_assert!(self.failure.is_none(), "{:?}", self.failure);
        prop_assert!(
            self.client.connection.is_none(),
            "the client's connection has ended"
        );
        prop_assert!(
            self.server.connection.is_none(),
            "the server's connection has ended"
        );
        for side in SIDES {
            let in_use = self.node(side).memory.usage().in_use;
            prop_assert_eq!(in_use, 0, "{:?} has given back", side);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.failure.is_none(), "{:?}", self.failure);
        let pairs = self.client.halves.iter().zip(&self.server.halves);
        for (number, (near, far)) in pairs.enumerate() {
            let (Some(near), Some(far)) = (near, far) else {
                continue;
            };
            check_direction(near, far).map_err(|error| {
                TestCaseError::fail(format!("stream {number}, to the server: {error}"))
            })?;
            check_direction(far, near).map_err(|error| {
                TestCaseError::fail(format!("stream {number}, to the client: {error}"))
            })?;
        }
        Ok(())
    }
}

/// Checks what `from` has sent and `to` received, when no one has anything to do.
fn check_direction(from: &Half, to: &Half) -> Result<(), TestCaseError> {
    prop_assert_eq!(to.wrong(), None, "the place of a wrong byte");
    prop_assert!(to.received() <= from.sent);
    let goes_on = from.has_stream() && from.stopped.is_none() && to.has_stream();
    if goes_on {
        prop_assert!(from.has_sent_all(), "the sender waits for ever");
    }
    if to.discards() || to.left.is_some() {
        return Ok(());
    }
    match from.left {
        Some(Left::AtOnce) => {}
        Some(Left::AfterAll) | None => {
            prop_assert_eq!(to.received(), from.sent, "what was sent arrives");
        }
    }
    match &to.ending {
        Some(Ending::InOrder) => prop_assert!(from.has_sent_all()),
        Some(Ending::Failed(failure)) => {
            prop_assert!(from.left.is_some(), "it broke: {failure}");
        }
        None => prop_assert!(from.is_sending(), "the reader waits for ever"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 300,
        ..ProptestConfig::with_cases(60)
    })]

    #[test]
    fn no_one_waits_for_ever(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _context = runtime.enter();
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.finish()?;
    }
}
