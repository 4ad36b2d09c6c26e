//! The console: the database `pgbouncer`, also called `pgspan`, that the proxy answers itself.

pub mod command;
pub mod conversation;
pub mod show;
pub mod table;

mod help;
mod session;
mod settings;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::admin::command::Command;
use crate::admin::conversation::Answer;
use crate::admin::show::Show;
use crate::admin::table::{Table, Value};
use crate::admission::Visitor;
use crate::config::ConsoleRole;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::reload::Reloader;
use crate::telemetry::labels::Limit;
use crate::telemetry::metrics::ProcessMetrics;
use crate::worker::Worker;

/// The version of PgBouncer whose console and metrics are spoken.
pub const PGBOUNCER_VERSION: &str = "1.25.2";

/// What SHOW VERSION says. Health checks look for PgBouncer's name in it.
pub const VERSION_TEXT: &str = "PgBouncer 1.25.2";

/// Clients that the console serves at a time. They don't count as clients of a database.
const MAX_SESSIONS: usize = 100;

/// The console. Shared by its sessions.
#[derive(Debug)]
pub struct Console {
    reloader: Arc<Reloader>,
    #[expect(dead_code, reason = "SHOW POOLS and its like ask them")]
    workers: Arc<[Worker]>,
    process: Arc<ProcessMetrics>,
    sessions: Semaphore,
}

impl Console {
    /// Of these workers.
    pub fn new(
        reloader: Arc<Reloader>,
        workers: Arc<[Worker]>,
        process: Arc<ProcessMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            reloader,
            workers,
            process,
            sessions: Semaphore::new(MAX_SESSIONS),
        })
    }

    /// Serves a client until it leaves.
    pub async fn serve(&self, visitor: Visitor) {
        let Ok(_place) = self.sessions.try_acquire() else {
            self.process.limits.of(Limit::ConsoleSessions).increase();
            let message =
                format!("no more connections allowed (the console serves {MAX_SESSIONS})");
            session::refuse(
                visitor.socket,
                &ErrorResponse::fatal(SqlState::TOO_MANY_CONNECTIONS, message),
            )
            .await;
            return;
        };
        session::serve(self, visitor).await;
    }

    /// Does what is asked.
    async fn run(&self, command: Command, role: ConsoleRole) -> Answer {
        if role != ConsoleRole::Admin && !command.is_harmless() {
            return Answer::failed("admin access needed");
        }
        match command {
            Command::Empty => Answer::Empty,
            Command::Show(show) => self.show(show).await,
            Command::ShowSetting(setting) => Answer::Rows(Table {
                columns: Command::ShowSetting(setting).columns().unwrap_or_default(),
                rows: vec![vec![Value::text(setting.value)]],
            }),
            Command::IgnoredSet => Answer::Noticed(
                ErrorResponse::notice(SqlState::SUCCESSFUL_COMPLETION, "SET ignored"),
                "SET".into(),
            ),
            Command::Reload => match self.reloader.reload().await {
                Ok(()) => Answer::Done("RELOAD".into()),
                Err(refused) => {
                    tracing::error!("RELOAD failed: {refused}");
                    Answer::Failed(ErrorResponse::error(
                        SqlState::CONFIG_FILE_ERROR,
                        "RELOAD failed, see logs for additional details",
                    ))
                }
            },
            Command::Suspend => Answer::Failed(ErrorResponse::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "SUSPEND is not supported: there is no take-over by another process; PAUSE stops the work",
            )),
            _ => Answer::Failed(ErrorResponse::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "this command is not supported yet",
            )),
        }
    }

    async fn show(&self, show: Show) -> Answer {
        let rows = match show {
            Show::Help => return help::answer(),
            Show::Version => vec![vec![Value::text(VERSION_TEXT)]],
            Show::State => [("active", "yes"), ("paused", "no"), ("suspended", "no")]
                .map(|(key, value)| vec![Value::text(key), Value::text(value)])
                .to_vec(),
            Show::Config => settings::rows(&*self.reloader.config().await),
            Show::Peers | Show::PeerPools | Show::DnsZones | Show::DnsHosts | Show::Fds => {
                Vec::new()
            }
            _ => {
                return Answer::Failed(ErrorResponse::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "this is not shown yet",
                ));
            }
        };
        Answer::Rows(Table {
            columns: show.columns(),
            rows,
        })
    }
}
