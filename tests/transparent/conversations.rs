//! What clients say to PostgreSQL.

mod copying;
mod extended;
mod large;
mod others;
mod settings;
mod simple;

use crate::support::messages::*;

/// A name, and what is sent before what is awaited.
pub(crate) struct Conversation {
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<(Vec<Message>, Awaited)>,
}

/// What must have come before the conversation goes on.
pub(crate) enum Awaited {
    /// So many ReadyForQuery.
    Ready(usize),
    /// A message with this tag.
    Tag(u8),
    /// The end of the connection.
    End,
    /// Nothing: what follows is sent at once.
    Nothing,
}

/// What must be there before; run as the superuser.
pub(crate) const SETUP: &str = "
    CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2));
    INSERT INTO items SELECT n, 'item ' || n, n * 1.5 FROM generate_series(1, 100) AS n;
    CREATE FUNCTION fails(what text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'about to fail'; PERFORM 1 / 0; RETURN what; END $$;
    CREATE FUNCTION warns(what text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE WARNING '% is odd', what USING DETAIL = 'a detail', HINT = 'a hint', ERRCODE = '01P01'; RETURN what; END $$;
    CREATE FUNCTION misspelt() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'SELECT nosuch FROM items'; RETURN 1; END $$;
    GRANT ALL ON items TO app;
    CREATE SCHEMA AUTHORIZATION app;
";

/// All of them. They leave no trace in the database, and their replies are the same each time.
pub(crate) fn conversations() -> Vec<Conversation> {
    let mut all = Vec::new();
    all.extend(simple::conversations());
    all.extend(copying::conversations());
    all.extend(extended::conversations());
    all.extend(settings::conversations());
    all.extend(large::conversations());
    all.extend(others::conversations());
    all
}

fn simple(name: &'static str, queries: &[&str]) -> Conversation {
    Conversation {
        name,
        steps: queries
            .iter()
            .map(|sql| (vec![query(sql)], Awaited::Ready(1)))
            .collect(),
    }
}

fn conversation(
    name: &'static str,
    steps: impl Into<Vec<(Vec<Message>, Awaited)>>,
) -> Conversation {
    Conversation {
        name,
        steps: steps.into(),
    }
}
