//! Event-loop threads that each own their sessions: a session never leaves its thread, so its wake-ups cross no
//! lock and its buffers stay in one core's cache.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Blocking threads of one worker: names are looked up on them. A name server that hangs holds at most these, and callers
/// their deadline.
const MAX_LOOKUP_THREADS: usize = 16;

/// So many tasks that share something are gathered on a thread before the next gets any.
const GATHERED: usize = 1024;

/// The threads. Dropping them without [`join`](Workers::join) ends them at once.
pub struct Workers {
    threads: Vec<Worker>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which of the threads this is; `None`: none of them.
pub fn current() -> Option<usize> {
    NUMBER.get()
}

struct Worker {
    runtime: runtime::Handle,
    /// Tasks that this thread owns now.
    load: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut started = Self { threads: Vec::new(), tracker: TaskTracker::new(), stop: stop.clone() };
        for number in 0..count.get() {
            let runtime = runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .max_blocking_threads(MAX_LOOKUP_THREADS)
                .build()?;
            let handle = runtime.handle().clone();
            let stop = stop.clone();
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                NUMBER.set(Some(number));
                runtime.block_on(stop.cancelled());
                // A name lookup still under way must not hold up the end.
                runtime.shutdown_background();
            })?;
            started.threads.push(Worker {
                runtime: handle,
                load: Arc::new(AtomicUsize::new(0)),
                thread: Some(thread),
            });
        }
        Ok(started)
    }

    /// Runs `task` on the first thread that owns few: those that share something with others of their thread do so with more,
    /// and the fewer threads are awake, the more each finds to do at once.
    pub fn gather(&self, task: impl Future<Output = ()> + Send + 'static) {
        let few = |worker: &&Worker| worker.load.load(Ordering::Relaxed) < GATHERED;
        match self.threads.iter().find(few) {
            Some(chosen) => self.spawn_on(chosen, task),
            None => self.spawn(task),
        }
    }

    /// Runs `task` on the thread that owns the fewest; on the calling one, if it owns few more: crossing over costs a
    /// wake-up.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let load = |worker: &Worker| worker.load.load(Ordering::Relaxed);
        let mut chosen = self
            .threads
            .iter()
            .min_by_key(|worker| load(worker))
            .expect("there is at least one worker: the count is not zero");
        if let Some(own) = current().and_then(|number| self.threads.get(number))
            && load(own) <= load(chosen) + load(chosen) / 8
        {
            chosen = own;
        }
        self.spawn_on(chosen, task);
    }

    fn spawn_on(&self, chosen: &Worker, task: impl Future<Output = ()> + Send + 'static) {
        let load = Load::take(&chosen.load);
        let task = async move {
            let _load = load;
            task.await;
        };
        chosen.runtime.spawn(self.tracker.track_future(task));
    }

    /// The threads' event loops, for tasks that are no load, one on each.
    pub fn event_loops(&self) -> impl Iterator<Item = &runtime::Handle> {
        self.threads.iter().map(|worker| &worker.runtime)
    }

    /// Waits until every task has ended; none may be spawned any more.
    pub async fn idle(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Ends the threads and what they still run.
    pub fn join(mut self) {
        self.stop.cancel();
        for worker in &mut self.threads {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Load(Arc<AtomicUsize>);

impl Load {
    fn take(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn tasks_are_spread_evenly_and_awaited() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let mut threads = Vec::new();
        let stop = CancellationToken::new();
        for _ in 0..4 {
            let (tell, told) = oneshot::channel();
            let stop = stop.clone();
            workers.spawn(async move {
                tell.send(thread::current().id()).unwrap();
                stop.cancelled().await;
            });
            threads.push(told.await.unwrap());
        }
        let on_first = threads.iter().filter(|id| **id == threads[0]).count();
        assert_eq!(on_first, 2);
        stop.cancel();
        workers.idle().await;
        workers.join();
    }
}
