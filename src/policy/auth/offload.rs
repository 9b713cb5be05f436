//! Work that would hold up everybody else's messages, done on threads of its own: so much at a time, so much waiting,
//! and no more.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

/// There is too much of it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// See the module.
pub struct Offload {
    running: Arc<Semaphore>,
    /// For who runs and who waits.
    places: Arc<Semaphore>,
}

impl Offload {
    pub fn new(concurrency: usize, queue: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(concurrency)),
            places: Arc::new(Semaphore::new(concurrency.saturating_add(queue).min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Runs `work` when it is its turn. Who stops waiting gives up the place; work that has begun is finished, and
    /// keeps its place until then.
    ///
    /// # Errors
    /// [`Busy`], at once, if too many wait; also if the work panicked or the runtime is going down.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        let held = move || {
            let done = work();
            drop((place, turn));
            done
        };
        spawn_blocking(held).await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn so_much_runs_so_much_waits_and_the_rest_is_told() {
        let offload = Arc::new(Offload::new(1, 1));
        let (release, released) = mpsc::channel::<()>();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let start = |work: Box<dyn FnOnce() + Send>| {
            let offload = Arc::clone(&offload);
            tokio::spawn(async move { offload.run(work).await })
        };
        let first = start(Box::new(move || {
            begun.send(()).expect("somebody listens");
            released.recv().expect("released");
        }));
        begins.recv().await.expect("begun");
        let second = start(Box::new(|| ()));
        while offload.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(offload.run(|| ()).await, Err(Busy));

        second.abort();
        assert!(second.await.expect_err("aborted").is_cancelled());
        assert_eq!(offload.places.available_permits(), 1, "who stops waiting gives up the place");
        first.abort();
        let _ = first.await;
        assert_eq!(offload.places.available_permits(), 1, "work that has begun keeps it");
        release.send(()).expect("the work goes on");
        assert_eq!(offload.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_costs_no_place() {
        let offload = Offload::new(1, 0);
        assert_eq!(offload.run(|| panic!("on purpose")).await, Err::<(), _>(Busy));
        assert_eq!(offload.run(|| 7).await, Ok(7));
    }
}
