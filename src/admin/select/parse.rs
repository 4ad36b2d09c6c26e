//! Reads a SELECT: its tokens, and what they say.

use super::{Comparison, Condition, Item, Order, Select, SelectError, Test};
use crate::admin::table::Value;

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
            let (text, behind) = crate::admin::command::quoted(behind, '\'').ok_or_else(syntax)?;
            (Token::Text(text.replace("\\\\", "\\")), behind)
        } else if first == '\'' {
            let (text, behind) = crate::admin::command::quoted(rest, '\'').ok_or_else(syntax)?;
            (Token::Text(text), behind)
        } else if first == '"' {
            let (name, behind) = crate::admin::command::quoted(rest, '"').ok_or_else(syntax)?;
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
