//! Collects what is wrong while a configuration is read, by key; then says where in the file that is.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::{Position, Problem};
use super::reader::{Reason, Refusal, enumerate, nearest};

/// What is wrong, and what is doubtful, so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// Something about one key, or about a variable of the environment.
pub(super) enum Finding {
    Key {
        path: Vec<String>,
        span: Option<Range<usize>>,
        reason: Reason,
    },
    Variable {
        name: &'static str,
        message: String,
    },
}

impl Findings {
    /// The value at `path`, or the lack of it, is wrong.
    pub(super) fn error(&mut self, path: &[&str], message: impl Into<String>) {
        self.errors.push(Finding::at(path, message.into()));
    }

    /// The value at `path` is allowed, but hardly meant.
    pub(super) fn warn(&mut self, path: &[&str], message: impl Into<String>) {
        self.warnings.push(Finding::at(path, message.into()));
    }

    /// A variable is ignored, as the OpenTelemetry specification demands of wrong ones.
    pub(super) fn ignored_variable(&mut self, name: &'static str, why: &str) {
        let message = format!("{name} is ignored: {why}");
        self.warnings.push(Finding::Variable { name, message });
    }
}

impl Finding {
    fn at(path: &[&str], message: String) -> Self {
        Self::Key {
            path: path.iter().map(|&key| key.to_owned()).collect(),
            span: None,
            reason: Reason::WrongValue(message),
        }
    }
}

impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Self {
        Self::Key {
            path: refusal.path,
            span: refusal.span,
            reason: refusal.reason,
        }
    }
}

/// The file that findings are about.
pub(super) struct Document<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) table: &'a DeTable<'a>,
}

/// The findings about several files in one, with their places. The last file that has a key is to blame for it.
pub(super) fn problems_of(documents: &[Document<'_>], findings: Vec<Finding>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for finding in findings {
        let path = match &finding {
            Finding::Key { path, .. } => path.as_slice(),
            Finding::Variable { .. } => &[],
        };
        let to_blame = documents.iter().rev().find(|document| document.has(path));
        if let Some(document) = to_blame.or_else(|| documents.first()) {
            problems.push(document.problem(finding));
        }
    }
    problems
        .sort_by(|one, other| (&one.source, one.position).cmp(&(&other.source, other.position)));
    problems
}

impl Document<'_> {
    /// The findings with their places, in the order of the file.
    pub(super) fn problems(&self, findings: Vec<Finding>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = findings
            .into_iter()
            .map(|finding| self.problem(finding))
            .collect();
        problems.sort_by_key(|problem| problem.position);
        problems
    }

    /// A mistake of grammar: without the line itself, which may hold a secret.
    pub(super) fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        Problem {
            source: self.name.into(),
            position: error.span().map(|span| Position::of(self.text, span.start)),
            key: "".into(),
            message: error.message().into(),
        }
    }

    fn problem(&self, finding: Finding) -> Problem {
        let (path, span, reason) = match finding {
            Finding::Key { path, span, reason } => (path, span, reason),
            Finding::Variable { name, message } => {
                return Problem {
                    source: "environment".into(),
                    position: None,
                    key: name.into(),
                    message: message.into(),
                };
            }
        };
        let (nearest_span, is_table) = self.locate(&path);
        Problem {
            source: self.name.into(),
            position: span
                .or(nearest_span)
                .map(|span| Position::of(self.text, span.start)),
            key: dotted(&path).into(),
            message: message(&path, is_table, &reason).into(),
        }
    }

    /// Whether the key is written here.
    fn has(&self, path: &[String]) -> bool {
        let Some((last, tables)) = path.split_last() else {
            return true;
        };
        let mut table = self.table;
        for key in tables {
            match table.get(key.as_str()).map(|value| value.get_ref()) {
                Some(DeValue::Table(inner)) => table = inner,
                _ => return false,
            }
        }
        table.contains_key(last.as_str())
    }

    /// The place of the key, or of the nearest table around it that is written; and whether the key is a table.
    fn locate(&self, path: &[String]) -> (Option<Range<usize>>, bool) {
        let mut table = self.table;
        let mut span = None;
        for (depth, key) in path.iter().enumerate() {
            let Some((written, value)) = table.get_key_value(key.as_str()) else {
                return (span, false);
            };
            match value.get_ref() {
                DeValue::Table(inner) => {
                    span = Some(written.span());
                    table = inner;
                }
                _ => return (Some(value.span()), depth + 1 < path.len()),
            }
        }
        (span, true)
    }
}

fn message(path: &[String], is_table: bool, reason: &Reason) -> String {
    let (key, table) = match path.split_last() {
        Some((key, table)) if !is_table => (Some(key), table),
        _ => (None, path),
    };
    let place = match (table, key) {
        ([], None) => String::new(),
        // The root holds tables only, whatever is written in their stead.
        ([], Some(_)) => format!("[{}]", dotted(path)),
        (table, None) => format!("[{}]", dotted(table)),
        (table, Some(key)) => format!("`{key}` in [{}]", dotted(table)),
    };
    match reason {
        Reason::WrongValue(message) => format!("{place}: {message}"),
        Reason::UnknownKey(known) => unknown_key(path, known),
    }
}

fn unknown_key(path: &[String], known: &[&str]) -> String {
    let Some((key, table)) = path.split_last() else {
        return "unknown key".to_owned();
    };
    let place = match table {
        [] => format!("unknown table [{}]", dotted(path)),
        table => format!("unknown key `{key}` in [{}]", dotted(table)),
    };
    match nearest(key, known) {
        Some(name) if table.is_empty() => format!("{place}, did you mean [{name}]?"),
        Some(name) => format!("{place}, did you mean `{name}`?"),
        None => format!("{place}; known are {}", enumerate(known)),
    }
}

/// The keys as TOML writes them: `databases."*".host`.
pub(super) fn dotted(path: &[String]) -> String {
    let keys: Vec<String> = path
        .iter()
        .map(|key| {
            let is_bare = !key.is_empty()
                && key
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
            if is_bare {
                key.clone()
            } else {
                format!("{key:?}")
            }
        })
        .collect();
    keys.join(".")
}
