//! What is scraped, as Prometheus sees it: its own checker and a real server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use pgspan::dev::postgres::free_port;
use tempfile::TempDir;

use crate::support::postgres::{psql, shared};
use crate::support::proxy::Proxy;
use crate::support::{SPAN_ID, eventually};

#[test]
fn the_metrics_pass_promtools_check() {
    let proxy = busy_proxy("55555555555555555555555555555555");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(proxy.metrics().as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn a_real_prometheus_scrapes_queries_phases_and_exemplars() {
    let trace_id = "66666666666666666666666666666666";
    let proxy = busy_proxy(trace_id);
    let prometheus = Prometheus::scraping(proxy.http_port());
    let calls = || {
        let answer = prometheus.get("/api/v1/query?query=sum(pgspan_queries_total)")?;
        let calls = answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse::<f64>();
        (calls.ok()? >= 5.0).then_some(())
    };
    eventually(calls).expect("queries are counted");

    let target = prometheus.get("/api/v1/targets").unwrap();
    let target = &target["data"]["activeTargets"][0];
    assert_eq!(target["health"], "up", "{target}");
    assert_eq!(target["lastError"], "", "{target}");

    for query in [
        "histogram_quantile(0.95,sum(pgspan_query_phase_seconds_bucket{phase=\"server_first_byte\"})by(le))",
        "sum(pgspan_pool_servers{state=\"idle\"})",
        "sum(pgbouncer_stats_queries_total{database=\"app\"})",
        "pgspan_login_duration_seconds_count",
    ] {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        let answer = prometheus.get(&path).unwrap();
        let value = answer["data"]["result"][0]["value"][1].as_str();
        let value: f64 = value
            .unwrap_or_else(|| panic!("{query}: {answer}"))
            .parse()
            .unwrap();
        assert!(value > 0.0, "{query}: {answer}");
    }

    let exemplars = || {
        let path = "/api/v1/query_exemplars?query=pgspan_query_duration_seconds_bucket&start=0&end=9999999999";
        let answer = prometheus.get(path)?;
        answer.to_string().contains(trace_id).then_some(())
    };
    eventually(exemplars).expect("an exemplar with the trace id");
}

/// A proxy that has answered a few queries, a slow one of this trace among them.
fn busy_proxy(trace_id: &str) -> Proxy {
    let config =
        "[databases.app]\nhost = \"127.0.0.1\"\nport = PORT\n[slow_query]\nthreshold = \"50ms\"\n";
    let config = config.replace("PORT", &shared().port().to_string());
    let proxy = Proxy::in_front_of(shared(), &config);
    let conninfo = proxy.conninfo(&format!(
        "user=app dbname=app options='-c pgspan.traceparent=00-{trace_id}-{SPAN_ID}-01'"
    ));
    for sql in [
        "SELECT 1",
        "SELECT 2",
        "SELECT 3",
        "SELECT nosuch",
        "SELECT pg_sleep(0.1)",
    ] {
        psql(&conninfo, sql);
    }
    proxy
}

/// A Prometheus of one's own, gone with its owner.
struct Prometheus {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Prometheus {
    fn scraping(port: u16) -> Self {
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\n\
             scrape_configs: [{{ job_name: pgspan, static_configs: [{{ targets: [\"127.0.0.1:{port}\"] }}] }}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let own = free_port().unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{own}"))
            .arg("--enable-feature=exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus, of Debian's package of that name");
        Self {
            process,
            port: own,
            _directory: directory,
        }
    }

    /// `None` where it does not answer yet.
    fn get(&self, path: &str) -> Option<serde_json::Value> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn percent_encoded(text: &str) -> String {
    (text.bytes())
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
