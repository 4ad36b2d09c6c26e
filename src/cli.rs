//! The command line, and the configuration that it names.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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

impl CommandLine {
    /// The command; without one named, it is `run`.
    pub fn command(self) -> Command {
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
            .command()
    }
}
