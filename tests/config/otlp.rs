//! OpenTelemetry's variables and the table that they go with.

use std::time::Duration;

use pgspan::config::Otlp;
use pgspan::config::choices::{Compression, OtlpProtocol};
use pgspan::config::secret::Secret;
use pgspan::config::tls::{Authorities, TextFile};

use crate::{load, otlp, wrong};

#[test]
fn without_an_endpoint_no_spans_leave() {
    assert_eq!(otlp("", &[]), Otlp::default());
    assert_eq!(otlp("endpoint = \"\"", &[]).endpoint, None);
}

#[test]
fn the_files_endpoint_gets_the_standard_path_if_it_has_none() {
    let endpoint = |text: &str| otlp(text, &[]).endpoint.unwrap();
    assert_eq!(&*endpoint("endpoint = \"http://c:4317\""), "http://c:4317/");
    let http = "protocol = \"http/protobuf\"\nendpoint = ";
    assert_eq!(
        &*endpoint(&format!("{http}\"http://c:4318\"")),
        "http://c:4318/v1/traces"
    );
    assert_eq!(
        &*endpoint(&format!("{http}\"http://c:4318/otlp\"")),
        "http://c:4318/otlp"
    );
}

#[test]
fn a_general_endpoint_is_a_base_and_that_of_traces_is_used_as_it_is() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318/otlp/");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318");
    let endpoint = |variables: &[(&str, &str)]| {
        otlp("endpoint = \"http://file:4317\"", variables)
            .endpoint
            .unwrap()
    };
    assert_eq!(&*endpoint(&[http, base]), "https://c:4318/otlp/v1/traces");
    assert_eq!(&*endpoint(&[http, base, own]), "http://t:4318/");
    assert_eq!(&*endpoint(&[base]), "https://c:4318/otlp/");
    assert_eq!(
        &*endpoint(&[http]),
        "http://file:4318/v1/traces".replace("4318", "4317")
    );
}

#[test]
fn the_files_for_tls_come_from_the_table_or_the_variables() {
    let table = "[otlp]\nca = \"/ca\"\ncert = \"/cert\"\nkey = \"/key\"\n";
    let files = [
        ("/ca", "A"),
        ("/cert", "B"),
        ("/key", "C"),
        ("/own", "D"),
        ("/general", "E"),
    ];
    let load = |table: &str, variables: &[(&str, &str)]| load(table, variables, &files);
    let texts = |variables: &[(&str, &str)]| {
        let tls = load(table, variables).unwrap().0.otlp.tls;
        let text = |file: Option<TextFile>| file.map(|file| file.text.expose().to_owned());
        let ca = tls.ca.as_ref().and_then(Authorities::file).cloned();
        [text(ca), text(tls.cert), text(tls.key)].map(Option::unwrap)
    };
    assert_eq!(texts(&[]), ["A", "B", "C"]);
    let general = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/general");
    assert_eq!(texts(&[general]), ["E", "B", "C"]);
    let own = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own");
    let cert = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/own");
    let key = ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/general");
    assert_eq!(texts(&[general, own, cert, key]), ["D", "D", "E"]);

    let lost = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/lost");
    assert!(
        load(table, &[lost])
            .unwrap_err()
            .to_string()
            .contains("/lost cannot be read")
    );
    let half = load("[otlp]\ncert = \"/cert\"\n", &[]).unwrap_err();
    assert!(
        half.to_string()
            .contains("`cert` and `key` belong together")
    );
}

#[test]
fn variables_override_the_file() {
    let otlp = otlp(
        r#"
        endpoint = "http://file:4317"
        queue_size = 7
        service_name = "file"
        headers = { a = "file", b = "file" }
        resource_attributes = { region = "file", zone = "file" }
        "#,
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", ""),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Key=a%20b,"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=attribute,zone=b%2C1",
            ),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "200"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ],
    );
    assert_eq!(otlp.protocol, OtlpProtocol::HttpProtobuf);
    assert_eq!(otlp.export_timeout, Duration::from_secs(2));
    assert_eq!(otlp.headers, [("key".into(), Secret::new("a b"))]);
    assert_eq!(otlp.compression, Compression::Gzip);
    assert_eq!(otlp.service_name, "attribute".into());
    assert_eq!(
        otlp.resource_attributes,
        [
            ("region".into(), "file".into()),
            ("zone".into(), "b,1".into())
        ]
    );
    assert_eq!(otlp.queue_size.get(), 200);
    assert_eq!(otlp.max_export_batch_size.get(), 200);
    assert_eq!(otlp.schedule_delay, Duration::from_millis(250));
}

#[test]
fn the_service_name_wins_over_the_attribute() {
    let variables = [
        ("OTEL_SERVICE_NAME", "name"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute"),
    ];
    assert_eq!(otlp("", &variables).service_name, "name".into());
}

#[test]
fn spans_can_be_switched_off_by_a_variable() {
    for variable in [
        ("OTEL_SDK_DISABLED", "TRUE"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        assert_eq!(
            otlp("endpoint = \"http://file:4317\"", &[variable]).endpoint,
            None
        );
    }
    let on = otlp(
        "endpoint = \"http://file:4317\"",
        &[("OTEL_SDK_DISABLED", "false")],
    );
    assert_eq!(on.endpoint, Some("http://file:4317/".into()));
}

#[test]
fn a_wrong_variable_is_ignored_with_a_warning() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3s"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush"),
    ];
    let (config, warnings) = load(
        "databases.app = {}\nusers.x.password = \"y\"",
        &variables,
        &[],
    )
    .unwrap();
    assert_eq!(config.otlp, Otlp::default());
    assert_eq!(
        warnings,
        [
            "environment: OTEL_EXPORTER_OTLP_PROTOCOL is ignored: expected `grpc` or `http/protobuf`",
            "environment: OTEL_EXPORTER_OTLP_TIMEOUT is ignored: expected milliseconds, 1 or more",
            "environment: OTEL_EXPORTER_OTLP_HEADERS is ignored: expected name=value,name=value with values \
             percent-encoded"
        ]
    );
}

#[test]
fn a_batch_fits_into_the_queue() {
    assert_eq!(
        wrong("[otlp]\nqueue_size = 10\nmax_export_batch_size = 11"),
        "config.toml:3:25: `max_export_batch_size` in [otlp]: a batch cannot be larger than the queue of 10"
    );
    assert_eq!(otlp("queue_size = 10", &[]).max_export_batch_size.get(), 10);
}
