//! PostgreSQL's own SQL, directly and through the proxy: every message that comes back is the same.
//!
//! The SQL is PostgreSQL's regression SQL, which `make deps` gets from Debian's source package (`PG_REGRESS_DIR` names another
//! folder, `REGRESS_TESTS=all` runs all of it); where there is no such package, `make deps` leaves a note and the test says so; what the installed PostgreSQL brings (extension scripts,
//! information_schema.sql and its like); the corpus of statements; and random queries (`FUZZ_SEED`, `FUZZ_QUERIES`).
//!
//! What differs between two direct runs is nobody's fault: such replies are compared by their messages' kinds only, and counted.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod generator;
mod psql_script;
mod replay;
mod twin;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, thread};

use pgspan::dev::postgres::Settings;
use serde_json::Value;

use replay::{Exchanged, Other, Protocol, Route, replay, replay_queries};
use support::TRACEPARENT;
use support::messages::Message;
use support::postgres::{Binaries, Postgres, shared, started};
use support::proxy::Proxy;

#[test]
fn the_sql_that_postgresql_installs_is_answered_the_same() {
    let files = installed_sql();
    compare("installed SQL", &Server::Shared, |route| {
        files
            .iter()
            .flat_map(|(_, text)| replay(text, &[], route))
            .collect()
    });
}

#[test]
fn the_corpus_is_answered_the_same() {
    let mut queries: Vec<Vec<u8>> = CORPUS_SETUP
        .iter()
        .map(|sql| sql.as_bytes().to_vec())
        .collect();
    for line in include_str!("../corpus/annotation-corpus.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        // What is in another encoding comes with its settings.
        let set = |name: &str| {
            let value = case[name].as_str();
            value.map_or_else(
                || format!("RESET {name}"),
                |value| format!("SET {name} = '{value}'"),
            )
        };
        queries.push(set("client_encoding").into_bytes());
        queries.push(set("standard_conforming_strings").into_bytes());
        queries.push(match case["sql"].as_str() {
            Some(sql) => sql.as_bytes().to_vec(),
            None => unhexed(case["sql_hex"].as_str().unwrap()),
        });
        queries.push(b"ROLLBACK".to_vec());
    }
    compare("corpus", &Server::Shared, |route| {
        replay_queries(&queries, route)
    });
}

#[test]
fn random_queries_are_answered_the_same() {
    let number = |name: &str, otherwise| {
        env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let seed = number("FUZZ_SEED", 20_260_101);
    let count = number("FUZZ_QUERIES", 1_500);
    println!("FUZZ_SEED={seed} FUZZ_QUERIES={count}");
    let queries = generator::queries(seed, count);
    compare("random queries", &Server::Shared, |route| {
        replay_queries(&queries, route)
    });
}

#[test]
fn the_regression_sql_of_postgresql_is_answered_the_same() {
    let folder = env::var_os("PG_REGRESS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql-source/regress"),
        PathBuf::from,
    );
    if let Ok(why) = fs::read_to_string(folder.with_file_name("none")) {
        return println!("regression SQL: left out. {why}");
    }
    assert!(
        folder.join("parallel_schedule").exists(),
        "no regression SQL in {}: scripts/postgresql-source gets it",
        folder.display()
    );
    let files = regression_files(&folder);
    let folder = folder.to_str().unwrap().to_owned();
    let environment = [
        ("PG_ABS_SRCDIR", &*folder),
        ("PG_ABS_BUILDDIR", "/nonexistent"),
        ("PG_LIBDIR", "/nonexistent"),
        ("PG_DLSUFFIX", ".so"),
    ];
    compare("regression SQL", &Server::Own, |route| {
        files
            .iter()
            .flat_map(|(_, text)| replay(text, &environment, route))
            .collect()
    });
}

/// How the proxy is set up, and how it is spoken to.
struct Way {
    mode: &'static str,
    format: &'static str,
    placement: &'static str,
    /// More keys of `[annotation]`.
    more: &'static str,
    /// Views that show what those keys do, by their names; statistics that a server tells late, where the next query is another's.
    shown_in: &'static [&'static str],
    protocol: Protocol,
    /// Another client uses the same servers in between.
    is_shared: bool,
}

const WAYS: &[Way] = &[
    Way {
        mode: "session",
        format: "sqlcommenter",
        placement: "suffix",
        more: "",
        shown_in: &[],
        protocol: Protocol::Simple,
        is_shared: false,
    },
    Way {
        mode: "session",
        format: "sqlcommenter",
        placement: "prefix",
        more: "",
        shown_in: &[],
        protocol: Protocol::Simple,
        is_shared: false,
    },
    Way {
        mode: "transaction",
        format: "plain",
        placement: "prefix",
        more: "",
        shown_in: &[],
        protocol: Protocol::Simple,
        is_shared: false,
    },
    Way {
        mode: "session",
        format: "plain",
        placement: "suffix",
        more: "",
        shown_in: &[],
        protocol: Protocol::Joined(3),
        is_shared: false,
    },
    Way {
        mode: "session",
        format: "sqlcommenter",
        placement: "suffix",
        more: "",
        shown_in: &[],
        protocol: Protocol::Extended,
        is_shared: false,
    },
    Way {
        mode: "transaction",
        format: "sqlcommenter",
        placement: "suffix",
        more: "unnamed_parse = true\nprepared = \"application_name\"\n",
        shown_in: &["pg_cursors", "pg_prepared_statements"],
        protocol: Protocol::Extended,
        is_shared: false,
    },
    Way {
        mode: "transaction",
        format: "sqlcommenter",
        placement: "suffix",
        more: "",
        shown_in: &["prevstats"],
        protocol: Protocol::Simple,
        is_shared: true,
    },
    Way {
        mode: "transaction",
        format: "sqlcommenter",
        placement: "suffix",
        more: "",
        shown_in: &["prevstats"],
        protocol: Protocol::Extended,
        is_shared: true,
    },
];

/// Runs the statements directly, twice, and in each way through the proxy; a difference fails the test.
fn compare(what: &str, server: &Server, run: impl Fn(&Route) -> Vec<Exchanged> + Sync) {
    let only = env::var("DIFFERENTIAL_WAY").map(|way| way.parse::<usize>().unwrap());
    let is_wanted = |at: usize| only.as_ref().map_or(true, |only| *only == at);
    let mut failures = Vec::new();
    for protocol in [Protocol::Simple, Protocol::Joined(3), Protocol::Extended] {
        let ways = WAYS.iter().enumerate();
        let ways: Vec<_> = ways
            .filter(|(at, way)| way.protocol == protocol && is_wanted(*at))
            .map(|(_, way)| way)
            .collect();
        if ways.is_empty() {
            continue;
        }
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| directly(server, protocol, &run));
            let second = directly(server, protocol, &run);
            (first.join().unwrap(), second)
        });
        for Way {
            mode,
            format,
            placement,
            more,
            shown_in,
            is_shared,
            ..
        } in ways
        {
            // Each session has a server process of its own, as it has directly: PL/pgSQL's functions, say, are compiled once in each.
            let lifetime = match *mode {
                "session" => "server_lifetime = \"0\"\n",
                _ => "",
            };
            let options = more.replace('\n', " ");
            let beside = if *is_shared {
                "beside another client, "
            } else {
                ""
            };
            let way =
                format!("{mode} pooling, {beside}{format} {placement} {options}, {protocol:?}");
            let config = format!(
                "[pool]\nmode = \"{mode}\"\nsize = 3\n{lifetime}[annotation]\nformat = \"{format}\"\nplacement = \"{placement}\"\n{more}"
            );
            let (proxied, annotated) =
                through_the_proxy(server, protocol, *is_shared, &config, &run);
            let Report {
                volatile,
                differences,
            } = Report::of(&first, &second, &proxied, shown_in);
            let messages: usize = first.iter().map(|exchanged| exchanged.received.len()).sum();
            println!(
                "{what}, {way}: {} sent, {messages} messages compared, {annotated} annotated, {volatile} volatile, {} differ",
                first.len(),
                differences.len()
            );
            failures.extend(
                differences
                    .iter()
                    .map(|difference| format!("{way}: {difference}")),
            );
        }
    }
    if !failures.is_empty() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what}.txt"));
        fs::write(&file, failures.join("\n\n")).unwrap();
        println!("all differences are in {}", file.display());
    }
    let shown = failures.get(..SHOWN).unwrap_or(&failures).join("\n\n");
    assert!(
        failures.is_empty(),
        "{what}: {} replies differ\n\n{shown}",
        failures.len()
    );
}

fn directly(
    server: &Server,
    protocol: Protocol,
    run: &impl Fn(&Route) -> Vec<Exchanged>,
) -> Vec<Exchanged> {
    let place = server.place();
    run(&Route {
        address: ([127, 0, 0, 1], place.postgres().port()).into(),
        database: place.database.as_str().into(),
        parameters: Vec::new(),
        protocol,
        other: None,
    })
}

/// What came back, and how many queries the proxy says it has annotated.
fn through_the_proxy(
    server: &Server,
    protocol: Protocol,
    is_shared: bool,
    config: &str,
    run: &impl Fn(&Route) -> Vec<Exchanged>,
) -> (Vec<Exchanged>, u64) {
    let place = server.place();
    let proxy = Proxy::in_front_of(place.postgres(), config);
    let tags = "application='diff%20run',route='%2Fcheckout%2F%2A',controller='it%27s'";
    let exchanged = run(&Route {
        address: proxy.address(),
        database: place.database.as_str().to_owned(),
        parameters: vec![
            ("pgspan.traceparent".to_owned(), TRACEPARENT.to_owned()),
            ("pgspan.tracestate".to_owned(), "a=1,b*/c=2".to_owned()),
            ("pgspan.correlation_id".to_owned(), "req-7".to_owned()),
            ("pgspan.tags".to_owned(), tags.to_owned()),
        ],
        protocol,
        other: is_shared.then(|| Other::new(proxy.address(), &place.database)),
    });
    let (_, metrics) = proxy.http("/metrics").unwrap();
    let annotated = metrics
        .lines()
        .filter(|line| {
            line.starts_with("pgspan_query_annotations_total")
                && line.contains("reason=\"annotated\"")
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    (exchanged, annotated.sum())
}

/// What the statements run on.
enum Server {
    /// Each run has a database of its own on one server.
    Shared,
    /// Each run has a server of its own: there are commands on what all databases share.
    Own,
}

struct Place {
    own: Option<Postgres>,
    database: String,
}

impl Server {
    fn place(&self) -> Place {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let own = match self {
            Self::Shared => None,
            Self::Own => Some(started(Settings {
                // With regress, EXPLAIN shows no query identifiers, in which object ids are.
                // And every process knows PL/pgSQL, as one that a pool's clients share does after a while.
                configuration: "max_prepared_transactions = 2\nautovacuum = off\ncompute_query_id = regress\n\
                                session_preload_libraries = 'plpgsql'\n",
                ..Settings::default()
            })),
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            database: match self {
                Self::Shared => format!("run{count:03}"),
                Self::Own => "regression".to_owned(),
            },
            own,
        };
        let create = format!("CREATE DATABASE {} TEMPLATE template0", place.database);
        // One at a time: the template may have no other user.
        static CREATING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
        place.postgres().psql("postgres", &create).unwrap();
        // As pg_regress has it.
        for setting in ["DateStyle = 'Postgres, MDY'", "TimeZone = 'PST8PDT'"] {
            let alter = format!("ALTER DATABASE {} SET {setting}", place.database);
            place.postgres().psql("postgres", &alter).unwrap();
        }
        place
    }
}

impl Place {
    fn postgres(&self) -> &Postgres {
        self.own.as_ref().unwrap_or_else(|| shared())
    }
}

/// What came of a comparison.
struct Report {
    volatile: usize,
    differences: Vec<String>,
}

impl Report {
    fn of(
        first: &[Exchanged],
        second: &[Exchanged],
        proxied: &[Exchanged],
        shown_in: &[&str],
    ) -> Self {
        let mut report = Self {
            volatile: 0,
            differences: Vec::new(),
        };
        for (at, directly) in first.iter().enumerate() {
            let sql = String::from_utf8_lossy(&directly.sql);
            if VOLATILE
                .iter()
                .chain(shown_in)
                .any(|part| sql.contains(part))
            {
                report.volatile += 1;
                continue;
            }
            let is_volatile = second.get(at) != Some(directly);
            report.volatile += usize::from(is_volatile);
            let Some(proxied) = proxied.get(at) else {
                report
                    .differences
                    .push(format!("the replay ended before number {at}"));
                break;
            };
            let is_same = match is_volatile {
                false if proxied == directly => true,
                false => {
                    let is_sorted = orders_every_result(&sql, &directly.received);
                    let told = |exchanged: &Exchanged| {
                        let messages = without_new_oids(&exchanged.received);
                        match is_sorted {
                            true => messages,
                            false => with_sorted_rows(messages),
                        }
                    };
                    report.volatile += 1;
                    proxied.sql == directly.sql && told(proxied) == told(directly)
                }
                true => {
                    kinds(&proxied.received) == kinds(&directly.received)
                        || second.get(at).is_some_and(|second| {
                            kinds(&proxied.received) == kinds(&second.received)
                        })
                }
            };
            if !is_same {
                report.differences.push(difference(at, directly, proxied));
            }
        }
        report
    }
}

/// With the object identifiers left out that the server has given out since initdb: how many went before depends on which of its
/// processes have made their temporary schemas, and on nothing that a client sees otherwise.
fn without_new_oids(messages: &[Message]) -> Vec<Message> {
    let mut columns = Vec::new();
    let mask = |message: &Message| {
        match message.tag() {
            b'T' => columns = replay::column_types(message),
            b'D' => return replay::with_rows_oids_masked(message, &columns),
            _ => {}
        }
        message.clone()
    };
    messages.iter().map(mask).collect()
}

/// Whether there are as many orders asked for as results.
fn orders_every_result(sql: &str, received: &[Message]) -> bool {
    let results = received.iter().filter(|message| message.tag() == b'T');
    sql.to_ascii_lowercase().matches("order by").count() >= results.count().max(1)
}

/// With the rows of each result in an order of ours: where no order is asked for, that of a catalog's rows depends on when the space
/// of earlier ones was free.
fn with_sorted_rows(mut messages: Vec<Message>) -> Vec<Message> {
    let is_row = |message: &Message| message.tag() == b'D';
    for rows in messages.chunk_by_mut(|one, other| is_row(one) && is_row(other)) {
        rows.sort_by(|one, other| one.0.cmp(&other.0));
    }
    messages
}

/// The kinds of messages, however many rows.
fn kinds(messages: &[Message]) -> Vec<u8> {
    let mut kinds: Vec<u8> = messages.iter().map(Message::tag).collect();
    kinds.dedup();
    kinds
}

fn difference(at: usize, directly: &Exchanged, proxied: &Exchanged) -> String {
    let messages = directly.received.iter().zip(&proxied.received);
    let same = messages
        .take_while(|(directly, proxied)| directly == proxied)
        .count();
    let shown = |exchanged: &Exchanged| {
        let message = exchanged.received.get(same);
        let mut text =
            message.map_or_else(|| "the end".to_owned(), |message| format!("{message:?}"));
        text.truncate(LONGEST_SHOWN);
        text
    };
    let mut sql = String::from_utf8_lossy(&directly.sql).into_owned();
    sql.truncate(sql.floor_char_boundary(LONGEST_SHOWN));
    format!(
        "number {at}: {sql}\n  after {same} equal messages\n  PostgreSQL: {}\n  pgspan:     {}",
        shown(directly),
        shown(proxied)
    )
}

/// The scripts of the installed extensions, made to run, and of the system's own views and functions.
fn installed_sql() -> Vec<(PathBuf, Vec<u8>)> {
    let binaries = Binaries::find().unwrap();
    let said = support::postgres::run(binaries.command("pg_config").arg("--sharedir"));
    let share = if said.succeeded {
        PathBuf::from(said.stdout.trim())
    } else {
        // Debian has pg_config in another package.
        let version = binaries.path("postgres");
        let version = version
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .file_name()
            .unwrap();
        Path::new("/usr/share/postgresql").join(version)
    };
    let mut files = Vec::new();
    for folder in [share.clone(), share.join("extension")] {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "sql")),
        );
    }
    files.sort();
    assert!(files.len() > 1, "{} holds no SQL", share.display());
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let module = format!("$libdir/{}", name.split("--").next().unwrap());
        let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
        let text = text
            .replace("MODULE_PATHNAME", &module)
            .replace("@extschema@", "public");
        (path, text.into_bytes())
    };
    files.into_iter().map(read).collect()
}

/// The regression tests in the order of their schedule, each where those that it needs have run.
fn regression_files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let schedule = folder.join("parallel_schedule");
    let schedule = fs::read_to_string(&schedule)
        .unwrap_or_else(|error| panic!("{}: {error}", schedule.display()));
    let only = env::var("REGRESS_TESTS").unwrap_or_else(|_| SOME_TESTS.to_owned());
    let tests = schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .filter(|test| only == "all" || only.split(' ').any(|wanted| wanted == *test))
        .map(|test| folder.join("sql").join(format!("{test}.sql")))
        // Some are made by the build.
        .filter(|path| path.exists());
    let files: Vec<_> = tests
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert!(!files.is_empty(), "no tests");
    files
}

fn unhexed(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// What differs between any two runs: how many sessions a database has had, which a pool's clients share; whether two moments are in
/// the same hundredth of a second.
const VOLATILE: &[&str] = &["db_stat_sessions", "timestamp(2) with"];

/// What the statements of the corpus are about.
const CORPUS_SETUP: &[&str] = &[
    "CREATE TABLE t (a int, b text, c text)",
    "INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', 'y')",
];

/// What takes less than a minute; `test_setup` is what the others need.
const SOME_TESTS: &str =
    "test_setup strings numerology errors case subselect union transactions portals prepare";

const SHOWN: usize = 60;
const LONGEST_SHOWN: usize = 400;
