//! The command line, and the configuration that it names.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::secret::Secret;
use crate::config::{Checked, Config, ConfigErrors, PasswordFile};

/// A PostgreSQL proxy that pools like PgBouncer and knows which trace every query belongs to
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(name = "pgspan", version, args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ConfigArgument,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients (the command that is meant when none is named)
    Run(ConfigArgument),
    /// Say what is wrong with a configuration, with line and column
    Check(ConfigArgument),
    /// Try it: a throwaway PostgreSQL with pgspan in front of it
    Dev(DevOptions),
}

/// Which configuration.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ConfigArgument {
    /// The configuration [default: ./config.toml, or else /etc/pgspan/config.toml]
    config: Option<PathBuf>,
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

/// Why no configuration could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// None is named, and none is where it usually is.
    #[error("no configuration: name one, or put it into ./config.toml or /etc/pgspan/config.toml")]
    Nowhere,
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigErrors),
}

impl CommandLine {
    /// The command; without one named, it is `run`.
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

impl ConfigArgument {
    /// The file that is meant: the one named, or the first of the two usual ones that exists.
    ///
    /// # Errors
    /// If none is named and neither exists.
    pub fn path(self) -> Result<PathBuf, LoadError> {
        let usual = || USUAL.into_iter().map(PathBuf::from);
        self.config
            .or_else(|| usual().find(|path| path.exists()))
            .ok_or(LoadError::Nowhere)
    }
}

/// The configuration in the file at `path`, with this process's environment; also what a reload calls.
///
/// # Errors
/// If the file cannot be read, or what it says is wrong.
pub fn load(path: &Path) -> Result<Checked, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    let environment = |name: &str| std::env::var(name).ok();
    let name = path.display().to_string();
    Ok(Config::from_toml(
        &text,
        &name,
        &environment,
        &read_password,
    )?)
}

fn read_password(path: &Path) -> io::Result<PasswordFile> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(PasswordFile {
        text: Secret::new(text),
        is_readable_by_everyone: mode & 0o004 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_meant_when_no_command_is_named() {
        let run = |config: &str| {
            Command::Run(ConfigArgument {
                config: Some(config.into()),
            })
        };
        assert_eq!(parse(&["config.toml"]), run("config.toml"));
        assert_eq!(parse(&["run", "other.toml"]), run("other.toml"));
        assert_eq!(parse(&[]), parse(&["run"]));
        assert_eq!(parse(&[]), Command::Run(ConfigArgument { config: None }));
    }

    #[test]
    fn check_names_a_configuration() {
        let config = Some("pool.toml".into());
        assert_eq!(
            parse(&["check", "pool.toml"]),
            Command::Check(ConfigArgument { config })
        );
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

    fn parse(arguments: &[&str]) -> Command {
        let all = std::iter::once(&"pgspan").chain(arguments);
        CommandLine::try_parse_from(all)
            .expect("a command line")
            .command()
    }
}
