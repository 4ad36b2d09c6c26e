use crate::connect;
use crate::support::authority::Authority;
use crate::support::collector::Otlp;
use crate::support::postgres::{psql, shared, statements_with};
use crate::support::proxy::Proxy;
use crate::support::{SPAN_ID, eventually};

fn config(collector: &Otlp, protocol: &str) -> String {
    format!(
        "[slow_query]\nthreshold = \"50ms\"\n[otlp]\nendpoint = \"{}\"\nprotocol = \"{protocol}\"\nschedule_delay = \"100ms\"\n",
        collector.endpoint()
    )
}

/// A trace for each test: they share the server.
fn conninfo(proxy: &Proxy, trace_id: &str) -> String {
    proxy.conninfo(&format!(
        "user=app dbname=app options='-c pgspan.traceparent=00-{trace_id}-{SPAN_ID}-01'"
    ))
}

#[test]
fn comment_span_log_line_and_exemplar_have_the_applications_trace_id() {
    let trace_id = "11111111111111111111111111111111";
    let collector = Otlp::grpc();
    let proxy = Proxy::in_front_of(shared(), &config(&collector, "grpc"));
    let said = psql(
        &conninfo(&proxy, trace_id),
        "SELECT pg_sleep(0.1), 'secret'",
    );
    assert!(said.succeeded, "{said:?}");

    assert_eq!(
        statements_with(shared(), trace_id),
        [format!(
            "SELECT pg_sleep($1), $2 /*traceparent='00-{trace_id}-{SPAN_ID}-01'*/"
        )]
    );

    let span =
        collector.wait_for(|span| span.trace_id() == trace_id && span.parent_span_id() == SPAN_ID);
    assert!(span.milliseconds() >= 100.0, "{span:?}");
    assert_eq!(
        span.attribute("db.system.name").as_deref(),
        Some("postgresql")
    );
    assert_eq!(span.attribute("db.namespace").as_deref(), Some("app"));
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    collector
        .wait_for(|phase| phase.trace_id() == trace_id && phase.parent_span_id() == span.span_id());

    let line = proxy.wait_for_log(&["slow_query", trace_id]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["event"], "slow_query");
    assert_eq!(line["trace_id"], trace_id);
    assert_eq!(line["span_id"], span.span_id());
    assert!(line["duration_ms"].as_f64().unwrap() >= 100.0, "{line}");
    assert!(!line.to_string().contains("secret"), "{line}");

    let has_exemplar = || {
        proxy
            .open_metrics()
            .lines()
            .any(|line| line.contains(" # {") && line.contains(trace_id))
            .then_some(())
    };
    eventually(has_exemplar).expect("an exemplar");
}

#[test]
fn spans_travel_over_http_too() {
    let trace_id = "22222222222222222222222222222222";
    let collector = Otlp::http();
    let proxy = Proxy::in_front_of(shared(), &config(&collector, "http/protobuf"));
    psql(&conninfo(&proxy, trace_id), "SELECT pg_sleep(0.1)");
    collector.wait_for(|span| span.trace_id() == trace_id && span.parent_span_id() == SPAN_ID);
}

#[test]
fn a_failed_query_is_a_span_with_its_sqlstate() {
    let trace_id = "33333333333333333333333333333333";
    let collector = Otlp::grpc();
    let proxy = Proxy::in_front_of(shared(), &config(&collector, "grpc"));
    psql(&conninfo(&proxy, trace_id), "SELECT nosuch");
    let span =
        collector.wait_for(|span| span.trace_id() == trace_id && span.parent_span_id() == SPAN_ID);
    assert_eq!(
        span.attribute("db.response.status_code").as_deref(),
        Some("42703")
    );
}

#[test]
fn queries_are_counted_by_how_their_context_came_about() {
    let proxy = Proxy::in_front_of(shared(), "");
    psql(
        &conninfo(&proxy, "44444444444444444444444444444444"),
        "SELECT 1",
    );
    psql(&proxy.conninfo("user=app dbname=app"), "SELECT 1");
    psql(
        &proxy.conninfo("user=app dbname=app options='-c pgspan.traceparent=nonsense'"),
        "SELECT 1",
    );
    for context in ["provided", "none", "invalid"] {
        let label = format!("context=\"{context}\"");
        let counted = || (proxy.metric("pgspan_queries_total", &[&label]) == 1.0).then_some(());
        eventually(counted).unwrap_or_else(|| panic!("{context} in {}", proxy.metrics()));
    }
}

#[test]
fn an_unreachable_collector_costs_no_query_anything() {
    let proxy = Proxy::in_front_of(
        shared(),
        "[slow_query]\nthreshold = \"0\"\nlog = false\n[otlp]\nendpoint = \"http://127.0.0.1:9\"\nqueue_size = 10\nschedule_delay = \"50ms\"\n",
    );
    let conninfo = proxy.conninfo("user=app dbname=app");
    let many = "SELECT 1;".repeat(50);
    for _ in 0..5 {
        assert!(psql(&conninfo, &many).succeeded);
    }
    let dropped = || (proxy.metric("pgspan_spans_dropped_total", &[]) > 0.0).then_some(());
    eventually(dropped).expect("dropped spans are counted");
}

#[tokio::test]
async fn what_only_the_server_understands_is_counted_and_stays_the_clients() {
    let config = "[pool]\nmode = \"transaction\"\nsize = 1\n";
    let proxy = Proxy::in_front_of(shared(), config);
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    let asked = "SELECT 1 WHERE coalesce(current_setting('pgspan.route', true), '') <> ''";
    for command in [
        "SELECT set_config('pgspan.route', 'a' || 'b', false)",
        "DO $$ BEGIN SET pgspan.route = '/a'; END $$",
    ] {
        let before = proxy.metric("pgspan_unrecognised_commands_total", &[]);
        ann.batch_execute(command).await.unwrap();
        let after = proxy.metric("pgspan_unrecognised_commands_total", &[]);
        assert_eq!(after, before + 1.0, "{command}");
        // The pool has one server.
        assert_eq!(ann.query(asked, &[]).await.unwrap().len(), 1, "{command}");
        assert_eq!(bob.query(asked, &[]).await.unwrap().len(), 0, "{command}");
        ann.batch_execute("RESET ALL").await.unwrap();
    }
}

/// A collector that is reached over TLS: known by its certificate, and knowing pgspan by another, as files and variables say.
#[test]
fn spans_reach_a_collector_behind_tls() {
    let authority = Authority::new();
    authority.issue("pgspan", "pgspan", &["pgspan"]);
    for (at, protocol) in ["grpc", "http/protobuf"].into_iter().enumerate() {
        let collector = match protocol {
            "grpc" => Otlp::grpc(),
            _ => Otlp::http(),
        };
        let endpoint = collector.behind_tls(&authority, true);
        let config = format!(
            "[slow_query]\nthreshold = \"50ms\"\n[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"{protocol}\"\n\
             schedule_delay = \"100ms\"\nca = {}\ncert = {}\nkey = {}\n",
            authority.quoted("ca.crt"),
            authority.quoted("pgspan.crt"),
            authority.quoted("pgspan.key"),
        );
        let proxy = Proxy::in_front_of(shared(), &config);
        let trace_id = format!("{:032x}", 0x71 + at);
        let said = psql(&conninfo(&proxy, &trace_id), "SELECT pg_sleep(0.1)");
        assert!(said.succeeded, "{said:?}");
        collector.wait_for(|span| span.trace_id() == trace_id);
    }
}

#[test]
fn a_collector_whose_certificate_is_of_nobody_trusted_or_names_another_gets_no_spans() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let collector = Otlp::grpc();
    let endpoint = collector.behind_tls(&authority, false);
    let by_address = endpoint.replace("localhost", "127.0.0.1");
    for (endpoint, ca) in [
        (&endpoint, stranger.quoted("ca.crt")),
        (&by_address, authority.quoted("ca.crt")),
        // The system's authorities.
        (&endpoint, "\"\"".to_owned()),
    ] {
        for protocol in ["grpc", "http/protobuf"] {
            let config = format!(
                "[slow_query]\nthreshold = \"50ms\"\n[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"{protocol}\"\n\
                 schedule_delay = \"100ms\"\nca = {ca}\n"
            );
            let proxy = Proxy::in_front_of(shared(), &config);
            let said = psql(&conninfo(&proxy, &"7f".repeat(16)), "SELECT pg_sleep(0.1)");
            assert!(said.succeeded, "{said:?}");
            proxy.wait_for_log(&["spans do not reach the collector"]);
        }
    }
    assert!(collector.spans().is_empty());
}
