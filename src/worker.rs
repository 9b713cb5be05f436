//! Threads that serve connections: one for each core, each with a runtime and connections of its own, so that what
//! one connection does for another of the same thread needs no task switch and nobody steals half-done work.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot};

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    threads: Mutex<Vec<Thread>>,
}

struct Thread {
    stop: oneshot::Sender<()>,
    join: JoinHandle<()>,
}

impl Workers {
    /// Starts `count` threads; `None` = one for each core.
    pub fn start(count: Option<usize>) -> io::Result<Self> {
        let count = count.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let mut runtimes = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel();
            let run = move || {
                // A dropped sender is an order to stop, too.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            };
            let join = std::thread::Builder::new().name(format!("wigwag-{index}")).spawn(run)?;
            threads.push(Thread { stop, join });
        }
        Ok(Self { inner: Arc::new(Inner { runtimes, next: AtomicUsize::new(0), threads: Mutex::new(threads) }) })
    }

    /// Runs `task` on the next worker in turn. After [`Workers::stop`] it is dropped instead.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let turn = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.runtimes[turn % self.inner.runtimes.len()].spawn(task);
    }

    /// Drops every task and waits until the threads have ended, up to `patience`: a thread that is deep in work ends
    /// when that is done, and nobody need wait for it.
    pub async fn stop(&self, patience: Duration) {
        let threads = std::mem::take(&mut *self.inner.threads.lock());
        let (done, ended) = oneshot::channel();
        // Not a blocking task of the host's runtime, which would wait for it in turn.
        std::thread::spawn(move || {
            let (stops, joins): (Vec<_>, Vec<_>) = threads.into_iter().map(|thread| (thread.stop, thread.join)).unzip();
            drop(stops);
            for join in joins {
                // A worker that panicked has ended, which is what is waited for.
                let _ = join.join();
            }
            // Nobody may be waiting any more.
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(patience, ended).await;
    }

    /// Tells the threads to end without waiting for it.
    pub fn abandon(&self) {
        self.inner.threads.lock().clear();
    }
}
