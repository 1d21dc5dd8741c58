//! The thread that waits for the disk: one barrier serves everything that was queued before it (group commit).

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use super::kv::Kv;

/// Most waiters served by one barrier.
const MAX_WAITERS: usize = 1_024;

/// Who waits for the disk.
pub(super) type Waiter = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Handle to the thread, which ends when the handle is dropped.
pub(super) struct Commit {
    queue: Option<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Queue {
    Thread(mpsc::Sender<Waiter>),
    /// A simulation has no threads.
    #[cfg(test)]
    Simulated(Box<dyn Fn(Waiter) + Send + Sync>),
}

impl Commit {
    /// Starts the thread.
    pub(super) fn start(kv: Arc<dyn Kv>) -> io::Result<Self> {
        let (queue, waiters) = mpsc::channel();
        let thread = std::thread::Builder::new().name("raft-commit".into()).spawn(move || run(&*kv, &waiters))?;
        Ok(Self { queue: Some(Queue::Thread(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// Leaves the waiting to somebody else.
    #[cfg(test)]
    pub(super) fn simulated(queue: impl Fn(Waiter) + Send + Sync + 'static) -> Self {
        Self { queue: Some(Queue::Simulated(Box::new(queue))), thread: Mutex::default() }
    }

    /// Calls `waiter` on the thread once everything written before this call is durable, or cannot be.
    pub(super) fn when_durable(&self, waiter: impl FnOnce(io::Result<()>) + Send + 'static) {
        let waiter: Waiter = Box::new(waiter);
        match &self.queue {
            #[cfg(test)]
            Some(Queue::Simulated(queue)) => queue(waiter),
            Some(Queue::Thread(queue)) => {
                if let Err(mpsc::SendError(waiter)) = queue.send(waiter) {
                    waiter(Err(io::Error::other("the commit thread has ended")));
                }
            }
            None => waiter(Err(io::Error::other("the commit thread has ended"))),
        }
    }

    /// Returns once everything written before this call is durable.
    pub(super) async fn durable(&self) -> io::Result<()> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.when_durable(move |result| {
            let _ = tx.send(result); // the caller may have gone
        });
        rx.await.unwrap_or_else(|_| Err(io::Error::other("the commit thread has ended")))
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the commit thread panicked");
        }
    }
}

fn run(kv: &dyn Kv, queue: &mpsc::Receiver<Waiter>) {
    while let Ok(first) = queue.recv() {
        let mut waiters = vec![first];
        waiters.extend(queue.try_iter().take(MAX_WAITERS - 1));
        let result = kv.sync().map_err(|e| e.to_string());
        for waiter in waiters {
            waiter(result.clone().map_err(io::Error::other));
        }
    }
}
