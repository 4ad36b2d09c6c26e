//! The command line, and the configuration that it names.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::files::{Files, LoadError};

/// A PostgreSQL proxy that pools like PgBouncer and knows which trace every query belongs to
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(name = "pgspan", version, args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunOptions,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients (the command that is meant when none is named)
    Run(RunOptions),
    /// Say what is wrong with a configuration, with line and column
    Check(ConfigArgument),
    /// Print the config.toml that means what a pgbouncer.ini means
    Import(ImportArgument),
    /// Try it: a throwaway PostgreSQL with pgspan in front of it
    Dev(DevOptions),
}

/// How to run. The letters are PgBouncer's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RunOptions {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgument,
    /// Run in the background; a pid file has to be configured
    #[arg(short, long)]
    pub daemon: bool,
    /// Log to the configured file alone, not to standard error
    #[arg(short, long)]
    pub quiet: bool,
    /// Log more; twice for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Become this user of the system, when started by root
    #[arg(short, long, value_name = "USERNAME")]
    pub user: Option<Box<str>>,
    /// Not supported: PgBouncer's take-over of a running process
    #[arg(short = 'R', long)]
    pub reboot: bool,
}

/// Which configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ConfigArgument {
    /// A config.toml or a pgbouncer.ini [default: ./config.toml, or else /etc/pgspan/config.toml]
    config: Option<PathBuf>,
    /// Another config.toml, whose settings win
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
}

/// What is to be imported.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ImportArgument {
    /// The pgbouncer.ini
    pub ini: PathBuf,
}

/// What `pgspan dev` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct DevOptions {
    /// Port that clients connect to
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of metrics and the page
    #[arg(long)]
    pub http_port: Option<u16>,
    /// Send queries of an example application all the time
    #[arg(long)]
    pub demo: bool,
    /// Start, show that a query gets through, and end
    #[arg(long)]
    pub once: bool,
}

/// Where a configuration is when none is named.
const USUAL: [&str; 2] = ["config.toml", "/etc/pgspan/config.toml"];

/// The name of the program in whose place this one may have been put.
const PGBOUNCER: &str = "pgbouncer";

/// Whose version that one has, and ours.
const IN_ITS_PLACE: &str = concat!("1.25.2\npgspan ", env!("CARGO_PKG_VERSION"));

impl CommandLine {
    /// What the process was told; with what is no command line, and with questions for help and the version, it ends here.
    ///
    /// Called by the name of `pgbouncer` it says first which version of that it stands for, as SHOW VERSION does.
    pub fn of_process() -> Self {
        let mut arguments = std::env::args_os();
        let name = arguments.next().map(PathBuf::from).unwrap_or_default();
        let is_in_its_place = name.file_name().is_some_and(|name| name == PGBOUNCER);
        Self::parsed(is_in_its_place, std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn parsed(
        is_in_its_place: bool,
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        if is_in_its_place {
            command = command.name("PgBouncer").version(IN_ITS_PLACE);
        }
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// The command; without one named, it is `run`.
    pub fn chosen(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

impl ConfigArgument {
    /// The files that are meant: the one named, or the first of the two usual ones that exists; and what stands beside it.
    ///
    /// # Errors
    /// If none is named and neither exists.
    pub fn files(self) -> Result<Files, LoadError> {
        let usual = || USUAL.into_iter().map(PathBuf::from);
        let config = self
            .config
            .or_else(|| usual().find(|path| path.exists()))
            .ok_or(LoadError::Nowhere)?;
        Ok(Files {
            config,
            with: self.with,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_meant_when_no_command_is_named() {
        let run = |config: &str| {
            Command::Run(RunOptions {
                config: named(config),
                ..RunOptions::default()
            })
        };
        assert_eq!(parse(&["config.toml"]), run("config.toml"));
        assert_eq!(parse(&["run", "other.toml"]), run("other.toml"));
        assert_eq!(parse(&[]), parse(&["run"]));
        assert_eq!(parse(&[]), Command::Run(RunOptions::default()));
    }

    #[test]
    fn in_pgbouncers_place_its_version_is_told_first() {
        let said = |is_in_its_place| {
            let arguments = ["pgbouncer", "--version"].map(OsString::from).into_iter();
            let said = CommandLine::parsed(is_in_its_place, arguments).unwrap_err();
            said.to_string()
        };
        let shown = format!("PgBouncer {}\n", crate::admin::PGBOUNCER_VERSION);
        assert!(said(true).starts_with(&shown), "{}", said(true));
        assert!(said(false).starts_with("pgspan "));
    }

    #[test]
    fn check_names_a_configuration() {
        assert_eq!(
            parse(&["check", "pool.toml"]),
            Command::Check(named("pool.toml"))
        );
    }

    #[test]
    fn pgbouncers_letters_and_words_mean_what_they_mean_there() {
        let options = RunOptions {
            config: named("pgbouncer.ini"),
            daemon: true,
            quiet: true,
            verbose: 2,
            user: Some("postgres".into()),
            reboot: true,
        };
        let letters = [
            "-d",
            "-q",
            "-v",
            "-v",
            "-R",
            "-u",
            "postgres",
            "pgbouncer.ini",
        ];
        assert_eq!(parse(&letters), Command::Run(options.clone()));
        let words = [
            "--daemon",
            "--quiet",
            "--verbose",
            "--verbose",
            "--reboot",
            "--user=postgres",
            "pgbouncer.ini",
        ];
        assert_eq!(parse(&words), Command::Run(options));
    }

    #[test]
    fn dev_takes_ports_and_what_to_show() {
        assert_eq!(parse(&["dev"]), Command::Dev(DevOptions::default()));
        assert_eq!(
            parse(&[
                "dev",
                "--once",
                "--port",
                "7000",
                "--http-port",
                "7001",
                "--demo"
            ]),
            Command::Dev(DevOptions {
                port: Some(7000),
                http_port: Some(7001),
                demo: true,
                once: true,
            })
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in [&["pgspan", "--prot"][..], &["pgspan", "a.toml", "b.toml"]] {
            assert!(CommandLine::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    fn named(config: &str) -> ConfigArgument {
        ConfigArgument {
            config: Some(config.into()),
            with: None,
        }
    }

    fn parse(arguments: &[&str]) -> Command {
        let all = std::iter::once(&"pgspan").chain(arguments);
        CommandLine::try_parse_from(all)
            .expect("a command line")
            .chosen()
    }
}
