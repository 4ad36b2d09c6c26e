//! An example application sends queries, and what came of them is shown. Each thing that is shown is checked.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use serde_json::Value;

use super::collector::ReceivedSpan;
use super::{Stage, spans};

/// Sends the queries and shows what came of them; whether everything was there.
pub(super) fn show(stage: &Stage) -> bool {
    let Some(traces) = Traces::new() else {
        println!("  ✗ no random numbers for trace ids");
        return false;
    };
    println!("An application runs: psql as /checkout of `shop`, pgbench as /search and /report …");
    if let Err(complaint) = send_queries(stage, &traces) {
        println!("  ✗ {complaint}");
        return false;
    }
    let shown = [
        show_statements(stage, &traces),
        show_prepared_statement(stage),
        show_spans(stage, &traces),
        show_queue(stage, &traces),
        show_log(stage, &traces),
        show_metrics(stage, &traces),
    ];
    let seen = shown.iter().filter(|seen| **seen).count();
    println!("\n{seen} of {} things seen.", shown.len());
    seen == shown.len()
}

/// The traces of the example application, made up anew for each run.
struct Traces {
    checkout: Trace,
    search: Trace,
    report: Trace,
}

struct Trace {
    id: String,
    span_id: String,
}

impl Traces {
    fn new() -> Option<Self> {
        Some(Self {
            checkout: Trace::new()?,
            search: Trace::new()?,
            report: Trace::new()?,
        })
    }
}

impl Trace {
    fn new() -> Option<Self> {
        let mut random = [1; 24];
        getrandom::fill(&mut random).ok()?;
        let hexadecimal: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, span_id) = hexadecimal.split_at(32);
        Some(Self {
            id: id.to_owned(),
            span_id: span_id.to_owned(),
        })
    }

    /// A DATABASE_URL that carries this trace and a route.
    fn url(&self, stage: &Stage, route: &str) -> String {
        let Self { id, span_id } = self;
        // In a URL `%3D` is `=`, `%27` is `'` and `%25` is `%`: the route is encoded twice, once for the comment, once for the URL.
        format!(
            "{}?options=-c%20pgspan.traceparent%3D00-{id}-{span_id}-01%20-c%20pgspan.tags%3Dapplication%3D%27shop%27,route%3D%27%252F{route}%27",
            stage.database_url("app")
        )
    }
}

fn send_queries(stage: &Stage, traces: &Traces) -> Result<(), String> {
    let binaries = stage.postgres.binaries();
    let checkout = traces.checkout.url(stage, "checkout");
    println!("\n  $ psql '{checkout}'");
    for sql in CHECKOUT {
        println!("  app=> {sql}");
        run(binaries
            .command("psql")
            .args(["-X", "-q", "-d", &checkout, "-c", sql]))?;
    }
    let search = traces.search.url(stage, "search");
    let pgbench = |url: &str, script: &str, options: &[&str]| {
        let file = stage.postgres.directory().join("pgbench.sql");
        fs::write(&file, script).map_err(|error| error.to_string())?;
        run(binaries
            .command("pgbench")
            .args(["-n", "-f"])
            .arg(&file)
            .args(options)
            .arg(url))
    };
    pgbench(&search, SEARCH, &["-c", "4", "-t", "100", "-M", "simple"])?;
    pgbench(
        &search,
        PREPARED,
        &["-c", "4", "-t", "100", "-M", "prepared"],
    )?;
    // More clients than the pool has servers: some must wait.
    pgbench(
        &traces.report.url(stage, "report"),
        REPORT,
        &["-c", "8", "-t", "1", "-M", "simple"],
    )
}

fn show_statements(stage: &Stage, traces: &Traces) -> bool {
    heading("pg_stat_statements says whose query it is");
    let rows = statements(stage, "strpos(query, 'shop') > 0");
    rows.iter().for_each(|row| println!("  {row}"));
    let id = &traces.checkout.id;
    let is_tagged = |row: &String| {
        [
            "SELECT count(*) FROM orders",
            "application='shop'",
            "route='%2Fcheckout'",
            id,
        ]
        .iter()
        .all(|part| row.contains(part))
    };
    seen(
        "the statement with application, route and trace id of the checkout",
        rows.iter().any(is_tagged),
    )
}

fn show_prepared_statement(stage: &Stage) -> bool {
    heading("Prepared statements stay as they are");
    let rows = statements(
        stage,
        "strpos(query, 'LIMIT') > 0 AND strpos(query, '$1') > 0",
    );
    rows.iter().for_each(|row| println!("  {row}"));
    seen(
        "pgbench's prepared statement without a comment",
        !rows.is_empty() && rows.iter().all(|row| !row.contains("/*")),
    )
}

fn show_spans(stage: &Stage, traces: &Traces) -> bool {
    heading("A slow query is a span in the application's own trace");
    let Trace { id, span_id } = &traces.checkout;
    let is_query =
        |span: &ReceivedSpan| span.trace_id() == *id && span.parent_span_id() == *span_id;
    let found = wait_for(|| {
        let spans = stage.collector.kept().spans();
        let query = spans
            .iter()
            .find(|span| is_query(span) && !spans::children(span, &spans).is_empty())?
            .clone();
        Some((query, spans))
    });
    let Some((query, spans)) = found else {
        return seen("a span below the application's, with its phases", false);
    };
    print!("{}", indented(&spans::tree(&query, &spans)));
    seen(
        "a span below the application's, of the query's duration, with its phases",
        query.milliseconds() >= SLOW_MILLISECONDS,
    )
}

fn show_queue(stage: &Stage, traces: &Traces) -> bool {
    heading("Waiting for the pool is not mistaken for a slow server (8 clients, 4 servers)");
    let found = wait_for(|| {
        let spans = stage.collector.kept().spans();
        let of_the_report = spans::roots(&spans).filter(|span| span.trace_id() == traces.report.id);
        let wait = |span: &ReceivedSpan| {
            let phases = spans::children(span, &spans);
            phases
                .iter()
                .filter(|phase| phase.span.name.contains("queue"))
                .map(|phase| phase.milliseconds())
                .sum::<f64>()
        };
        let longest = of_the_report.max_by(|a, b| wait(a).total_cmp(&wait(b)))?;
        (wait(longest) > REPORT_MILLISECONDS / 2.0).then(|| (longest.clone(), spans.clone()))
    });
    if let Some((query, spans)) = &found {
        print!("{}", indented(&spans::tree(query, spans)));
    }
    seen("a span that waited for the pool", found.is_some())
}

fn show_log(stage: &Stage, traces: &Traces) -> bool {
    heading("The log has the same trace id");
    let is_ours = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["event"] == "slow_query" && line["trace_id"] == traces.checkout.id.as_str()
    };
    let found = wait_for(|| stage.proxy.log_lines().into_iter().find(is_ours));
    if let Some(line) = &found {
        println!("  {line}");
    }
    seen("a line of JSON for the slow query", found.is_some())
}

fn show_metrics(stage: &Stage, traces: &Traces) -> bool {
    heading("Prometheus gets histograms by phase, with a trace id as exemplar");
    let ids = [&traces.checkout.id, &traces.search.id, &traces.report.id];
    let found = wait_for(|| {
        let metrics = stage
            .proxy
            .http(
                "/metrics",
                "Accept: application/openmetrics-text; version=1.0.0\r\n",
            )
            .ok()?;
        let exemplar = metrics
            .lines()
            .find(|line| line.contains(" # {") && ids.iter().any(|id| line.contains(*id)))?;
        let provided = metrics.lines().find(|line| {
            line.starts_with("pgspan_queries_total") && line.contains("context=\"provided\"")
        })?;
        let waits = metrics
            .lines()
            .filter(|line| line.starts_with("pgspan_query_phase_seconds_sum"));
        Some(
            [exemplar, provided]
                .into_iter()
                .chain(waits)
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    });
    found.iter().flatten().for_each(|line| println!("  {line}"));
    let has_phases =
        found.is_some_and(|lines| lines.iter().any(|line| line.contains("queue_wait")));
    seen(
        "an exemplar of the application's trace, queries with their context provided, and phases",
        has_phases,
    )
}

/// Rows of pg_stat_statements: how often, and the text as the server keeps it.
fn statements(stage: &Stage, condition: &str) -> Vec<String> {
    let sql = format!(
        "SELECT calls || ' calls  ' || regexp_replace(query, '\\s+', ' ', 'g') FROM pg_stat_statements
         WHERE {condition} AND strpos(query, 'pg_stat_statements') = 0 ORDER BY calls DESC, query"
    );
    match stage.postgres.psql("app", &sql) {
        Ok(rows) => rows.lines().map(str::to_owned).collect(),
        Err(error) => {
            println!("  {error}");
            Vec::new()
        }
    }
}

fn heading(text: &str) {
    println!("\n── {text}");
}

fn seen(what: &str, is_seen: bool) -> bool {
    println!("  {} {what}", if is_seen { '✓' } else { '✗' });
    let _ = std::io::stdout().flush();
    is_seen
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// What is exported or logged a little later than the query ends.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..LOOKS {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(LOOK_PAUSE);
    }
    None
}

const CHECKOUT: &[&str] = &[
    "SELECT count(*) FROM orders WHERE customer = 42;",
    "UPDATE orders SET paid = true WHERE id = 42;",
    "SELECT pg_sleep(0.25), sum(id) FROM orders WHERE customer = 42;",
];
const SEARCH: &str = "\\set id random(1, 10000)\nSELECT paid FROM orders WHERE id = :id;\n";
const PREPARED: &str =
    "\\set id random(1, 10000)\nSELECT id FROM orders WHERE customer = :id ORDER BY id LIMIT 5;\n";
const REPORT: &str = "SELECT pg_sleep(0.2), count(*) FROM orders;\n";

const SLOW_MILLISECONDS: f64 = 250.0;
const REPORT_MILLISECONDS: f64 = 200.0;
const LOOKS: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
