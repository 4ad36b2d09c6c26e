//! Which statements leave something behind in their session that the next client must not find.

use std::borrow::Cow;

use crate::session::meaning;
use crate::session::parameters::{ParameterSet, follows, is_parameter_name};
use crate::session::words::Words;
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::{StandardConformingStrings, TokenKind, strings_matter};
use crate::sql::script::Script;

/// What a statement leaves behind in its session. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alteration<'a> {
    /// These parameters may have got other values: they become the client's own, and follow it from server to server.
    pub parameters: Vec<Cow<'a, [u8]>>,
    /// What only this client can use, and has to find again: the session stays the client's until it is gone.
    pub belongings: Option<Trace>,
    /// Perhaps belongings are gone.
    pub undoes: bool,
    /// A setting that the meaning of texts depends on may be another, perhaps for the transaction alone.
    pub opens_meaning: bool,
}

/// Whether a server can be asked if belongings are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trace {
    /// It can, once something may have ended them.
    Visible,
    /// It can, and is to be asked at the end of the transaction: perhaps they never were (a lock that was tried for), or they are gone
    /// by then (a temporary table with ON COMMIT DROP).
    Doubtful,
    /// It can't: they last until the session is reset.
    Hidden,
}

/// Counts what a client can leave behind on a server, all in one number.
///
/// Sources: the views and functions of the same names in PostgreSQL's manual; temporary tables stand in the schema of the session.
pub const COUNT_BELONGINGS: &str = "SELECT (SELECT count(*) FROM pg_catalog.pg_listening_channels()) \
    + (SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
    + (SELECT count(*) FROM pg_catalog.pg_cursors WHERE is_holdable) \
    + (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()) \
    + (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())";

/// The kinds of statements of which a text tells the same each time, as a bit each.
pub fn kind_of(tag: &[u8]) -> u8 {
    match tag {
        b"SET" => 1,
        b"RESET" => 2,
        b"DECLARE CURSOR" => 4,
        _ if tag.starts_with(b"SELECT") => 8,
        b"CREATE TABLE"
        | b"CREATE VIEW"
        | b"CREATE SEQUENCE"
        | b"CREATE INDEX"
        | b"CREATE FOREIGN TABLE" => 16,
        _ if tag.starts_with(b"CREATE ") => 32,
        _ if tag.starts_with(b"UPDATE") => 64,
        _ => 128,
    }
}

impl<'a> Alteration<'a> {
    /// What a statement with this command tag, out of a message with this text, leaves behind: settings, or a prepared
    /// statement, a listener, a temporary table, a cursor that outlives its transaction. `parameters` are those that the server has
    /// reported.
    ///
    /// Told by the command tag, and by the names of a few functions; in doubt it leaves something. What is hidden in a function of
    /// the application's own, or in DO, can't be told this way.
    pub fn by(tag: &[u8], text: &'a [u8], parameters: &ParameterSet) -> Self {
        let mut found = Self::by_tag(tag);
        match tag {
            b"SET" | b"RESET" => {
                found.add_settings(text, parameters);
                return found;
            }
            b"DECLARE CURSOR" if contains_word(text, b"hold") => found.add(Trace::Visible),
            _ => {}
        }
        // Each is read up to its end: of so many no more is known than that they are there.
        const MAX_READ: usize = 64;
        let (mut read, mut is_temporary) = (0, false);
        for call in calls(text) {
            match call {
                Call::Lock => found.add(Trace::Doubtful),
                Call::Unlock => found.undoes = true,
                Call::SetConfig(call) if read < MAX_READ => {
                    read += 1;
                    found.add_set_config(call);
                }
                Call::SetConfig(_) => {
                    found.opens_meaning = true;
                    found.add(Trace::Hidden);
                }
                Call::View if tag.starts_with(b"UPDATE") => {
                    found.opens_meaning = true;
                    found.add(Trace::Hidden);
                }
                // CREATE TABLE … AS and SELECT … INTO have the tag of a SELECT.
                Call::Temporary => {
                    is_temporary = tag.starts_with(b"SELECT") || tag.starts_with(b"CREATE ");
                }
                Call::View => {}
                Call::Connection => found.add(Trace::Hidden),
            }
        }
        if is_temporary {
            found.add_temporary(tag, text);
        }
        found
    }

    /// What the command tag alone tells: all that is to be known of a statement where another of its kind, out of the same text, was
    /// looked at before.
    pub fn by_tag(tag: &[u8]) -> Self {
        let mut found = Self::default();
        match tag {
            b"LISTEN" | b"PREPARE" => found.add(Trace::Visible),
            b"LOAD" => found.add(Trace::Hidden),
            b"UNLISTEN" | b"DEALLOCATE" | b"DEALLOCATE ALL" | b"CLOSE CURSOR"
            | b"CLOSE CURSOR ALL" | b"DISCARD TEMP" | b"ROLLBACK" => found.undoes = true,
            _ if tag.starts_with(b"DROP ") => found.undoes = true,
            _ => {}
        }
        found
    }

    /// The same where only the beginning of the text is known.
    pub fn by_beginning(tag: &[u8], text: &'a [u8], parameters: &ParameterSet) -> Self {
        let mut found = Self::by(tag, text, parameters);
        match tag {
            b"SET" | b"RESET" => found.add(Trace::Hidden),
            b"DECLARE CURSOR" => found.add(Trace::Doubtful),
            _ if tag.starts_with(b"SELECT") || tag.starts_with(b"CREATE ") => {
                found.add(Trace::Doubtful);
            }
            _ => return found,
        }
        found.opens_meaning = true;
        found
    }

    /// What is left of a message that has failed: locks of the session outlive even the transaction that they were taken in.
    pub fn by_failure(text: &[u8]) -> Self {
        let takes_lock = calls(text).any(|call| matches!(call, Call::Lock));
        Self {
            belongings: takes_lock.then_some(Trace::Doubtful),
            ..Self::default()
        }
    }

    /// What a FunctionCall of the function with this identifier leaves behind.
    ///
    /// Source: `pg_proc.dat`, where the built-in functions have fixed identifiers.
    pub fn by_function(oid: u32) -> Self {
        const SET_CONFIG: u32 = 2078;
        let belongings = match oid {
            SET_CONFIG => Some(Trace::Hidden),
            // pg_advisory_lock to pg_advisory_unlock_all.
            2880..=2892 => Some(Trace::Doubtful),
            _ => None,
        };
        Self {
            belongings,
            opens_meaning: oid == SET_CONFIG,
            ..Self::default()
        }
    }

    fn add(&mut self, trace: Trace) {
        self.belongings = self.belongings.max(Some(trace));
    }

    fn add_parameter(&mut self, name: Cow<'a, [u8]>) {
        match &*name {
            // What it ends with, or PostgreSQL reports, or can't tell.
            _ if follows(&name) || is_one_of(&name, &PASSING) => {}
            _ if name.eq_ignore_ascii_case(b"session_authorization")
                || !is_parameter_name(&name) =>
            {
                self.add(Trace::Hidden);
            }
            _ => self.parameters.push(name),
        }
    }

    fn add_temporary(&mut self, tag: &[u8], text: &[u8]) {
        /// What stands in pg_class, and may be of a temporary table.
        const RELATIONS: [&[u8]; 5] = [
            b"CREATE TABLE",
            b"CREATE VIEW",
            b"CREATE SEQUENCE",
            b"CREATE INDEX",
            b"CREATE FOREIGN TABLE",
        ];
        let is_schema = |word: &[u8]| {
            word.get(..7)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"pg_temp"))
        };
        let is_temporary =
            |word: &[u8]| is_one_of(word, &[b"temp", b"temporary"]) || is_schema(word);
        let makes = |word: &[u8]| is_one_of(word, &[b"create", b"into"]);
        if !words(text).any(is_temporary) || !words(text).any(makes) {
            return;
        }
        if !tag.starts_with(b"SELECT") && !RELATIONS.contains(&tag) {
            if words(text).any(is_schema) {
                self.add(Trace::Hidden);
            }
            return;
        }
        self.add(match contains_word(text, b"commit") {
            true => Trace::Doubtful,
            false => Trace::Visible,
        });
    }

    /// A call that names its parameter is of that one; what an expression names can't be told.
    fn add_set_config(&mut self, call: &'a [u8]) {
        let call = call.strip_prefix(b"\"").unwrap_or(call);
        let mut words = Words::new(call, StandardConformingStrings::On, ClientEncoding::Utf8);
        if !words.take_kind(TokenKind::OpenParenthesis) {
            return;
        }
        let name = words.take_string();
        if name.is_some() && words.take_kind(TokenKind::Typecast) {
            let _ = words.take_identifier();
        }
        let name = name.filter(|_| words.is_before(TokenKind::Comma));
        // Up to the last argument.
        let (mut depth, mut commas) = (0_usize, 0);
        while commas < 2
            && let Some(word) = words.next()
        {
            match word.kind {
                TokenKind::OpenParenthesis | TokenKind::OpenBracket => depth += 1,
                TokenKind::CloseParenthesis | TokenKind::CloseBracket if depth > 0 => depth -= 1,
                TokenKind::CloseParenthesis => break,
                TokenKind::Comma if depth == 0 => commas += 1,
                _ => {}
            }
        }
        let is_local = commas == 2
            && words.take_keyword("true")
            && words.take_kind(TokenKind::CloseParenthesis)
            && !strings_matter(call);
        self.opens_meaning |= name.as_ref().is_none_or(|name| meaning::depends_on(name));
        match name {
            _ if is_local => {}
            Some(name) => self.add_parameter(name),
            None => self.add(Trace::Hidden),
        }
    }

    fn add_settings(&mut self, text: &'a [u8], parameters: &ParameterSet) {
        let (strings, encoding) = (parameters.strings(), parameters.encoding());
        let mut script = Script::new();
        script.read(text, strings, encoding);
        let mut is_read = false;
        for statement in script.statements() {
            let statement = text.get(statement.start..statement.end).unwrap_or_default();
            is_read |= self.add_set(Words::new(statement, strings, encoding));
        }
        if !is_read {
            self.opens_meaning = true;
            self.add(Trace::Hidden);
        }
    }

    /// Reads one statement. Whether it is a SET or a RESET.
    ///
    /// Source: `VariableSetStmt` and `VariableResetStmt` in PostgreSQL's gram.y.
    fn add_set(&mut self, mut words: Words<'a>) -> bool {
        let sets = words.take_keyword("set");
        if !sets && !words.take_keyword("reset") {
            return false;
        }
        let is_local = sets && words.take_keyword("local");
        let is_session = words.take_keyword("session");
        if is_session && words.take_keyword("characteristics") {
            self.parameters.extend(CHARACTERISTICS.map(Cow::Borrowed));
            return true;
        }
        if is_session && words.take_keyword("authorization") {
            self.opens_meaning = true;
            self.add(Trace::Hidden);
            return true;
        }
        let passes = ["transaction", "constraints"];
        if passes.iter().any(|word| words.take_keyword(word)) {
            return true;
        }
        let name = if !sets && words.take_keyword("all") {
            // Told by the command tag.
            self.opens_meaning = true;
            return true;
        } else if words.take_keyword("time") {
            Cow::Borrowed(&b"TimeZone"[..])
        } else if words.take_keyword("names") {
            Cow::Borrowed(&b"client_encoding"[..])
        } else if words.take_keyword("schema") {
            Cow::Borrowed(&b"search_path"[..])
        } else if words.take_keyword("xml") {
            Cow::Borrowed(&b"xmloption"[..])
        } else {
            let mut name = words.take_identifier().unwrap_or_default();
            while words.take_kind(TokenKind::Dot) {
                let part = words.take_identifier().unwrap_or_default();
                let name = name.to_mut();
                name.push(b'.');
                name.extend_from_slice(&part);
            }
            name
        };
        self.opens_meaning |= meaning::depends_on(&name);
        if !is_local {
            self.add_parameter(name);
        }
        true
    }
}

/// What SET SESSION CHARACTERISTICS is about.
const CHARACTERISTICS: [&[u8]; 3] = [
    b"default_transaction_isolation",
    b"default_transaction_read_only",
    b"default_transaction_deferrable",
];

/// What a SET of them sets is over with the transaction, or nobody can read: the seed of random().
const PASSING: [&[u8]; 4] = [
    b"seed",
    b"transaction_deferrable",
    b"transaction_isolation",
    b"transaction_read_only",
];

/// What may be called in a text, or touched, and leaves something behind.
enum Call<'a> {
    /// A lock of the session is taken, or tried for.
    Lock,
    /// One is given back.
    Unlock,
    /// `set_config`, with the text behind that.
    SetConfig(&'a [u8]),
    /// The view pg_settings, which takes an UPDATE.
    View,
    /// A connection to another server, which the session keeps: dblink_connect, dblink_connect_u.
    Connection,
    /// TEMP, TEMPORARY, pg_temp, or a part of another word.
    Temporary,
}

/// What is named in a text. Few have an underscore or an M in the right place: others cost no more than the search for them.
fn calls(text: &[u8]) -> impl Iterator<Item = Call<'_>> {
    memchr::memchr3_iter(b'_', b'm', b'M', text).filter_map(|at| {
        let (before, behind) = text.split_at(at);
        let ends = |word: &[u8]| {
            let start = before.len().checked_sub(word.len());
            start
                .and_then(|start| before.get(start..))
                .is_some_and(|end| end.eq_ignore_ascii_case(word))
        };
        let begins = |word: &[u8]| {
            behind
                .get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        if behind.first() != Some(&b'_') {
            let is_temporary = ends(b"te") && matches!(behind.get(1), Some(b'p' | b'P'));
            return is_temporary.then_some(Call::Temporary);
        }
        match behind.get(1)? {
            b'l' | b'L' if ends(b"advisory") && begins(b"_lock") => Some(Call::Lock),
            b'u' | b'U' if ends(b"advisory") && begins(b"_unlock") => Some(Call::Unlock),
            b'c' | b'C' if ends(b"set") && begins(b"_config") => {
                behind.get("_config".len()..).map(Call::SetConfig)
            }
            b'c' | b'C' if ends(b"dblink") && begins(b"_connect") => Some(Call::Connection),
            b's' | b'S' if ends(b"pg") && begins(b"_settings") => Some(Call::View),
            _ => None,
        }
    })
}

/// Whether a statement of this text may leave something behind that its command tag alone does not tell: then its text is wanted
/// whole. Quicker than [`Alteration::by`], and more doubtful.
pub fn may_be_by(text: &[u8]) -> bool {
    let may_set = |statement: &[u8]| {
        match statement.trim_ascii_start() {
            // A comment, or what stands behind a semicolon in one.
            [b'-' | b'/', ..] => true,
            // No further than this word: there may be any number of statements.
            [b's' | b'S' | b'r' | b'R' | b'd' | b'D', ..] => words(statement)
                .next()
                .is_some_and(|word| is_one_of(word, &[b"set", b"reset", b"declare"])),
            _ => false,
        }
    };
    let mut behind = memchr::memchr_iter(b';', text).filter_map(|at| text.get(at + 1..));
    calls(text).next().is_some() || may_set(text) || behind.any(may_set)
}

fn is_one_of(word: &[u8], all: &[&[u8]]) -> bool {
    all.iter().any(|one| one.eq_ignore_ascii_case(word))
}

/// Whether a text has this word in it, in whatever case.
pub(super) fn contains_word(text: &[u8], wanted: &[u8]) -> bool {
    words(text).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// The words of a text, those in literals and comments too.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'.'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by<'a>(tag: &str, text: &'a str) -> Alteration<'a> {
        Alteration::by(tag.as_bytes(), text.as_bytes(), &ParameterSet::default())
    }

    fn parameters(tag: &str, text: &str) -> Vec<String> {
        let found = by(tag, text);
        assert_eq!((found.belongings, found.undoes), (None, false), "{text}");
        found
            .parameters
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    fn is_nothing(tag: &str, text: &str) -> bool {
        let found = by(tag, text);
        found.parameters.is_empty() && found.belongings.is_none() && !found.undoes
    }

    #[test]
    fn a_parameter_becomes_the_clients_own_unless_it_is_local_or_is_reported() {
        for (tag, text, name) in [
            ("SET", "SET search_path = app", "search_path"),
            ("SET", "set session work_mem to 5", "work_mem"),
            ("SET", "SET ROLE admin", "role"),
            ("SET", "SET SCHEMA 'app'", "search_path"),
            ("SET", "SET XML OPTION DOCUMENT", "xmloption"),
            ("SET", "SET \"app\" . \"X\" = 1", "app.X"),
            ("SET", "/* a; b */ SET b = 2 -- c", "b"),
            ("RESET", "RESET app.x", "app.x"),
        ] {
            assert_eq!(parameters(tag, text), [name], "{text}");
        }
        for harmless in [
            "SET LOCAL search_path = app",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET transaction_isolation = serializable",
            "SET TimeZone = 'UTC'",
            "SET TIME ZONE 'UTC'",
            "SET NAMES 'LATIN1'",
            "RESET ALL",
        ] {
            assert!(is_nothing("SET", harmless), "{harmless}");
        }
        assert_eq!(
            by(
                "SET",
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
            )
            .parameters,
            CHARACTERISTICS
        );
    }

    #[test]
    fn each_statement_of_a_message_counts_and_doubt_too() {
        let all = "SET LOCAL a = 1; SET b = ';'; SELECT 1; /* ; */ SET c = 3; -- x\nset d = 4";
        assert_eq!(parameters("SET", all), ["b", "c", "d"]);
        let of = |text| by("SET", text).belongings;
        assert_eq!(of("/* x */ DO"), Some(Trace::Hidden));
        assert_eq!(of("SET SESSION AUTHORIZATION bob"), Some(Trace::Hidden));
        assert_eq!(of("SET session_authorization = bob"), Some(Trace::Hidden));
        assert!(is_nothing("SELECT 1", "SELECT 1; SET b = 2"));
        let cut = |tag: &[u8]| Alteration::by_beginning(tag, b"", &ParameterSet::default());
        assert_eq!(cut(b"SET").belongings, Some(Trace::Hidden));
        assert_eq!(cut(b"SELECT 1").belongings, Some(Trace::Doubtful));
        assert_eq!(cut(b"INSERT 0 1"), Alteration::default());
    }

    #[test]
    fn strings_are_read_as_the_server_reads_them() {
        let mut off = ParameterSet::default();
        off.insert(b"standard_conforming_strings", b"off");
        let text = br"SET a = '\'; SET b = 2; --'; SET c = 3";
        let names = Alteration::by(b"SET", text, &off).parameters;
        assert_eq!(names, [&b"a"[..], b"c"]);
    }

    #[test]
    fn each_call_of_set_config_counts_by_its_own_arguments() {
        let of = |text| parameters("SELECT 1", text);
        for (text, names) in [
            ("select set_config('role', 'bob', false)", &["role"][..]),
            (
                "SELECT pg_catalog.set_config('search_path', '', false)",
                &["search_path"],
            ),
            ("SELECT \"set_config\" ('a.b'::text, $1, $2)", &["a.b"]),
            (
                "SELECT set_config('a.b', f(1, ARRAY[2, 3]), /* true */ false)",
                &["a.b"],
            ),
            ("SELECT set_config('a.b', '(true)', false)", &["a.b"]),
            (
                "SELECT set_config('a.b', '1', true), set_config('c.d', '2', false)",
                &["c.d"],
            ),
            (
                "SELECT set_config('a.b', '1', false), set_config('c.d', '2', true)",
                &["a.b"],
            ),
            (
                "SELECT set_config('a.b', set_config('c.d', '2', false), true)",
                &["c.d"],
            ),
            ("SELECT set_config('a.b', '1', true)", &[]),
            ("SELECT set_config('TimeZone', 'UTC', false)", &[]),
            ("SELECT set_config FROM t", &[]),
        ] {
            assert_eq!(of(text), names, "{text}");
        }
        let hidden = |text| by("SELECT 1", text).belongings == Some(Trace::Hidden);
        assert!(hidden("SELECT set_config($1, $2, false)"));
        assert!(hidden("SELECT set_config('a.' || 'b', $2, false)"));
        assert!(hidden("SELECT set_config('a b', '1', false)"));
        assert_eq!(of(r"SELECT set_config('a.b', '\', true)"), ["a.b"]);
    }

    #[test]
    fn what_functions_leave_behind_is_told_by_their_names() {
        let of = |text| by("SELECT 1", text).belongings;
        assert_eq!(of("SELECT pg_advisory_lock(5)"), Some(Trace::Doubtful));
        assert_eq!(of("SELECT pg_try_advisory_lock(5)"), Some(Trace::Doubtful));
        assert_eq!(of("SELECT dblink_connect('a', 'b')"), Some(Trace::Hidden));
        assert_eq!(of("SELECT pg_advisory_xact_lock(5)"), None);
        assert!(by("SELECT 1", "SELECT pg_advisory_unlock(5)").undoes);
        let both = by(
            "UPDATE 1",
            "UPDATE t SET a = pg_advisory_lock(1), b = set_config('c', 'd', false)",
        );
        assert_eq!(
            (both.belongings, both.parameters.len()),
            (Some(Trace::Doubtful), 1)
        );
        assert_eq!(
            by("UPDATE 0", "update PG_SETTINGS set setting = 1").belongings,
            Some(Trace::Hidden)
        );
        assert!(is_nothing("SELECT 1", "SELECT * FROM pg_settings"));
        assert!(is_nothing(
            "SELECT 1",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1"
        ));
        let failed = |text: &'static str| Alteration::by_failure(text.as_bytes()).belongings;
        assert_eq!(
            failed("SELECT pg_advisory_lock(1), 1 / 0"),
            Some(Trace::Doubtful)
        );
        assert_eq!(failed("SELECT set_config($1, $2, false), 1 / 0"), None);
    }

    #[test]
    fn what_a_session_owns_stays_with_it() {
        for (tag, text) in [
            ("LISTEN", "LISTEN ch"),
            ("PREPARE", "PREPARE p AS SELECT 1"),
            ("CREATE TABLE", "CREATE TEMP TABLE t (a int)"),
            ("CREATE TABLE", "CREATE TABLE pg_temp.zz (a int)"),
            ("DECLARE CURSOR", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            ("SELECT 1", "CREATE TEMP TABLE t AS SELECT 1"),
            ("SELECT 1", "select 1 AS a INTO temporary t"),
        ] {
            assert_eq!(by(tag, text).belongings, Some(Trace::Visible), "{text}");
        }
        let of = |tag, text| by(tag, text).belongings;
        assert_eq!(
            of("CREATE TABLE", "CREATE TEMP TABLE t (a int) ON COMMIT DROP"),
            Some(Trace::Doubtful)
        );
        assert_eq!(
            of("CREATE TYPE", "CREATE TYPE pg_temp.t AS ENUM ()"),
            Some(Trace::Hidden)
        );
        assert!(is_nothing("SELECT 1", "SELECT temp FROM weather"));
        assert!(is_nothing("CREATE TABLE", "CREATE TABLE template (a int)"));
        assert!(is_nothing(
            "CREATE TYPE",
            "CREATE TEMP TABLE t (a int); CREATE TYPE u AS ENUM ()"
        ));
        assert!(is_nothing(
            "DECLARE CURSOR",
            "DECLARE c CURSOR FOR SELECT 1"
        ));
    }

    #[test]
    fn what_opens_the_meaning_of_texts_is_told_by_the_setting_that_it_names() {
        for (tag, text) in [
            ("SET", "SET LOCAL search_path = a"),
            ("SET", "set schema 'a'"),
            ("SET", "SET TIME ZONE 'UTC'"),
            ("RESET", "RESET ALL"),
            ("SET", "SET ROLE bob"),
            ("SELECT 1", "SELECT set_config('search_path', 'a', true)"),
            ("SELECT 1", "SELECT pg_catalog.SET_CONFIG($1, $2, true)"),
        ] {
            assert!(by(tag, text).opens_meaning, "{text}");
        }
        for (tag, text) in [
            ("SET", "SET LOCAL statement_timeout = '5s'"),
            ("SELECT 1", "SELECT set_config('app.user', '7', true)"),
            ("SELECT 1", "SELECT search_path FROM t"),
            ("INSERT 0 1", "INSERT INTO role VALUES (1)"),
        ] {
            assert!(!by(tag, text).opens_meaning, "{text}");
        }
    }

    #[test]
    fn a_text_that_may_matter_is_seen_at_once() {
        for text in [
            "SELECT 1; SET a = 1",
            "/* ; */ reset a",
            "SELECT ';' ; -- x\n SET a = 1",
            "SELECT set_config('a', 'b', false)",
            "SELECT pg_advisory_lock(1)",
            "CREATE TEMP TABLE t (a int)",
            "declare c cursor with hold for select 1",
        ] {
            assert!(may_be_by(text.as_bytes()), "{text}");
        }
        for text in [
            "SELECT 1",
            "UPDATE t SET a = 1",
            "INSERT INTO t VALUES (';')",
            ";;; SELECT 1; ",
        ] {
            assert!(!may_be_by(text.as_bytes()), "{text}");
        }
    }
}
