//! The files of a configuration: read at the start, again on reload, and changed by `SET`.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::admission::{self, RulesError};
use crate::config::ini::{self, Document};
use crate::config::secret::Secret;
use crate::config::{Checked, Config, ConfigErrors, Layer, PasswordFile, Problem};
use crate::reload::{Refused, Source};

/// Which files: a config.toml or a pgbouncer.ini, and a config.toml beside it whose settings win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// What stands beside it.
    pub with: Option<PathBuf>,
}

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
    /// A file that it names does not hold what it should.
    #[error("{name}: {error}")]
    Rules {
        /// The configuration.
        name: String,
        /// What is wrong.
        error: RulesError,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigErrors),
}

/// What the files said when they were good last.
struct Written {
    config: Text,
    with: Option<String>,
    /// What `SET` has changed since.
    set: Vec<(Box<str>, Box<str>)>,
    /// What it was to change of TLS, and is incomplete yet: a certificate whose key comes next.
    incomplete: Vec<(Box<str>, Box<str>)>,
}

enum Text {
    Toml(String),
    Ini(Document),
}

impl Files {
    /// The configuration that they are, with this process's environment.
    ///
    /// # Errors
    /// If a file cannot be read, or what it says is wrong.
    pub fn load(&self) -> Result<Checked, LoadError> {
        self.checked(&self.read()?)
    }

    /// The config.toml that means the same, and what is doubtful about it.
    ///
    /// # Errors
    /// If a file cannot be read, or what it says is wrong.
    pub fn import(&self) -> Result<(String, Checked), LoadError> {
        let name = self.config.display().to_string();
        let document = Document::read(&name, &read_secret)
            .map_err(|problem| LoadError::Wrong(ConfigErrors::from(problem)))?;
        let folder = current_folder();
        let surroundings = surroundings(&folder);
        let translation = Config::translated(&document, &surroundings)?;
        let checked = Config::from_ini(&document, &name, None, &surroundings, &environment)?;
        Ok((translation.to_toml(), checked))
    }

    fn read(&self) -> Result<Written, LoadError> {
        let name = self.config.display().to_string();
        let text = text_of(&self.config)?;
        let config = match is_ini(&self.config, &text) {
            false => Text::Toml(text),
            true => Text::Ini(
                Document::read(&name, &read_secret)
                    .map_err(|problem| LoadError::Wrong(ConfigErrors::from(problem)))?,
            ),
        };
        let with = self.with.as_deref().map(text_of).transpose()?;
        Ok(Written {
            config,
            with,
            set: Vec::new(),
            incomplete: Vec::new(),
        })
    }

    fn checked(&self, written: &Written) -> Result<Checked, LoadError> {
        let name = self.config.display().to_string();
        let with_name = self.with.as_ref().map(|path| path.display().to_string());
        let with = match (&with_name, &written.with) {
            (Some(name), Some(text)) => Some(Layer { name, text }),
            _ => None,
        };
        let mut checked = match &written.config {
            Text::Ini(document) => {
                let changed = written.set.iter();
                let document = changed.fold(document.clone(), |document, (key, value)| {
                    document.with(key, value)
                });
                let folder = current_folder();
                Config::from_ini(&document, &name, with, &surroundings(&folder), &environment)?
            }
            Text::Toml(text) => {
                let folder = self.config.parent().unwrap_or_else(|| Path::new(""));
                let lines = written.set.iter();
                let lines: Vec<String> = lines
                    .filter_map(|(key, value)| ini::line_of(key, value, folder).ok())
                    .collect();
                let set = lines.join("\n");
                let set = Layer {
                    name: "SET",
                    text: &set,
                };
                let layers: Vec<_> = with.into_iter().chain([set]).collect();
                let file = Layer { name: &name, text };
                Config::from_toml_with(file, &layers, &environment, &read_secret)?
            }
        };
        let doubts = admission::check(&checked.config).map_err(|error| LoadError::Rules {
            name: name.clone(),
            error,
        })?;
        let doubts = doubts.into_iter().map(|doubt| Problem::about(&name, doubt));
        checked.warnings.extend(doubts);
        Ok(checked)
    }
}

/// Files that are read again on reload.
pub struct FileSource {
    files: Files,
    written: Mutex<Option<Written>>,
}

impl FileSource {
    /// Of these files.
    pub fn new(files: Files) -> Self {
        let written = Mutex::new(files.read().ok());
        Self { files, written }
    }
}

impl Source for FileSource {
    fn read(&self) -> Result<Checked, Refused> {
        let refused = |error: LoadError| Refused(error.to_string());
        let written = self.files.read().map_err(refused)?;
        let checked = self.files.checked(&written).map_err(refused)?;
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
        Ok(checked)
    }

    fn set(&self, key: &str, value: &str) -> Result<Option<Checked>, Refused> {
        let mut kept = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(written) = kept.as_mut() else {
            return Err(Refused("the configuration was not read".into()));
        };
        match &written.config {
            Text::Ini(_) => ini::setting(key)
                .map(drop)
                .ok_or_else(|| Refused(format!("unknown parameter: {key}")))?,
            Text::Toml(_) => ini::line_of(key, value, Path::new(""))
                .map(drop)
                .map_err(Refused)?,
        }
        let change = (Box::from(key), Box::from(value));
        let before = written.set.clone();
        let incomplete = std::mem::take(&mut written.incomplete);
        let together = incomplete.iter().cloned().chain([change.clone()]);
        written.set = with_changes(&before, together);
        let error = match self.files.checked(written) {
            Ok(checked) => return Ok(Some(checked)),
            Err(error) => error,
        };
        written.incomplete = incomplete;
        if ini::is_of_tls(key) && ini::line_of(key, value, Path::new("")).is_ok() {
            written.set = before;
            written.incomplete = with_changes(&written.incomplete, [change]);
            return Ok(None);
        }
        written.set = with_changes(&before, [change]);
        self.files.checked(written).map(Some).map_err(|_| {
            written.set = before;
            Refused(error.to_string())
        })
    }
}

/// These, and behind them the `changes`, which win.
fn with_changes(
    before: &[(Box<str>, Box<str>)],
    changes: impl IntoIterator<Item = (Box<str>, Box<str>)>,
) -> Vec<(Box<str>, Box<str>)> {
    changes
        .into_iter()
        .fold(before.to_vec(), |mut all, change| {
            all.retain(|(known, _)| *known != change.0);
            all.push(change);
            all
        })
}

/// By the name's end, or else by what it says: sections of PgBouncer, or its comments.
fn is_ini(path: &Path, text: &str) -> bool {
    match path.extension().and_then(|end| end.to_str()) {
        Some("ini") => true,
        Some("toml") => false,
        _ => text.lines().map(str::trim_start).any(|line| {
            line.starts_with("[pgbouncer]") || line.starts_with(';') || line.starts_with("%include")
        }),
    }
}

fn text_of(path: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable {
        path: path.to_owned(),
        error,
    })
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn surroundings(folder: &Path) -> ini::Surroundings<'_> {
    ini::Surroundings {
        folder,
        resolve: &resolve,
        read: &read_secret,
    }
}

fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let addresses = (host, 0).to_socket_addrs()?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// Relative names in a PgBouncer configuration start here.
fn current_folder() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}

fn read_secret(path: &Path) -> io::Result<PasswordFile> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(PasswordFile {
        text: Secret::new(text),
        is_readable_by_everyone: mode & 0o004 != 0,
    })
}
