//! One worker: a thread with its sockets, its queue of the inside device, its tables and buffers.
//!
//! It runs each batch to completion: receive, open, write inside; read inside, seal, send. When nothing is left it looks
//! around for a moment, if it was busy just before, because a sleep and the wake-up by another processor cost more than a
//! packet; then it sleeps in `epoll_wait`, where the control plane's `eventfd` wakes it too.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use quinn_udp::RecvMeta;

use super::buffer::Slice;
use super::coalesce::{Coalescer, InsideDevice};
use super::config::DataConfig;
use super::fast::{Applied, Fast};
use super::receive::{RECEIVE_BUFFERS, ReceiveBatch, Received};
use super::stats::{Count, DataStats, Gauge};
use super::transmit::{Carrier, Group, OutsideDevice, TransmitBatch};
use crate::link::{FromData, FromDataSender, ToControl, ToDataReceiver};
use crate::net::{MAX_INSIDE_FRAME, OuterSocket, Role, Tun};

/// Receive calls on one socket before the others get their turn.
const RECEIVES: usize = 4;

/// Frames of the inside device before the sockets get their turn.
const FRAMES: usize = 64;

/// Messages of the control plane before packets get their turn.
const MESSAGES: usize = 256;

/// How long, in milliseconds, a send waits for room in a socket before its packets are dropped.
const SEND_WAIT_MILLIS: u8 = 5;

/// How often counters are published while there is no pause.
const PUBLISH: Duration = Duration::from_millis(100);

/// Names of what `epoll_wait` gives: the control plane, the inside device, then the sockets.
const CONTROL: u64 = 0;
const INSIDE: u64 = 1;
const SOCKETS: u64 = 2;

/// The sockets, as [`TransmitBatch`] sends through them.
#[derive(Debug)]
struct Outside {
    sockets: Vec<OuterSocket>,
}

impl OutsideDevice for Outside {
    fn send(&mut self, group: &Group, bytes: &[u8]) -> io::Result<()> {
        let wanted = |s: &&OuterSocket| {
            let carries = match group.carrier {
                Carrier::Udp => matches!(s.role(), Role::Ike | Role::NatT),
                Carrier::Esp => s.role() == Role::Esp,
            };
            carries && s.serves(group.local)
        };
        let socket = self.sockets.iter().find(wanted).ok_or(io::ErrorKind::NotFound)?;
        if group.packets > 1 && socket.max_segments() >= group.packets {
            match send(socket, group, bytes, Some(group.segment)) {
                // The interface cannot cut, or the path is narrower than a packet: one by one then.
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        let mut failed = Ok(());
        for packet in bytes.chunks(group.segment.max(1)) {
            if let Err(e) = send(socket, group, packet, None) {
                failed = Err(e);
            }
        }
        failed
    }
}

/// Sends, and waits a little when the socket is full: what the inside sent in one go shall not be lost here.
fn send(socket: &OuterSocket, group: &Group, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
    match socket.send(group.local.ip(), group.remote, bytes, segment) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::from(SEND_WAIT_MILLIS));
            socket.send(group.local.ip(), group.remote, bytes, segment)
        }
        done => done,
    }
}

/// The inside device, or its absence.
#[derive(Debug)]
enum Inside {
    Tun(Tun),
    Nothing,
}

impl InsideDevice for Inside {
    fn offload(&self) -> bool {
        matches!(self, Self::Tun(tun) if tun.offload())
    }
    fn uso(&self) -> bool {
        matches!(self, Self::Tun(tun) if tun.uso())
    }
    fn write(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        match self {
            Self::Tun(tun) => tun.write(parts).map(|_| ()),
            Self::Nothing => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// All that a worker owns.
pub(super) struct Worker {
    fast: Fast,
    outside: Outside,
    inside: Inside,
    epoll: Epoll,
    messages: ToDataReceiver,
    control: FromDataSender,
    stats: Arc<DataStats>,
    receive: ReceiveBatch,
    transmit: TransmitBatch,
    coalescer: Coalescer,
    inner: Vec<Slice>,
    frame: Box<[u8]>,
    spin: Duration,
    liveness: Every,
    counters: Every,
    publish: Every,
}

/// Something that is done now and then.
struct Every {
    interval: Duration,
    next: Instant,
}

impl Every {
    fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now + interval }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

impl Worker {
    pub(super) fn new(
        config: &DataConfig,
        sockets: Vec<OuterSocket>,
        tun: Option<Tun>,
        messages: ToDataReceiver,
        control: FromDataSender,
        stats: Arc<DataStats>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(messages.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        let inside = match tun {
            Some(tun) => {
                epoll.add(tun.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, INSIDE))?;
                Inside::Tun(tun)
            }
            None => Inside::Nothing,
        };
        for (n, socket) in sockets.iter().enumerate() {
            epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, SOCKETS + n as u64))?;
        }
        let now = now();
        Ok(Self {
            fast: Fast::new(config),
            outside: Outside { sockets },
            inside,
            epoll,
            messages,
            control,
            stats,
            receive: ReceiveBatch::default(),
            transmit: TransmitBatch::default(),
            coalescer: Coalescer::default(),
            inner: Vec::with_capacity(RECEIVE_BUFFERS * 64),
            frame: vec![0; MAX_INSIDE_FRAME].into_boxed_slice(),
            spin: config.spin,
            liveness: Every::new(config.liveness_interval, now),
            counters: Every::new(config.counter_interval, now),
            publish: Every::new(PUBLISH, now),
        })
    }

    /// Runs until it is told to stop, or every sender is gone.
    pub(super) fn run(mut self) {
        let reason = match self.turns() {
            Ok(()) => String::new(),
            Err(e) => e.to_string(),
        };
        self.fast.report_counters(&mut self.control);
        self.publish();
        self.control.tell(FromData::Stopped { reason });
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 16];
        let mut busy = false;
        loop {
            let n = self.wait(&mut events, busy)?;
            busy = n > 0;
            // When the last sender goes nobody wakes the worker, so it looks by itself now and then.
            let mut control = self.liveness.next <= now();
            for event in events.get(..n).unwrap_or_default() {
                match event.data() {
                    CONTROL => control = true,
                    INSIDE => self.read_inside(),
                    socket => self.receive(usize::try_from(socket - SOCKETS).unwrap_or(usize::MAX)),
                }
            }
            if control && self.take_messages() == Applied::Stop {
                self.transmit.flush(&mut self.outside, &mut self.fast.counters);
                return Ok(());
            }
            self.transmit.flush(&mut self.outside, &mut self.fast.counters);
            self.now_and_then();
        }
    }

    /// The next events: at once if there are any; else after a short look around, if the last turn had some; else when
    /// one comes, or when something is to be reported.
    fn wait(&mut self, events: &mut [EpollEvent], busy: bool) -> io::Result<usize> {
        let mut ready = |timeout| match self.epoll.wait(events, timeout) {
            Ok(n) => Ok(n),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(e) => Err(io::Error::from(e)),
        };
        let n = ready(EpollTimeout::ZERO)?;
        if n > 0 {
            return Ok(n);
        }
        if busy && !self.spin.is_zero() {
            let until = now() + self.spin;
            while now() < until {
                std::hint::spin_loop();
                let n = ready(EpollTimeout::ZERO)?;
                if n > 0 {
                    return Ok(n);
                }
            }
        }
        self.fast.counters.add(Count::Waits, 1);
        self.stats.publish(&self.fast.counters);
        let next = self.liveness.next.min(self.counters.next).saturating_duration_since(now());
        // Rounded up, so that a sleep does not end just before the time.
        let millis = u16::try_from(next.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        ready(EpollTimeout::from(millis))
    }

    fn receive(&mut self, at: usize) {
        let Some(socket) = self.outside.sockets.get(at) else { return };
        for _ in 0..RECEIVES {
            let mut meta = [RecvMeta::default(); RECEIVE_BUFFERS];
            // Errors are the peers' ICMP messages, which mean nothing here, or that there is nothing to receive.
            let Ok(n) = fill(socket, &mut self.receive, &mut meta) else { break };
            self.fast.counters.add(Count::ReceiveCalls, 1);
            let bound = socket.bound();
            for m in meta.get(..n).unwrap_or_default() {
                self.receive.filled.push(Received {
                    role: socket.role(),
                    len: m.len,
                    stride: m.stride,
                    local: local(bound, m, socket.role()),
                    remote: m.addr,
                });
            }
            self.fast.inbound(&mut self.receive, &mut self.inner, &mut self.control);
            self.coalescer.write(&self.inner, &self.receive.buffers, &mut self.inside, &mut self.fast.counters);
            self.inner.clear();
            if n < RECEIVE_BUFFERS {
                break;
            }
        }
    }

    fn read_inside(&mut self) {
        for _ in 0..FRAMES {
            let Inside::Tun(tun) = &self.inside else { return };
            let vnet = tun.offload();
            let Ok(len) = tun.read(&mut self.frame) else { return };
            self.fast.counters.add(Count::InsideReads, 1);
            let frame = self.frame.get_mut(..len).unwrap_or_default();
            self.fast.outbound(frame, vnet, &mut self.transmit, &mut self.outside, &mut self.inside, &mut self.control);
        }
    }

    fn take_messages(&mut self) -> Applied {
        self.messages.acknowledge();
        for _ in 0..MESSAGES {
            match self.messages.try_recv() {
                Ok(Some(message)) => {
                    let applied = self.fast.apply(message, &mut self.transmit, &mut self.outside, &mut self.control);
                    if applied == Applied::Stop {
                        return applied;
                    }
                }
                Ok(None) => {
                    self.set_gauges();
                    return Applied::Continue;
                }
                Err(_) => return Applied::Stop,
            }
        }
        // There may be more, and the wake-up for it is already taken note of.
        self.messages.remind();
        self.set_gauges();
        Applied::Continue
    }

    fn set_gauges(&self) {
        let (peers, sas, sessions) = self.fast.tables.sizes();
        self.stats.set(Gauge::Peers, peers);
        self.stats.set(Gauge::Sas, sas);
        self.stats.set(Gauge::Sessions, sessions);
    }

    fn now_and_then(&mut self) {
        let now = now();
        if self.liveness.is_due(now) {
            self.fast.report_liveness(&mut self.control);
        }
        if self.counters.is_due(now) {
            self.fast.report_counters(&mut self.control);
        }
        if self.publish.is_due(now) {
            self.publish();
        }
    }

    fn publish(&self) {
        self.stats.publish(&self.fast.counters);
        self.set_gauges();
    }
}

/// Receives into the buffers of a batch.
fn fill(socket: &OuterSocket, batch: &mut ReceiveBatch, meta: &mut [RecvMeta]) -> io::Result<usize> {
    let mut buffers = batch.buffers.iter_mut();
    let mut slices: [IoSliceMut<'_>; RECEIVE_BUFFERS] =
        std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
    socket.receive(&mut slices, meta)
}

/// The address that a packet was sent to: the socket's own may be unspecified.
fn local(bound: SocketAddr, meta: &RecvMeta, role: Role) -> SocketAddr {
    let port = if role == Role::Esp { 0 } else { bound.port() };
    SocketAddr::new(meta.dst_ip.unwrap_or(bound.ip()), port)
}

/// The worker's clock: it decides when to report, never what happens to a packet.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

// Only so that nobody adds a field that ties the worker to one thread.
const fn assert_send<T: Send>() {}
const _: () = assert_send::<Worker>();
