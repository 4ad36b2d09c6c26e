//! Spans as text for people.

use std::fmt::Write as _;

use super::collector::ReceivedSpan;

/// The spans whose parent is not among the spans: an application's, or nobody.
pub(super) fn roots(spans: &[ReceivedSpan]) -> impl Iterator<Item = &ReceivedSpan> {
    spans.iter().filter(|span| {
        !spans
            .iter()
            .any(|other| other.span.span_id == span.span.parent_span_id)
    })
}

/// A span and what is below it: one line each, with a bar where in the whole its time lies.
pub(super) fn tree(root: &ReceivedSpan, spans: &[ReceivedSpan]) -> String {
    let mut text = format!("trace {}\n", root.trace_id());
    if !root.span.parent_span_id.is_empty() {
        writeln!(text, "└─ span {} of the application", root.parent_span_id())
            .expect("a String takes all");
    }
    write_below(&mut text, root, root, spans, 1);
    text
}

/// The phases of a query, in their order.
pub(super) fn children<'a>(
    parent: &'a ReceivedSpan,
    spans: &'a [ReceivedSpan],
) -> Vec<&'a ReceivedSpan> {
    let mut children: Vec<_> = spans
        .iter()
        .filter(|span| span.span.parent_span_id == parent.span.span_id)
        .collect();
    children.sort_by_key(|span| span.span.start_time_unix_nano);
    children
}

fn write_below(
    text: &mut String,
    span: &ReceivedSpan,
    root: &ReceivedSpan,
    spans: &[ReceivedSpan],
    depth: usize,
) {
    let name = format!("{}└─ {}", "   ".repeat(depth), span.span.name);
    writeln!(
        text,
        "{name:<44} {:>9.1} ms  {}",
        span.milliseconds(),
        bar(span, root)
    )
    .expect("a String takes all");
    if depth == 1 {
        for attribute in ["db.query.text", "db.namespace", "db.response.status_code"] {
            if let Some(value) = span.attribute(attribute) {
                writeln!(text, "{}   {attribute} = {value}", "   ".repeat(depth))
                    .expect("a String takes all");
            }
        }
    }
    for child in children(span, spans) {
        write_below(text, child, root, spans, depth + 1);
    }
}

fn bar(span: &ReceivedSpan, root: &ReceivedSpan) -> String {
    let (start, whole) = (root.span.start_time_unix_nano, root.milliseconds() * 1e6);
    let column = |time: u64| {
        (time.saturating_sub(start) as f64 / whole.max(1.0) * BAR_WIDTH)
            .round()
            .min(BAR_WIDTH) as usize
    };
    let (from, to) = (
        column(span.span.start_time_unix_nano),
        column(span.span.end_time_unix_nano),
    );
    format!(
        "{}{}",
        " ".repeat(from),
        "█".repeat(to.saturating_sub(from))
    ) + if from == to { "▏" } else { "" }
}

const BAR_WIDTH: f64 = 30.0;
