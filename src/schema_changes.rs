//! Changes of tables, views and functions that come through the proxy. They are of a whole database: whoever migrates it has another
//! user than the application, and so another pool.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How often each database was changed, for all pools of all workers.
#[derive(Debug, Default)]
pub struct SchemaChanges(Mutex<HashMap<Box<str>, Arc<AtomicU64>>>);

impl SchemaChanges {
    /// A pool's view of its database.
    pub fn of(&self, database: &str) -> SchemaWatch {
        let mut databases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = Arc::clone(databases.entry(database.into()).or_default());
        SchemaWatch {
            seen: Cell::new(count.load(Ordering::Acquire)),
            count,
        }
    }
}

/// A pool's view of its database.
#[derive(Debug)]
pub struct SchemaWatch {
    count: Arc<AtomicU64>,
    seen: Cell<u64>,
}

impl SchemaWatch {
    /// One of its clients has changed something.
    pub fn on_change(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Whether anybody has since this was asked last.
    #[inline]
    pub fn has_changed(&self) -> bool {
        let count = self.count.load(Ordering::Acquire);
        self.seen.replace(count) != count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pools_of_a_database_learn_of_a_change_once() {
        let changes = SchemaChanges::default();
        let [app, owner, other] = ["shop", "shop", "other"].map(|name| changes.of(name));
        owner.on_change();
        assert_eq!(
            [&app, &owner, &other].map(SchemaWatch::has_changed),
            [true, true, false]
        );
        assert_eq!(
            [&app, &owner, &other].map(SchemaWatch::has_changed),
            [false; 3]
        );
        assert!(!changes.of("shop").has_changed());
    }
}
