//! An ini file as PgBouncer reads it: sections, `key = value` lines, comments, and files that are included.
//!
//! Source: <https://www.pgbouncer.org/config.html>.

use std::io;
use std::path::Path;

use super::super::PasswordFile;
use super::super::problem::{Position, Problem};
use super::super::secret::Secret;

/// How deep files may include each other.
const MAX_INCLUDES: usize = 10;

/// The lines of a file and of those that it includes, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    pub(super) entries: Vec<Entry>,
}

/// One `key = value`. Its value may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: Section,
    pub(super) key: Box<str>,
    pub(super) value: Secret,
    pub(super) place: Place,
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Box<str>,
    pub(super) line: usize,
}

/// The sections that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    PgBouncer,
    Databases,
    Users,
    Peers,
}

impl Section {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "pgbouncer" => Self::PgBouncer,
            "databases" => Self::Databases,
            "users" => Self::Users,
            "peers" => Self::Peers,
            _ => return None,
        })
    }
}

impl Place {
    /// What is wrong here.
    pub(super) fn problem(&self, key: &str, message: impl Into<Box<str>>) -> Problem {
        Problem {
            source: self.file.clone(),
            position: Some(Position {
                line: self.line,
                column: 1,
            }),
            key: key.into(),
            message: message.into(),
        }
    }
}

impl Document {
    /// Reads the file `name` and those that it includes. Relative names start from the process's folder, as in PgBouncer.
    ///
    /// # Errors
    /// The first line that is wrong: PgBouncer stops there, too.
    pub fn read(
        name: &str,
        read: &dyn Fn(&Path) -> io::Result<PasswordFile>,
    ) -> Result<Self, Problem> {
        let mut reader = Reader {
            document: Self::default(),
            section: None,
            has_main_section: false,
            read,
        };
        reader.file(name, None)?;
        match reader.has_main_section {
            true => Ok(reader.document),
            false => Err(Problem {
                source: name.into(),
                position: None,
                key: "pgbouncer".into(),
                message: "the section [pgbouncer] is missing".into(),
            }),
        }
    }

    /// The same, with a setting of `[pgbouncer]` changed: what `SET` in the console does.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut document = self.clone();
        document.entries.push(Entry {
            section: Section::PgBouncer,
            key: key.into(),
            value: Secret::new(value),
            place: Place {
                file: "SET".into(),
                line: 1,
            },
        });
        document
    }
}

struct Reader<'a> {
    document: Document,
    section: Option<Section>,
    has_main_section: bool,
    read: &'a dyn Fn(&Path) -> io::Result<PasswordFile>,
}

/// The file that includes another, and how deep it is itself.
struct Including<'a> {
    place: &'a Place,
    depth: usize,
}

impl Reader<'_> {
    fn file(&mut self, name: &str, including: Option<&Including<'_>>) -> Result<(), Problem> {
        let depth = including.map_or(0, |including| including.depth + 1);
        let content = (self.read)(Path::new(name)).map_err(|error| {
            let message = format!("{name} cannot be read: {error}");
            match including {
                Some(including) => including.place.problem("%include", message),
                None => Problem {
                    source: name.into(),
                    position: None,
                    key: "".into(),
                    message: message.into(),
                },
            }
        })?;
        for (number, line) in (1..).zip(content.text.expose().lines()) {
            let place = Place {
                file: name.into(),
                line: number,
            };
            self.line(line, place, depth)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, place: Place, depth: usize) -> Result<(), Problem> {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            return Ok(());
        }
        if let Some(name) = line
            .strip_prefix("%include")
            .filter(|rest| rest.starts_with([' ', '\t']))
        {
            if depth >= MAX_INCLUDES {
                return Err(place.problem("%include", "files include each other too deeply"));
            }
            let including = Including {
                place: &place,
                depth,
            };
            return self.file(name.trim(), Some(&including));
        }
        if let Some(rest) = line.strip_prefix('[') {
            let (name, behind) = rest
                .split_once(']')
                .ok_or_else(|| place.problem("", "expected `]` behind the section's name"))?;
            let section = Section::parse(name).ok_or_else(|| {
                let message = format!(
                    "unknown section [{name}]: there are [databases], [users], [peers], [pgbouncer]"
                );
                place.problem(name, message)
            })?;
            self.section = Some(section);
            self.has_main_section |= section == Section::PgBouncer;
            return self.line(behind, place, depth);
        }
        let (key, rest) = split_key(line)
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| place.problem("", "expected a key, `=` and a value"))?;
        let value = rest
            .trim_start_matches([' ', '\t'])
            .strip_prefix('=')
            .ok_or_else(|| place.problem(&key, "expected `=` and a value behind the key"))?;
        let section = self
            .section
            .ok_or_else(|| place.problem(&key, "expected a section such as [pgbouncer] first"))?;
        self.document.entries.push(Entry {
            section,
            key: key.into(),
            value: Secret::new(value.trim_start_matches([' ', '\t'])),
            place,
        });
        Ok(())
    }
}

/// The key, of letters, digits and `_.-*`, or in double quotes; and what stands behind it.
fn split_key(line: &str) -> Option<(String, &str)> {
    if let Some(mut rest) = line.strip_prefix('"') {
        let mut key = String::new();
        loop {
            let (before, behind) = rest.split_once('"')?;
            key.push_str(before);
            match behind.strip_prefix('"') {
                Some(next) => {
                    key.push('"');
                    rest = next;
                }
                None => return Some((key, behind)),
            }
        }
    }
    let is_key = |letter: char| letter.is_alphanumeric() || "_.-*".contains(letter);
    let end = line.find(|letter| !is_key(letter)).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    Some((key.to_owned(), rest))
}

/// The pairs of a connection string: `host=a dbname='it''s'`.
///
/// # Errors
/// If it is not one. The message names no value.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, String)>, &'static str> {
    let mut rest = text.trim_start();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, behind) = rest
            .split_once('=')
            .ok_or("expected key=value pairs, separated by blanks")?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err("expected key=value pairs, separated by blanks");
        }
        let behind = behind.trim_start();
        let value;
        if let Some(mut quoted) = behind.strip_prefix('\'') {
            let mut text = String::new();
            loop {
                let (before, after) = quoted.split_once('\'').ok_or("a quote is not closed")?;
                text.push_str(before);
                match after.strip_prefix('\'') {
                    Some(next) => {
                        text.push('\'');
                        quoted = next;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
            value = text;
        } else {
            let end = behind.find(' ').unwrap_or(behind.len());
            let (text, after) = behind.split_at(end);
            value = text.to_owned();
            rest = after;
        }
        if value.is_empty() {
            return Err("a value is empty");
        }
        pairs.push((key, value));
        rest = rest.trim_start();
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Vec<(Section, String, String, usize)>, String> {
        let reader = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            let (_, text) = found.ok_or(io::ErrorKind::NotFound)?;
            Ok(PasswordFile {
                text: Secret::new(*text),
                is_readable_by_everyone: false,
            })
        };
        let document = Document::read("a.ini", &reader).map_err(|problem| problem.to_string())?;
        let entries = document.entries.into_iter();
        Ok(entries
            .map(|entry| {
                let value = entry.value.expose().to_owned();
                (entry.section, entry.key.into(), value, entry.place.line)
            })
            .collect())
    }

    #[test]
    fn lines_are_keys_and_values_of_a_section() {
        let text = "; comment\n# comment\n\n[databases]\n* = host=a  \n \"my db\"=port=5 \n[pgbouncer]\n listen_port\t=\t6432 ; no\r\n\
                    auth_file =\n";
        let entry =
            |section, key: &str, value: &str, line| (section, key.into(), value.into(), line);
        assert_eq!(
            read(&[("a.ini", text)]).unwrap(),
            [
                entry(Section::Databases, "*", "host=a", 5),
                entry(Section::Databases, "my db", "port=5", 6),
                entry(Section::PgBouncer, "listen_port", "6432 ; no", 8),
                entry(Section::PgBouncer, "auth_file", "", 9),
            ]
        );
    }

    #[test]
    fn an_included_file_goes_on_in_the_section_of_the_line() {
        let entries = read(&[
            (
                "a.ini",
                "[databases]\n%include b.ini\nz = port=3\n[pgbouncer]\n",
            ),
            ("b.ini", "x = port=1\n[users]\ny = pool_size=2\n"),
        ]);
        let places: Vec<_> = entries
            .unwrap()
            .into_iter()
            .map(|it| (it.0, it.1))
            .collect();
        assert_eq!(
            places,
            [
                (Section::Databases, "x".into()),
                (Section::Users, "y".into()),
                (Section::Users, "z".into())
            ]
        );
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let wrong = |text: &str| read(&[("a.ini", text)]).unwrap_err();
        assert_eq!(
            wrong("[pgbouncer]\nlisten_port 6432\n"),
            "a.ini:2:1: expected `=` and a value behind the key"
        );
        assert_eq!(
            wrong("[pgbounser]\n"),
            "a.ini:1:1: unknown section [pgbounser]: there are [databases], [users], [peers], [pgbouncer]"
        );
        assert_eq!(
            wrong("[databases]\n"),
            "a.ini: the section [pgbouncer] is missing"
        );
        assert_eq!(
            wrong("a = b\n"),
            "a.ini:1:1: expected a section such as [pgbouncer] first"
        );
        assert_eq!(
            wrong("%include a.ini\n"),
            "a.ini:1:1: files include each other too deeply"
        );
        assert!(wrong("%include b.ini\n").starts_with("a.ini:1:1: b.ini cannot be read"));
    }

    #[test]
    fn a_connection_string_quotes_as_in_libpq() {
        assert_eq!(
            pairs("host=a  port = 5 connect_query='set a=''b''; c' user=x").unwrap(),
            [
                ("host", "a".into()),
                ("port", "5".into()),
                ("connect_query", "set a='b'; c".into()),
                ("user", "x".into())
            ]
        );
        assert_eq!(pairs("").unwrap(), []);
        for wrong in ["host", "=a", "host=", "a b=c", "host='a"] {
            assert!(pairs(wrong).is_err(), "{wrong}");
        }
    }
}
