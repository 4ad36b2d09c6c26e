//! Threads for what takes milliseconds in a login: keys of passwords. Where clients are accepted, queries are served, too.

use tokio::sync::Semaphore;

/// A few threads at a time: strangers may ask for keys as well, and it is work.
#[derive(Debug)]
pub(super) struct KeyMakers(Semaphore);

impl KeyMakers {
    /// As many work at a time.
    pub(super) const MAX: usize = 2;

    pub(super) fn new() -> Self {
        Self(Semaphore::new(Self::MAX))
    }

    /// Does the work on a thread of its own. Who waits for one for too long has not logged in in time. `None`: it could not be done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // It is never closed.
        let _permit = self.0.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}
