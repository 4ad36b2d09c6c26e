//! Commands that bring settings back to what they were when the session began.
//!
//! On a direct connection that is what the client's startup packet says. A pooled server was logged in to without it, so the
//! proxy sets it again behind such a command.
//!
//! Source: `VariableSetStmt`, `VariableResetStmt` and `DiscardStmt` in PostgreSQL's gram.y.

use std::borrow::Cow;

use super::words::Words;
use crate::session::parameters::{ParameterSet, Scope, write_set_config};
use crate::session::transaction_command::TransactionCommand;
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::{StandardConformingStrings, TokenKind};
use crate::sql::script::{Script, StatementKind};

/// What is brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetCommand<'a> {
    /// One parameter, for so long.
    Parameter(Cow<'a, [u8]>, Scope),
    /// All of them: RESET ALL, DISCARD ALL.
    All,
}

/// What has to be set again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// For the session.
    pub session: ParameterSet,
    /// For the transaction alone.
    pub transaction: ParameterSet,
}

impl Again {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.session.is_empty() && self.transaction.is_empty()
    }

    /// Appends the SQL for it: one SELECT.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for parameter in self.session.iter() {
            write_set_config(parameter, Scope::Session, start, out);
        }
        for parameter in self.transaction.iter() {
            write_set_config(parameter, Scope::Transaction, start, out);
        }
    }
}

impl<'a> ResetCommand<'a> {
    /// Reads one statement, with or without its semicolon.
    pub fn recognise(
        statement: &'a [u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> Option<Self> {
        let mut words = Words::new(statement, strings, encoding);
        let first = words.next()?;
        if first.is_keyword("discard") {
            return words.take_keyword("all").then_some(Self::All);
        }
        let sets = first.is_keyword("set");
        if !sets && !first.is_keyword("reset") {
            return None;
        }
        if !sets && words.take_keyword("all") {
            return Some(Self::All);
        }
        let is_local = sets && words.take_keyword("local");
        let _ = sets && !is_local && words.take_keyword("session");
        let scope = match is_local {
            true => Scope::Transaction,
            false => Scope::Session,
        };
        if words.take_keyword("time") {
            let is_back = words.take_keyword("zone")
                && (!sets || words.take_keyword("default") || words.take_keyword("local"));
            return is_back.then_some(Self::Parameter(Cow::Borrowed(b"TimeZone"), scope));
        }
        if sets && words.take_keyword("names") {
            let is_back = words.take_keyword("default") || words.is_at_end();
            return is_back.then_some(Self::Parameter(Cow::Borrowed(b"client_encoding"), scope));
        }
        let mut name = words.take_identifier()?;
        while words.take_kind(TokenKind::Dot) {
            let part = words.take_identifier()?;
            let name = name.to_mut();
            name.push(b'.');
            name.extend_from_slice(&part);
        }
        if sets {
            let _ = words.take_keyword("to") || words.take_operator("=");
            if !words.take_keyword("default") {
                return None;
            }
        }
        words.is_at_end().then_some(Self::Parameter(name, scope))
    }
}

/// Whether a statement may be one of them, by its first word, which it begins with.
pub fn may_be(statement: &[u8]) -> bool {
    let word = statement.split(|byte| !byte.is_ascii_alphabetic()).next();
    let is = |keyword: &[u8]| word.is_some_and(|word| word.eq_ignore_ascii_case(keyword));
    match statement {
        [b'd' | b'D' | b'r' | b'R' | b's' | b'S', ..] => {
            is(b"reset") || is(b"discard") || is(b"set")
        }
        _ => false,
    }
}

/// What of `own`, which is what the client's startup packet set, has to be set again behind a message with this text. Empty if
/// nothing has to.
pub fn to_set_again(
    text: &[u8],
    own: &ParameterSet,
    strings: StandardConformingStrings,
    encoding: ClientEncoding,
) -> Again {
    let mut script = Script::new();
    script.read(text, strings, encoding);
    let mut again = Again::default();
    if script
        .statements()
        .iter()
        .any(|it| it.kind == StatementKind::Copy)
    {
        // Nothing may stand behind it before its data.
        return again;
    }
    for statement in script.statements() {
        let text = text.get(statement.start..statement.end).unwrap_or_default();
        match ResetCommand::recognise(text, strings, encoding) {
            Some(command) => command.add_to(&mut again, own),
            None => {
                let ends = TransactionCommand::recognise(text, strings, encoding);
                if matches!(ends, Some(TransactionCommand::Rollback { .. })) {
                    // What was reset in front of it is as it was.
                    again = Again::default();
                }
            }
        }
    }
    again
}

impl ResetCommand<'_> {
    fn add_to(&self, again: &mut Again, own: &ParameterSet) {
        match self {
            Self::Parameter(name, scope) => {
                if let Some(value) = own.value(name) {
                    let again = match scope {
                        Scope::Session => &mut again.session,
                        Scope::Transaction => &mut again.transaction,
                    };
                    again.insert(name, value);
                }
            }
            Self::All => {
                let is_reset = |name: &[u8]| {
                    // GUC_NO_RESET_ALL in PostgreSQL's guc.c.
                    !name.eq_ignore_ascii_case(b"role")
                        && !name.eq_ignore_ascii_case(b"session_authorization")
                };
                own.iter()
                    .filter(|(name, _)| is_reset(name))
                    .for_each(|(name, value)| again.session.insert(name, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: StandardConformingStrings = StandardConformingStrings::On;

    fn recognise(text: &str) -> Option<ResetCommand<'_>> {
        ResetCommand::recognise(text.as_bytes(), ON, ClientEncoding::Utf8)
    }

    fn again(text: &str) -> Vec<String> {
        let mut own = ParameterSet::default();
        own.insert(b"search_path", b"app");
        own.insert(b"TimeZone", b"Europe/Berlin");
        own.insert(b"role", b"bob");
        to_set_again(text.as_bytes(), &own, ON, ClientEncoding::Utf8)
            .session
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn others_are_told_by_their_first_word() {
        for text in [
            "RESET a",
            "reset\nall",
            "DISCARD ALL",
            "Set a TO DEFAULT",
            "RESET",
        ] {
            assert!(may_be(text.as_bytes()), "{text}");
        }
        for text in [
            "SELECT 1",
            "DELETE FROM t",
            "",
            "RESETS",
            "UPDATE t SET a = 1",
        ] {
            assert!(!may_be(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_forms_of_the_manual_are_recognised() {
        let of = |name: &'static str, scope| {
            Some(ResetCommand::Parameter(
                Cow::Borrowed(name.as_bytes()),
                scope,
            ))
        };
        let one = |name| of(name, Scope::Session);
        for (text, expected) in [
            ("RESET search_path", one("search_path")),
            ("reset App.X ;", one("app.x")),
            ("RESET TIME ZONE", one("TimeZone")),
            ("RESET ALL", Some(ResetCommand::All)),
            ("/**/ discard all", Some(ResetCommand::All)),
            ("DISCARD TEMP", None),
            ("SET x TO DEFAULT", one("x")),
            ("SET SESSION x = default;", one("x")),
            ("SET TIME ZONE LOCAL", one("TimeZone")),
            ("SET TIME ZONE 'UTC'", None),
            ("SET NAMES", one("client_encoding")),
            ("SET NAMES 'UTF8'", None),
            ("SET x TO 'default'", None),
            ("SET LOCAL x TO DEFAULT", of("x", Scope::Transaction)),
            (
                "SET LOCAL TIME ZONE DEFAULT",
                of("TimeZone", Scope::Transaction),
            ),
            ("RESET SESSION AUTHORIZATION", None),
            ("SELECT 1", None),
        ] {
            assert_eq!(recognise(text), expected, "{text}");
        }
    }

    #[test]
    fn only_what_the_startup_packet_set_is_set_again() {
        assert_eq!(again("RESET work_mem"), [""; 0]);
        assert_eq!(again("RESET search_path; SELECT 1"), ["search_path"]);
        assert_eq!(again("RESET timezone"), ["timezone"]);
        assert_eq!(again("RESET ALL"), ["search_path", "TimeZone"]);
        assert_eq!(again("RESET role"), ["role"]);
    }

    #[test]
    fn what_is_reset_for_a_transaction_is_set_again_for_it() {
        let mut own = ParameterSet::default();
        own.insert(b"search_path", b"app");
        let text = b"SET LOCAL search_path = DEFAULT; RESET search_path";
        let mut sql = Vec::new();
        to_set_again(text, &own, ON, ClientEncoding::Utf8).write(&mut sql);
        assert_eq!(
            String::from_utf8_lossy(&sql),
            "SELECT pg_catalog.set_config('search_path', 'app', false), \
             pg_catalog.set_config('search_path', 'app', true)"
        );
    }

    #[test]
    fn what_is_rolled_back_is_not_set_again() {
        assert_eq!(again("BEGIN; RESET ALL; ROLLBACK"), [""; 0]);
        assert_eq!(
            again("RESET ALL; ROLLBACK TO a"),
            ["search_path", "TimeZone"]
        );
        assert_eq!(again("ROLLBACK; RESET search_path"), ["search_path"]);
    }
}
