//! Replaces the configuration of a running proxy, whole or not at all.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Mutex;

use crate::admission::Gate;
use crate::config::{Checked, Config};
use crate::telemetry::metrics::{KnownNames, ProcessMetrics};
use crate::worker::{Mail, Worker};

/// Where the configuration came from.
pub trait Source: Send + Sync {
    /// Reads it again. What was set since is forgotten.
    ///
    /// # Errors
    /// If it cannot be read, or is wrong.
    fn read(&self) -> Result<Checked, Refused>;

    /// What it was when it was read last, with one more setting of PgBouncer's name changed, until it is read again. `None`: it is
    /// kept, and holds when others have been changed that it needs.
    ///
    /// # Errors
    /// If there is no such setting, or it cannot be this.
    fn set(&self, key: &str, value: &str) -> Result<Option<Checked>, Refused>;
}

/// Why a configuration was not taken: what is wrong with it, for the log.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Refused(pub String);

/// Reads the configuration again and hands it to everyone who goes by it.
pub struct Reloader {
    source: Box<dyn Source>,
    gate: Arc<Gate>,
    workers: Arc<[Worker]>,
    process: Arc<ProcessMetrics>,
    /// What holds. Held while a reload goes on: one at a time.
    current: Mutex<Arc<Config>>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    /// For a proxy that runs with `config`.
    pub fn new(
        source: Box<dyn Source>,
        config: Arc<Config>,
        gate: Arc<Gate>,
        workers: Arc<[Worker]>,
        process: Arc<ProcessMetrics>,
    ) -> Self {
        Self {
            source,
            gate,
            workers,
            process,
            current: Mutex::new(config),
        }
    }

    /// Reads the configuration again. If it is good it holds from now on, but for what needs a restart.
    ///
    /// # Errors
    /// If it is not; nothing has changed then.
    pub async fn reload(&self) -> Result<(), Refused> {
        let Checked { config, warnings } = self.source.read()?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        self.replace(|_| config).await;
        Ok(())
    }

    /// Changes one setting by PgBouncer's name of it, until the configuration is read again. Whether it holds already.
    ///
    /// # Errors
    /// If there is no such setting, or it cannot be this; nothing has changed then.
    pub async fn set(&self, key: &str, value: &str) -> Result<bool, Refused> {
        let Some(Checked { config, .. }) = self.source.set(key, value)? else {
            return Ok(false);
        };
        self.replace(|_| config).await;
        Ok(true)
    }

    /// Replaces what holds by what `change` makes of it, but for what needs a restart.
    pub async fn replace(&self, change: impl FnOnce(&Config) -> Config) {
        let mut current = self.current.lock().await;
        let mut next = change(&current);
        for setting in keep_until_restart(&current, &mut next) {
            tracing::warn!(
                "{setting} has changed: it needs a restart, the old value holds until then"
            );
        }
        let next = Arc::new(next);
        show(&next, &self.process);
        self.gate.reload(Arc::clone(&next));
        for worker in &*self.workers {
            worker.send(Mail::Reload(Arc::clone(&next))).await;
        }
        *current = next;
    }

    /// Who lets clients in.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What holds.
    pub async fn config(&self) -> Arc<Config> {
        Arc::clone(&*self.current.lock().await)
    }
}

/// Shows the configuration in the gauges.
pub fn show(config: &Config, process: &ProcessMetrics) {
    let count = |number: usize| number as u64;
    process
        .configured_databases
        .set(count(config.databases.len()));
    process.configured_users.set(count(config.users.len()));
    process
        .max_client_connections
        .set(count(config.listen.max_client_connections.get()));
    process.set_known_names((config.http.fold_unknown_names).then(|| KnownNames {
        databases: config.databases.keys().cloned().collect(),
        users: config.users.keys().cloned().collect(),
    }));
}

/// Keeps in `next` what only a restart can change, and names what was to be changed of it.
fn keep_until_restart(current: &Config, next: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    /// One setting each: `listen.address`.
    macro_rules! keep {
        ($($setting:ident).+) => {
            if next.$($setting).+ != current.$($setting).+ {
                next.$($setting).+ = current.$($setting).+.clone();
                kept.push(stringify!($($setting).+));
            }
        };
    }
    keep!(listen.addresses);
    keep!(listen.unix_socket);
    keep!(listen.reuse_port);
    keep!(listen.backlog);
    keep!(http.address);
    keep!(workers.count);
    keep!(statistics);
    keep!(otlp);
    keep!(log.format);
    keep!(log.level);
    keep!(log.file);
    keep!(log.syslog);
    keep!(log.syslog_ident);
    keep!(log.syslog_facility);
    keep!(drain.on_sigterm);
    keep!(process);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let current = Config::default();
        let mut next = Config::default();
        next.listen.backlog = 5;
        next.pool.max_prepared_statements = 7;
        assert_eq!(keep_until_restart(&current, &mut next), ["listen.backlog"]);
        assert_eq!(next.listen.backlog, current.listen.backlog);
        assert_eq!(next.pool.max_prepared_statements, 7);
    }
}
