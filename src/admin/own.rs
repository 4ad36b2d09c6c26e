//! What PgBouncer does not show: pgspan's own tables of the console.

use crate::admin::Console;
use crate::admin::rows::Rows;
use crate::admin::snapshot::{Snapshot, State};
use crate::admin::table::Value;
use crate::shard::clock;
use crate::telemetry::instrument::Number;

impl Console {
    /// What a shutdown would wait for.
    pub(super) async fn drain(&self) -> Rows {
        let snapshot = Snapshot::take(&self.workers).await;
        let now = clock();
        let clients = &snapshot.clients;
        let working = clients.iter().filter_map(|client| client.query_since);
        let waiting = clients
            .iter()
            .filter(|client| client.state == State::Waiting);
        let servers = snapshot.servers.iter();
        let in_use = servers.filter(|server| server.state == State::Active);
        let longest = working
            .clone()
            .map(|since| now.saturating_duration_since(since))
            .max();
        let is_draining = self.registry.process.draining.value() > 0;
        vec![vec![
            Value::Text(if is_draining { "yes" } else { "no" }.into()),
            Value::count(clients.len()),
            Value::count(working.count()),
            Value::count(waiting.count()),
            Value::count(in_use.count()),
            Value::count(longest.unwrap_or_default().as_millis()),
        ]]
    }
}
