//! A connection carried in messages: bytes of a stream go out as pieces, pieces that come in go into the stream.
//!
//! The gRPC connection below is shared with others, and its flow control, too: a peer that reads nothing must not fill it. So each
//! side says how much it has got rid of, and the other one never has more than [`WINDOW`] under way. Whoever has nothing more to say
//! still has to say that, or a long answer to somebody who has closed his side would never arrive: so the end of the bytes is said
//! in a message, and the messages go on. A peer from before [`CarryEnd`] takes the end of the messages for it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tonic::Status;
use tonic::codegen::tokio_stream::{Stream, StreamExt as _};

use crate::v1::{CarryEnd, CarryEnrollmentRequest, CarryEnrollmentResponse};

/// What a side may have sent beyond what the other has taken, bytes.
pub const WINDOW: u64 = 64 * 1024;
/// Most bytes in one message.
pub const PIECE: usize = 16 * 1024;

/// A message with a piece of the connection.
pub trait Piece: Send + 'static {
    /// With these bytes, how many of the other side were taken, and whether more come.
    fn new(data: Vec<u8>, taken: u64, end: CarryEnd) -> Self;
    /// What it holds.
    fn into_parts(self) -> (Vec<u8>, u64, CarryEnd);
}

impl Piece for CarryEnrollmentRequest {
    fn new(data: Vec<u8>, taken: u64, end: CarryEnd) -> Self {
        Self { begin: None, data, taken, end: end.into() }
    }
    fn into_parts(self) -> (Vec<u8>, u64, CarryEnd) {
        let end = self.end();
        (self.data, self.taken, end)
    }
}

impl Piece for CarryEnrollmentResponse {
    fn new(data: Vec<u8>, taken: u64, end: CarryEnd) -> Self {
        Self { data, taken, end: end.into() }
    }
    fn into_parts(self) -> (Vec<u8>, u64, CarryEnd) {
        let end = self.end();
        (self.data, self.taken, end)
    }
}

/// As a client sends pieces.
impl<P: Piece> Outgoing for mpsc::Sender<P> {
    async fn send_piece(&self, data: Vec<u8>, taken: u64, end: CarryEnd) -> bool {
        self.send(P::new(data, taken, end)).await.is_ok()
    }
}

/// As a server does.
impl<P: Piece> Outgoing for mpsc::Sender<Result<P, Status>> {
    async fn send_piece(&self, data: Vec<u8>, taken: u64, end: CarryEnd) -> bool {
        self.send(Ok(P::new(data, taken, end))).await.is_ok()
    }
}

/// Where pieces go.
pub trait Outgoing {
    /// Sends one; whether somebody takes it.
    fn send_piece(&self, data: Vec<u8>, taken: u64, end: CarryEnd) -> impl Future<Output = bool> + Send;
}

/// Bytes that came and are not in the stream yet, one behind the other: many small pieces take no more room than a large one.
#[derive(Default)]
struct Inbox {
    state: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// No more come.
    ended: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Bytes: whoever panicked left them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, data: &[u8]) {
        self.lock().bytes.extend_from_slice(data);
        self.changed.notify_one();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// All that wait; `None` once no more come.
    async fn take(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.bytes.is_empty() {
                    return Some(std::mem::take(&mut waiting.bytes));
                }
                if waiting.ended {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Carries `stream` until both directions have ended, or the other side sends more than it may. Whoever calls this bounds the time;
/// `linger` bounds how long something may go out once nothing comes in any more.
pub async fn pump<P, I, O>(
    stream: impl AsyncRead + AsyncWrite,
    mut incoming: I,
    outgoing: O,
    linger: Duration,
) -> io::Result<()>
where
    P: Piece,
    I: Stream<Item = Result<P, Status>> + Unpin,
    O: Outgoing,
{
    let (reader, mut writer) = tokio::io::split(stream);
    // Bounded by the window.
    let inbox = Inbox::default();
    let (took, taken) = watch::channel(0_u64);
    let (grant, granted) = watch::channel(WINDOW);
    // Whether the peer says the end in a message; unknown before its first one.
    let (tells, told_how) = watch::channel(None);

    let took_so_far = taken.clone();
    let receiving = async {
        // Gone with the messages: nothing more is granted then.
        let grant = grant;
        let (mut received, mut ended) = (0_u64, false);
        while let Some(piece) = incoming.next().await {
            let (data, peer_took, end) = match piece {
                Ok(piece) => piece.into_parts(),
                // Nothing is lost.
                Err(_) if ended => break,
                Err(status) => return Err(io::Error::other(status)),
            };
            tells.send_replace(Some(end != CarryEnd::Unspecified));
            grant.send_if_modified(|granted| {
                let now = peer_took.saturating_add(WINDOW).max(*granted);
                std::mem::replace(granted, now) != now
            });
            if data.is_empty() {
                // What it took, and no more.
            } else if ended {
                return Err(io::Error::other("the other side goes on after its end"));
            } else {
                received = received.saturating_add(data.len() as u64);
                if received > took_so_far.borrow().saturating_add(WINDOW) {
                    return Err(io::Error::other("the other side sent more than it may"));
                }
                inbox.put(&data);
            }
            if end == CarryEnd::Ended {
                ended = true;
                inbox.end();
            }
        }
        tells.send_replace(Some(false));
        inbox.end();
        Ok(())
    };
    let writing = async {
        // Gone when all is written: then nobody waits for more to be taken.
        let took = took;
        while let Some(data) = inbox.take().await {
            for piece in data.chunks(PIECE) {
                writer.write_all(piece).await?;
                writer.flush().await?;
                took.send_modify(|took| *took = took.saturating_add(piece.len() as u64));
            }
        }
        writer.shutdown().await
    };
    let carrying = async {
        // Gone when both directions have ended: that ends the messages.
        let sending = send(reader, outgoing, taken, granted, told_how);
        let (mut sending, mut writing) = (std::pin::pin!(sending), std::pin::pin!(writing));
        tokio::select! {
            sent = &mut sending => {
                sent?;
                writing.await
            }
            wrote = &mut writing => {
                wrote?;
                tokio::time::timeout(linger, sending).await.unwrap_or(Ok(()))
            }
        }
    };
    let (mut carrying, mut receiving) = (std::pin::pin!(carrying), std::pin::pin!(receiving));
    tokio::select! {
        carried = &mut carrying => {
            carried?;
            // What is still on its way to the peer must not be cut off.
            let _ = tokio::time::timeout(linger, receiving).await; // all that came is in the stream
            Ok(())
        }
        received = &mut receiving => {
            received?;
            carrying.await
        }
    }
}

/// Sends what the stream says, and what of the other side was taken, until neither is left to say.
async fn send(
    mut reader: impl AsyncRead + Unpin,
    outgoing: impl Outgoing,
    mut taken: watch::Receiver<u64>,
    mut granted: watch::Receiver<u64>,
    mut told_how: watch::Receiver<Option<bool>>,
) -> io::Result<()> {
    let (mut sent, mut told) = (0_u64, 0_u64);
    let mut buffer = vec![0; PIECE];
    let mut end = CarryEnd::Open;
    while end == CarryEnd::Open {
        let left = usize::try_from(granted.borrow_and_update().saturating_sub(sent)).unwrap_or(PIECE).min(PIECE);
        let room = buffer.get_mut(..left).unwrap_or_default();
        let data = tokio::select! {
            read = reader.read(room), if left > 0 => match read? {
                0 => {
                    end = CarryEnd::Ended;
                    Vec::new()
                }
                n => buffer.get(..n).unwrap_or_default().to_vec(),
            },
            changed = granted.changed(), if left == 0 => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            Ok(()) = taken.changed() => {
                if taken.borrow().saturating_sub(told) < WINDOW / 2 {
                    continue;
                }
                Vec::new()
            }
        };
        sent = sent.saturating_add(data.len() as u64);
        told = *taken.borrow_and_update();
        if !outgoing.send_piece(data, told, end).await {
            return Ok(());
        }
    }
    drop(buffer);
    if !told_how.wait_for(Option::is_some).await.is_ok_and(|how| *how == Some(true)) {
        return Ok(());
    }
    while taken.changed().await.is_ok() {
        let now = *taken.borrow_and_update();
        if now.saturating_sub(told) < WINDOW / 2 {
            continue;
        }
        told = now;
        if !outgoing.send_piece(Vec::new(), told, end).await {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;
    use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

    type Up = CarryEnrollmentRequest;
    type Down = CarryEnrollmentResponse;

    const LINGER: Duration = Duration::from_secs(60);

    /// A stream from here to there, carried.
    fn carried() -> (DuplexStream, DuplexStream, [tokio::task::JoinHandle<io::Result<()>>; 2]) {
        let (here, near) = tokio::io::duplex(1_000);
        let (far, there) = tokio::io::duplex(1_000);
        let (up, from_near) = mpsc::channel::<Result<Up, Status>>(1);
        let (down, from_far) = mpsc::channel::<Result<Down, Status>>(1);
        let one = tokio::spawn(pump(near, ReceiverStream::new(from_far), up, LINGER));
        let other = tokio::spawn(pump(far, ReceiverStream::new(from_near), down, LINGER));
        (here, there, [one, other])
    }

    #[tokio::test]
    async fn megabytes_pass_both_ways_at_a_time_and_the_end_arrives() {
        let (here, there, pumps) = carried();
        let content = |seed: u8| (0..3_000_000_u32).map(|n| (n % 251) as u8 ^ seed).collect::<Vec<u8>>();
        let side = |stream: DuplexStream, own: Vec<u8>| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut got = vec![0; own.len()];
            let (written, read) = tokio::join!(writer.write_all(&own), reader.read_exact(&mut got));
            written.unwrap();
            read.unwrap();
            (reader.unsplit(writer), got)
        };
        let (here, there) = tokio::join!(side(here, content(1)), side(there, content(2)));
        assert!(here.1 == content(2) && there.1 == content(1));
        // One side ends, and the other has still something to say.
        let (mut here, mut there) = (here.0, there.0);
        here.shutdown().await.unwrap();
        assert_eq!(there.read(&mut [0; 10]).await.unwrap(), 0);
        there.write_all(b"goodbye").await.unwrap();
        drop(there);
        let mut last = Vec::new();
        here.read_to_end(&mut last).await.unwrap();
        assert_eq!(last, b"goodbye");
        drop(here);
        for pump in pumps {
            pump.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_has_closed_his_side_gets_all_of_a_long_answer() {
        let (mut here, mut there, pumps) = carried();
        here.write_all(b"all of it, please").await.unwrap();
        here.shutdown().await.unwrap();
        let mut question = String::new();
        there.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "all of it, please");
        let answer = vec![7; 20 * WINDOW as usize];
        let mut got = Vec::new();
        let say = async {
            there.write_all(&answer).await.unwrap();
            drop(there);
        };
        tokio::join!(say, async { here.read_to_end(&mut got).await.unwrap() });
        assert!(got == answer);
        for pump in pumps {
            pump.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_that_knows_no_message_with_the_end_sees_the_messages_end() {
        let (near, mut here) = tokio::io::duplex(100);
        let (up, mut from_near) = mpsc::channel::<Up>(1_000);
        let (down, from_far) = mpsc::channel::<Result<Down, Status>>(10);
        let pump = tokio::spawn(pump(near, ReceiverStream::new(from_far), up, LINGER));
        here.write_all(b"hello").await.unwrap();
        here.shutdown().await.unwrap();
        down.send(Ok(Down { data: b"good".into(), ..Default::default() })).await.unwrap();
        let mut said = Vec::new();
        while let Some(piece) = from_near.recv().await {
            said.extend(piece.data);
        }
        assert_eq!(said, b"hello");
        down.send(Ok(Down { data: b"bye".into(), ..Default::default() })).await.unwrap();
        drop(down);
        let mut heard = Vec::new();
        here.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye");
        pump.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn whoever_goes_on_after_his_end_is_cut_off() {
        let (near, _here) = tokio::io::duplex(100);
        let (up, _from_near) = mpsc::channel::<Up>(1_000);
        let (down, from_far) = mpsc::channel::<Result<Down, Status>>(10);
        for data in [b"end", b"not"] {
            down.send(Ok(Down::new(data.into(), 0, CarryEnd::Ended))).await.unwrap();
        }
        let error = pump(near, ReceiverStream::new(from_far), up, LINGER).await.unwrap_err();
        assert!(error.to_string().contains("after its end"), "{error}");
    }

    #[tokio::test]
    async fn a_side_that_reads_nothing_holds_a_window_and_no_more() {
        let (near, mut here) = tokio::io::duplex(100);
        let (up, mut from_near) = mpsc::channel::<Up>(1_000);
        let (down, from_far) = mpsc::channel::<Result<Down, Status>>(1);
        let pump = tokio::spawn(pump(near, ReceiverStream::new(from_far), up, LINGER));
        let writer = tokio::spawn(async move {
            let wrote = here.write_all(&vec![7; 1_000_000]).await;
            (here, wrote)
        });
        let mut sent = 0;
        while sent < WINDOW {
            sent += from_near.recv().await.unwrap().data.len() as u64;
        }
        assert_eq!(sent, WINDOW);
        // Nothing more comes before something was taken.
        down.send(Ok(Down::new(vec![1], 0, CarryEnd::Open))).await.unwrap();
        down.send(Ok(Down::new(Vec::new(), 1_000, CarryEnd::Open))).await.unwrap();
        let mut more = 0;
        while more < 1_000 {
            more += from_near.recv().await.unwrap().data.len();
        }
        assert_eq!(more, 1_000);
        drop((down, from_near));
        pump.await.unwrap().unwrap();
        writer.abort();
    }

    #[tokio::test]
    async fn a_window_of_single_bytes_takes_no_more_room_than_its_bytes() {
        let inbox = Inbox::default();
        for n in 0..WINDOW {
            inbox.put(&[(n % 251) as u8]);
        }
        assert!(inbox.lock().bytes.capacity() <= 2 * WINDOW as usize);
        inbox.end();
        let all = inbox.take().await.unwrap();
        assert!(all.len() as u64 == WINDOW && all.iter().enumerate().all(|(n, b)| *b == (n % 251) as u8));
        assert_eq!(inbox.take().await, None);
    }

    #[tokio::test]
    async fn whoever_sends_more_than_he_may_is_cut_off() {
        let (near, _here) = tokio::io::duplex(100);
        let (up, _from_near) = mpsc::channel::<Up>(1_000);
        let (down, from_far) = mpsc::channel::<Result<Down, Status>>(100);
        for _ in 0..=WINDOW / PIECE as u64 {
            down.send(Ok(Down::new(vec![0; PIECE], u64::MAX, CarryEnd::Open))).await.unwrap();
        }
        let error = pump(near, ReceiverStream::new(from_far), up, LINGER).await.unwrap_err();
        assert!(error.to_string().contains("more than it may"), "{error}");
    }
}
