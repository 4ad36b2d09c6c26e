//! Command line → configuration → run → exit code: 0 done, 1 failed while running, 2 wrong command line or configuration.

use std::process::ExitCode;

use pgspan::cli::{Command, CommandLine, ConfigArgument, DevOptions, ImportArgument, RunOptions};
use pgspan::config::choices::LogLevel;
use pgspan::config::{Checked, Config};
use pgspan::files::{FileSource, Files, LoadError};
use pgspan::process::{self, PidFile};
use pgspan::{app, dev};
use tikv_jemallocator::Jemalloc;

/// Clients rest by the thousand, each in a few small pieces, and what a login needed for a moment leaves holes among them: with the
/// system's allocator they take a sixth more (docs/performance.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// sysexits.h has 64 to 78 for this; clap and most tools say 2.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    match CommandLine::of_process().chosen() {
        Command::Run(options) => run(options),
        Command::Check(argument) => match load(argument) {
            Some((files, _)) => {
                println!("{}: good", files.config.display());
                ExitCode::SUCCESS
            }
            None => ExitCode::from(WRONG),
        },
        Command::Import(ImportArgument { ini }) => import(Files {
            config: ini,
            with: None,
        }),
        Command::Dev(DevOptions {
            port,
            http_port,
            demo,
            once,
        }) => dev::run(dev::Options {
            port,
            http_port,
            demo,
            once,
        }),
    }
}

fn run(options: RunOptions) -> ExitCode {
    if options.reboot {
        eprintln!(
            "pgspan: -R (--reboot) is not supported: start the new process beside the old one with so_reuseport, \
             then end the old one with SIGTERM"
        );
        return ExitCode::from(WRONG);
    }
    let Some((files, mut config)) = load(options.config) else {
        return ExitCode::from(WRONG);
    };
    config.log.level = louder(config.log.level, options.verbose);
    let source = FileSource::new(files);
    match prepare(&config, options.user.as_deref(), options.daemon) {
        // In the background nobody reads standard error.
        Ok(()) => app::run(config, Box::new(source), options.quiet || options.daemon),
        Err(why) => {
            eprintln!("pgspan: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes what the process is to be. Before the first thread.
fn prepare(config: &Config, user: Option<&str>, daemon: bool) -> Result<(), String> {
    if let Some(user) = user.or(config.process.user.as_deref()) {
        process::become_user(user).map_err(|error| format!("cannot become {user}: {error}"))?;
    }
    match &config.process.pid_file {
        Some(path) => PidFile::check(path).map_err(|error| error.to_string())?,
        None if daemon => return Err("daemon needs pidfile configured".into()),
        None => {}
    }
    if daemon {
        process::go_to_background().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn louder(level: LogLevel, by: u8) -> LogLevel {
    match (level, by) {
        (level, 0) => level,
        (LogLevel::Error | LogLevel::Warn | LogLevel::Info, 1) => LogLevel::Debug,
        _ => LogLevel::Trace,
    }
}

fn import(files: Files) -> ExitCode {
    match files.import() {
        Ok((text, checked)) => {
            warn(&checked);
            println!(
                "# What {} means. Secrets stand in it as they stood there.",
                files.config.display()
            );
            print!("\n{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(WRONG)
        }
    }
}

/// The configuration and its files, or `None` when it is wrong. What there is to say about it is said on standard error.
fn load(argument: ConfigArgument) -> Option<(Files, Config)> {
    let loaded = argument.files().and_then(|files| {
        let checked = files.load()?;
        Ok::<_, LoadError>((files, checked))
    });
    match loaded {
        Ok((files, checked)) => {
            warn(&checked);
            Some((files, checked.config))
        }
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}

fn warn(checked: &Checked) {
    for warning in &checked.warnings {
        eprintln!("{warning} (warning)");
    }
}
