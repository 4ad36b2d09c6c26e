//! What `/metrics` answers: Prometheus text, or OpenMetrics 1.0 with exemplars.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use crate::telemetry::families::WITH_EXEMPLARS;
use crate::telemetry::metrics::{Exemplar, Exemplars};
use crate::telemetry::registry::Gathered;

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an Accept header prefers; text where it does not care or there is none.
    ///
    /// Source: RFC 9110, 12.5.1; only the quality is looked at, not the version.
    pub fn accepted(accept: Option<&str>) -> Self {
        let quality = |names: &[&str]| {
            (accept.unwrap_or_default().split(','))
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    let name = parts.next()?;
                    names
                        .iter()
                        .any(|wanted| name.eq_ignore_ascii_case(wanted))
                        .then(|| {
                            parts
                                .find_map(|part| part.strip_prefix("q="))
                                .map_or(1.0, |quality| quality.trim().parse().unwrap_or(0.0))
                        })
                })
                .fold(0.0, f64::max)
        };
        let open_metrics = quality(&["application/openmetrics-text"]);
        if open_metrics > 0.0 && open_metrics >= quality(&["text/plain", "text/*"]) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The value of the Content-Type header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What was gathered, in this format.
    pub fn encode(self, gathered: &Gathered) -> String {
        match self {
            Self::Text => TextEncoder::new()
                .encode_to_string(&gathered.families)
                .expect("every gathered family has a name and a metric"),
            Self::OpenMetrics => {
                let mut text = String::new();
                write_open_metrics(&mut text, gathered).expect("a String takes everything");
                text
            }
        }
    }
}

fn write_open_metrics(text: &mut String, gathered: &Gathered) -> fmt::Result {
    for family in &gathered.families {
        write_family(text, family, gathered)?;
    }
    text.write_str("# EOF\n")
}

fn write_family(text: &mut String, family: &MetricFamily, gathered: &Gathered) -> fmt::Result {
    let kind = family.get_field_type();
    // Of a counter the family's name goes without the suffix, the sample's with it.
    let name = match kind {
        MetricType::COUNTER => family.name().trim_end_matches("_total"),
        _ => family.name(),
    };
    // An info is a gauge whose value is always 1; its sample keeps the name.
    let kind_name = match kind {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    writeln!(text, "# TYPE {name} {kind_name}")?;
    for unit in ["seconds", "bytes"] {
        if name
            .strip_suffix(unit)
            .is_some_and(|rest| rest.ends_with('_'))
        {
            writeln!(text, "# UNIT {name} {unit}")?;
        }
    }
    writeln!(text, "# HELP {name} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match kind {
            MetricType::COUNTER => {
                let value = metric.get_counter().get_value();
                writeln!(text, "{name}_total{} {value}", Labels(labels, None))?;
            }
            MetricType::HISTOGRAM => {
                write_histogram(text, name, metric, exemplars_of(gathered, name, labels))?;
            }
            _ => {
                let value = metric.get_gauge().get_value();
                writeln!(text, "{name}{} {value}", Labels(labels, None))?;
            }
        }
    }
    Ok(())
}

fn write_histogram(
    text: &mut String,
    name: &str,
    metric: &Metric,
    exemplars: Option<&Exemplars>,
) -> fmt::Result {
    let histogram = metric.get_histogram();
    let labels = metric.get_label();
    let buckets = (histogram.get_bucket().iter())
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .chain([(f64::INFINITY, histogram.get_sample_count())]);
    for (index, (bound, count)) in buckets.enumerate() {
        write!(
            text,
            "{name}_bucket{} {count}",
            Labels(labels, Some(("le", &Bound(bound))))
        )?;
        if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars.get(index)?.as_ref()) {
            write_exemplar(text, exemplar)?;
        }
        text.write_char('\n')?;
    }
    let (count, sum) = (histogram.get_sample_count(), histogram.get_sample_sum());
    writeln!(text, "{name}_count{} {count}", Labels(labels, None))?;
    writeln!(text, "{name}_sum{} {sum}", Labels(labels, None))
}

/// The label names are those that OpenTelemetry's and Prometheus' documentation use for exemplars.
fn write_exemplar(text: &mut String, exemplar: &Exemplar) -> fmt::Result {
    let at = (exemplar.at.duration_since(UNIX_EPOCH)).map_or(0.0, |at| at.as_secs_f64());
    write!(text, " # {{trace_id=\"{}\"", exemplar.trace_id)?;
    if let Some(span_id) = exemplar.span_id {
        write!(text, ",span_id=\"{span_id}\"")?;
    }
    let duration = exemplar.duration.as_secs_f64();
    write!(text, "}} {duration} {at:.3}")
}

fn exemplars_of<'a>(
    gathered: &'a Gathered,
    name: &str,
    labels: &[LabelPair],
) -> Option<&'a Exemplars> {
    let [database, user] = labels else {
        return None;
    };
    if name != WITH_EXEMPLARS {
        return None;
    }
    (gathered.exemplars).get(&(Arc::from(database.value()), Arc::from(user.value())))
}

/// Labels in braces, with one more at the end; nothing where there are none.
struct Labels<'a>(&'a [LabelPair], Option<(&'a str, &'a dyn fmt::Display)>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(labels, last) = self;
        let mut separator = '{';
        for label in *labels {
            write!(
                f,
                "{separator}{}=\"{}\"",
                label.name(),
                Escaped(label.value())
            )?;
            separator = ',';
        }
        if let Some((name, value)) = last {
            write!(f, "{separator}{name}=\"{value}\"")?;
            separator = ',';
        }
        match separator {
            ',' => f.write_char('}'),
            _ => Ok(()),
        }
    }
}

/// A bucket's bound as OpenMetrics' canonical numbers are: `1.0`, not `1`.
struct Bound(f64);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            f.write_str("+Inf")
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::telemetry::registry::tests::{exemplar, now, record, registry};

    #[test]
    fn the_accept_header_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(
            Format::accepted(Some("application/openmetrics-text")),
            Format::OpenMetrics
        );
        assert_eq!(
            Format::accepted(Some("application/openmetrics-text;q=0")),
            Format::Text
        );
        assert_eq!(
            Format::accepted(Some("application/openmetrics-text;q=0.1, text/plain;q=0.2")),
            Format::Text
        );
        assert_eq!(Format::accepted(Some("*/*")), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }

    #[test]
    fn a_slow_query_is_the_exemplar_of_its_bucket() {
        let text = Format::OpenMetrics.encode(&gathered());
        let bucket = "pgspan_query_duration_seconds_bucket{database=\"app\",user=\"ann\",le=";
        assert!(text.contains(&format!("{bucket}\"0.1\"}} 0\n")), "{text}");
        assert!(
            text.contains(&format!(
                "{bucket}\"0.25\"}} 1 # {{trace_id=\"{}\",span_id=\"{}\"}} 0.2 7.000\n",
                "ab".repeat(16),
                "cd".repeat(8)
            )),
            "{text}"
        );
        assert!(text.contains(&format!("{bucket}\"+Inf\"}} 1\n")), "{text}");
    }

    #[test]
    fn open_metrics_names_counters_without_their_suffix_and_ends_with_eof() {
        let text = Format::OpenMetrics.encode(&gathered());
        assert!(text.contains(
            "# TYPE pgspan_client_received_bytes counter\n# UNIT pgspan_client_received_bytes bytes\n"
        ));
        assert!(
            text.contains("pgspan_client_received_bytes_total{database=\"app\",user=\"ann\"} 0\n")
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_text_format_has_no_exemplars() {
        let text = Format::Text.encode(&gathered());
        assert!(text.contains("# TYPE pgspan_query_duration_seconds histogram\n"));
        assert!(!text.contains("trace_id"));
    }

    #[test]
    fn a_name_can_not_break_out_of_its_label() {
        let registry = registry();
        registry.register_pool(0, "a\"b\\c\nd", "ann");
        let text = Format::OpenMetrics.encode(&registry.gather(now()));
        assert!(
            text.contains("pgspan_pool_clients{database=\"a\\\"b\\\\c\\nd\",user=\"ann\"} 0\n")
        );
    }

    #[test]
    fn promtool_has_nothing_to_say_where_it_is_installed() {
        // It reads the text format only.
        let text = Format::Text.encode(&gathered());
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            return;
        };
        let mut input = promtool.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        let output = promtool.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(output.status.success());
    }

    fn gathered() -> Gathered {
        let registry = registry();
        let pool = registry.register_pool(0, "app", "ann");
        pool.observe(&record(Duration::from_millis(200)));
        pool.keep_exemplar(exemplar(7));
        registry.gather(now())
    }
}
