//! Command line → configuration → run → exit code: 0 done, 1 failed while running, 2 wrong command line or configuration.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use pgspan::cli::{self, Command, CommandLine};
use pgspan::config::Config;

/// sysexits.h has 64 to 78 for this; clap and most tools say 2.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    match CommandLine::parse().command() {
        Command::Run(argument) => match load(&argument.path()) {
            Some(config) => run(config),
            None => ExitCode::from(WRONG),
        },
        Command::Check(argument) => match load(&argument.path()) {
            Some(_) => {
                println!("{}: good", argument.path().display());
                ExitCode::SUCCESS
            }
            None => ExitCode::from(WRONG),
        },
        Command::Dev(_options) => {
            // pgspan::dev::run(options)
            eprintln!("pgspan: this build has no `dev` yet");
            ExitCode::FAILURE
        }
    }
}

fn run(_config: Config) -> ExitCode {
    // pgspan::app::run(config)
    eprintln!("pgspan: this build cannot serve clients yet");
    ExitCode::FAILURE
}

/// The configuration, or `None` when it is wrong; either way what there is to say about it is said on standard error.
fn load(path: &Path) -> Option<Config> {
    match cli::load(path) {
        Ok(checked) => {
            for warning in &checked.warnings {
                eprintln!("{warning} (warning)");
            }
            Some(checked.config)
        }
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}
