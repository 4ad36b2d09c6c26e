//! Values as PgBouncer writes them → values as config.toml writes them.

use std::path::{Path, PathBuf};

/// How a value is written.
#[derive(Debug)]
pub(super) enum Kind {
    /// A whole number: decimal, or with `0x` or `0` ahead as in C.
    Count,
    /// Seconds, perhaps with a fraction; 0 is for ever, or none at all.
    Seconds,
    /// Seconds, where config.toml wants a limit; 0 becomes a hundred years.
    PositiveSeconds,
    /// A whole number of milliseconds; 0 is none.
    Milliseconds,
    /// 0 or 1.
    Flag,
    /// Text.
    Text,
    /// Names with commas in between.
    Names,
    /// The name of a file; a relative one starts from the process's folder.
    File,
    /// The mode of a file.
    Mode,
    /// One of these words, which are the others in config.toml.
    Word(&'static [(&'static str, &'static str)]),
    /// OpenSSL's list of ciphers.
    Ciphers,
}

impl Kind {
    /// The value as TOML, or what it should have been. `folder` is the process's.
    pub(super) fn translate(&self, value: &str, folder: &Path) -> Result<String, String> {
        Ok(match self {
            Self::Count => whole_number(value)?.to_string(),
            Self::Seconds => quoted(&duration(value)?),
            Self::PositiveSeconds => match duration(value)?.as_str() {
                "0" => quoted(LONGEST),
                time => quoted(time),
            },
            Self::Milliseconds => match whole_number(value)? {
                0 => quoted("0"),
                time => quoted(&format!("{time}ms")),
            },
            Self::Flag => (whole_number(value)? != 0).to_string(),
            Self::Text => quoted(value),
            Self::Names => list(&words(value)),
            Self::File if value.is_empty() => quoted(""),
            Self::File => quoted(&file(value, folder).to_string_lossy()),
            Self::Mode => {
                let mode = whole_number(value)?;
                if mode > 0o777 {
                    return Err("expected the mode of a file such as 0777".into());
                }
                quoted(&format!("{mode:04o}"))
            }
            Self::Word(known) => quoted(word(value, known)?),
            Self::Ciphers => quoted(&ciphers(value)),
        })
    }
}

/// As long as config.toml allows.
const LONGEST: &str = "876000h";

/// `one, two three`: names with commas or blanks in between.
pub(super) fn words(value: &str) -> Vec<&str> {
    let words = value.split(|letter: char| letter == ',' || letter.is_whitespace());
    words.filter(|word| !word.is_empty()).collect()
}

/// A file's whole name.
pub(super) fn file(name: &str, folder: &Path) -> PathBuf {
    folder.join(name)
}

/// As C's `strtol` reads it, without a sign: a size below zero has no meaning.
pub(super) fn whole_number(value: &str) -> Result<u32, String> {
    let value = value.trim();
    let digits = value.strip_prefix('+').unwrap_or(value);
    let parsed = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hexadecimal), _) => u32::from_str_radix(hexadecimal, 16),
        (None, Some(octal)) if !octal.is_empty() => u32::from_str_radix(octal, 8),
        _ => digits.parse(),
    };
    parsed
        .ok()
        .filter(|number| *number <= i32::MAX.unsigned_abs())
        .ok_or_else(|| format!("expected a whole number of 0 or more, found {value:?}"))
}

/// Seconds → a duration with a unit.
pub(super) fn duration(value: &str) -> Result<String, String> {
    let wrong = || format!("expected seconds such as 15 or 0.5, found {value:?}");
    let seconds: f64 = value.trim().parse().map_err(|_| wrong())?;
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(wrong());
    }
    if seconds >= 876_000.0 * 3600.0 {
        return Ok(LONGEST.into());
    }
    let milliseconds = (seconds * 1000.0).ceil();
    Ok(match milliseconds {
        0.0 => "0".into(),
        _ if milliseconds % 1000.0 == 0.0 => format!("{}s", milliseconds / 1000.0),
        _ => format!("{milliseconds}ms"),
    })
}

/// What a word is in config.toml.
pub(super) fn word(
    value: &str,
    known: &'static [(&'static str, &'static str)],
) -> Result<&'static str, String> {
    let found = known
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(value));
    match found {
        Some((_, here)) => Ok(here),
        None => {
            let names: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            Err(format!(
                "expected one of {}, found {value:?}",
                names.join(", ")
            ))
        }
    }
}

/// Names with colons in between; whatever else OpenSSL understands means all that are good.
pub(super) fn ciphers(value: &str) -> String {
    const KEYWORDS: [&str; 8] = [
        "default", "secure", "fast", "normal", "all", "legacy", "compat", "insecure",
    ];
    let is_special = |name: &str| {
        KEYWORDS.contains(&name.to_lowercase().as_str())
            || name.starts_with(['!', '-', '+', '@'])
            || !name.contains(['-', '_'])
    };
    match value.split([':', ',', ' ']).any(is_special) {
        true => String::new(),
        false => value.replace([',', ' '], ":"),
    }
}

/// A list of TOML.
pub(super) fn list(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// A secret of TOML: `${` stands for a variable there.
pub(super) fn secret(text: &str) -> String {
    quoted(&text.replace("${", "$${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(kind: &Kind, value: &str) -> Result<String, String> {
        kind.translate(value, Path::new("/etc/pgbouncer"))
    }

    #[test]
    fn seconds_become_durations() {
        let seconds = |value| translated(&Kind::Seconds, value).unwrap();
        assert_eq!(seconds("0"), "\"0\"");
        assert_eq!(seconds("15"), "\"15s\"");
        assert_eq!(seconds("0.2"), "\"200ms\"");
        assert_eq!(seconds("0.0001"), "\"1ms\"");
        assert_eq!(seconds("1e12"), "\"876000h\"");
        assert_eq!(
            translated(&Kind::PositiveSeconds, "0").unwrap(),
            "\"876000h\""
        );
        for wrong in ["-1", "x", "5s", "nan", ""] {
            assert!(translated(&Kind::Seconds, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_those_of_c() {
        let number = |value| translated(&Kind::Count, value);
        assert_eq!(number("10").unwrap(), "10");
        assert_eq!(number("0x10").unwrap(), "16");
        assert_eq!(number("010").unwrap(), "8");
        assert_eq!(number("0").unwrap(), "0");
        assert_eq!(translated(&Kind::Mode, "0770").unwrap(), "\"0770\"");
        assert_eq!(translated(&Kind::Flag, "2").unwrap(), "true");
        for wrong in ["-1", "ten", "1 0", "", "99999999999"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_have_their_whole_name_and_texts_their_quotes() {
        let file = |value| translated(&Kind::File, value).unwrap();
        assert_eq!(file("userlist.txt"), "\"/etc/pgbouncer/userlist.txt\"");
        assert_eq!(file("/x"), "\"/x\"");
        assert_eq!(file(""), "\"\"");
        assert_eq!(
            translated(&Kind::Text, "a \"b\" \\").unwrap(),
            r#""a \"b\" \\""#
        );
        assert_eq!(secret("a${b"), "\"a$${b\"");
        assert_eq!(
            translated(&Kind::Names, "a, b c,,").unwrap(),
            r#"["a", "b", "c"]"#
        );
    }

    #[test]
    fn what_openssl_alone_understands_means_the_good_ciphers() {
        assert_eq!(ciphers("default"), "");
        assert_eq!(ciphers("HIGH:!aNULL"), "");
        assert_eq!(
            ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"),
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
        );
        assert_eq!(ciphers(""), "");
    }
}
