//! The console: the database `pgbouncer`, also called `pgspan`, that the proxy answers itself.

pub mod command;
pub mod conversation;
pub mod select;
pub mod show;
pub mod table;

mod help;
mod orders;
mod own;
mod rows;
mod session;
mod settings;
mod snapshot;
mod statistics;
mod visitors;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Semaphore, mpsc};

use crate::admin::command::{Command, Shutdown};
use crate::admin::conversation::Answer;
use crate::admin::orders::Standing;
use crate::admin::rows::{Rows, Sight};
use crate::admin::select::Select;
use crate::admin::show::Show;
use crate::admin::snapshot::Snapshot;
use crate::admin::statistics::{ByDatabase, History};
use crate::admin::table::{Table, Value};
use crate::admin::visitors::{Guest, Visitors};
use crate::admission::Visitor;
use crate::config::ConsoleRole;
use crate::config::choices::LogFormat;
use crate::net::timer;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::reload::Reloader;
use crate::shard::clock;
use crate::telemetry::instrument::Number;
use crate::telemetry::labels::Limit;
use crate::telemetry::registry::Registry;
use crate::telemetry::statistics::Statistics;
use crate::worker::Worker;

/// The version of PgBouncer whose console and metrics are spoken.
pub const PGBOUNCER_VERSION: &str = "1.25.2";

/// What SHOW VERSION says. Health checks look for PgBouncer's name in it.
pub const VERSION_TEXT: &str = "PgBouncer 1.25.2";

/// Clients that the console serves at a time. They don't count as clients of a database.
const MAX_SESSIONS: usize = 100;

/// Orders to shut down that may wait: one does.
const SHUTDOWNS: usize = 4;

/// The console. Shared by its sessions.
#[derive(Debug)]
pub struct Console {
    reloader: Arc<Reloader>,
    workers: Arc<[Worker]>,
    registry: Arc<Registry>,
    statistics: Arc<Statistics>,
    sessions: Semaphore,
    visitors: Visitors,
    /// Locked only to look or to note.
    standing: Mutex<Standing>,
    history: Mutex<History>,
    shutdowns: mpsc::Sender<Shutdown>,
}

impl Console {
    /// Of these workers. What comes out of the receiver is ordered by an administrator.
    pub fn new(
        reloader: Arc<Reloader>,
        workers: Arc<[Worker]>,
        registry: Arc<Registry>,
        statistics: Arc<Statistics>,
    ) -> (Arc<Self>, mpsc::Receiver<Shutdown>) {
        let (shutdowns, ordered) = mpsc::channel(SHUTDOWNS);
        let console = Self {
            reloader,
            workers,
            registry,
            statistics,
            sessions: Semaphore::new(MAX_SESSIONS),
            visitors: Visitors::default(),
            standing: Mutex::default(),
            history: Mutex::new(History::new(clock())),
            shutdowns,
        };
        (Arc::new(console), ordered)
    }

    /// Serves a client until it leaves.
    pub async fn serve(&self, visitor: Visitor) {
        let Ok(_place) = self.sessions.try_acquire() else {
            let limits = &self.registry.process.limits;
            limits.of(Limit::ConsoleSessions).increase();
            let message =
                format!("no more connections allowed (the console serves {MAX_SESSIONS})");
            let why = ErrorResponse::fatal(SqlState::TOO_MANY_CONNECTIONS, message);
            session::refuse(visitor.socket, &why).await;
            return;
        };
        session::serve(self, visitor).await;
    }

    /// Takes what was counted at the end of each `stats_period`, and logs the averages.
    pub async fn keep_statistics(self: Arc<Self>) {
        loop {
            let log = self.reloader.config().await.log.clone();
            timer::sleep(log.stats_period).await;
            let counted = self.count();
            let now = clock();
            let averages = {
                let mut history = self.history();
                history.turn(counted.clone(), now);
                history.averages_of_all(&counted, now)
            };
            if log.stats && log.format == LogFormat::PgBouncer {
                tracing::info!("{}", averages.in_words());
            }
        }
    }

    /// Does what `guest` asks.
    async fn run(&self, command: Command, guest: &Guest) -> Answer {
        guest.on_command();
        if guest.role != ConsoleRole::Admin && !command.is_harmless() {
            return Answer::failed("admin access needed");
        }
        match command {
            Command::Empty => Answer::Empty,
            Command::Show(Show::Fds) if guest.role != ConsoleRole::Admin => {
                Answer::failed("admin access needed")
            }
            Command::Show(show) => self.show(show).await,
            Command::Trace(id) => self.trace(&id).await,
            Command::Select(select) => self.select(&select, guest.role).await,
            Command::ShowSetting(setting) => Answer::Rows(Table {
                columns: Command::ShowSetting(setting).columns().unwrap_or_default(),
                rows: vec![vec![Value::text(setting.value)]],
            }),
            Command::IgnoredSet => Answer::Noticed(
                ErrorResponse::notice(SqlState::SUCCESSFUL_COMPLETION, "SET ignored"),
                "SET".into(),
            ),
            Command::Set { key, value } => self.set(&key, &value).await,
            Command::Reload => self.reload().await,
            Command::Pause(database) => self.order_pause(database.as_deref()).await,
            Command::Resume(database) => self.order_resume(database.as_deref()).await,
            Command::Reconnect(database) => self.order_reconnect(database.as_deref()).await,
            Command::Kill(database) => self.order_kill(database.as_deref()).await,
            Command::KillClient(client) => self.order_kill_client(client.as_deref()).await,
            Command::Disable(database) => self.order_disable(database.as_deref()).await,
            Command::Enable(database) => self.order_enable(database.as_deref()).await,
            Command::WaitClose(database) => self.order_wait_close(database.as_deref()).await,
            Command::Shutdown(how) => self.order_shutdown(how).await,
            // The conversation does these itself.
            Command::Declare(..)
            | Command::Fetch(..)
            | Command::Close(_)
            | Command::Begin(_)
            | Command::End(_)
            | Command::Forget(_) => Answer::Empty,
            Command::Suspend => Answer::Failed(ErrorResponse::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "SUSPEND is not supported: no other process takes over; PAUSE stops the work",
            )),
        }
    }

    async fn reload(&self) -> Answer {
        tracing::info!("RELOAD command issued");
        match self.reloader.reload().await {
            Ok(()) => Answer::Done("RELOAD".into()),
            Err(refused) => {
                tracing::error!("RELOAD failed: {refused}");
                Answer::Failed(ErrorResponse::error(
                    SqlState::CONFIG_FILE_ERROR,
                    "RELOAD failed, see logs for additional details",
                ))
            }
        }
    }

    async fn set(&self, key: &str, value: &str) -> Answer {
        match self.reloader.set(key, value).await {
            Ok(true) => Answer::Done(format!("SET {key}={value}").into()),
            Ok(false) => {
                let notice = "TLS settings could not be applied, still using old configuration";
                let notice = ErrorResponse::notice(SqlState::SUCCESSFUL_COMPLETION, notice);
                Answer::Noticed(notice, format!("SET {key}={value}").into())
            }
            Err(why) => {
                let error = ErrorResponse::error(SqlState::PROTOCOL_VIOLATION, "SET failed");
                Answer::Failed(error.with_detail(why.to_string()))
            }
        }
    }

    async fn show(&self, show: Show) -> Answer {
        let rows = match show {
            Show::Help => return help::answer(),
            Show::Version => vec![vec![Value::text(VERSION_TEXT)]],
            Show::State => self.state(),
            Show::Config => settings::rows(&*self.reloader.config().await),
            Show::Stats => rows::stats(&self.count(), &self.history(), clock()),
            Show::StatsTotals => rows::stats_totals(&self.count()),
            Show::StatsAverages => rows::stats_averages(&self.count(), &self.history(), clock()),
            Show::Totals => rows::totals(&self.count(), &self.history(), clock()),
            Show::Pools => self.look(|sight| sight.pools()).await,
            Show::Databases => self.look(|sight| sight.databases()).await,
            Show::Clients => self.look(|sight| sight.clients()).await,
            Show::Servers => self.look(|sight| sight.servers()).await,
            Show::Sockets => self.look(|sight| sight.sockets(|_| true)).await,
            Show::ActiveSockets => self.look(|sight| sight.sockets(rows::is_at_work)).await,
            Show::Users => self.look(|sight| sight.users()).await,
            Show::Lists => self.look(|sight| sight.lists()).await,
            Show::Drain => self.drain().await,
            Show::Queries => return self.queries().await,
            Show::Slow => return self.slow().await,
            Show::Holders => return self.holders().await,
            Show::Context => return self.context().await,
            Show::Mem => self.look(|sight| sight.memory()).await,
            Show::Peers => rows::peers(&*self.reloader.config().await),
            Show::PeerPools => rows::peer_pools(&*self.reloader.config().await),
            Show::DnsHosts => self.look(|sight| sight.dns_hosts()).await,
            // There are no zones, and no take-over that would need descriptors.
            Show::DnsZones | Show::Fds => Vec::new(),
        };
        Answer::Rows(Table {
            columns: show.columns(),
            rows,
        })
    }

    async fn select(&self, select: &Select, role: ConsoleRole) -> Answer {
        let answer = match &*select.view {
            "trace" => match select.demanded("trace_id") {
                Some(id) => match self.trace(&id).await {
                    Answer::Rows(table) => Answer::Rows(own::with_trace_id(table, &id)),
                    other => other,
                },
                None => Answer::Failed(ErrorResponse::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "trace is read by its id: WHERE trace_id = '...'",
                )),
            },
            view => match Show::from_name(view).filter(|show| *show != Show::Help) {
                Some(Show::Fds) if role != ConsoleRole::Admin => {
                    Answer::failed("admin access needed")
                }
                Some(show) => self.show(show).await,
                None => Answer::Failed(ErrorResponse::error(
                    SqlState::UNDEFINED_TABLE,
                    format!("relation \"{view}\" does not exist"),
                )),
            },
        };
        match answer {
            Answer::Rows(table) => match select.of(table) {
                Ok(selected) => Answer::Rows(selected),
                Err(error) => Answer::Failed(error.into()),
            },
            other => other,
        }
    }

    /// What there is to see of all workers now.
    async fn look(&self, rows: impl FnOnce(&Sight<'_>) -> Rows) -> Rows {
        let config = self.reloader.config().await;
        let snapshot = Snapshot::take(&self.workers).await;
        let standing = self.standing();
        rows(&Sight {
            config: &config,
            snapshot: &snapshot,
            visitors: self.visitors.connections(),
            paused: &standing.paused,
            disabled: &standing.disabled,
            logging_in: self.registry.process.clients_logging_in.value(),
            now: clock(),
            wall: wall_clock(),
        })
    }

    fn state(&self) -> Rows {
        let is_paused = self.standing().all_paused;
        let yes = |truth: bool| if truth { "yes" } else { "no" };
        [
            ("active", yes(!is_paused)),
            ("paused", yes(is_paused)),
            ("suspended", "no"),
        ]
        .map(|(key, value)| vec![Value::text(key), Value::text(value)])
        .to_vec()
    }

    fn count(&self) -> ByDatabase {
        let mut counted = statistics::count(&self.registry);
        self.visitors.count(&mut counted);
        counted
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dismiss_visitor(&self, serial: u64) -> bool {
        self.visitors.dismiss(serial)
    }
}

fn wall_clock() -> SystemTime {
    SystemTime::now()
}
