//! Threads for what takes milliseconds in a login: keys of passwords. Where clients are accepted, queries are served, too.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A few threads at a time: strangers may ask for keys as well, and it is work.
#[derive(Debug)]
pub(super) struct KeyMakers(Arc<Semaphore>);

impl KeyMakers {
    /// As many work at a time.
    pub(super) const MAX: usize = 2;

    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(Self::MAX)))
    }

    /// Does the work on a thread of its own. Who waits for one for too long has not logged in in time; work that has begun counts
    /// until it is done, also where nobody waits for it any more. `None`: it could not be done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // It is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let counted = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(counted).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::Poll;

    use super::*;

    /// Polls once, and gives up then. Whether there is more to wait for.
    async fn begins(work: impl Future) -> bool {
        let mut work = pin!(work);
        poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_still_counts() {
        let makers = KeyMakers::new();
        let mut ends = Vec::new();
        for _ in 0..KeyMakers::MAX {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            assert!(begins(makers.run(move || ended.recv())).await);
        }
        assert_eq!(makers.0.available_permits(), 0);
        drop(ends);
        assert_eq!(makers.run(|| 7).await, Some(7));
    }
}
