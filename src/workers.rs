//! Event-loop threads that each own their sessions: a session never leaves its thread, so its wake-ups cross no
//! lock and its buffers stay in one core's cache.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Names look up on their own threads; a name server that hangs holds at most these, and callers their deadline.
const BLOCKING_THREADS: usize = 16;

/// The threads. Dropping them without [`join`](Workers::join) ends them at once.
pub struct Workers {
    threads: Vec<Worker>,
    tracker: TaskTracker,
    stop: CancellationToken,
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
                .max_blocking_threads(BLOCKING_THREADS)
                .build()?;
            let handle = runtime.handle().clone();
            let stop = stop.clone();
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
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

    /// Runs `task` on the thread that owns the fewest.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let worker = self
            .threads
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
            .expect("there is at least one worker: the count is not zero");
        let load = Load::take(&worker.load);
        let task = async move {
            let _load = load;
            task.await;
        };
        worker.runtime.spawn(self.tracker.track_future(task));
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
