//! Waiting for time to pass, also on a thread whose runtime has no timers.
//!
//! A runtime with timers asks the clock four times and looks through its wheel each time it sleeps and wakes. A worker does that
//! for each query, and needs a timer for a connect or a good-bye at most: another runtime keeps its timers.

use std::cell::RefCell;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Sleep, Timeout};

thread_local! {
    static KEEPER: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// From now on the timers of this thread are kept by another runtime, which has to outlive them.
pub fn keep_by(keeper: Handle) {
    KEEPER.set(Some(keeper));
}

/// Completes after this time.
pub fn sleep(time: Duration) -> Sleep {
    with_timers(|| tokio::time::sleep(time))
}

/// What the future comes to, or an error where that takes longer.
pub fn timeout<F: IntoFuture>(limit: Duration, future: F) -> Timeout<F::IntoFuture> {
    with_timers(|| tokio::time::timeout(limit, future))
}

/// A timer belongs to the runtime in whose context it is made.
fn with_timers<T>(make: impl FnOnce() -> T) -> T {
    KEEPER.with_borrow(|keeper| {
        let _context = keeper.as_ref().map(Handle::enter);
        make()
    })
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_thread_without_timers_waits_by_those_of_another() {
        let keeper = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let handle = keeper.handle().clone();
        let waiting = std::thread::spawn(move || {
            keep_by(handle);
            let runtime = Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                sleep(Duration::from_millis(1)).await;
                let never = std::future::pending::<()>();
                timeout(Duration::from_millis(1), never).await
            })
        });
        assert!(waiting.join().unwrap().is_err());
    }

    #[tokio::test]
    async fn other_threads_use_their_own() {
        assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
    }
}
