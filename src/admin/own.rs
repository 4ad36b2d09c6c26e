//! What PgBouncer does not show: pgspan's own statistics, traces and holders, as tables of the console.

use std::borrow::Cow;
use std::sync::Arc;

use crate::admin::Console;
use crate::admin::conversation::Answer;
use crate::admin::rows::Rows;
use crate::admin::snapshot::{Snapshot, State};
use crate::admin::table::{Column, Table, Type, Value};
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::shard::clock;
use crate::telemetry::instrument::Number;
use crate::telemetry::registry::Registry;
use crate::telemetry::statistics::Statistics;
use crate::telemetry::tables::{self, ColumnKind};
use crate::trace_context::TraceId;

impl Console {
    pub(super) async fn queries(&self) -> Answer {
        self.told(|statistics, _| tables::queries(statistics)).await
    }

    pub(super) async fn slow(&self) -> Answer {
        self.told(|statistics, _| tables::slow(statistics)).await
    }

    pub(super) async fn context(&self) -> Answer {
        self.told(|_, registry| tables::context(registry)).await
    }

    pub(super) async fn trace(&self, id: &str) -> Answer {
        match TraceId::parse(id.as_bytes()) {
            Some(id) => {
                self.told(move |statistics, _| tables::trace(statistics, id))
                    .await
            }
            None => Answer::Failed(ErrorResponse::error(
                SqlState::INVALID_PARAMETER_VALUE,
                "a trace id is 32 hexadecimal digits in lower case, not all of them zero",
            )),
        }
    }

    pub(super) async fn holders(&self) -> Answer {
        let mut holders = Vec::new();
        for worker in &*self.workers {
            holders.extend(worker.holders().await);
        }
        Answer::Rows(tables::holders(holders).into())
    }

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

    /// Made apart: it may take milliseconds.
    async fn told(
        &self,
        table: impl FnOnce(&Statistics, &Registry) -> tables::Table + Send + 'static,
    ) -> Answer {
        let statistics = Arc::clone(&self.statistics);
        let registry = Arc::clone(&self.registry);
        let made = tokio::task::spawn_blocking(move || table(&statistics, &registry)).await;
        match made {
            Ok(table) => Answer::Rows(table.into()),
            Err(_) => Answer::Failed(ErrorResponse::error(
                SqlState::INTERNAL_ERROR,
                "the table could not be made",
            )),
        }
    }
}

impl From<tables::Table> for Table {
    fn from(told: tables::Table) -> Self {
        let column = |column: &tables::Column| Column {
            name: Cow::Borrowed(column.name),
            kind: match column.kind {
                ColumnKind::Text => Type::Text,
                ColumnKind::Integer => Type::Int8,
                ColumnKind::Real => Type::Float8,
            },
        };
        let value = |value| match value {
            tables::Value::Null => Value::Null,
            tables::Value::Text(text) => Value::text(text),
            tables::Value::Integer(number) => Value::Int(number),
            tables::Value::Real(number) => Value::Float(number),
        };
        let rows = told.rows.into_iter();
        Self {
            columns: told.columns.iter().map(column).collect(),
            rows: rows
                .map(|row| row.into_iter().map(value).collect())
                .collect(),
        }
    }
}

/// With the id of the trace in front of each row, for a SELECT that names it.
pub(super) fn with_trace_id(table: Table, id: &str) -> Table {
    let mut columns = table.columns.into_owned();
    columns.insert(0, Column::new("trace_id", Type::Text));
    let rows = table.rows.into_iter().map(|mut row| {
        row.insert(0, Value::text(id));
        row
    });
    Table {
        rows: rows.collect(),
        columns: Cow::Owned(columns),
    }
}
