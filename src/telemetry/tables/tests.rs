use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::protocol::error_response::SqlState;
use crate::session::query_record::QueueCause;
use crate::telemetry::metrics::PoolMetrics;
use crate::telemetry::registry::tests::{now, record, registry};
use crate::telemetry::slow_query::tests::{milliseconds, notable, provided};
use crate::telemetry::statistics::{StatisticsKeeper, StatisticsSettings, WorkerStatistics};
use crate::trace_context::ContextState;

#[test]
fn every_row_has_a_value_of_its_columns_kind_for_every_column() {
    let setup = Setup::new();
    let trace = setup.observe_a_traced_query();
    let mut slow_query = notable(&record(milliseconds(200)));
    slow_query.trace = Some(provided(1, true));
    setup.keeper.statistics().keep_slow(SlowQuery {
        text: QueryText::of(&slow_query.sql, true, 100),
        query: Arc::new(slow_query),
    });
    let holder = Holder {
        database: "app".into(),
        user: "ann".into(),
        client_id: 7,
        server_pid: Some(42),
        held: milliseconds(3),
        state: HolderState::IdleInTransaction,
        trace_id: Some(trace),
        correlation_id: None,
        application: Some("pay".into()),
        query: Some(b"SELECT 'secret'"[..].into()),
    };
    let statistics = setup.keeper.statistics();
    let tables = [
        queries(statistics),
        super::trace(statistics, trace),
        slow(statistics),
        context(&setup.registry),
        holders(vec![holder.clone()]),
    ];
    let shown = holders(vec![holder]);
    assert_eq!(value(&shown, "query"), &Value::Text("SELECT ?".into()));
    for table in tables {
        assert_eq!(table.rows.len(), 1, "{:?}", table.columns);
        assert_eq!(table.rows[0].len(), table.columns.len());
        for (column, value) in table.columns.iter().zip(&table.rows[0]) {
            let kind = match value {
                Value::Null => continue,
                Value::Text(_) => ColumnKind::Text,
                Value::Integer(_) => ColumnKind::Integer,
                Value::Real(_) => ColumnKind::Real,
            };
            assert_eq!(kind, column.kind, "{}", column.name);
        }
    }
}

#[test]
fn a_statement_is_told_with_its_figures_and_its_trace() {
    let setup = Setup::new();
    let trace = setup.observe_a_traced_query();
    let table = queries(setup.keeper.statistics());
    let value = |name| value(&table, name);
    assert_eq!(value("database"), &Value::Text("app".into()));
    assert_eq!(value("calls"), &Value::Integer(1));
    assert_eq!(value("errors"), &Value::Integer(1));
    assert_eq!(value("total_ms"), &Value::Real(15.0));
    assert_eq!(value("slowest_trace_id"), &Value::Text(trace.to_string()));
    assert_eq!(value("recent_trace_ids"), &Value::Text(trace.to_string()));
    assert_eq!(value("applications"), &Value::Text("pay".into()));
    assert_eq!(value("query"), &Value::Text("SELECT ?".into()));

    let json = queries_json(setup.keeper.statistics(), 10);
    assert_eq!(json["statements"], 1);
    let told = &json["queries"][0];
    assert_eq!(told["query"], "SELECT ?");
    assert_eq!(told["duration"]["total_ms"], 15.0);
    assert_eq!(told["phases"]["queue_wait"]["total_ms"], 5.0);
    assert_eq!(told["slowest"]["trace_id"], trace.to_string());
    assert_eq!(told["tags"]["route"][0]["value"], "/checkout");
    assert_eq!(
        queries_json(setup.keeper.statistics(), 0)["queries"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_trace_is_told_query_by_query_and_phase_by_phase() {
    let setup = Setup::new();
    let trace = setup.observe_a_traced_query();
    let table = super::trace(setup.keeper.statistics(), trace);
    let value = |name| value(&table, name);
    assert_eq!(value("queue_wait_ms"), &Value::Real(5.0));
    assert_eq!(value("queue_cause"), &Value::Text("pool_full".into()));
    assert_eq!(value("server_first_byte_ms"), &Value::Real(10.0));
    assert_eq!(value("sqlstate"), &Value::Text("42601".into()));
    assert_eq!(value("parent_span_id"), &Value::Text("bb".repeat(8)));

    let json = trace_json(setup.keeper.statistics(), trace);
    assert_eq!(json["trace_id"], trace.to_string());
    let query = &json["queries"][0];
    assert_eq!(query["phases"]["queue_cause"], "pool_full");
    assert_eq!(query["duration_ms"], 15.0);
    assert_eq!(query["outcome"], "failed");
    assert_eq!(query["context"], "provided");
    let unknown = TraceId::from_bytes([1; 16]).unwrap();
    let json = trace_json(setup.keeper.statistics(), unknown);
    assert_eq!(json["queries"].as_array().unwrap().len(), 0);
}

#[test]
fn lost_contexts_are_those_that_nobody_provided() {
    let setup = Setup::new();
    for context in [
        ContextState::Provided,
        ContextState::None,
        ContextState::Invalid,
    ] {
        let mut query = record(milliseconds(1));
        query.context = context;
        setup.pool.observe(&query);
    }
    let table = context(&setup.registry);
    assert_eq!(value(&table, "provided"), &Value::Integer(1));
    assert_eq!(value(&table, "lost_share"), &Value::Real(2.0 / 3.0));
}

struct Setup {
    registry: Registry,
    pool: Arc<PoolMetrics>,
    keeper: StatisticsKeeper,
    worker: WorkerStatistics,
    now: Instant,
}

impl Setup {
    fn new() -> Self {
        let registry = registry();
        let now = now();
        let process = Arc::clone(&registry.process);
        let at = (now, SystemTime::UNIX_EPOCH);
        let keeper = StatisticsKeeper::start(StatisticsSettings::default(), process, at).unwrap();
        Self {
            pool: registry.register_pool(0, "app", "ann"),
            registry,
            worker: keeper.worker(),
            keeper,
            now,
        }
    }

    /// One that waited for 5 ms, took 10, and failed.
    fn observe_a_traced_query(&self) -> TraceId {
        let trace = provided(1, true);
        let id = trace.parent.unwrap().trace_id;
        let mut query = record(milliseconds(10));
        query.trace = Some(&trace);
        query.phases.queue_wait = milliseconds(5);
        query.phases.queue_cause = Some(QueueCause::PoolFull);
        query.outcome = Outcome::Failed(SqlState::SYNTAX_ERROR);
        self.worker
            .observe(&self.pool, &query, Some((id, None)), self.now);
        // Another thread reads the text.
        while self.keeper.statistics().statements().is_empty() {
            std::thread::yield_now();
        }
        id
    }
}

fn value<'a>(table: &'a Table, name: &str) -> &'a Value {
    let at = table.columns.iter().position(|column| column.name == name);
    &table.rows[0][at.unwrap()]
}
