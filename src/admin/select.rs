//! `SELECT … FROM view WHERE … ORDER BY … LIMIT …` over what the console shows, so that dblink and postgres_fdw can join it.
//!
//! A small part of SQL, of the kind that postgres_fdw writes: columns or `*` or `count(*)`, comparisons with literals joined by
//! AND, ORDER BY columns, LIMIT and OFFSET. Casts are read and left out: values are compared as what they are.

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
    /// Reads a statement that begins with SELECT.
    ///
    /// # Errors
    /// At the first token that is not understood.
    pub fn parse(text: &str) -> Result<Self, SelectError> {
        let mut parser = Parser::new(text)?;
        parser.expect("select")?;
        let mut items = vec![parser.item()?];
        while parser.takes(",") {
            items.push(parser.item()?);
        }
        parser.expect("from")?;
        let mut view = parser.name()?;
        if parser.takes(".") {
            // The schema says nothing here.
            view = parser.name()?;
        }
        if parser.takes("as") || parser.is_alias() {
            parser.name()?;
        }
        let mut conditions = Vec::new();
        if parser.takes("where") {
            parser.conditions(&mut conditions)?;
        }
        let mut order = Vec::new();
        if parser.takes("order") {
            parser.expect("by")?;
            order.push(parser.order(&items)?);
            while parser.takes(",") {
                order.push(parser.order(&items)?);
            }
        }
        let (mut limit, mut offset) = (None, 0);
        loop {
            if parser.takes("limit") {
                limit = match parser.takes("all") {
                    true => None,
                    false => Some(parser.count()?),
                };
            } else if parser.takes("offset") {
                offset = parser.count()?;
            } else {
                break;
            }
        }
        parser.takes(";");
        match parser.next() {
            None => Ok(Self {
                view: view.to_ascii_lowercase().into(),
                items,
                conditions,
                order,
                limit,
                offset,
            }),
            Some(token) => Err(token.unexpected()),
        }
    }

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

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// Of letters; in lower case.
    Word(String),
    /// In double quotes.
    Quoted(String),
    Text(String),
    Number(String),
    Symbol(&'static str),
}

impl Token {
    fn unexpected(&self) -> SelectError {
        SelectError::Syntax(match self {
            Self::Word(text) | Self::Quoted(text) | Self::Text(text) | Self::Number(text) => {
                text.clone()
            }
            Self::Symbol(symbol) => (*symbol).to_owned(),
        })
    }
}

struct Parser {
    /// Reversed: the next one is the last.
    tokens: Vec<Token>,
}

/// How deep parentheses may be nested.
const MAX_DEPTH: usize = 32;

const SYMBOLS: [&str; 20] = [
    "::", "<>", "!=", "<=", ">=", "~~", "=", "<", ">", "(", ")", ",", ".", ";", "*", "-", "+", "[",
    "]", "/",
];

impl Parser {
    fn new(text: &str) -> Result<Self, SelectError> {
        let mut tokens = tokens(text)?;
        tokens.reverse();
        Ok(Self { tokens })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.last()
    }

    fn next(&mut self) -> Option<Token> {
        self.tokens.pop()
    }

    /// Whether this word or symbol comes next, which is taken then.
    fn takes(&mut self, expected: &str) -> bool {
        let is_it = match self.peek() {
            Some(Token::Word(word)) => word == expected,
            Some(Token::Symbol(symbol)) => *symbol == expected,
            _ => false,
        };
        if is_it {
            self.tokens.pop();
        }
        is_it
    }

    fn expect(&mut self, expected: &str) -> Result<(), SelectError> {
        match self.takes(expected) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> SelectError {
        self.peek().map_or_else(
            || SelectError::Syntax("end of input".into()),
            Token::unexpected,
        )
    }

    /// Whether another name for the view comes next.
    fn is_alias(&self) -> bool {
        match self.peek() {
            Some(Token::Word(word)) => ![
                "where", "order", "limit", "offset", "group", "having", "join", "union",
            ]
            .contains(&&**word),
            Some(Token::Quoted(_)) => true,
            _ => false,
        }
    }

    fn name(&mut self) -> Result<String, SelectError> {
        match self.next() {
            Some(Token::Word(name) | Token::Quoted(name)) => Ok(name),
            Some(token) => Err(token.unexpected()),
            None => Err(self.unexpected()),
        }
    }

    /// A column, perhaps behind the name of its view.
    fn column(&mut self) -> Result<String, SelectError> {
        let mut name = self.name()?;
        if self.takes(".") {
            name = self.name()?;
        }
        self.casts()?;
        Ok(name)
    }

    /// `::type`, as often as it comes.
    fn casts(&mut self) -> Result<(), SelectError> {
        while self.takes("::") {
            self.name()?;
            if self.takes(".") {
                self.name()?;
            }
            // double precision, timestamp with time zone
            while ["precision", "varying", "with", "time", "zone", "without"]
                .iter()
                .any(|word| self.takes(word))
            {}
            if self.takes("(") {
                self.count()?;
                self.expect(")")?;
            }
            if self.takes("[") {
                self.expect("]")?;
            }
        }
        Ok(())
    }

    fn item(&mut self) -> Result<Item, SelectError> {
        if self.takes("*") {
            return Ok(Item::All);
        }
        let item = match self.peek() {
            Some(Token::Text(_) | Token::Number(_) | Token::Symbol("-")) => {
                Item::Literal(self.literal()?, "?column?".into())
            }
            Some(Token::Word(word)) if ["null", "true", "false"].contains(&&**word) => {
                Item::Literal(self.literal()?, "?column?".into())
            }
            Some(Token::Word(word)) if word == "count" => {
                self.next();
                if self.takes("(") {
                    self.expect("*")?;
                    self.expect(")")?;
                    Item::Count("count".into())
                } else {
                    let name = String::from("count");
                    Item::Column {
                        shown_as: name.clone(),
                        name,
                    }
                }
            }
            _ => {
                let name = self.column()?;
                Item::Column {
                    shown_as: name.clone(),
                    name,
                }
            }
        };
        self.casts()?;
        if !self.takes("as") {
            return Ok(item);
        }
        let shown_as = self.name()?;
        Ok(match item {
            Item::All => Item::All,
            Item::Column { name, .. } => Item::Column { name, shown_as },
            Item::Literal(value, _) => Item::Literal(value, shown_as),
            Item::Count(_) => Item::Count(shown_as),
        })
    }

    fn conditions(&mut self, conditions: &mut Vec<Condition>) -> Result<(), SelectError> {
        let mut depth = 0;
        loop {
            while self.takes("(") {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(self.unexpected());
                }
            }
            conditions.push(self.condition()?);
            while depth > 0 && self.takes(")") {
                depth -= 1;
            }
            if !self.takes("and") {
                return match depth {
                    0 => Ok(()),
                    _ => Err(self.unexpected()),
                };
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, SelectError> {
        if matches!(self.peek(), Some(Token::Text(_) | Token::Number(_))) {
            let value = self.literal()?;
            let comparison = self.comparison()?.mirrored();
            let column = self.column()?;
            return Ok(Condition {
                column,
                test: Test::Compares(comparison, value),
            });
        }
        let column = self.column()?;
        if self.takes("is") {
            let is_not = self.takes("not");
            self.expect("null")?;
            let test = match is_not {
                true => Test::IsNotNull,
                false => Test::IsNull,
            };
            return Ok(Condition { column, test });
        }
        let comparison = self.comparison()?;
        let value = self.literal()?;
        Ok(Condition {
            column,
            test: Test::Compares(comparison, value),
        })
    }

    fn comparison(&mut self) -> Result<Comparison, SelectError> {
        const ALL: [(&str, Comparison); 9] = [
            ("=", Comparison::Equal),
            ("<>", Comparison::Unequal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
            ("like", Comparison::Like),
            ("~~", Comparison::Like),
        ];
        let found = ALL.into_iter().find(|(symbol, _)| self.takes(symbol));
        found
            .map(|(_, comparison)| comparison)
            .ok_or_else(|| self.unexpected())
    }

    fn literal(&mut self) -> Result<Value, SelectError> {
        if self.takes("(") {
            let value = self.literal()?;
            self.expect(")")?;
            self.casts()?;
            return Ok(value);
        }
        let is_negative = self.takes("-");
        let value = match self.next() {
            Some(Token::Text(text)) if !is_negative => Value::text(text),
            Some(Token::Number(digits)) => {
                let sign = if is_negative { "-" } else { "" };
                let text = format!("{sign}{digits}");
                match (text.parse(), text.parse()) {
                    (Ok(number), _) => Value::Int(number),
                    (_, Ok(number)) => Value::Float(number),
                    _ => return Err(SelectError::Syntax(text)),
                }
            }
            Some(Token::Word(word)) if word == "null" => Value::Null,
            Some(Token::Word(word)) if word == "true" => Value::Bool(true),
            Some(Token::Word(word)) if word == "false" => Value::Bool(false),
            Some(token) => return Err(token.unexpected()),
            None => return Err(self.unexpected()),
        };
        self.casts()?;
        Ok(value)
    }

    fn count(&mut self) -> Result<usize, SelectError> {
        match self.literal()? {
            Value::Int(number) => usize::try_from(number).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| SelectError::Syntax("LIMIT".into()))
    }

    fn order(&mut self, items: &[Item]) -> Result<Order, SelectError> {
        let column = match self.peek() {
            Some(Token::Number(number)) => {
                let at = number.parse::<usize>().ok();
                let item = at.and_then(|at| items.get(at.checked_sub(1)?));
                let Some(Item::Column { name, .. }) = item.cloned() else {
                    return Err(self.unexpected());
                };
                self.next();
                name
            }
            _ => {
                let name = self.column()?;
                // It may be the new name of a column.
                let renamed = items.iter().find_map(|item| match item {
                    Item::Column { name: of, shown_as } if *shown_as == name => Some(of.clone()),
                    _ => None,
                });
                renamed.unwrap_or(name)
            }
        };
        let descends = self.takes("desc");
        if !descends {
            self.takes("asc");
        }
        let mut nulls_first = descends;
        if self.takes("nulls") {
            nulls_first = self.takes("first");
            if !nulls_first {
                self.expect("last")?;
            }
        }
        Ok(Order {
            column,
            descends,
            nulls_first,
        })
    }
}

impl Comparison {
    /// The same with the sides changed.
    fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::Equal | Self::Unequal | Self::Like => self,
        }
    }
}

fn tokens(mut rest: &str) -> Result<Vec<Token>, SelectError> {
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let syntax = || SelectError::Syntax(rest.chars().take(20).collect());
        if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
            continue;
        }
        if rest.starts_with("/*") {
            (_, rest) = rest.split_once("*/").ok_or_else(syntax)?;
            continue;
        }
        let escaped = rest
            .strip_prefix(['E', 'e'])
            .filter(|behind| behind.starts_with('\''));
        let (token, behind) = if let Some(behind) = escaped {
            // postgres_fdw writes it where there are backslashes.
            let (text, behind) = super::command::quoted(behind, '\'').ok_or_else(syntax)?;
            (Token::Text(text.replace("\\\\", "\\")), behind)
        } else if first == '\'' {
            let (text, behind) = super::command::quoted(rest, '\'').ok_or_else(syntax)?;
            (Token::Text(text), behind)
        } else if first == '"' {
            let (name, behind) = super::command::quoted(rest, '"').ok_or_else(syntax)?;
            (Token::Quoted(name), behind)
        } else if first.is_ascii_digit() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (digits, behind) = rest.split_at(end);
            (Token::Number(digits.to_owned()), behind)
        } else if first.is_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')
                .unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            (Token::Word(word.to_lowercase()), behind)
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(syntax)?;
            (
                Token::Symbol(symbol),
                rest.get(symbol.len()..).unwrap_or_default(),
            )
        };
        tokens.push(token);
        rest = behind;
    }
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
