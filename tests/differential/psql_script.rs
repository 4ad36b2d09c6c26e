//! SQL files as psql reads them: statements, the data of COPY, and the few commands of its own that matter.

use std::collections::HashMap;

use pgspan::sql::encoding::ClientEncoding;
use pgspan::sql::lexer::{Lexer, StandardConformingStrings, TokenKind};

/// A file, read from the top. What it says next may depend on what the server answered.
pub(crate) struct PsqlScript<'a> {
    text: &'a [u8],
    at: usize,
    variables: HashMap<String, String>,
    environment: HashMap<String, String>,
}

/// What a file says next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// One Query message: a statement, or several joined by `\;`.
    Query(Vec<u8>),
    /// `\c`: a new connection, as this user where one is named.
    Connect(Option<String>),
}

impl<'a> PsqlScript<'a> {
    /// `environment` answers `\getenv`.
    pub(crate) fn new(text: &'a [u8], environment: &[(&str, &str)]) -> Self {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            text,
            at: 0,
            variables: HashMap::new(),
            environment: environment.collect(),
        }
    }

    /// The lines up to `\.`, for the server that has asked for them.
    pub(crate) fn copy_data(&mut self) -> &'a [u8] {
        self.skip_line();
        let data = &self.text[self.at..];
        let mut length = 0;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if line.trim_ascii_end() == b"\\." {
                self.at += length + line.len();
                return &data[..length];
            }
            length += line.len();
        }
        // The end of the file is the end of the data too.
        self.at = self.text.len();
        data
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        let line = rest.iter().position(|byte| *byte == b'\n');
        self.at += line.map_or(rest.len(), |line| line + 1);
    }

    /// Reads a command of psql's own, to the end of its line.
    fn command(&mut self) -> Option<Step> {
        let start = self.at;
        self.skip_line();
        let line = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        let mut words = line.split_whitespace();
        match words.next()? {
            "\\c" | "\\connect" => {
                let user = words.nth(1).filter(|user| *user != "-");
                return Some(Step::Connect(user.map(|user| self.with_variables(user))));
            }
            "\\set" => {
                let name = words.next()?.to_owned();
                let value: String = words.map(|word| self.with_variables(word)).collect();
                self.variables.insert(name, value);
            }
            "\\getenv" => {
                let (name, variable) = (words.next()?, words.next()?);
                if let Some(value) = self.environment.get(variable) {
                    self.variables.insert(name.to_owned(), value.clone());
                }
            }
            _ => {}
        }
        None
    }

    /// Without its quotes, and with the values of variables.
    fn with_variables(&self, word: &str) -> String {
        let word = word.trim_matches('\'');
        match word.strip_prefix(':') {
            Some(name) => {
                let name = name.trim_matches(|quote| matches!(quote, '\'' | '"'));
                self.variables.get(name).cloned().unwrap_or_default()
            }
            None => word.to_owned(),
        }
    }

    /// The statement with `:'name'`, `:"name"` and `:name` filled in, where there is such a variable.
    fn filled_in(&self, mut statement: Vec<u8>) -> Vec<u8> {
        // The longest first: `:name_2` is none of `:name`.
        let mut variables: Vec<_> = self.variables.iter().collect();
        variables.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, value) in variables {
            let quoted = |quote: &str| {
                let doubled = value.replace(quote, &quote.repeat(2));
                (
                    format!(":{quote}{name}{quote}"),
                    format!("{quote}{doubled}{quote}"),
                )
            };
            for (from, to) in [
                quoted("'"),
                quoted("\""),
                (format!(":{name}"), value.clone()),
            ] {
                statement = replaced(&statement, from.as_bytes(), to.as_bytes());
            }
        }
        statement
    }
}

impl Iterator for PsqlScript<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        'statements: loop {
            let blank = self.text[self.at..]
                .iter()
                .position(|byte| !byte.is_ascii_whitespace())?;
            self.at += blank;
            if self.text[self.at] == b'\\' {
                match self.command() {
                    Some(step) => return Some(step),
                    None => continue,
                }
            }
            let start = self.at;
            let rest = &self.text[start..];
            let mut statement = Vec::new();
            let (mut depth, mut begins) = (0_usize, 0_usize);
            let (mut has_words, mut is_behind_begin) = (false, false);
            let mut taken = 0;
            let token_at = |at: usize| {
                let (strings, encoding) = (StandardConformingStrings::On, ClientEncoding::Utf8);
                Lexer::new(&rest[at..], strings, encoding).next()
            };
            while let Some(token) = token_at(taken) {
                // The lexer knows no psql: a backslash ends what it is in, unless that is a string.
                let text = &rest[taken + token.start..taken + token.end];
                let is_word = |word: &[u8]| text.eq_ignore_ascii_case(word);
                match token.kind {
                    TokenKind::OpenParenthesis => depth += 1,
                    TokenKind::CloseParenthesis => depth = depth.saturating_sub(1),
                    TokenKind::Identifier if begins > 0 && is_word(b"case") => begins += 1,
                    TokenKind::Identifier if is_word(b"end") => begins = begins.saturating_sub(1),
                    TokenKind::Identifier if is_word(b"atomic") && is_behind_begin => begins += 1,
                    TokenKind::Semicolon if depth == 0 && begins == 0 => {
                        statement.extend_from_slice(text);
                        taken += token.end;
                        self.at = start + taken;
                        return Some(Step::Query(self.filled_in(statement)));
                    }
                    TokenKind::Other if text == b"\\" => {
                        if rest.get(taken + 1) == Some(&b';') {
                            statement.push(b';');
                            taken += 2;
                            continue;
                        }
                        // \g, \gset and the like send what is there.
                        self.at = start + taken;
                        let step = self.command();
                        debug_assert!(step.is_none() || !has_words, "\\c behind a statement");
                        if !has_words {
                            continue 'statements;
                        }
                        return Some(Step::Query(self.filled_in(statement)));
                    }
                    _ => {}
                }
                if !token.kind.is_blank() {
                    has_words = true;
                    is_behind_begin = token.kind == TokenKind::Identifier && is_word(b"begin");
                }
                statement.extend_from_slice(text);
                taken += token.end;
            }
            self.at = self.text.len();
            return has_words.then(|| Step::Query(self.filled_in(statement)));
        }
    }
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        // `::name` is a cast.
        let is_cast = at > 0 && rest[at - 1] == b':';
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(if is_cast { from } else { to });
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[test]
fn a_file_is_read_as_psql_reads_it() {
    let text = b"-- why\nSELECT 1; SELECT $$;$$ , ';'\n;\n\\set name :dir '/x'\n\\c - bob\nCOPY t FROM stdin;\n1\n2\n\\.\n\
        SELECT :'name' \\gset\nSELECT 2\\; SELECT 3;\nCREATE RULE r AS ON INSERT TO t DO (SELECT 4; SELECT 5);\n\
        CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 6; END;\n";
    let mut script = PsqlScript::new(text, &[]);
    script.variables.insert("dir".to_owned(), "/d".to_owned());
    let query = |sql: &str| Some(Step::Query(sql.as_bytes().to_vec()));
    assert_eq!(script.next(), query("-- why\nSELECT 1;"));
    assert_eq!(script.next(), query("SELECT $$;$$ , ';'\n;"));
    assert_eq!(script.next(), Some(Step::Connect(Some("bob".to_owned()))));
    assert_eq!(script.next(), query("COPY t FROM stdin;"));
    assert_eq!(script.copy_data(), b"1\n2\n");
    assert_eq!(script.next(), query("SELECT '/d/x' "));
    assert_eq!(script.next(), query("SELECT 2; SELECT 3;"));
    assert_eq!(
        script.next(),
        query("CREATE RULE r AS ON INSERT TO t DO (SELECT 4; SELECT 5);")
    );
    assert_eq!(
        script.next(),
        query("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 6; END;")
    );
    assert_eq!(script.next(), None);
}
