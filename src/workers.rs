//! Event-loop threads that each own their sessions. A session never leaves its thread, so its wake-ups need no lock and its buffers stay in
//! one core's cache.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Limit on blocking threads of one worker, which resolve names. A name server that hangs blocks no more than these, and callers have
/// deadlines.
const MAX_LOOKUP_THREADS: usize = 16;

/// Number of tasks that [`Workers::gather`] puts on one thread before it uses the next. Measured: 50 clients on two threads instead of one
/// cost half as much CPU time again for each request, and 1,000 clients on two threads about the same as on one.
const GATHERED: usize = 128;

/// The worker threads. Dropping them without [`join`](Workers::join) ends them at once.
pub struct Workers {
    threads: Vec<Worker>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of this worker thread; `None` if it is not a worker.
pub fn current() -> Option<usize> {
    NUMBER.get()
}

struct Worker {
    runtime: runtime::Handle,
    /// Number of tasks that this thread owns.
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
                // A pending name lookup must not delay the end.
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

    /// Runs `task` on the first thread that owns few tasks. Tasks that share connections on their thread then share them with more others,
    /// and fewer threads wake up, each with more to do at once.
    pub fn gather(&self, task: impl Future<Output = ()> + Send + 'static) {
        let few = |worker: &&Worker| worker.load.load(Ordering::Relaxed) < GATHERED;
        match self.threads.iter().find(few) {
            Some(chosen) => self.spawn_on(chosen, task),
            None => self.spawn(task),
        }
    }

    /// Runs `task` on the thread that owns the fewest, or on the calling one if that owns few more, because a move to another thread costs
    /// a wake-up.
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

    /// The event loops, for one task on each that does not count as load.
    pub fn event_loops(&self) -> impl Iterator<Item = &runtime::Handle> {
        self.threads.iter().map(|worker| &worker.runtime)
    }

    /// Waits until every task has ended. No further task may be spawned.
    pub async fn idle(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Ends the threads and all tasks that still run.
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
