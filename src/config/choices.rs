//! The settings that choose one of a few named ways.

use std::num::NonZeroUsize;

use serde::Deserialize;

/// When a server goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// At the end of each transaction.
    Transaction,
    /// After each statement: transactions are refused.
    Statement,
}

/// Which of several hosts is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalanceHosts {
    /// Each in turn.
    RoundRobin,
    /// The first one that can be connected to; another one only when it fails.
    Disable,
}

/// What becomes of what a client leaves in a server's session, in transaction mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// What it sets follows it; what else it leaves keeps the server with it until that is gone.
    Track,
    /// The server is reset after each transaction.
    Reset,
    /// It reaches the next client, but for what PostgreSQL reports and drivers rely on: PgBouncer's way.
    Leak,
}

/// What becomes of unnamed statements in transaction mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnnamedStatements {
    /// They go to the server as they are.
    Pass,
    /// One whose text has come before is served from a named one, which the server has parsed and planned already.
    Cache,
}

/// What becomes of LISTEN in transaction mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenMode {
    /// The server stays with the client.
    Pin,
    /// It is refused with an error.
    Refuse,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// Not at all, and the name does not matter: the database says who logs in at the server.
    Any,
    /// Not at all; the user must still be known.
    Trust,
    /// By sending the password as it is. PgBouncer calls it `plain`.
    #[serde(alias = "plain")]
    Password,
    /// By a hash of the password; by SCRAM-SHA-256 for users of whom a SCRAM verifier is kept.
    Md5,
    /// By SCRAM-SHA-256 (RFC 5802, RFC 7677).
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// By a client certificate that names the user.
    Cert,
    /// By the system's user at the other end of a unix socket.
    Peer,
    /// As the first line of a file says that fits.
    Hba,
}

/// In whose words a client is told why it is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorTexts {
    /// As PostgreSQL would say it.
    PostgreSql,
    /// As PgBouncer says it.
    PgBouncer,
}

/// How a comment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommentFormat {
    /// `/*key='value',…*/`, sorted and percent-encoded.
    Sqlcommenter,
    /// `/* trace_id: …, correlation_id: … */`.
    Plain,
}

/// Where a comment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Directly behind the last token of every top-level statement.
    Suffix,
    /// At the start of the text.
    Prefix,
}

/// How servers are told of the trace of prepared statements, whose text stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreparedChannel {
    /// They are not.
    None,
    /// In `application_name`, as OpenTelemetry's Collector reads it.
    ApplicationName,
    /// In `pg_tracing.trace_context`.
    PgTracing,
}

/// What becomes of a transaction without a trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnMissing {
    /// It stays without one.
    None,
    /// It gets a trace id of the proxy's making.
    Generate,
}

/// How spans travel to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP, protobuf bodies.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Whether batches of spans are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// They are not.
    None,
    /// By gzip.
    Gzip,
}

/// How many threads serve clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    /// This many.
    Fixed(NonZeroUsize),
    /// One for each core that the process may use.
    Auto,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// As PgBouncer writes them.
    #[serde(rename = "pgbouncer")]
    PgBouncer,
}

/// What SIGTERM means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSigterm {
    /// Resting clients are sent away at once, the others after their transaction.
    Drain,
    /// Every client may stay as long as it likes; none is let in. PgBouncer's way.
    WaitForClients,
}

/// Which kind of program writes to the system's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFacility {
    /// `LOG_USER`.
    User = 1,
    /// `LOG_DAEMON`.
    Daemon = 3,
    /// `LOG_AUTH`.
    Auth = 4,
    /// `LOG_AUTHPRIV`.
    AuthPriv = 10,
    /// `LOG_LOCAL0`.
    Local0 = 16,
    /// `LOG_LOCAL1`.
    Local1,
    /// `LOG_LOCAL2`.
    Local2,
    /// `LOG_LOCAL3`.
    Local3,
    /// `LOG_LOCAL4`.
    Local4,
    /// `LOG_LOCAL5`.
    Local5,
    /// `LOG_LOCAL6`.
    Local6,
    /// `LOG_LOCAL7`.
    Local7,
}

/// The least important lines that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened.
    Info,
    /// What was decided, and why.
    Debug,
    /// Everything.
    Trace,
}
