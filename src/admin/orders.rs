//! What an administrator orders: PAUSE, RESUME and the like, over all workers.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use crate::admin::Console;
use crate::admin::command::Shutdown;
use crate::admin::conversation::Answer;
use crate::config::CONSOLE_NAMES;
use crate::net::timer;
use crate::shard::{Dismissal, Shard};

/// What has been ordered, and not taken back.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) all_paused: bool,
    pub(super) paused: BTreeSet<Box<str>>,
    pub(super) disabled: BTreeSet<Box<str>>,
    pub(super) shutdown: Option<Shutdown>,
}

/// How long it is waited for that a client has left that was sent away.
const DISMISSAL_PATIENCE: Duration = Duration::from_secs(1);

impl Console {
    pub(super) async fn order_pause(&self, database: Option<&str>) -> Answer {
        if self.standing().all_paused {
            return Answer::failed("already suspended/paused");
        }
        match database {
            None => {
                tracing::info!("PAUSE command issued");
                self.pause().await;
            }
            Some(name) => {
                tracing::info!("PAUSE '{name}' command issued");
                if let Err(answer) = self.check_database(name, "pause").await {
                    return answer;
                }
                self.standing().paused.insert(name.into());
                self.pause_workers(Some(name.into())).await;
            }
        }
        Answer::Done("PAUSE".into())
    }

    /// Gives nobody a server any more. Ready when all servers are free.
    pub async fn pause(&self) {
        self.standing().all_paused = true;
        self.pause_workers(None).await;
    }

    /// Gives servers again. Whether everything had been paused.
    pub async fn resume(&self) -> bool {
        let still_paused = {
            let mut standing = self.standing();
            if !std::mem::take(&mut standing.all_paused) {
                return false;
            }
            standing.paused.clone()
        };
        for worker in &*self.workers {
            let still_paused = still_paused.clone();
            let resumed = worker.ask(move |shard| {
                shard.neighbours().resume(None);
                for database in still_paused {
                    let neighbours = Rc::clone(shard.neighbours());
                    tokio::task::spawn_local(
                        async move { neighbours.pause(Some(&database)).await },
                    );
                }
            });
            resumed.await;
        }
        true
    }

    pub(super) async fn order_resume(&self, database: Option<&str>) -> Answer {
        let Some(name) = database else {
            tracing::info!("RESUME command issued");
            if self.standing().shutdown.is_some() {
                return Answer::failed("pooler is shutting down");
            }
            return match self.resume().await {
                true => Answer::Done("RESUME".into()),
                false => Answer::failed("pooler is not paused/suspended"),
            };
        };
        tracing::info!("RESUME '{name}' command issued");
        if !self.has_database(name).await {
            return Answer::failed(format!("no such database: {name}"));
        }
        if !self.standing().paused.remove(name) {
            return Answer::failed(format!("database {name} is not paused"));
        }
        self.tell(name, |shard, name| {
            shard.neighbours().resume(Some(name));
        })
        .await;
        Answer::Done("RESUME".into())
    }

    pub(super) async fn order_reconnect(&self, database: Option<&str>) -> Answer {
        match database {
            None => {
                tracing::info!("RECONNECT command issued");
                for worker in &*self.workers {
                    worker.ask(|shard| shard.reconnect(None)).await;
                }
            }
            Some(name) => {
                tracing::info!("RECONNECT '{name}' command issued");
                if let Err(answer) = self.check_database(name, "reconnect").await {
                    return answer;
                }
                self.tell(name, |shard, name| shard.reconnect(Some(name)))
                    .await;
            }
        }
        Answer::Done("RECONNECT".into())
    }

    pub(super) async fn order_kill(&self, database: Option<&str>) -> Answer {
        if self.standing().all_paused {
            return Answer::failed("already suspended/paused");
        }
        let Some(name) = database else {
            return Answer::failed("a database is required");
        };
        tracing::info!("KILL '{name}' command issued");
        if let Err(answer) = self.check_database(name, "kill").await {
            return answer;
        }
        self.standing().paused.insert(name.into());
        self.tell(name, |shard, name| {
            for client in shard.clients() {
                if *client.about.database == *name {
                    client.dismiss(Dismissal::DatabaseKilled);
                }
            }
            shard.neighbours().kill(Some(name));
        })
        .await;
        Answer::Done("KILL".into())
    }

    pub(super) async fn order_kill_client(&self, client: Option<&str>) -> Answer {
        let digits = client.unwrap_or_default();
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        let Some(serial) = digits
            .get(..end)
            .and_then(|digits| digits.parse::<u64>().ok())
        else {
            return Answer::failed("invalid client pointer supplied");
        };
        tracing::info!("KILL_CLIENT '{serial}' command issued");
        if self.dismiss_visitor(serial) {
            return Answer::Done("KILL_CLIENT".into());
        }
        for worker in &*self.workers {
            let dismissed = worker.ask(move |shard| {
                let clients = shard.clients();
                let found = clients.iter().find(|card| card.about.serial == serial);
                found
                    .map(|client| client.dismiss(Dismissal::Killed))
                    .is_some()
            });
            if dismissed.await == Some(true) {
                let gone = async {
                    let is_there = move |shard: &Rc<Shard>| {
                        let mut clients = shard.clients().into_iter();
                        clients.any(|card| card.about.serial == serial)
                    };
                    while worker.ask(is_there).await == Some(true) {
                        timer::sleep(Duration::from_millis(1)).await;
                    }
                };
                // A client that does not read why it has to go keeps its connection a little longer.
                let _ = timer::timeout(DISMISSAL_PATIENCE, gone).await;
                return Answer::Done("KILL_CLIENT".into());
            }
        }
        Answer::failed("client not found")
    }

    pub(super) async fn order_disable(&self, database: Option<&str>) -> Answer {
        let Some(name) = database else {
            return Answer::failed("a database is required");
        };
        tracing::info!("DISABLE '{name}' command issued");
        if let Err(answer) = self.check_database(name, "disable").await {
            return answer;
        }
        self.standing().disabled.insert(name.into());
        self.reloader.gate().set_disabled(name, true);
        self.tell(name, |shard, name| shard.neighbours().disable(name))
            .await;
        Answer::Done("DISABLE".into())
    }

    pub(super) async fn order_enable(&self, database: Option<&str>) -> Answer {
        let Some(name) = database else {
            return Answer::failed("a database is required");
        };
        tracing::info!("ENABLE '{name}' command issued");
        // PgBouncer's word for ENABLE, too.
        if let Err(answer) = self.check_database(name, "disable").await {
            return answer;
        }
        self.standing().disabled.remove(name);
        self.reloader.gate().set_disabled(name, false);
        self.tell(name, |shard, name| shard.neighbours().enable(name))
            .await;
        Answer::Done("ENABLE".into())
    }

    pub(super) async fn order_wait_close(&self, database: Option<&str>) -> Answer {
        match database {
            None => tracing::info!("WAIT_CLOSE command issued"),
            Some(name) => {
                tracing::info!("WAIT_CLOSE '{name}' command issued");
                if let Err(answer) = self.check_database(name, "wait in").await {
                    return answer;
                }
            }
        }
        for worker in &*self.workers {
            let database: Option<Box<str>> = database.map(Box::from);
            let closed = worker.ask_later(move |shard| {
                let neighbours = Rc::clone(shard.neighbours());
                async move { neighbours.wait_close(database.as_deref()).await }
            });
            closed.await;
        }
        Answer::Done("WAIT_CLOSE".into())
    }

    pub(super) async fn order_shutdown(&self, how: Shutdown) -> Answer {
        let words = match how {
            Shutdown::Immediate => "SHUTDOWN",
            Shutdown::WaitForServers => "SHUTDOWN WAIT_FOR_SERVERS",
            Shutdown::WaitForClients => "SHUTDOWN WAIT_FOR_CLIENTS",
        };
        tracing::info!("{words} command issued");
        self.standing().shutdown = Some(how);
        // Whoever listens may be ending already.
        let _ = self.shutdowns.send(how).await;
        if how == Shutdown::Immediate {
            // As PgBouncer does: the connection stays open until the process has ended.
            std::future::pending::<()>().await;
        }
        Answer::Done("SHUTDOWN".into())
    }

    /// Runs it on each worker at once, so that none is paused later than the others have become free.
    async fn pause_workers(&self, database: Option<Box<str>>) {
        let mut paused = Vec::new();
        for worker in &*self.workers {
            let database = database.clone();
            let later = worker.ask_later(move |shard| {
                let neighbours = Rc::clone(shard.neighbours());
                async move { neighbours.pause(database.as_deref()).await }
            });
            paused.push(later);
        }
        let mut begun: tokio::task::JoinSet<()> = tokio::task::JoinSet::new();
        for pause in paused {
            begun.spawn(async move {
                pause.await;
            });
        }
        while begun.join_next().await.is_some() {}
    }

    async fn tell(&self, database: &str, order: impl Fn(&Rc<Shard>, &str) + Copy + Send + 'static) {
        for worker in &*self.workers {
            let name: Box<str> = database.into();
            worker.ask(move |shard| order(shard, &name)).await;
        }
    }

    async fn has_database(&self, name: &str) -> bool {
        CONSOLE_NAMES.contains(&name) || self.reloader.config().await.database(name).is_some()
    }

    async fn check_database(&self, name: &str, what: &str) -> Result<(), Answer> {
        if CONSOLE_NAMES.contains(&name) {
            return Err(Answer::failed(format!("cannot {what} admin db: {name}")));
        }
        match self.has_database(name).await {
            true => Ok(()),
            false => Err(Answer::failed(format!("no such database: {name}"))),
        }
    }
}
