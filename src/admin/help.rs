//! SHOW HELP.

use crate::admin::conversation::Answer;
use crate::protocol::error_response::{ErrorResponse, SqlState};

/// What can be asked, as a notice. PgBouncer's commands in PgBouncer's order, pgspan's own behind them.
pub(super) fn answer() -> Answer {
    let notice = ErrorResponse::notice(SqlState::SUCCESSFUL_COMPLETION, "Console usage");
    Answer::Noticed(notice.with_detail(USAGE), "SHOW".into())
}

const USAGE: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL <db>
\tKILL_CLIENT <client_id>
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]
\tSHOW QUERIES|SLOW|HOLDERS|CONTEXT|DRAIN
\tSHOW TRACE '<trace id>'
\tSELECT <columns> FROM <any of these> [WHERE ...] [ORDER BY ...] [LIMIT ...]";
