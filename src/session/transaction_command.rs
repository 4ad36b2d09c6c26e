//! Commands that begin or end a transaction or a part of it.
//!
//! Source: `TransactionStmt` in PostgreSQL's gram.y.

use std::borrow::Cow;

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
