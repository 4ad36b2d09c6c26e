//! A PostgreSQL server of one's own: made in a temporary directory, gone with its owner.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use std::{env, fs};

/// A running server. Dropping it ends the server and removes its directory; so does the death of this process, however it comes.
#[derive(Debug)]
pub struct Postgres {
    binaries: Binaries,
    directory: PathBuf,
    port: u16,
    /// Awaits the end of its input, then ends the server and removes the directory.
    keeper: Child,
}

/// What a throwaway server is to be like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// Lines for `postgresql.conf`, which win over our own.
    pub configuration: &'a str,
    /// The whole of `pg_hba.conf`; empty: everybody is trusted.
    pub host_based_authentication: &'a str,
}

/// The directory with PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No directory holds both initdb and postgres.
    #[error(
        "PostgreSQL's server programs were not found: neither in {BINARIES_VARIABLE}, nor by `pg_config --bindir`, nor in PATH, \
         nor in /usr/lib/postgresql/*/bin (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql)"
    )]
    NotInstalled,
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error("PostgreSQL does not run as root, and there is no user `postgres` to run it as")]
    NoUnprivilegedUser,
    /// A program could not be started or a file not be written.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        error: io::Error,
    },
    /// A program reported failure.
    #[error("{program} failed: {output}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it had to say.
        output: String,
    },
    /// The server was not ready in time.
    #[error("PostgreSQL was not ready within {} s: {log}", START_DEADLINE.as_secs())]
    NotReady {
        /// The server's log.
        log: String,
    },
}

impl Postgres {
    /// Makes a database cluster with the superuser `postgres` and starts a server for it on a free port of 127.0.0.1 and on a unix
    /// socket in its directory. pg_stat_statements is loaded, nothing is synced to disk. Blocks until the server accepts connections.
    pub fn start(settings: Settings<'_>) -> Result<Self, PostgresError> {
        let binaries = Binaries::find()?;
        let directory = make_directory()?;
        let owner = owner_of_the_server(&directory)?;
        let started = Self::start_in(&directory, owner, binaries, settings);
        if started.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(
        directory: &Path,
        owner: Option<(u32, u32)>,
        binaries: Binaries,
        settings: Settings<'_>,
    ) -> Result<Self, PostgresError> {
        let mut initdb = binaries.command("initdb");
        initdb
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--pgdata=data",
            ])
            .current_dir(directory);
        succeed("initdb", run_as(&mut initdb, owner).output())?;

        let data = directory.join("data");
        let configuration = format!(
            "{CONFIGURATION}unix_socket_directories = '{}'\n{}\n",
            directory.display(),
            settings.configuration
        );
        append(&data.join("postgresql.conf"), &configuration)?;
        if !settings.host_based_authentication.is_empty() {
            let file = data.join("pg_hba.conf");
            fs::write(&file, settings.host_based_authentication).map_err(io_error(&file))?;
        }

        // Between being found free and being bound the port may be taken by another: then the next one is tried.
        for _ in 1..PORT_ATTEMPTS {
            match Self::start_on(free_port()?, directory, owner, &binaries) {
                Err(PostgresError::NotReady { log }) if log.contains("Address already in use") => {}
                started_or_failed => return started_or_failed,
            }
        }
        Self::start_on(free_port()?, directory, owner, &binaries)
    }

    fn start_on(
        port: u16,
        directory: &Path,
        owner: Option<(u32, u32)>,
        binaries: &Binaries,
    ) -> Result<Self, PostgresError> {
        let mut keeper = Command::new("/bin/sh");
        keeper
            .args(["-c", KEEPER, "keeper"])
            .arg(directory)
            .arg(binaries.path("postgres"))
            .args(["-D", "data", "-p", &port.to_string()])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let keeper = run_as(&mut keeper, owner)
            .spawn()
            .map_err(io_error(Path::new("/bin/sh")))?;
        let mut server = Self {
            binaries: binaries.clone(),
            directory: directory.to_owned(),
            port,
            keeper,
        };
        for _ in 0..START_DEADLINE.as_millis() / POLL_PAUSE.as_millis() {
            if server.is_ready() {
                return Ok(server);
            }
            if directory.join("ended").exists() {
                break;
            }
            thread::sleep(POLL_PAUSE);
        }
        let log = server.log();
        server.keep_directory_and_end();
        Err(PostgresError::NotReady { log })
    }

    /// The eighth line of postmaster.pid is the status (PostgreSQL: src/include/utils/pidfile.h).
    fn is_ready(&self) -> bool {
        let pidfile =
            fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap_or_default();
        pidfile
            .lines()
            .nth(7)
            .is_some_and(|status| status.trim() == "ready")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the unix socket, which everything else of the server lies in, too.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The programs that the server was started from.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read(self.directory.join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Runs SQL as the superuser, straight at the server: psql's unaligned rows, without headers. Stops at the first error.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, PostgresError> {
        let mut psql = self.binaries.command("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            sql,
        ])
        .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
        .stdin(Stdio::null());
        succeed("psql", psql.output())
    }

    /// Ends the server, for another attempt in the same directory.
    fn keep_directory_and_end(&mut self) {
        let _ = fs::write(self.directory.join("keep"), "");
        self.end();
        for left_over in ["keep", "ended", "log"] {
            let _ = fs::remove_file(self.directory.join(left_over));
        }
    }

    fn end(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end();
    }
}

impl Binaries {
    /// The programs of the installed PostgreSQL; of several versions the newest, unless pg_config or PATH prefer another.
    pub fn find() -> Result<Self, PostgresError> {
        if let Some(chosen) = env::var_os(BINARIES_VARIABLE) {
            return Some(Self(chosen.into()))
                .filter(Self::are_complete)
                .ok_or(PostgresError::NotInstalled);
        }
        let configured = Command::new("pg_config").arg("--bindir").output().ok();
        let configured =
            configured.map(|output| String::from_utf8_lossy(&output.stdout).trim().into());
        let in_path = env::var_os("PATH").unwrap_or_default();
        let candidates = configured
            .into_iter()
            .chain(env::split_paths(&in_path))
            .chain(versions_below("/usr/lib/postgresql"));
        candidates
            .map(Self)
            .find(Self::are_complete)
            .ok_or(PostgresError::NotInstalled)
    }

    /// A program's path, or its bare name where PostgreSQL's directory lacks it: some distributions keep psql elsewhere.
    pub fn path(&self, program: &str) -> PathBuf {
        Some(self.0.join(program))
            .filter(|path| path.is_file())
            .unwrap_or_else(|| program.into())
    }

    /// A command for a program, without the PG* variables of the environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path(program));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        command
    }

    fn are_complete(&self) -> bool {
        ["initdb", "postgres"]
            .iter()
            .all(|program| self.0.join(program).is_file())
    }
}

/// Debian's `<version>/bin` directories, newest first.
fn versions_below(directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let mut versions: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    versions.sort_by_key(|path| {
        path.file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
    });
    versions.into_iter().rev().map(|path| path.join("bin"))
}

/// A port of 127.0.0.1 that nobody listens on, below those that the system gives to outgoing connections.
///
/// No process gets the same one twice. Another process may take it before it is used.
pub fn free_port() -> Result<u16, PostgresError> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Processes start apart from each other: they would take turns in taking each other's.
    static START: LazyLock<u32> = LazyLock::new(|| std::process::id().wrapping_mul(7919));
    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..PORTS.len() {
        let step = START.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let port = PORTS.start + step as u16;
        outcome = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port);
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Ok(_) | Err(_) => break,
        }
    }
    outcome.map_err(io_error(Path::new("127.0.0.1")))
}

/// An empty directory for us alone, with a path short enough for a unix socket's address.
fn make_directory() -> Result<PathBuf, PostgresError> {
    let temporary =
        Some(env::temp_dir()).filter(|path| path.as_os_str().len() < LONGEST_SOCKET_DIRECTORY);
    let mut random = [0; 6];
    getrandom::fill(&mut random)
        .map_err(|error| io_error(Path::new("random name"))(io::Error::other(error.to_string())))?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let directory = temporary
        .unwrap_or_else(|| "/tmp".into())
        .join(format!("pgspan-{name}"));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(io_error(&directory))?;
    Ok(directory)
}

/// Who the server runs as, where that is not the user we are; the directory becomes theirs.
fn owner_of_the_server(directory: &Path) -> Result<Option<(u32, u32)>, PostgresError> {
    let we = fs::metadata(directory).map_err(io_error(directory))?.uid();
    if we != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let (user, group) = ids.ok_or(PostgresError::NoUnprivilegedUser)?;
    chown(directory, Some(user), Some(group)).map_err(io_error(directory))?;
    Ok(Some((user, group)))
}

fn run_as(command: &mut Command, owner: Option<(u32, u32)>) -> &mut Command {
    match owner {
        Some((user, group)) => command.uid(user).gid(group),
        None => command,
    }
}

fn succeed(program: &'static str, output: io::Result<Output>) -> Result<String, PostgresError> {
    let output = output.map_err(io_error(Path::new(program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(PostgresError::Failed {
        program,
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn append(file: &Path, text: &str) -> Result<(), PostgresError> {
    let before = fs::read_to_string(file).map_err(io_error(file))?;
    fs::write(file, before + text).map_err(io_error(file))
}

fn io_error(what: &Path) -> impl FnOnce(io::Error) -> PostgresError + use<> {
    let what = what.display().to_string();
    move |error| PostgresError::Io { what, error }
}

/// Names a directory of PostgreSQL programs to use instead of the one that would be found.
const BINARIES_VARIABLE: &str = "PGSPAN_POSTGRES_BIN";

const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
shared_preload_libraries = 'pg_stat_statements'
pg_stat_statements.track = 'all'
max_connections = 100
fsync = off
synchronous_commit = off
full_page_writes = off
";

/// Outlives us long enough to tidy up: its input ends when we let go of it or die. Signals that a terminal sends to all of us don't end it.
const KEEPER: &str = r#"
trap '' INT TERM HUP
directory=$1
shift
{ "$@" </dev/null >"$directory/log" 2>&1; echo $? >"$directory/ended"; } &
cat >/dev/null
while [ ! -f "$directory/ended" ]; do
    [ -f "$directory/data/postmaster.pid" ] && kill -QUIT "$(head -n 1 "$directory/data/postmaster.pid")" 2>/dev/null
    sleep 0.05
done
wait
[ -f "$directory/keep" ] || rm -rf "$directory"
"#;

const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_PAUSE: Duration = Duration::from_millis(20);
const PORT_ATTEMPTS: usize = 5;
/// Where [`free_port`] looks: above the ports of well-known services, below Linux's range for outgoing connections.
const PORTS: Range<u16> = 10_240..32_768;

/// A unix socket's address has 107 bytes, and `/pgspan-…/.s.PGSQL.65535` must still fit.
const LONGEST_SOCKET_DIRECTORY: usize = 60;
