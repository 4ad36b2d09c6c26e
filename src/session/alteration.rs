//! Which statements leave something behind in their session that the next client must not find.

use crate::session::parameters::{follows, is_parameter_name};

/// What a statement leaves behind in its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration<'a> {
    /// Nothing.
    None,
    /// These parameters may have got other values: they become the client's own, and follow it from server to server.
    Parameters(Vec<&'a [u8]>),
    /// What only this client can use, and has to find again: the session stays the client's until it is gone.
    Belongings(Trace),
    /// Perhaps belongings are gone.
    Undone,
}

/// Whether a server can be asked if belongings are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trace {
    /// It can, once something may have ended them.
    Visible,
    /// It can, and they may be gone by the end of the transaction: a temporary table with ON COMMIT DROP.
    Fleeting,
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

impl<'a> Alteration<'a> {
    /// What a statement with this command tag, out of a message with this text, leaves behind: settings, or a prepared
    /// statement, a listener, a temporary table, a cursor that outlives its transaction.
    ///
    /// Told by the command tag, and for a SELECT by the names of two functions; in doubt it leaves something. What is hidden in
    /// a function of the application's own, or in DO, can't be told this way.
    pub fn by(tag: &[u8], text: &'a [u8]) -> Self {
        match tag {
            b"SET" | b"RESET" => Self::by_settings(text),
            // CREATE TABLE … AS and SELECT … INTO have this tag as well.
            _ if tag.starts_with(b"SELECT") => match Self::by_functions(text) {
                Self::None if may_be_temporary(text) => Self::by_temporary_table(text),
                found => found,
            },
            b"LISTEN" | b"PREPARE" => Self::Belongings(Trace::Visible),
            b"LOAD" => Self::Belongings(Trace::Hidden),
            b"DECLARE CURSOR" if contains_word(text, b"hold") => Self::Belongings(Trace::Visible),
            b"UNLISTEN" | b"DEALLOCATE" | b"DEALLOCATE ALL" | b"CLOSE CURSOR"
            | b"CLOSE CURSOR ALL" | b"DISCARD TEMP" | b"ROLLBACK" => Self::Undone,
            _ if tag.starts_with(b"DROP ") => Self::Undone,
            _ if tag.starts_with(b"CREATE ") => Self::by_temporary_table(text),
            _ => Self::None,
        }
    }

    fn by_temporary_table(text: &[u8]) -> Self {
        let is_temporary = |word: &[u8]| {
            let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
            is(b"temp") || is(b"temporary") || word.to_ascii_lowercase().starts_with(b"pg_temp")
        };
        let makes = |word: &[u8]| {
            word.eq_ignore_ascii_case(b"create") || word.eq_ignore_ascii_case(b"into")
        };
        if !words(text).any(is_temporary) || !words(text).any(makes) {
            return Self::None;
        }
        Self::Belongings(match contains_word(text, b"commit") {
            true => Trace::Fleeting,
            false => Trace::Visible,
        })
    }

    /// What a SELECT leaves behind by calling `set_config()` or taking a lock of the session. Few queries have an underscore
    /// in the right place: others cost no more than the search for it.
    fn by_functions(text: &'a [u8]) -> Self {
        let mut undone = Self::None;
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
                return Self::Belongings(Trace::Visible);
            }
            if ends(b"advisory") && begins(b"_unlock") {
                undone = Self::Undone;
            }
            if ends(b"set") && begins(b"_config") {
                return Self::by_set_config(behind);
            }
        }
        undone
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
            _ => Self::Belongings(Trace::Hidden),
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
                Some(Set::Characteristics) => names.extend(CHARACTERISTICS),
                Some(Set::Other) => return Self::Belongings(Trace::Hidden),
            }
            is_read = true;
        }
        match (is_read, names.is_empty()) {
            (false, _) => Self::Belongings(Trace::Hidden),
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
    /// SESSION CHARACTERISTICS.
    Characteristics,
    /// Something that is no parameter: SESSION AUTHORIZATION, XML OPTION.
    Other,
}

/// What SET SESSION CHARACTERISTICS is about.
const CHARACTERISTICS: [&[u8]; 3] = [
    b"default_transaction_isolation",
    b"default_transaction_read_only",
    b"default_transaction_deferrable",
];

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
        let other: [&[u8]; 2] = [b"authorization", b"xml"];
        Some(match name {
            _ if is_one_of(name, &harmless) || follows(name) => Self::Harmless,
            _ if name.eq_ignore_ascii_case(b"characteristics") => Self::Characteristics,
            _ if is_one_of(name, &other) || !is_parameter_name(name) => Self::Other,
            _ => Self::Parameter(name),
        })
    }
}

/// Whether there may be the word TEMP, TEMPORARY or pg_temp in a text. Looks at every M of it: most have few.
fn may_be_temporary(text: &[u8]) -> bool {
    memchr::memchr2_iter(b'm', b'M', text).any(|at| {
        at.checked_sub(2)
            .and_then(|start| text.get(start..at + 2))
            .is_some_and(|word| word.eq_ignore_ascii_case(b"temp"))
    })
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

    const VISIBLE: Alteration<'_> = Alteration::Belongings(Trace::Visible);
    const HIDDEN: Alteration<'_> = Alteration::Belongings(Trace::Hidden);

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
        assert_eq!(by("SET", "/* x */ DO"), HIDDEN);
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
        assert_eq!(of("SELECT set_config($1, $2, false)"), HIDDEN);
        assert_eq!(
            of("SELECT set_config('request.user', '7', true)"),
            Alteration::None
        );
        assert_eq!(of("SELECT pg_advisory_lock(5)"), VISIBLE);
        assert_eq!(of("SELECT pg_try_advisory_lock(5)"), VISIBLE);
        assert_eq!(of("SELECT pg_advisory_unlock(5)"), Alteration::Undone);
        assert_eq!(
            of("SELECT pg_advisory_unlock(5), pg_advisory_lock(6)"),
            VISIBLE
        );
        assert_eq!(of("SELECT pg_advisory_xact_lock(5)"), Alteration::None);
        assert_eq!(
            of("SELECT abalance FROM pgbench_accounts WHERE aid = 1"),
            Alteration::None
        );
        assert_eq!(
            by("CREATE TABLE", "CREATE TABLE pg_temp.zz (a int)"),
            VISIBLE
        );
    }

    #[test]
    fn what_a_session_owns_stays_with_it() {
        for (tag, text) in [
            ("LISTEN", "LISTEN ch"),
            ("PREPARE", "PREPARE p AS SELECT 1"),
            ("CREATE TABLE", "CREATE TEMP TABLE t (a int)"),
            ("DECLARE CURSOR", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            ("SELECT 1", "CREATE TEMP TABLE t AS SELECT 1"),
            ("SELECT 1", "select 1 AS a INTO temporary t"),
        ] {
            assert_eq!(by(tag, text), VISIBLE, "{text}");
        }
        assert_eq!(by("SET", "SET SESSION AUTHORIZATION bob"), HIDDEN);
        assert_eq!(
            by("CREATE TABLE", "CREATE TEMP TABLE t (a int) ON COMMIT DROP"),
            Alteration::Belongings(Trace::Fleeting)
        );
        assert_eq!(by("SELECT 1", "SELECT temp FROM weather"), Alteration::None);
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
