//! `SELECT … FROM view WHERE … ORDER BY … LIMIT …` over what the console shows, so that dblink and postgres_fdw can join it.
//!
//! A small part of SQL, of the kind that postgres_fdw writes: columns or `*` or `count(*)`, comparisons with literals joined by
//! AND, ORDER BY columns, LIMIT and OFFSET. Casts are read and left out: values are compared as what they are.

mod parse;

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::admin::table::{Column, Table, Type, Value};

/// A SELECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// What it reads: a name as SHOW knows it, in lower case.
    pub view: Box<str>,
    items: Vec<Item>,
    conditions: Vec<Condition>,
    order: Vec<Order>,
    limit: Option<usize>,
    offset: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Item {
    /// `*`
    All,
    /// A column, perhaps under another name.
    Column { name: String, shown_as: String },
    /// `NULL`, or a literal, which postgres_fdw asks for when it only counts.
    Literal(Value, String),
    /// `count(*)`
    Count(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    column: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Compares(Comparison, Value),
    IsNull,
    IsNotNull,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
}

#[derive(Clone, Debug, PartialEq)]
struct Order {
    column: String,
    descends: bool,
    nulls_first: bool,
}

/// Why a SELECT can't be read, or names what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// It is none that is understood; what was found instead of what is.
    #[error("syntax error at or near \"{0}\"")]
    Syntax(String),
    /// There is no such column.
    #[error("column \"{0}\" does not exist")]
    NoColumn(String),
}

impl Select {
    /// What a condition demands that a column be equal to, if one does.
    pub fn demanded(&self, column: &str) -> Option<String> {
        let conditions = self.conditions.iter();
        let mut equal = conditions.filter_map(|condition| match &condition.test {
            Test::Compares(Comparison::Equal, value) if condition.column == column => {
                value.to_text().map(Cow::into_owned)
            }
            _ => None,
        });
        equal.next()
    }

    /// What it selects of `table`.
    ///
    /// # Errors
    /// If it names a column that is not there.
    pub fn of(&self, table: Table) -> Result<Table, SelectError> {
        let Table { columns, mut rows } = table;
        let place = |name: &str| {
            columns
                .iter()
                .position(|column| column.name == name)
                .ok_or_else(|| SelectError::NoColumn(name.to_owned()))
        };
        let mut tests = Vec::new();
        for condition in &self.conditions {
            tests.push((place(&condition.column)?, &condition.test));
        }
        let mut order = Vec::new();
        for by in &self.order {
            order.push((place(&by.column)?, by));
        }
        let mut shown: Vec<(Column, Shown<'_>)> = Vec::new();
        for item in &self.items {
            match item {
                Item::All => {
                    let all = columns.iter().cloned().enumerate();
                    shown.extend(all.map(|(at, column)| (column, Shown::At(at))));
                }
                Item::Column { name, shown_as } => {
                    let at = place(name)?;
                    let kind = columns.get(at).map_or(Type::Text, |column| column.kind);
                    shown.push((column(shown_as, kind), Shown::At(at)));
                }
                Item::Literal(value, name) => {
                    let kind = match value {
                        Value::Int(_) => Type::Int8,
                        Value::Float(_) => Type::Float8,
                        Value::Bool(_) => Type::Bool,
                        Value::Null | Value::Text(_) => Type::Text,
                    };
                    shown.push((column(name, kind), Shown::Literal(value)));
                }
                Item::Count(name) => shown.push((column(name, Type::Int8), Shown::Count)),
            }
        }
        rows.retain(|row| {
            tests
                .iter()
                .all(|(at, test)| row.get(*at).is_some_and(|value| test.holds(value)))
        });
        rows.sort_by(|one, other| {
            let mut places = order.iter();
            places
                .find_map(|(at, by)| {
                    let ordering = by.compare(one.get(*at)?, other.get(*at)?);
                    (ordering != Ordering::Equal).then_some(ordering)
                })
                .unwrap_or(Ordering::Equal)
        });
        let counted = rows.len();
        if self.items.iter().any(|item| matches!(item, Item::Count(_))) {
            // An aggregate without GROUP BY is one row.
            rows.truncate(1);
            if rows.is_empty() {
                rows.push(vec![Value::Null; columns.len()]);
            }
        }
        let rows = rows
            .into_iter()
            .skip(self.offset)
            .take(self.limit.unwrap_or(usize::MAX))
            .map(|row| {
                let values = shown.iter().map(|(_, shown)| match shown {
                    Shown::At(at) => row.get(*at).cloned().unwrap_or(Value::Null),
                    Shown::Literal(value) => (*value).clone(),
                    Shown::Count => Value::count(counted),
                });
                values.collect()
            })
            .collect();
        Ok(Table {
            columns: Cow::Owned(shown.into_iter().map(|(column, _)| column).collect()),
            rows,
        })
    }
}

/// Where a value comes from.
enum Shown<'a> {
    At(usize),
    Literal(&'a Value),
    Count,
}

fn column(name: &str, kind: Type) -> Column {
    Column {
        name: Cow::Owned(name.to_owned()),
        kind,
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::IsNull => *value == Value::Null,
            Self::IsNotNull => *value != Value::Null,
            Self::Compares(Comparison::Like, pattern) => {
                match (value.to_text(), pattern.to_text()) {
                    (Some(text), Some(pattern)) => is_like(&text, &pattern),
                    _ => false,
                }
            }
            Self::Compares(comparison, literal) => {
                compare(value, literal).is_some_and(|it| match comparison {
                    Comparison::Equal => it == Ordering::Equal,
                    Comparison::Unequal => it != Ordering::Equal,
                    Comparison::Less => it == Ordering::Less,
                    Comparison::LessOrEqual => it != Ordering::Greater,
                    Comparison::Greater => it == Ordering::Greater,
                    Comparison::GreaterOrEqual => it != Ordering::Less,
                    Comparison::Like => false,
                })
            }
        }
    }
}

impl Order {
    fn compare(&self, one: &Value, other: &Value) -> Ordering {
        let nulls = match self.nulls_first {
            true => Ordering::Less,
            false => Ordering::Greater,
        };
        match (*one == Value::Null, *other == Value::Null) {
            (true, true) => Ordering::Equal,
            (true, false) => nulls,
            (false, true) => nulls.reverse(),
            (false, false) => {
                let ordering = compare(one, other).unwrap_or(Ordering::Equal);
                if self.descends {
                    ordering.reverse()
                } else {
                    ordering
                }
            }
        }
    }
}

/// Numbers as numbers, also where one is written as a text; everything else as text. `None` with a null.
fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) => None,
    };
    let is_number = |value: &Value| matches!(value, Value::Int(_) | Value::Float(_));
    if let (Value::Int(one), Value::Int(other)) = (one, other) {
        return Some(one.cmp(other));
    }
    if is_number(one) || is_number(other) {
        return number(one)?.partial_cmp(&number(other)?);
    }
    Some(one.to_text()?.cmp(&other.to_text()?))
}

/// SQL's LIKE, without escapes.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    // Where the last % stood, and how much of the text it has taken.
    let (mut at, mut in_pattern, mut wildcard) = (0, 0, None);
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some('%') => {
                wildcard = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(c) if *c == '_' || text.get(at) == Some(c) => {
                at += 1;
                in_pattern += 1;
            }
            _ => match &mut wildcard {
                Some((percent, taken)) => {
                    *taken += 1;
                    at = *taken;
                    in_pattern = *percent + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(in_pattern).all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_ordered_and_limited() {
        assert_eq!(
            selected("SELECT name, calls FROM queries WHERE calls > 1 ORDER BY calls DESC LIMIT 2"),
            ["name calls", "c 30", "b 20"]
        );
        assert_eq!(
            selected(
                "select * from public.queries q where (q.calls >= '20'::bigint) AND ((name <> 'c'))"
            ),
            ["name calls mean", "b 20 0.5"]
        );
        assert_eq!(
            selected("select name from queries order by mean"),
            ["name", "b", "a", "c"]
        );
        assert_eq!(
            selected("select name from queries order by mean desc nulls last, 1 offset 1"),
            ["name", "b", "c"]
        );
    }

    #[test]
    fn columns_are_renamed_and_literals_stand_for_themselves() {
        assert_eq!(
            selected("SELECT NULL, 1, name AS \"N\" FROM queries WHERE mean IS NULL"),
            ["?column? ?column? N", "NULL 1 c"]
        );
        assert_eq!(
            selected("SELECT count(*) FROM queries WHERE mean IS NOT NULL"),
            ["count", "2"]
        );
        assert_eq!(
            selected("SELECT count(*) AS n FROM queries WHERE calls < 0"),
            ["n", "0"]
        );
    }

    #[test]
    fn a_pattern_has_two_wildcards() {
        for (text, pattern, is) in [
            ("select 1", "select%", true),
            ("select 1", "%1", true),
            ("select 1", "s_l%t%1", true),
            ("select 1", "select", false),
            ("", "%", true),
            ("ab", "_", false),
        ] {
            assert_eq!(is_like(text, pattern), is, "{text} like {pattern}");
        }
        assert_eq!(
            selected("select name from queries where name like '_' and name ~~ 'b%'"),
            ["name", "b"]
        );
    }

    #[test]
    fn what_postgres_fdw_writes_is_understood() {
        assert_eq!(
            selected(
                "SELECT name, calls FROM public.queries WHERE ((calls > 5)) AND ((name = 'b'::text)) ORDER BY name ASC NULLS LAST LIMIT 10::bigint"
            ),
            ["name calls", "b 20"]
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, error) in [
            (
                "SELECT name FROM queries GROUP BY name",
                "syntax error at or near \"group\"",
            ),
            (
                "SELECT name FROM",
                "syntax error at or near \"end of input\"",
            ),
            (
                "SELECT name, FROM queries",
                "syntax error at or near \"queries\"",
            ),
            (
                "SELECT upper(name) FROM queries",
                "syntax error at or near \"(\"",
            ),
            (
                "SELECT name FROM queries WHERE (calls = 1",
                "syntax error at or near \"end of input\"",
            ),
            (
                "SELECT name FROM queries LIMIT -1",
                "syntax error at or near \"LIMIT\"",
            ),
            (
                "SELECT 'x FROM queries",
                "syntax error at or near \"'x FROM queries\"",
            ),
        ] {
            assert_eq!(
                Select::parse(text).unwrap_err().to_string(),
                error,
                "{text}"
            );
        }
        let select = Select::parse("SELECT what FROM queries").unwrap();
        assert_eq!(
            select.of(table()).unwrap_err().to_string(),
            "column \"what\" does not exist"
        );
    }

    #[test]
    fn what_a_column_must_equal_is_known_before_it_is_read() {
        let select =
            Select::parse("select * from trace where trace_id = 'abc' and calls > 1").unwrap();
        assert_eq!(select.demanded("trace_id").as_deref(), Some("abc"));
        assert_eq!(select.demanded("calls"), None);
    }

    fn table() -> Table {
        let row = |name: &'static str, calls, mean: Option<f64>| {
            vec![
                Value::Text(name.into()),
                Value::Int(calls),
                mean.map_or(Value::Null, Value::Float),
            ]
        };
        Table {
            columns: Cow::Owned(vec![
                Column::new("name", Type::Text),
                Column::new("calls", Type::Int8),
                Column::new("mean", Type::Float8),
            ]),
            rows: vec![
                row("a", 1, Some(1.5)),
                row("b", 20, Some(0.5)),
                row("c", 30, None),
            ],
        }
    }

    /// The names of the columns, and the rows, as texts.
    fn selected(text: &str) -> Vec<String> {
        let table = Select::parse(text).unwrap().of(table()).unwrap();
        let names = table.columns.iter().map(|column| &*column.name);
        let mut lines = vec![names.collect::<Vec<_>>().join(" ")];
        lines.extend(table.rows.iter().map(|row| {
            let values = row
                .iter()
                .map(|value| value.to_text().unwrap_or_else(|| "NULL".into()));
            values.collect::<Vec<_>>().join(" ")
        }));
        lines
    }
}
