//! The labels whose values are a fixed set.

use crate::session::driver::Driver;
use crate::session::query_record::{Outcome, QueueCause};
use crate::telemetry::instrument::{Label, label};
use crate::trace_context::ContextState;

impl Label for ContextState {
    const VALUES: &'static [&'static str] = &["provided", "generated", "invalid", "none", "stale"];

    #[inline]
    fn index(self) -> usize {
        match self {
            Self::Provided => 0,
            Self::Generated => 1,
            Self::Invalid => 2,
            Self::None => 3,
            Self::Stale => 4,
        }
    }
}

impl Label for Driver {
    const VALUES: &'static [&'static str] = &[
        "psycopg2",
        "psycopg",
        "asyncpg",
        "pg8000",
        "sqlalchemy",
        "django",
        "node-postgres",
        "postgres.js",
        "prisma",
        "pgjdbc",
        "pgx",
        "tokio-postgres",
        "sqlx",
        "npgsql",
        "activerecord",
        "psql",
        "pgbench",
        "other",
        "unknown",
    ];

    #[inline]
    fn index(self) -> usize {
        self as usize
    }
}

impl Label for QueueCause {
    const VALUES: &'static [&'static str] = &["pool_full", "connecting", "paused", "login_failing"];

    #[inline]
    fn index(self) -> usize {
        match self {
            Self::PoolFull => 0,
            Self::Connecting => 1,
            Self::Paused => 2,
            Self::LoginFailing => 3,
        }
    }
}

/// The label text of a value that is not an enum of this module.
pub fn label_of<L: Label>(label: L) -> &'static str {
    L::VALUES
        .get(label.index())
        .expect("every value of a label has a text")
}

label! {
    /// How a query ended, without its SQLSTATE.
    OutcomeKind {
        /// Answered without an error.
        Completed = "completed",
        /// Answered with an error.
        Failed = "failed",
        /// A connection broke first.
        Lost = "lost",
    }
}

impl From<Outcome> for OutcomeKind {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed(_) => Self::Failed,
            Outcome::Lost => Self::Lost,
        }
    }
}

label! {
    /// Who is to blame for an error that ended a connection.
    Blame {
        /// The client broke off, was too slow or broke the rules of the protocol.
        Client = "client",
        /// The server did.
        Server = "server",
        /// A limit or a fault of the proxy.
        Proxy = "proxy",
    }
}

label! {
    /// What a server connection does.
    ServerState {
        /// Waits for work.
        Idle = "idle",
        /// Has waited for work for so long that it is checked before it gets any.
        Used = "used",
        /// Serves a client.
        Active = "active",
        /// Is being connected or logs in.
        Connecting = "connecting",
        /// Is being reset or checked between two clients.
        Resetting = "resetting",
    }
}

label! {
    /// Why a server connection was closed.
    ServerClose {
        /// Idle for too long.
        IdleTimeout = "idle_timeout",
        /// As old as it may become.
        Lifetime = "lifetime",
        /// The server closed it or it broke.
        Lost = "lost",
        /// The client left it in a state that could not be cleaned up.
        Unclean = "unclean",
        /// A query or transaction ran into a timeout of the proxy.
        QueryTimeout = "query_timeout",
        /// The check between two clients failed.
        CheckFailed = "check_failed",
        /// The reset between two clients failed.
        ResetFailed = "reset_failed",
        /// The server broke the rules of the protocol.
        Violation = "violation",
        /// RECONNECT, KILL or a changed configuration.
        Administrator = "administrator",
        /// Room was needed for another pool's.
        Evicted = "evicted",
        /// The pool is paused.
        Paused = "paused",
        /// The pool has become smaller.
        Excess = "excess",
        /// The proxy ends.
        Shutdown = "shutdown",
        /// It served one client alone, for replication, and that has left.
        Dedicated = "dedicated",
    }
}

impl ServerClose {
    /// What the log says, in PgBouncer's words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::IdleTimeout => "server idle timeout",
            Self::Lifetime => "server lifetime over",
            Self::Lost => "server conn crashed?",
            Self::Unclean => "client disconnect while server was not ready",
            Self::QueryTimeout => "query timeout",
            Self::CheckFailed => "test query failed",
            Self::ResetFailed => "reset query failed",
            Self::Violation => "bad packet",
            Self::Administrator => "database configuration changed",
            Self::Evicted => "evicted",
            Self::Paused => "pause mode",
            Self::Excess => "too many servers in the pool",
            Self::Shutdown => "shutdown",
            Self::Dedicated => "client disconnect",
        }
    }
}

label! {
    /// Where an attempt at a server connection came to nothing.
    ConnectFailure {
        /// The host's name has no address.
        Resolve = "resolve",
        /// No connection.
        Connect = "connect",
        /// No TLS, or a certificate that is not trusted.
        Tls = "tls",
        /// The server refused the login.
        Login = "login",
        /// It took too long.
        Timeout = "timeout",
    }
}

label! {
    /// Why a client was turned away.
    Rejection {
        /// As many clients as the proxy may have.
        ClientLimit = "client_limit",
        /// As many as the database may have.
        DatabaseLimit = "database_limit",
        /// As many as the user may have.
        UserLimit = "user_limit",
        /// No such database.
        UnknownDatabase = "unknown_database",
        /// The login failed.
        Authentication = "authentication",
        /// No TLS where it is asked for.
        Tls = "tls",
        /// The rules of the protocol were broken.
        Violation = "violation",
        /// The login took too long.
        Timeout = "timeout",
        /// The proxy is ending, or the database is disabled.
        ShuttingDown = "shutting_down",
    }
}

label! {
    /// How a client's login ended.
    LoginOutcome {
        /// Logged in.
        Completed = "completed",
        /// Wrong password, unknown user, no rule.
        Refused = "refused",
        /// The client went away.
        Abandoned = "abandoned",
        /// It took too long.
        Timeout = "timeout",
        /// The proxy or a server needed for it failed.
        Failed = "failed",
    }
}

label! {
    /// What became of a question to a server about a user (`auth_query`).
    AuthQueryOutcome {
        /// There is such a user.
        Found = "found",
        /// There is none.
        Unknown = "unknown",
        /// The answer was still known.
        Cached = "cached",
        /// The server could not be asked, or gave no answer.
        Failed = "failed",
    }
}

impl AuthQueryOutcome {
    /// Of an answer.
    pub fn found(is_known: bool) -> Self {
        match is_known {
            true => Self::Found,
            false => Self::Unknown,
        }
    }
}

label! {
    /// What became of a cancel request.
    CancelOutcome {
        /// A server was told.
        Forwarded = "forwarded",
        /// Another pgspan was told, whose client it is.
        Relayed = "relayed",
        /// Its client waits for a server: nothing runs yet, the wait was ended.
        Waiting = "waiting",
        /// Nothing runs under this key.
        Idle = "idle",
        /// Nobody has this key.
        Unknown = "unknown",
        /// The server could not be told.
        Failed = "failed",
    }
}

label! {
    /// A limit that has a name.
    Limit {
        /// Clients of the proxy.
        Clients = "clients",
        /// Clients that wait for a server.
        Waiters = "waiters",
        /// Clients of a database.
        DatabaseClients = "database_clients",
        /// Clients of a user.
        UserClients = "user_clients",
        /// Servers of a pool: one of its reserve was taken.
        PoolServers = "pool_servers",
        /// Servers of a database, over all its pools.
        DatabaseServers = "database_servers",
        /// Servers of a user, over all its pools.
        UserServers = "user_servers",
        /// The length of a query that is annotated.
        QueryBytes = "query_bytes",
        /// The length of a startup packet.
        StartupBytes = "startup_bytes",
        /// Bytes kept for a peer that does not read.
        BufferedBytes = "buffered_bytes",
        /// Requests without an answer.
        OutstandingRequests = "outstanding_requests",
        /// Prepared statements of a client.
        PreparedStatements = "prepared_statements",
        /// (database, user) pairs with series of their own.
        MetricPools = "metric_pools",
        /// Connections to the HTTP listener.
        HttpConnections = "http_connections",
        /// Connections that have not logged in yet: the oldest was closed.
        UnauthenticatedConnections = "unauthenticated_connections",
        /// Clients of the console.
        ConsoleSessions = "console_sessions",
    }
}

label! {
    /// The level of a logged line.
    LogLevel {
        /// Something is broken.
        Error = "error",
        /// Something is odd.
        Warn = "warn",
        /// Worth knowing.
        Info = "info",
        /// For whoever looks into the proxy.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

label! {
    /// Why a line of the slow-query log was left out.
    LineDrop {
        /// The queue was full.
        QueueFull = "queue_full",
        /// There were too many in this second.
        RateLimited = "rate_limited",
    }
}

label! {
    /// Why no statement counted a query.
    Uncounted {
        /// The queue to whoever reads texts was full.
        QueueFull = "queue_full",
        /// There were too many new texts in this second.
        RateLimited = "rate_limited",
        /// Its statement had just made room for another.
        Unknown = "unknown",
    }
}

label! {
    /// Why no collector got a span.
    SpanDrop {
        /// The queue was full.
        QueueFull = "queue_full",
        /// The collector refused it or could not be reached.
        ExportFailed = "export_failed",
        /// The collector did not answer in time.
        Timeout = "timeout",
        /// The proxy ended first.
        Shutdown = "shutdown",
        /// There were as many in this second as there may be.
        Budget = "budget",
        /// The application does not record this trace.
        Unsampled = "unsampled",
    }
}
