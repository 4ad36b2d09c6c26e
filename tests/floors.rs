//! The crate's floors hold: a module uses its own floor or a lower one, modules of a floor don't use each other in circles, and the
//! floors of pure rules have no clock, socket, lock or global.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The top-level modules, lowest floor first.
const FLOORS: [&[&str]; 5] = [
    &["protocol", "sql", "trace_context", "config"],
    &["auth", "session", "pool"],
    &["net", "telemetry"],
    &[
        "admission",
        "acceptor",
        "arrivals",
        "auth_query",
        "allowance",
        "worker",
        "shard",
        "spread",
        "client",
        "link",
        "schema_changes",
        "scratch",
        "resolver",
        "server_pool",
        "server",
        "cancel",
        "http",
        "reload",
        "admin",
    ],
    &[
        "app", "cli", "dev", "files", "process", "shutdown", "systemd",
    ],
];

/// What the lowest floors never name.
const PURE_FLOORS: usize = 2;
const IMPURE: &[&str] = &[
    "tokio",
    "Instant::now",
    "SystemTime::now",
    "Mutex",
    "RwLock",
    "static",
    "thread_local",
    // Addresses of std::net are plain values; what opens a socket or asks a resolver is not.
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "std::fs",
    "std::env",
    "getrandom",
];

#[test]
fn the_crate_keeps_to_its_floors() {
    let mut sources = BTreeMap::new();
    read_sources(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(),
        "src",
        &mut sources,
    );
    assert!(sources.contains_key("src/lib.rs"));
    let violations = violations(&sources);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let found = |path: &str, source: &str| {
        violations(&BTreeMap::from([(path.to_owned(), source.to_owned())]))
    };
    assert_eq!(
        found(
            "src/protocol/frame.rs",
            "use crate::session::exchange::Exchange;"
        ),
        ["src/protocol/frame.rs reaches up to session"]
    );
    assert_eq!(
        found(
            "src/pool/mod.rs",
            "use crate::{\n    config::{Limits, PoolMode},\n    worker,\n};"
        ),
        ["src/pool/mod.rs reaches up to worker"]
    );
    assert_eq!(
        found("src/net/lane.rs", "fn f(x: super::super::client::X) {}"),
        ["src/net/lane.rs reaches up to client"]
    );
    assert_eq!(
        found("src/sql/lexer.rs", "let now = Instant::now();"),
        ["src/sql/lexer.rs names Instant::now"]
    );
    assert_eq!(
        found("src/pool.rs", "pub static POOLS: u8 = 0;"),
        ["src/pool.rs names static"]
    );
    assert_eq!(
        found("src/pool.rs", "use std::{fs, net::TcpStream};"),
        ["src/pool.rs names TcpStream", "src/pool.rs names std::fs"]
    );
    assert_eq!(
        found("src/manager/mod.rs", ""),
        ["src/manager/mod.rs: manager is on no floor"]
    );
}

#[test]
fn what_is_allowed_is_not_reported() {
    let source = "
        //! See [`crate::app`]: it holds a Mutex.
        use crate::config::Limits; // not crate::worker
        fn name() -> &'static str { \"crate::link and tokio\" }
        fn later(now: Instant) {}
        use super::budget::Budget;
        #[cfg(test)]
        mod tests { fn epoch() -> Instant { Instant::now() } }
    ";
    assert_eq!(
        violations(&BTreeMap::from([(
            "src/pool/mod.rs".to_owned(),
            source.to_owned()
        )])),
        [""; 0]
    );
}

#[test]
fn a_circle_within_a_floor_is_found() {
    let sources = [
        ("src/client.rs", "use crate::link::Link;"),
        ("src/link.rs", "use crate::server::Server;"),
        ("src/server.rs", "use crate::client;"),
        ("src/http.rs", "use crate::client;"),
    ];
    let sources = sources
        .map(|(path, source)| (path.to_owned(), source.to_owned()))
        .into();
    assert_eq!(
        violations(&sources),
        ["client, link, server use each other in a circle"]
    );
}

fn violations(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, source) in sources {
        let module = module_of(path);
        if ["lib", "main"].contains(&module) || path.ends_with("tests.rs") {
            continue;
        }
        let Some(floor) = floor_of(module) else {
            found.push(format!("{path}: {module} is on no floor"));
            continue;
        };
        let words = words_of(source);
        for used in used_modules(&words, depth_of(path)) {
            if floor_of(&used) > Some(floor) {
                found.push(format!("{path} reaches up to {used}"));
            }
            if used != module {
                uses.entry(module).or_default().insert(used);
            }
        }
        if floor < PURE_FLOORS {
            let paths = paths_of(&words);
            let names = |impure: &str| {
                paths
                    .iter()
                    .any(|path| format!("::{path}::").contains(&format!("::{impure}::")))
            };
            found.extend(
                IMPURE
                    .iter()
                    .filter(|impure| names(impure))
                    .map(|impure| format!("{path} names {impure}")),
            );
        }
    }
    found.extend(circles(&uses));
    found
}

/// The modules that reach each other, each circle once.
fn circles(uses: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<String> {
    let reached_from = |start: &str| {
        let mut reached = BTreeSet::new();
        let mut open = vec![start.to_owned()];
        while let Some(module) = open.pop() {
            let new = uses
                .get(module.as_str())
                .into_iter()
                .flatten()
                .filter(|used| reached.insert((*used).clone()));
            open.extend(new.cloned());
        }
        reached
    };
    let with_itself = uses
        .keys()
        .filter(|module| reached_from(module).contains(**module));
    let circles = with_itself.map(|module| {
        let members = reached_from(module)
            .into_iter()
            .filter(|other| reached_from(other).contains(*module));
        members.collect::<Vec<_>>().join(", ") + " use each other in a circle"
    });
    circles.collect()
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// `src/net/lane.rs` and `src/net.rs` are of the module `net`.
fn module_of(path: &str) -> &str {
    path.split('/')
        .nth(1)
        .unwrap_or(path)
        .trim_end_matches(".rs")
}

/// How many `super::` lead to the crate's root.
fn depth_of(path: &str) -> usize {
    path.split('/').count() - 1 - usize::from(path.ends_with("/mod.rs"))
}

/// Identifiers and punctuation of the code: without comments, strings, lifetimes and the tests at the foot.
fn words_of(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    for line in code.lines() {
        let mut rest = line.split("//").next().unwrap_or_default();
        while let Some(first) = rest.chars().next() {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
                '\'' if rest[1..].starts_with(is_name) => {
                    1 + rest[1..].find(|c| !is_name(c)).unwrap_or(rest.len() - 1)
                }
                ':' if rest.starts_with("::") => 2,
                c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            let (word, behind) = rest.split_at(length);
            if !first.is_whitespace() && !['"', '\''].contains(&first) {
                words.push(word.to_owned());
            }
            rest = behind;
        }
    }
    words
}

/// All paths, with `{…}` groups of imports spelled out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths_of(words: &[String]) -> Vec<String> {
    let is_name = |word: &String| word.chars().all(|c| c.is_alphanumeric() || c == '_');
    let (mut paths, mut path, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_joined = false;
    for word in words {
        match word.as_str() {
            "::" => is_joined = true,
            "{" if is_joined => {
                prefixes.push(path.clone());
                is_joined = false;
            }
            "}" if !prefixes.is_empty() => {
                paths.push(path.join("::"));
                prefixes.pop();
                path.clear();
                is_joined = false;
            }
            name if is_name(word) && is_joined => {
                path.push(name.to_owned());
                is_joined = false;
            }
            name => {
                paths.push(path.join("::"));
                path = prefixes.last().cloned().unwrap_or_default();
                if is_name(word) {
                    path.push(name.to_owned());
                }
                is_joined = false;
            }
        }
    }
    paths.push(path.join("::"));
    paths
}

/// The top-level modules that the code names.
fn used_modules(words: &[String], depth: usize) -> BTreeSet<String> {
    let root = vec!["super"; depth].join("::") + "::";
    let of_crate = |path: String| {
        path.strip_prefix("crate::")
            .or_else(|| path.strip_prefix(&root))
            .map(str::to_owned)
    };
    let first_names = paths_of(words)
        .into_iter()
        .filter_map(of_crate)
        .map(|path| path.split("::").next().unwrap_or_default().to_owned());
    first_names
        .filter(|name| floor_of(name).is_some())
        .collect()
}

fn read_sources(directory: &Path, name: &str, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("the source is readable") {
        let path = entry.expect("the source is readable").path();
        let name = format!(
            "{name}/{}",
            path.file_name()
                .expect("an entry has a name")
                .to_string_lossy()
        );
        if path.is_dir() {
            read_sources(&path, &name, sources);
        } else if name.ends_with(".rs") {
            sources.insert(
                name,
                fs::read_to_string(&path).expect("the source is readable"),
            );
        }
    }
}
