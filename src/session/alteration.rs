//! Which statements leave something behind in their session that the next client must not find.

use crate::session::parameters::follows;

/// What clients have left behind in a session; the worse comes later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alteration {
    /// Nothing.
    #[default]
    None,
    /// Settings: the session is reset before another client gets it.
    Settings,
    /// What only this client can use, and has to find again: the session stays the client's until it leaves, then it is reset.
    Belongings,
}

impl Alteration {
    /// What a statement with this command tag, out of a message with this text, leaves behind: a setting, or a prepared
    /// statement, a listener, a temporary table, a cursor that outlives its transaction.
    ///
    /// Told by the command tag, so it costs nothing for others; in doubt it leaves something. What functions leave behind
    /// (`set_config()`, `pg_advisory_lock()`) can't be told this way.
    pub fn by(tag: &[u8], text: &[u8]) -> Self {
        let is_altered =
            |is_altered: bool, alteration| if is_altered { alteration } else { Self::None };
        match tag {
            b"SET" => {
                let mut sets = text
                    .split(|byte| *byte == b';')
                    .filter_map(set_by)
                    .peekable();
                let stays = sets.peek().is_none() || sets.any(|set| set == Set::Session);
                is_altered(stays, Self::Settings)
            }
            b"LISTEN" | b"PREPARE" | b"LOAD" => Self::Belongings,
            b"DECLARE CURSOR" => is_altered(contains_word(text, b"hold"), Self::Belongings),
            _ if tag.starts_with(b"CREATE ") => {
                let is_temporary =
                    contains_word(text, b"temp") || contains_word(text, b"temporary");
                is_altered(is_temporary, Self::Belongings)
            }
            _ => Self::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// Ends with the transaction, or follows the client from server to server.
    Harmless,
    /// Stays.
    Session,
}

/// What a SET does; `None` if the statement is none.
fn set_by(statement: &[u8]) -> Option<Set> {
    let mut words = words(statement);
    if !words.next()?.eq_ignore_ascii_case(b"set") {
        return None;
    }
    let mut name = words.next()?;
    if name.eq_ignore_ascii_case(b"local") || name.eq_ignore_ascii_case(b"transaction") {
        return Some(Set::Harmless);
    }
    if name.eq_ignore_ascii_case(b"session") {
        name = words.next()?;
    }
    // SET TIME ZONE and SET NAMES are other spellings.
    let is_following =
        follows(name) || name.eq_ignore_ascii_case(b"time") || name.eq_ignore_ascii_case(b"names");
    Some(if is_following {
        Set::Harmless
    } else {
        Set::Session
    })
}

fn contains_word(text: &[u8], wanted: &[u8]) -> bool {
    words(text).any(|word| word.eq_ignore_ascii_case(wanted))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'.'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(tag: &str, text: &str) -> Alteration {
        Alteration::by(tag.as_bytes(), text.as_bytes())
    }

    #[test]
    fn a_setting_stays_unless_it_is_local_or_follows_the_client() {
        assert_eq!(by("SET", "SET search_path = app"), Alteration::Settings);
        assert_eq!(
            by("SET", "set session statement_timeout to 5"),
            Alteration::Settings
        );
        assert_eq!(by("SET", "SET ROLE admin"), Alteration::Settings);
        assert_eq!(
            by("SET", "SET SESSION AUTHORIZATION bob"),
            Alteration::Settings
        );
        assert_eq!(by("SET", "SET LOCAL search_path = app"), Alteration::None);
        assert_eq!(
            by("SET", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
            Alteration::None
        );
        assert_eq!(by("SET", "SET TimeZone = 'UTC'"), Alteration::None);
        assert_eq!(by("SET", "SET TIME ZONE 'UTC'"), Alteration::None);
    }

    #[test]
    fn each_statement_of_a_message_counts_and_doubt_too() {
        assert_eq!(
            by("SET", "SET LOCAL a = 1; SET b = 2"),
            Alteration::Settings
        );
        assert_eq!(by("SET", "/* x */ SET b = 2"), Alteration::Settings);
        assert_eq!(by("SELECT 1", "SELECT 1; SET b = 2"), Alteration::None);
    }

    #[test]
    fn what_a_session_owns_stays_with_it() {
        assert_eq!(by("LISTEN", "LISTEN ch"), Alteration::Belongings);
        assert_eq!(
            by("CREATE TABLE", "CREATE TEMP TABLE t (a int)"),
            Alteration::Belongings
        );
        assert_eq!(
            by("DECLARE CURSOR", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            Alteration::Belongings
        );
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
