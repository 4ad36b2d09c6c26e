//! Command line → configuration → run → exit code: 0 done, 1 failed while running, 2 wrong command line or configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use pgspan::cli::{self, Command, CommandLine, ConfigArgument, DevOptions};
use pgspan::config::Config;
use pgspan::reload::Refused;
use pgspan::{app, dev};

/// sysexits.h has 64 to 78 for this; clap and most tools say 2.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    match CommandLine::parse().command() {
        Command::Run(argument) => match load(argument) {
            Some((path, config)) => {
                let again = move || cli::load(&path).map_err(|error| Refused(error.to_string()));
                app::run(config, Box::new(again))
            }
            None => ExitCode::from(WRONG),
        },
        Command::Check(argument) => match load(argument) {
            Some((path, _)) => {
                println!("{}: good", path.display());
                ExitCode::SUCCESS
            }
            None => ExitCode::from(WRONG),
        },
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

/// The configuration and its file, or `None` when it is wrong. What there is to say about it is said on standard error.
fn load(argument: ConfigArgument) -> Option<(PathBuf, Config)> {
    let loaded = argument.path().and_then(|path| {
        let checked = cli::load(&path)?;
        Ok((path, checked))
    });
    match loaded {
        Ok((path, checked)) => {
            for warning in &checked.warnings {
                eprintln!("{warning} (warning)");
            }
            Some((path, checked.config))
        }
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}
