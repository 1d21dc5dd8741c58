//! One thread, virtual time, and a seeded choice of who runs next.
//!
//! Tasks belong to processes. A process can be killed, which drops its tasks where they wait, or paused, which leaves them
//! unpolled while time goes on. Time stands still while anything can run and then jumps to the next timer.

#![allow(unreachable_pub, reason = "what the runtime gives to openraft")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

/// The process of the harness itself: clients, network, chaos.
pub(super) const OUTSIDE: u64 = 0;
/// Polls after which a run goes round in circles: it takes some ten thousand.
const MOST_STEPS: u64 = 3_000_000;
/// Virtual nanoseconds at the start: openraft looks back from now.
const START: u64 = 1_000_000_000_000_000;

/// A generator of small quality and no state but its seed (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(super) fn permille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }

    pub(super) fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low, high))
    }

    pub(super) fn millis(&mut self, low: u64, high: u64) -> Duration {
        self.micros(low * 1_000, high * 1_000)
    }

    pub(super) fn one_of<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize].clone())
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    process: u64,
    /// `None` while it runs.
    work: Option<Work>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    woken: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

struct Inner {
    now: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_id: Cell<u64>,
    /// Tasks woken since the last poll. In what order may be chance: tokio draws it for those who watch one value.
    woken: Arc<Mutex<Vec<u64>>>,
    /// Tasks that can run.
    ready: RefCell<Vec<u64>>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    random: RefCell<Random>,
    /// Whose task runs.
    process: Cell<u64>,
    paused: RefCell<BTreeSet<u64>>,
    /// Tasks of paused processes that would run.
    parked: RefCell<Vec<u64>>,
    /// Whether the next task is drawn, or the one that waits longest.
    shuffled: bool,
    panics: RefCell<Vec<String>>,
    steps: Cell<u64>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Inner>>> = const { RefCell::new(None) };
}

fn current() -> Option<Rc<Inner>> {
    CURRENT.try_with(|c| c.borrow().clone()).ok().flatten()
}

fn running() -> Rc<Inner> {
    current().expect("inside a simulation")
}

/// Whether this thread simulates.
pub(in crate::raft) fn is_active() -> bool {
    current().is_some()
}

/// Virtual time.
pub(super) fn now() -> Duration {
    Duration::from_nanos(running().now.get())
}

/// Virtual time since the start, milliseconds.
pub(super) fn elapsed_ms() -> u64 {
    (running().now.get() - START) / 1_000_000
}

/// Polls so far.
pub(super) fn steps() -> u64 {
    running().steps.get()
}

/// Draws for openraft.
pub(super) fn draw() -> u64 {
    running().random.borrow_mut().next()
}

/// What panicked so far.
pub(super) fn take_panics() -> Vec<String> {
    std::mem::take(&mut running().panics.borrow_mut())
}

/// A task's result.
pub struct Joined<T> {
    id: u64,
    answer: oneshot::Receiver<T>,
}

impl<T> Joined<T> {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

/// Drops a task where it waits.
pub(super) fn abort(id: u64) {
    if let Some(inner) = current() {
        let task = inner.tasks.borrow_mut().remove(&id);
        drop(task);
    }
}

impl<T> Future for Joined<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.answer).poll(cx).map(Result::ok)
    }
}

/// Starts a task of the process whose task runs now.
pub(super) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Joined<T> {
    let process = running().process.get();
    spawn_in(process, future)
}

/// Starts a task of a process.
pub(super) fn spawn_in<T: Send + 'static>(process: u64, future: impl Future<Output = T> + Send + 'static) -> Joined<T> {
    let inner = running();
    let id = inner.next_id.get();
    inner.next_id.set(id + 1);
    let (tx, answer) = oneshot::channel();
    let work: Work = Box::pin(async move {
        let _ = tx.send(future.await); // nobody may ask
    });
    let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), woken: inner.woken.clone() });
    waker.clone().wake();
    inner.tasks.borrow_mut().insert(id, Task { process, work: Some(work), waker });
    Joined { id, answer }
}

/// A process that is not yet one of any task.
pub(super) fn new_process() -> u64 {
    let inner = running();
    let id = inner.next_id.get();
    inner.next_id.set(id + 1);
    id
}

/// Drops all tasks of a process where they wait.
pub(super) fn kill(process: u64) {
    let inner = running();
    let before = inner.process.replace(process);
    loop {
        let dead: Vec<Task> = {
            let mut tasks = inner.tasks.borrow_mut();
            let ids: Vec<u64> = tasks.iter().filter(|(_, t)| t.process == process).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| tasks.remove(&id)).collect()
        };
        if dead.is_empty() {
            break;
        }
        drop(dead); // which may start others
    }
    inner.process.set(before);
    resume(process);
}

/// Leaves the tasks of a process unpolled, as SIGSTOP does.
pub(super) fn pause(process: u64) {
    running().paused.borrow_mut().insert(process);
}

/// Lets a paused process go on.
pub(super) fn resume(process: u64) {
    let inner = running();
    if inner.paused.borrow_mut().remove(&process) {
        let parked = std::mem::take(&mut *inner.parked.borrow_mut());
        inner.ready.borrow_mut().extend(parked);
    }
}

/// A wait in virtual time.
pub struct Sleep {
    at: u64,
    key: Option<(u64, u64)>,
}

pub(super) fn sleep(duration: Duration) -> Sleep {
    sleep_until(now().saturating_add(duration))
}

/// The time is as [`now`] gives it.
pub(super) fn sleep_until(at: Duration) -> Sleep {
    Sleep { at: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), key: None }
}

impl Sleep {
    fn forget(&mut self) {
        if let (Some(key), Some(inner)) = (self.key.take(), current()) {
            let waker = inner.timers.borrow_mut().remove(&key);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = running();
        if inner.now.get() >= self.at {
            self.forget();
            return Poll::Ready(());
        }
        let at = self.at;
        let key = *self.key.get_or_insert_with(|| {
            let id = inner.next_id.get();
            inner.next_id.set(id + 1);
            (at, id)
        });
        let before = inner.timers.borrow_mut().insert(key, cx.waker().clone());
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The answer, unless it takes longer.
pub(super) async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut sleep = std::pin::pin!(sleep(limit));
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Runs until `main` has its result. Everything else is dropped then.
pub(super) fn run<T: Send + 'static>(seed: u64, main: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut random = Random::new(seed);
    let shuffled = random.permille(700);
    let inner = Rc::new(Inner {
        now: Cell::new(START),
        tasks: RefCell::default(),
        next_id: Cell::new(1),
        woken: Arc::default(),
        ready: RefCell::default(),
        timers: RefCell::default(),
        random: RefCell::new(random),
        process: Cell::new(OUTSIDE),
        paused: RefCell::default(),
        parked: RefCell::default(),
        shuffled,
        panics: RefCell::default(),
        steps: Cell::new(0),
    });
    CURRENT.with(|c| *c.borrow_mut() = Some(inner.clone()));
    let _ends = Ends;
    let mut answer = spawn_in(OUTSIDE, main).answer;
    loop {
        match answer.try_recv() {
            Ok(answer) => return Some(answer),
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        if inner.steps.get() > MOST_STEPS || !inner.step() && !inner.advance() {
            return None; // there is no end, or nobody waits for anything
        }
    }
}

/// Drops what is left of a simulation, while it is still the current one.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(inner) = current() {
            loop {
                let tasks = std::mem::take(&mut *inner.tasks.borrow_mut());
                if tasks.is_empty() {
                    break;
                }
                drop(tasks);
            }
            let timers = std::mem::take(&mut *inner.timers.borrow_mut());
            drop(timers);
        }
        CURRENT.with(|c| c.borrow_mut().take());
    }
}

impl Inner {
    /// Polls one task; `false` if none can run.
    fn step(&self) -> bool {
        let id = {
            let mut ready = self.ready.borrow_mut();
            let mut woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
            woken.sort_unstable();
            ready.append(&mut woken);
            match ready.len() as u64 {
                0 => return false,
                n if self.shuffled => {
                    let at = self.random.borrow_mut().below(n) as usize;
                    ready.swap_remove(at)
                }
                _ => ready.remove(0),
            }
        };
        let (mut work, waker, process) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(&id) else { return true };
            if self.paused.borrow().contains(&task.process) {
                self.parked.borrow_mut().push(id);
                return true;
            }
            task.waker.queued.store(false, Ordering::Relaxed);
            let Some(work) = task.work.take() else { return true };
            (work, task.waker.clone(), task.process)
        };
        self.process.set(process);
        self.steps.set(self.steps.get() + 1);
        let waker = Waker::from(waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {
                let mut tasks = self.tasks.borrow_mut();
                if let Some(task) = tasks.get_mut(&id) {
                    task.work = Some(work);
                    self.process.set(OUTSIDE);
                    return true;
                }
                drop(tasks);
                drop(work); // it was killed, by itself
            }
            Ok(Poll::Ready(())) => {
                let task = self.tasks.borrow_mut().remove(&id);
                drop((task, work));
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                self.panics.borrow_mut().push(text.unwrap_or_else(|| "a panic".into()));
                let task = self.tasks.borrow_mut().remove(&id);
                drop((task, work));
            }
        }
        self.process.set(OUTSIDE);
        true
    }

    /// Goes on to the next timer; `false` if there is none.
    fn advance(&self) -> bool {
        let mut timers = self.timers.borrow_mut();
        let Some((&(at, _), _)) = timers.first_key_value() else { return false };
        self.now.set(self.now.get().max(at));
        let mut due = Vec::new();
        while let Some(entry) = timers.first_entry().filter(|e| e.key().0 <= at) {
            due.push(entry.remove());
        }
        drop(timers);
        due.into_iter().for_each(Waker::wake);
        true
    }
}
