//! Which statements leave something behind in their session that the next client must not find.

use crate::session::parameters::{follows, is_parameter_name};

/// What a statement leaves behind in its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration<'a> {
    /// Nothing.
    None,
    /// These parameters may have got other values: they become the client's own, and follow it from server to server.
    Parameters(Vec<&'a [u8]>),
    /// What only this client can use, and has to find again: the session stays the client's until it leaves.
    Belongings,
}

impl<'a> Alteration<'a> {
    /// What a statement with this command tag, out of a message with this text, leaves behind: settings, or a prepared
    /// statement, a listener, a temporary table, a cursor that outlives its transaction.
    ///
    /// Told by the command tag, and for a SELECT by the names of two functions; in doubt it leaves something. What is hidden in
    /// a function of the application's own, or in DO, can't be told this way.
    pub fn by(tag: &[u8], text: &'a [u8]) -> Self {
        let belongings = |found: bool| if found { Self::Belongings } else { Self::None };
        match tag {
            b"SET" | b"RESET" => Self::by_settings(text),
            _ if tag.starts_with(b"SELECT") => Self::by_functions(text),
            b"LISTEN" | b"PREPARE" | b"LOAD" => Self::Belongings,
            b"DECLARE CURSOR" => belongings(contains_word(text, b"hold")),
            _ if tag.starts_with(b"CREATE ") => {
                let is_temporary = |word: &[u8]| {
                    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
                    is(b"temp")
                        || is(b"temporary")
                        || word.to_ascii_lowercase().starts_with(b"pg_temp")
                };
                belongings(words(text).any(is_temporary))
            }
            _ => Self::None,
        }
    }

    /// What a SELECT leaves behind by calling `set_config()` or taking a lock of the session. Few queries have an underscore
    /// in the right place: others cost no more than the search for it.
    fn by_functions(text: &'a [u8]) -> Self {
        for at in memchr::memchr_iter(b'_', text) {
            let (before, behind) = text.split_at(at);
            let ends = |word: &[u8]| {
                before.len() >= word.len()
                    && before[before.len() - word.len()..].eq_ignore_ascii_case(word)
            };
            let begins = |word: &[u8]| {
                behind
                    .get(..word.len())
                    .is_some_and(|behind| behind.eq_ignore_ascii_case(word))
            };
            if ends(b"advisory") && begins(b"_lock") {
                return Self::Belongings;
            }
            if ends(b"set") && begins(b"_config") {
                return Self::by_set_config(behind);
            }
        }
        Self::None
    }

    /// A call that names its parameter is of that one; what an argument names can't be told.
    fn by_set_config(call: &'a [u8]) -> Self {
        let mut quoted = call.splitn(3, |byte| *byte == b'\'');
        let is_first_argument = quoted
            .next()
            .is_some_and(|before| before.ends_with(b"(") || before.ends_with(b"( "));
        let name = quoted.next().filter(|_| is_first_argument);
        // set_config(…, true) ends with the transaction.
        let is_local = quoted
            .next()
            .unwrap_or(call)
            .windows(5)
            .any(|end| end.eq_ignore_ascii_case(b"true)"));
        match name {
            _ if is_local => Self::None,
            Some(name) if follows(name) => Self::None,
            Some(name) if is_parameter_name(name) => Self::Parameters(vec![name]),
            _ => Self::Belongings,
        }
    }

    fn by_settings(text: &'a [u8]) -> Self {
        let mut names = Vec::new();
        let mut is_read = false;
        for statement in text.split(|byte| *byte == b';') {
            match Set::read(statement) {
                None => continue,
                Some(Set::Harmless) => {}
                Some(Set::Parameter(name)) => names.push(name),
                Some(Set::Other) => return Self::Belongings,
            }
            is_read = true;
        }
        match (is_read, names.is_empty()) {
            (false, _) => Self::Belongings,
            (true, true) => Self::None,
            (true, false) => Self::Parameters(names),
        }
    }
}

/// What a SET or a RESET is about.
enum Set<'a> {
    /// It ends with the transaction, or is of a parameter that PostgreSQL reports.
    Harmless,
    /// A parameter.
    Parameter(&'a [u8]),
    /// Something that is no parameter: SESSION AUTHORIZATION, SESSION CHARACTERISTICS, XML OPTION.
    Other,
}

impl<'a> Set<'a> {
    /// `None` if the statement is neither.
    fn read(statement: &'a [u8]) -> Option<Self> {
        let mut words = words(statement);
        let first = words.next()?;
        if !first.eq_ignore_ascii_case(b"set") && !first.eq_ignore_ascii_case(b"reset") {
            return None;
        }
        let is_one_of =
            |word: &[u8], all: &[&[u8]]| all.iter().any(|one| one.eq_ignore_ascii_case(word));
        let mut name = words.next()?;
        if name.eq_ignore_ascii_case(b"session") {
            name = words.next()?;
        }
        // SET TIME ZONE and SET NAMES are other spellings; RESET ALL is told by its command tag.
        let harmless: [&[u8]; 5] = [b"local", b"transaction", b"time", b"names", b"all"];
        let other: [&[u8]; 3] = [b"authorization", b"characteristics", b"xml"];
        Some(match name {
            _ if is_one_of(name, &harmless) || follows(name) => Self::Harmless,
            _ if is_one_of(name, &other) || !is_parameter_name(name) => Self::Other,
            _ => Self::Parameter(name),
        })
    }
}

/// Whether a text has this word in it, in whatever case.
pub(super) fn contains_word(text: &[u8], wanted: &[u8]) -> bool {
    words(text).any(|word| word.eq_ignore_ascii_case(wanted))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'.'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by<'a>(tag: &str, text: &'a str) -> Alteration<'a> {
        Alteration::by(tag.as_bytes(), text.as_bytes())
    }

    #[test]
    fn a_parameter_becomes_the_clients_own_unless_it_is_local_or_is_reported() {
        assert_eq!(
            by("SET", "SET search_path = app"),
            Alteration::Parameters(vec![b"search_path"])
        );
        assert_eq!(
            by("SET", "set session work_mem to 5"),
            Alteration::Parameters(vec![b"work_mem"])
        );
        assert_eq!(
            by("SET", "SET ROLE admin"),
            Alteration::Parameters(vec![b"ROLE"])
        );
        assert_eq!(
            by("RESET", "RESET app.x"),
            Alteration::Parameters(vec![b"app.x"])
        );
        for harmless in [
            "SET LOCAL search_path = app",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET TimeZone = 'UTC'",
            "SET TIME ZONE 'UTC'",
            "RESET ALL",
        ] {
            assert_eq!(by("SET", harmless), Alteration::None, "{harmless}");
        }
    }

    #[test]
    fn each_statement_of_a_message_counts_and_doubt_too() {
        let both = by("SET", "SET LOCAL a = 1; SET b = 2; SELECT 1; SET c = 3");
        assert_eq!(both, Alteration::Parameters(vec![b"b", b"c"]));
        assert_eq!(by("SET", "/* x */ DO"), Alteration::Belongings);
        assert_eq!(by("SELECT 1", "SELECT 1; SET b = 2"), Alteration::None);
    }

    #[test]
    fn what_functions_leave_behind_is_told_by_their_names() {
        let of = |text| by("SELECT 1", text);
        assert_eq!(
            of("select set_config('role', 'bob', false)"),
            Alteration::Parameters(vec![b"role"])
        );
        assert_eq!(
            of("SELECT pg_catalog.set_config('search_path', '', false)"),
            Alteration::Parameters(vec![b"search_path"])
        );
        assert_eq!(
            of("SELECT set_config($1, $2, false)"),
            Alteration::Belongings
        );
        assert_eq!(
            of("SELECT set_config('request.user', '7', true)"),
            Alteration::None
        );
        assert_eq!(of("SELECT pg_advisory_lock(5)"), Alteration::Belongings);
        assert_eq!(of("SELECT pg_try_advisory_lock(5)"), Alteration::Belongings);
        assert_eq!(of("SELECT pg_advisory_xact_lock(5)"), Alteration::None);
        assert_eq!(
            of("SELECT abalance FROM pgbench_accounts WHERE aid = 1"),
            Alteration::None
        );
        assert_eq!(
            by("CREATE TABLE", "CREATE TABLE pg_temp.zz (a int)"),
            Alteration::Belongings
        );
    }

    #[test]
    fn what_a_session_owns_stays_with_it() {
        for (tag, text) in [
            ("LISTEN", "LISTEN ch"),
            ("PREPARE", "PREPARE p AS SELECT 1"),
            ("CREATE TABLE", "CREATE TEMP TABLE t (a int)"),
            ("DECLARE CURSOR", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            ("SET", "SET SESSION AUTHORIZATION bob"),
        ] {
            assert_eq!(by(tag, text), Alteration::Belongings, "{text}");
        }
        assert_eq!(
            by("CREATE TABLE", "CREATE TABLE template (a int)"),
            Alteration::None
        );
        assert_eq!(
            by("DECLARE CURSOR", "DECLARE c CURSOR FOR SELECT 1"),
            Alteration::None
        );
    }
}
