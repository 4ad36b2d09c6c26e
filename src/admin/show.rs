//! What can be shown, and its columns: exactly PgBouncer's 1.25, since there are readers that go by number and order.

use std::borrow::Cow;

use crate::admin::table::{Column, Type};

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// What is counted for each database.
    Stats,
    /// The sums of it.
    StatsTotals,
    /// The averages of it.
    StatsAverages,
    /// The same of all databases together.
    Totals,
    /// The pools.
    Pools,
    /// The databases.
    Databases,
    /// The clients.
    Clients,
    /// The server connections.
    Servers,
    /// Both.
    Sockets,
    /// Those of them that have something on its way.
    ActiveSockets,
    /// The users.
    Users,
    /// How many there are of what.
    Lists,
    /// The settings.
    Config,
    /// Whether the proxy is paused.
    State,
    /// The version.
    Version,
    /// The other proxies that cancels are passed to.
    Peers,
    /// The pools of connections to them.
    PeerPools,
    /// Memory.
    Mem,
    /// Names and their addresses.
    DnsHosts,
    /// Zones of names.
    DnsZones,
    /// Descriptors.
    Fds,
    /// What can be asked.
    Help,
    /// pgspan's own: the statements with their times.
    Queries,
    /// pgspan's own: the latest slow queries.
    Slow,
    /// pgspan's own: who holds servers.
    Holders,
    /// pgspan's own: how queries came by their trace context.
    Context,
    /// pgspan's own: what a shutdown would wait for.
    Drain,
}

const NAMES: [(&str, Show); 27] = [
    ("active_sockets", Show::ActiveSockets),
    ("clients", Show::Clients),
    ("config", Show::Config),
    ("context", Show::Context),
    ("databases", Show::Databases),
    ("dns_hosts", Show::DnsHosts),
    ("dns_zones", Show::DnsZones),
    ("drain", Show::Drain),
    ("fds", Show::Fds),
    ("help", Show::Help),
    ("holders", Show::Holders),
    ("lists", Show::Lists),
    ("mem", Show::Mem),
    ("peer_pools", Show::PeerPools),
    ("peers", Show::Peers),
    ("pools", Show::Pools),
    ("queries", Show::Queries),
    ("servers", Show::Servers),
    ("slow", Show::Slow),
    ("sockets", Show::Sockets),
    ("state", Show::State),
    ("stats", Show::Stats),
    ("stats_averages", Show::StatsAverages),
    ("stats_totals", Show::StatsTotals),
    ("totals", Show::Totals),
    ("users", Show::Users),
    ("version", Show::Version),
];

impl Show {
    /// By its name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, show)| *show)
    }

    /// Its columns. Help has none: it is a notice.
    pub fn columns(self) -> Cow<'static, [Column]> {
        Cow::Borrowed(match self {
            Self::Stats => STATS,
            Self::StatsTotals => STATS_TOTALS,
            Self::StatsAverages => STATS_AVERAGES,
            Self::Totals => TOTALS,
            Self::Pools => POOLS,
            Self::Databases => DATABASES,
            Self::Clients | Self::Servers => SOCKETS
                .split_at_checked(CLIENT_COLUMNS)
                .map_or(SOCKETS, |(standard, _)| standard),
            Self::Sockets | Self::ActiveSockets => SOCKETS,
            Self::Users => USERS,
            Self::Lists => LISTS,
            Self::Config => CONFIG,
            Self::State => STATE,
            Self::Version => VERSION,
            Self::Peers => PEERS,
            Self::PeerPools => PEER_POOLS,
            Self::Mem => MEM,
            Self::DnsHosts => DNS_HOSTS,
            Self::DnsZones => DNS_ZONES,
            Self::Fds => FDS,
            Self::Help => &[],
            Self::Drain => DRAIN,
            // They come with their rows.
            Self::Queries | Self::Slow | Self::Holders | Self::Context => &[],
        })
    }
}

/// How many of the columns of SHOW SOCKETS those of SHOW CLIENTS and SHOW SERVERS are.
pub const CLIENT_COLUMNS: usize = 21;

const fn text(name: &'static str) -> Column {
    Column::new(name, Type::Text)
}

const fn int4(name: &'static str) -> Column {
    Column::new(name, Type::Int4)
}

const fn int8(name: &'static str) -> Column {
    Column::new(name, Type::Int8)
}

const fn numeric(name: &'static str) -> Column {
    Column::new(name, Type::Numeric)
}

const fn bytea(name: &'static str) -> Column {
    Column::new(name, Type::Bytea)
}

const STATS: &[Column] = &[
    text("database"),
    numeric("total_server_assignment_count"),
    numeric("total_xact_count"),
    numeric("total_query_count"),
    numeric("total_received"),
    numeric("total_sent"),
    numeric("total_xact_time"),
    numeric("total_query_time"),
    numeric("total_wait_time"),
    numeric("total_client_parse_count"),
    numeric("total_server_parse_count"),
    numeric("total_bind_count"),
    numeric("total_client_login_count"),
    numeric("avg_server_assignment_count"),
    numeric("avg_xact_count"),
    numeric("avg_query_count"),
    numeric("avg_recv"),
    numeric("avg_sent"),
    numeric("avg_xact_time"),
    numeric("avg_query_time"),
    numeric("avg_wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
];

const STATS_TOTALS: &[Column] = &[
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
    numeric("client_login_count"),
];

const STATS_AVERAGES: &[Column] = &[
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
];

const TOTALS: &[Column] = &[text("name"), numeric("value")];

const POOLS: &[Column] = &[
    text("database"),
    text("user"),
    int4("cl_active"),
    int4("cl_waiting"),
    int4("cl_active_cancel_req"),
    int4("cl_waiting_cancel_req"),
    int4("sv_active"),
    int4("sv_active_cancel"),
    int4("sv_being_canceled"),
    int4("sv_idle"),
    int4("sv_used"),
    int4("sv_tested"),
    int4("sv_login"),
    int4("maxwait"),
    int4("maxwait_us"),
    text("pool_mode"),
    text("load_balance_hosts"),
];

const DATABASES: &[Column] = &[
    text("name"),
    text("host"),
    int4("port"),
    text("database"),
    text("force_user"),
    int4("pool_size"),
    int4("min_pool_size"),
    int4("reserve_pool_size"),
    int4("server_lifetime"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int4("max_connections"),
    int4("current_connections"),
    int4("max_client_connections"),
    int4("current_client_connections"),
    int4("paused"),
    int4("disabled"),
];

const SOCKETS: &[Column] = &[
    text("type"),
    text("user"),
    text("database"),
    text("replication"),
    text("state"),
    text("addr"),
    int4("port"),
    text("local_addr"),
    int4("local_port"),
    text("connect_time"),
    text("request_time"),
    int4("wait"),
    int4("wait_us"),
    int4("close_needed"),
    text("ptr"),
    text("link"),
    int4("remote_pid"),
    text("tls"),
    text("application_name"),
    int4("prepared_statements"),
    int4("id"),
    int4("recv_pos"),
    int4("pkt_pos"),
    int4("pkt_remain"),
    int4("send_pos"),
    int4("send_remain"),
    int4("pkt_avail"),
    int4("send_avail"),
];

const USERS: &[Column] = &[
    text("name"),
    text("pool_size"),
    text("reserve_pool_size"),
    text("pool_mode"),
    int4("max_user_connections"),
    int4("current_connections"),
    int4("max_user_client_connections"),
    int4("current_client_connections"),
];

const LISTS: &[Column] = &[text("list"), int4("items")];

const CONFIG: &[Column] = &[
    text("key"),
    text("value"),
    text("default"),
    text("changeable"),
];

const STATE: &[Column] = &[text("key"), text("value")];

const VERSION: &[Column] = &[text("version")];

const PEERS: &[Column] = &[
    int4("peer_id"),
    text("host"),
    int4("port"),
    int4("pool_size"),
];

const PEER_POOLS: &[Column] = &[
    int4("peer_id"),
    int4("cl_active_cancel_req"),
    int4("cl_waiting_cancel_req"),
    int4("sv_active_cancel"),
    int4("sv_login"),
];

const MEM: &[Column] = &[
    text("name"),
    int4("size"),
    int4("used"),
    int4("free"),
    int4("memtotal"),
];

const DNS_HOSTS: &[Column] = &[text("hostname"), int8("ttl"), text("addrs")];

const DNS_ZONES: &[Column] = &[text("zonename"), int8("serial"), int4("count")];

const DRAIN: &[Column] = &[
    text("draining"),
    int8("clients"),
    int8("clients_working"),
    int8("clients_waiting"),
    int8("servers_in_use"),
    int8("longest_query_ms"),
];

const FDS: &[Column] = &[
    int4("fd"),
    text("task"),
    text("user"),
    text("database"),
    text("addr"),
    int4("port"),
    int8("cancel"),
    int4("link"),
    text("client_encoding"),
    text("std_strings"),
    text("datestyle"),
    text("timezone"),
    text("password"),
    bytea("scram_client_key"),
    bytea("scram_server_key"),
];
