//! config.toml as written: one struct for each table, one field for each key, `None` where nothing is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::choices::{
    AuthMethod, CommentFormat, Compression, ErrorTexts, LogFormat, LogLevel, OnMissing, OnSigterm,
    OtlpProtocol, Placement, PreparedChannel, SyslogFacility,
};
use super::pool::PoolOverrides;
use super::tls::{ListenTlsTable, ServerTlsTable};
use super::units::{
    Addresses, Backlog, Count, CountLimit, HostList, Iterations, Mode, Number, OptionalAddress,
    Port, PositiveTime, SecretText, Size, Time, TimeLimit, Workers, WrittenShare,
};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct ConfigFile {
    pub(super) listen: ListenTable,
    pub(super) http: HttpTable,
    pub(super) auth: AuthTable,
    pub(super) console: ConsoleTable,
    pub(super) workers: WorkersTable,
    pub(super) pool: PoolOverrides,
    pub(super) server_tls: ServerTlsTable,
    pub(super) databases: BTreeMap<Box<str>, DatabaseTable>,
    pub(super) users: BTreeMap<Box<str>, UserTable>,
    pub(super) peers: BTreeMap<Box<str>, PeerTable>,
    pub(super) trace: TraceTable,
    pub(super) annotation: AnnotationTable,
    pub(super) slow_query: SlowQueryTable,
    pub(super) statistics: StatisticsTable,
    pub(super) otlp: OtlpTable,
    pub(super) log: LogTable,
    pub(super) drain: DrainTable,
    pub(super) process: ProcessTable,
    pub(super) tcp: TcpTable,
    pub(super) dns: DnsTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct TcpTable {
    pub(super) keepalive: Option<bool>,
    pub(super) keepalive_idle: Option<TimeLimit>,
    pub(super) keepalive_interval: Option<TimeLimit>,
    pub(super) keepalive_retries: Option<CountLimit>,
    pub(super) user_timeout: Option<TimeLimit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct DnsTable {
    pub(super) max_ttl: Option<Time>,
    pub(super) nxdomain_ttl: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct ListenTable {
    pub(super) address: Option<Addresses>,
    pub(super) reuse_port: Option<bool>,
    pub(super) unix_socket_dir: Option<Box<str>>,
    pub(super) unix_socket_port: Option<Port>,
    pub(super) unix_socket_mode: Option<Mode>,
    pub(super) unix_socket_group: Option<Box<str>>,
    pub(super) peer_id: Option<Number>,
    pub(super) max_client_connections: Option<Count>,
    pub(super) login_timeout: Option<PositiveTime>,
    pub(super) backlog: Option<Backlog>,
    pub(super) max_unauthenticated_connections: Option<Count>,
    pub(super) tls: ListenTlsTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct HttpTable {
    pub(super) address: Option<OptionalAddress>,
    pub(super) fold_unknown_names: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct AuthTable {
    pub(super) method: Option<AuthMethod>,
    pub(super) error_texts: Option<ErrorTexts>,
    pub(super) userlist: Option<PathBuf>,
    pub(super) hba_file: Option<PathBuf>,
    pub(super) ident_file: Option<PathBuf>,
    pub(super) user: Option<Box<str>>,
    pub(super) query: Option<Box<str>>,
    pub(super) dbname: Option<Box<str>>,
    pub(super) cache_size: Option<Number>,
    pub(super) cache_ttl: Option<Time>,
    pub(super) scram_iterations: Option<Iterations>,
    pub(super) failed_login_backoff: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct ConsoleTable {
    pub(super) admin_users: Vec<Box<str>>,
    pub(super) stats_users: Vec<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct WorkersTable {
    pub(super) count: Option<Workers>,
    pub(super) min_servers_each: Option<Count>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct DatabaseTable {
    pub(super) host: Option<HostList>,
    pub(super) port: Option<Port>,
    pub(super) dbname: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    pub(super) password: Option<SecretText>,
    pub(super) auth_user: Option<Box<str>>,
    pub(super) auth_query: Option<Box<str>>,
    pub(super) auth_dbname: Option<Box<str>>,
    pub(super) tls: ServerTlsTable,
    pub(super) tags: BTreeMap<Box<str>, Box<str>>,
    pub(super) pool: PoolOverrides,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct UserTable {
    pub(super) password: Option<SecretText>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) known: Option<bool>,
    pub(super) tags: BTreeMap<Box<str>, Box<str>>,
    pub(super) pool: PoolOverrides,
}

/// `[peers.ID]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct PeerTable {
    pub(super) host: Option<Box<str>>,
    pub(super) port: Option<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct TraceTable {
    pub(super) on_missing: Option<OnMissing>,
    pub(super) absorb_application_name: Option<bool>,
    pub(super) allowed_tags: Option<Vec<Box<str>>>,
    pub(super) max_tag_length: Option<Count>,
    pub(super) max_tracestate_length: Option<Count>,
    pub(super) stale_transactions: Option<Count>,
    pub(super) stale_after: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct AnnotationTable {
    pub(super) enabled: Option<bool>,
    pub(super) format: Option<CommentFormat>,
    pub(super) placement: Option<Placement>,
    pub(super) max_query_bytes: Option<Size>,
    pub(super) unnamed_parse: Option<bool>,
    pub(super) prepared: Option<PreparedChannel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct SlowQueryTable {
    pub(super) threshold: Option<Time>,
    pub(super) wait_threshold: Option<Time>,
    pub(super) log: Option<bool>,
    pub(super) ratio: Option<WrittenShare>,
    pub(super) text_limit: Option<Number>,
    pub(super) masked: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct StatisticsTable {
    pub(super) max_statements: Option<Number>,
    pub(super) max_traced_queries: Option<Number>,
    pub(super) max_slow_queries: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct OtlpTable {
    pub(super) endpoint: Option<Box<str>>,
    pub(super) protocol: Option<OtlpProtocol>,
    pub(super) compression: Option<Compression>,
    pub(super) headers: BTreeMap<Box<str>, SecretText>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) queue_size: Option<Count>,
    pub(super) schedule_delay: Option<PositiveTime>,
    pub(super) export_timeout: Option<PositiveTime>,
    pub(super) max_export_batch_size: Option<Count>,
    pub(super) max_spans_per_second: Option<Number>,
    pub(super) include_attributes: Option<Vec<Box<str>>>,
    pub(super) exclude_attributes: Option<Vec<Box<str>>>,
    pub(super) service_name: Option<Box<str>>,
    pub(super) resource_attributes: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct LogTable {
    pub(super) format: Option<LogFormat>,
    pub(super) level: Option<LogLevel>,
    pub(super) file: Option<PathBuf>,
    pub(super) connections: Option<bool>,
    pub(super) disconnections: Option<bool>,
    pub(super) pooler_errors: Option<bool>,
    pub(super) stats: Option<bool>,
    pub(super) stats_period: Option<PositiveTime>,
    pub(super) syslog: Option<bool>,
    pub(super) syslog_ident: Option<Box<str>>,
    pub(super) syslog_facility: Option<SyslogFacility>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct DrainTable {
    pub(super) on_sigterm: Option<OnSigterm>,
    pub(super) timeout: Option<TimeLimit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct ProcessTable {
    pub(super) pid_file: Option<PathBuf>,
    pub(super) user: Option<Box<str>>,
}
