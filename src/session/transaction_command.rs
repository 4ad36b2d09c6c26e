//! Commands that begin or end a transaction or a part of it.
//!
//! Source: `TransactionStmt` in PostgreSQL's gram.y.

use std::borrow::Cow;

use super::words::Words;
use crate::protocol::backend::TransactionStatus;
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::StandardConformingStrings;

/// What a command does to the transaction that it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionCommand<'a> {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END; PREPARE TRANSACTION too, as far as the session is concerned.
    Commit {
        /// AND CHAIN: the next transaction begins at once.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN: the next transaction begins at once.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(Cow<'a, [u8]>),
    /// RELEASE \[SAVEPOINT\].
    Release(Cow<'a, [u8]>),
    /// ROLLBACK TO \[SAVEPOINT\].
    RollbackTo(Cow<'a, [u8]>),
}

impl<'a> TransactionCommand<'a> {
    /// Whether PostgreSQL refuses to parse the statement in a transaction that has failed: whatever does not end it.
    /// An empty statement is taken at any time. Source: `exec_parse_message` in PostgreSQL's postgres.c.
    pub fn is_refused_after_failure(
        statement: &'a [u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> bool {
        match Self::recognise(statement, strings, encoding) {
            Some(Self::Commit { .. } | Self::Rollback { .. } | Self::RollbackTo(_)) => false,
            Some(_) => true,
            None => !Words::new(statement, strings, encoding).is_at_end(),
        }
    }

    /// Reads one statement, with or without its semicolon.
    pub fn recognise(
        statement: &'a [u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> Option<Self> {
        let mut words = Words::new(statement, strings, encoding);
        let first = words.next()?;
        let is = |keyword| first.is_keyword(keyword);
        if is("begin") || is("start") && words.take_keyword("transaction") {
            Some(Self::Begin)
        } else if is("prepare") && words.take_keyword("transaction") {
            Some(Self::Commit { chain: false })
        } else if is("savepoint") {
            words.take_identifier().map(Self::Savepoint)
        } else if is("release") {
            take_savepoint(&mut words).map(Self::Release)
        } else if is("commit") || is("end") {
            let _ = words.take_keyword("work") || words.take_keyword("transaction");
            // COMMIT PREPARED ends another session's transaction.
            (!words.take_keyword("prepared")).then(|| Self::Commit {
                chain: take_chain(&mut words),
            })
        } else if is("rollback") || is("abort") {
            let _ = words.take_keyword("work") || words.take_keyword("transaction");
            if words.take_keyword("to") {
                return take_savepoint(&mut words).map(Self::RollbackTo);
            }
            (!words.take_keyword("prepared")).then(|| Self::Rollback {
                chain: take_chain(&mut words),
            })
        } else {
            None
        }
    }

    /// The status behind the command, if it succeeds.
    pub fn status_after(&self, before: TransactionStatus) -> TransactionStatus {
        match self {
            Self::Begin if before == TransactionStatus::Failed => before,
            Self::Begin => TransactionStatus::InTransaction,
            Self::Commit { chain: false } | Self::Rollback { chain: false } => {
                TransactionStatus::Idle
            }
            // An error outside of a transaction.
            Self::Commit { chain: true } | Self::Rollback { chain: true } | Self::RollbackTo(_)
                if before == TransactionStatus::Idle =>
            {
                before
            }
            Self::Commit { chain: true } | Self::Rollback { chain: true } | Self::RollbackTo(_) => {
                TransactionStatus::InTransaction
            }
            Self::Savepoint(_) | Self::Release(_) => before,
        }
    }
}

/// `[SAVEPOINT] name`; a savepoint may be called savepoint.
fn take_savepoint<'a>(words: &mut Words<'a>) -> Option<Cow<'a, [u8]>> {
    let word = words.take_identifier()?;
    if word.eq_ignore_ascii_case(b"savepoint") {
        return Some(words.take_identifier().unwrap_or(word));
    }
    Some(word)
}

fn take_chain(words: &mut Words<'_>) -> bool {
    words.take_keyword("and") && words.take_keyword("chain")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::backend::TransactionStatus::{Failed, Idle, InTransaction};

    #[test]
    fn the_forms_of_the_manual_are_recognised() {
        let commit = |chain| Some(TransactionCommand::Commit { chain });
        let rollback = |chain| Some(TransactionCommand::Rollback { chain });
        let name = |name: &'static str| Cow::Borrowed(name.as_bytes());
        for (text, expected) in [
            ("begin", Some(TransactionCommand::Begin)),
            (
                "/**/ START -- x\n TRANSACTION READ ONLY;",
                Some(TransactionCommand::Begin),
            ),
            ("start x", None),
            ("COMMIT", commit(false)),
            ("END WORK AND NO CHAIN", commit(false)),
            ("commit transaction and chain;", commit(true)),
            ("commit prepared 'x'", None),
            ("prepare transaction 'x'", commit(false)),
            ("prepare x as select 1", None),
            ("ABORT", rollback(false)),
            ("rollback and chain", rollback(true)),
            ("rollback prepared 'x'", None),
            (
                "ROLLBACK WORK TO SAVEPOINT a",
                Some(TransactionCommand::RollbackTo(name("a"))),
            ),
            (
                "rollback to \"A\"",
                Some(TransactionCommand::RollbackTo(name("A"))),
            ),
            (
                "rollback to savepoint",
                Some(TransactionCommand::RollbackTo(name("savepoint"))),
            ),
            (
                "savepoint A",
                Some(TransactionCommand::Savepoint(name("a"))),
            ),
            ("release a", Some(TransactionCommand::Release(name("a")))),
            ("select 1", None),
            ("", None),
        ] {
            let read = TransactionCommand::recognise(
                text.as_bytes(),
                StandardConformingStrings::On,
                ClientEncoding::Utf8,
            );
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn the_status_behind_a_command_is_known() {
        let chain = TransactionCommand::Rollback { chain: true };
        assert_eq!(TransactionCommand::Begin.status_after(Idle), InTransaction);
        assert_eq!(TransactionCommand::Begin.status_after(Failed), Failed);
        assert_eq!(chain.status_after(Failed), InTransaction);
        let commit = TransactionCommand::Commit { chain: false };
        assert_eq!(commit.status_after(InTransaction), Idle);
        let back = TransactionCommand::RollbackTo(Cow::Borrowed(b"a"));
        assert_eq!(back.status_after(Failed), InTransaction);
        assert_eq!(back.status_after(Idle), Idle);
    }
}
