//! What a configuration means, what is said about a wrong one, and that nothing said shows a secret.

mod doubtful;
mod otlp;
mod program;
mod secrets;
mod written;
mod wrong;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use pgspan::config::secret::Secret;
use pgspan::config::{Config, ConfigErrors, Otlp, PasswordFile};

fn pgspan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("pgspan starts")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("UTF-8")
}

fn good(text: &str) -> Config {
    load(text, &[], &[]).expect("a good configuration").0
}

fn errors(text: &str) -> ConfigErrors {
    load(text, &[], &[]).expect_err("a wrong configuration")
}

/// The one thing that is wrong.
fn wrong(text: &str) -> String {
    let errors = errors(text);
    assert_eq!(errors.problems().len(), 1, "{errors}");
    errors.to_string()
}

fn warnings(text: &str) -> Vec<String> {
    load(text, &[], &[]).expect("a good configuration").1
}

fn otlp(table: &str, environment: &[(&str, &str)]) -> Otlp {
    load(&format!("[otlp]\n{table}"), environment, &[])
        .expect("a good configuration")
        .0
        .otlp
}

fn load(
    text: &str,
    environment: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<(Config, Vec<String>), ConfigErrors> {
    load_as("config.toml", text, environment, files)
}

fn load_as(
    name: &str,
    text: &str,
    environment: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<(Config, Vec<String>), ConfigErrors> {
    let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let files: BTreeMap<&Path, &str> = files
        .iter()
        .map(|&(path, text)| (Path::new(path), text))
        .collect();
    let variable = |name: &str| environment.get(name).map(|&value| value.to_owned());
    let read = |path: &Path| {
        let text = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(PasswordFile {
            text: Secret::new(*text),
            is_readable_by_everyone: false,
        })
    };
    let checked = Config::from_toml(text, name, &variable, &read)?;
    let warnings = checked.warnings.iter().map(ToString::to_string).collect();
    Ok((checked.config, warnings))
}
