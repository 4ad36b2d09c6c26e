use super::*;

const REFERENCE: &str = include_str!("../../config.toml");

/// Every table, as a path that an unknown key can be planted under.
const TABLES: [&str; 20] = [
    "listen",
    "listen.tls",
    "server_tls",
    "databases.app.tls",
    "http",
    "auth",
    "console",
    "workers",
    "pool",
    "databases.app",
    "databases.app.pool",
    "users.app",
    "users.app.pool",
    "trace",
    "annotation",
    "slow_query",
    "statistics",
    "otlp",
    "log",
    "drain",
];

#[test]
fn the_reference_runs_as_it_is() {
    let checked = load(REFERENCE).unwrap();
    assert_eq!(checked.warnings, []);
    assert_eq!(
        checked
            .config
            .database("anything")
            .unwrap()
            .name_on_server("anything"),
        "anything"
    );
    assert!(checked.config.user("app").is_some());
}

#[test]
fn the_reference_without_its_examples_is_the_default() {
    let mut config = load(REFERENCE).unwrap().config;
    assert_eq!(config.databases.remove("*"), Some(Database::default()));
    config.users.remove("app");
    assert_eq!(config, Config::default());
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(load("").unwrap().config, Config::default());
}

#[test]
fn the_reference_names_every_table_and_every_key() {
    for table in known_names("no_such_table = 1") {
        assert!(
            REFERENCE.contains(&format!("[{table}]")) || REFERENCE.contains(&format!("[{table}.")),
            "[{table}] is not in config.toml"
        );
    }
    for table in TABLES {
        let section = match table {
            // A pool setting of a database or a user is any of [pool].
            "databases.app.pool" | "users.app.pool" => section("[pool]"),
            "databases.app.tls" => section("[server_tls]"),
            table => section(&format!("[{table}]")),
        };
        for key in known_names(&format!("{table}.no_such_key = 1")) {
            let is_written = section.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("{key}."))
            });
            let is_written = is_written || REFERENCE.contains(&format!("\n[{table}.{key}]\n"));
            assert!(is_written, "`{key}` of [{table}] is not in config.toml");
        }
    }
}

#[test]
fn every_table_refuses_a_key_that_it_does_not_know() {
    for table in TABLES {
        let errors = load(&format!("{table}.no_such_key = 1")).unwrap_err();
        let [problem] = errors.problems() else {
            panic!("{errors}");
        };
        assert_eq!(*problem.key, format!("{table}.no_such_key"));
    }
}

#[test]
fn the_reference_cut_anywhere_is_good_or_refused_with_a_place() {
    for end in (0..REFERENCE.len()).step_by(11) {
        let Some(cut) = REFERENCE.get(..end) else {
            continue;
        };
        if let Err(errors) = load(cut) {
            let all = errors.problems();
            assert!(
                all.iter().all(|problem| problem.position.is_some()),
                "{errors}"
            );
        }
    }
}

/// The names that may stand where `toml` has an unknown one.
fn known_names(toml: &str) -> &'static [&'static str] {
    let table = DeTable::parse(toml).unwrap();
    let (_, refusals) = reader::read::<ConfigFile>(table.get_ref());
    match &refusals[..] {
        [
            reader::Refusal {
                reason: reader::Reason::UnknownKey(known),
                ..
            },
        ] => known,
        other => panic!("{other:?}"),
    }
}

/// The lines of the reference from a heading, which may be in a comment, to the next table.
fn section(heading: &str) -> String {
    let is_heading = |line: &&str| line.trim_start_matches("# ").starts_with('[');
    let mut lines = REFERENCE
        .lines()
        .skip_while(|line| line.trim_start_matches("# ") != heading);
    assert!(lines.next().is_some(), "{heading} is not in config.toml");
    let lines: Vec<&str> = lines.take_while(|line| !is_heading(line)).collect();
    lines.join("\n")
}

fn load(text: &str) -> Result<Checked, ConfigErrors> {
    // Nothing is read but the file itself, to see who else may.
    Config::from_toml(text, "config.toml", &|_| None, &|path| {
        assert_eq!(path, Path::new("config.toml"));
        Err(io::ErrorKind::NotFound.into())
    })
}
