//! Which driver a client uses, where its startup packet tells.

/// A driver, or a program that needs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of drivers")]
pub enum Driver {
    Psycopg2,
    Psycopg,
    Asyncpg,
    Pg8000,
    SqlAlchemy,
    Django,
    NodePostgres,
    PostgresJs,
    Prisma,
    Pgjdbc,
    Pgx,
    TokioPostgres,
    Sqlx,
    Npgsql,
    ActiveRecord,
    Psql,
    Pgbench,
    /// One that is named, and not known here.
    Other,
    /// The startup packet does not tell.
    #[default]
    Unknown,
}

impl Driver {
    /// Told by the tag `db_driver`, else by the application_name that some set of their own accord.
    pub fn of(tag: Option<&str>, application_name: Option<&[u8]>) -> Self {
        if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
            return find(&tag.to_ascii_lowercase()).unwrap_or(Self::Other);
        }
        match application_name {
            Some(b"psql") => Self::Psql,
            Some(b"pgbench") => Self::Pgbench,
            Some(b"PostgreSQL JDBC Driver") => Self::Pgjdbc,
            _ => Self::Unknown,
        }
    }
}

/// The first whose name is in the tag: `django:psycopg` is Django.
fn find(tag: &str) -> Option<Driver> {
    KNOWN
        .iter()
        .find(|(name, _)| tag.contains(name))
        .map(|(_, driver)| *driver)
}

const KNOWN: [(&str, Driver); 21] = [
    ("django", Driver::Django),
    ("sqlalchemy", Driver::SqlAlchemy),
    ("psycopg2", Driver::Psycopg2),
    ("psycopg", Driver::Psycopg),
    ("asyncpg", Driver::Asyncpg),
    ("pg8000", Driver::Pg8000),
    ("prisma", Driver::Prisma),
    ("node-postgres", Driver::NodePostgres),
    ("node_postgres", Driver::NodePostgres),
    ("postgres.js", Driver::PostgresJs),
    ("jdbc", Driver::Pgjdbc),
    ("pgx", Driver::Pgx),
    ("tokio-postgres", Driver::TokioPostgres),
    ("tokio_postgres", Driver::TokioPostgres),
    ("sqlx", Driver::Sqlx),
    ("npgsql", Driver::Npgsql),
    ("activerecord", Driver::ActiveRecord),
    ("active_record", Driver::ActiveRecord),
    ("rails", Driver::ActiveRecord),
    ("psql", Driver::Psql),
    ("pgbench", Driver::Pgbench),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_believed_before_the_application_name() {
        assert_eq!(
            Driver::of(Some("Npgsql 9.0"), Some(b"psql")),
            Driver::Npgsql
        );
        assert_eq!(Driver::of(Some("django:psycopg"), None), Driver::Django);
        assert_eq!(Driver::of(Some("home-made"), None), Driver::Other);
        assert_eq!(Driver::of(Some(""), Some(b"psql")), Driver::Psql);
        assert_eq!(
            Driver::of(None, Some(b"PostgreSQL JDBC Driver")),
            Driver::Pgjdbc
        );
        assert_eq!(Driver::of(None, Some(b"billing")), Driver::Unknown);
        assert_eq!(Driver::of(None, None), Driver::Unknown);
    }
}
