//! Which names of a system, or in certificates, are which users: pg_ident.conf.
//!
//! Source: <https://www.pgbouncer.org/config.html#ident-map-file-format>. What PostgreSQL has beyond it (regular expressions,
//! groups) is not there.

use std::collections::HashMap;

use super::rule_words::{LineError, Word, words};

/// The maps, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentMaps(HashMap<Box<str>, Vec<Mapping>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    system: Box<str>,
    user: MappedUser,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum MappedUser {
    All,
    Named(Box<str>),
}

impl IdentMaps {
    /// Reads `map system-name user`, one a line; `all` in the user's stead is everyone.
    ///
    /// # Errors
    /// Every line that is none.
    pub fn parse(text: &str) -> Result<Self, Vec<LineError>> {
        let mut maps = Self::default();
        let mut errors = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            match mapping(content) {
                Ok(None) => {}
                Ok(Some((name, mapping))) => maps.0.entry(name).or_default().push(mapping),
                Err(why) => errors.push(LineError {
                    line,
                    why: why.into(),
                }),
            }
        }
        match errors.is_empty() {
            true => Ok(maps),
            false => Err(errors),
        }
    }

    /// Whether there is a map of this name.
    pub fn contains(&self, map: &str) -> bool {
        self.0.contains_key(map)
    }

    /// Whether somebody with this name there may be that user.
    pub fn allows(&self, map: &str, system: &str, user: &str) -> bool {
        let mappings = self.0.get(map).map(Vec::as_slice).unwrap_or_default();
        mappings.iter().any(|mapping| {
            *mapping.system == *system
                && match &mapping.user {
                    MappedUser::All => true,
                    MappedUser::Named(name) => **name == *user,
                }
        })
    }
}

fn mapping(line: &str) -> Result<Option<(Box<str>, Mapping)>, &'static str> {
    let words = words(line).map_err(|_| "a quote is not closed")?;
    let name = |word: &Word<'_>| match word {
        Word::Bare(name) => Ok(Box::from(*name)),
        Word::Quoted(name) => Ok(Box::from(&**name)),
        Word::Comma => Err("a comma has no place here"),
    };
    Ok(match &*words {
        [] => None,
        [Word::Bare(map), system, user] => {
            let user = match user {
                Word::Bare("all") => MappedUser::All,
                user => MappedUser::Named(name(user)?),
            };
            let system = name(system)?;
            Some(((*map).into(), Mapping { system, user }))
        }
        _ => return Err("expected a map, the name there, and the user"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_there_is_the_users_that_the_map_says() {
        let maps =
            IdentMaps::parse("# ours\nmymap root ann\nmymap root bob\nother \"a b\" all # any\n")
                .unwrap();
        assert!(maps.allows("mymap", "root", "ann"));
        assert!(maps.allows("mymap", "root", "bob"));
        assert!(!maps.allows("mymap", "root", "eve"));
        assert!(!maps.allows("mymap", "ann", "ann"));
        assert!(maps.allows("other", "a b", "eve"));
        assert!(!maps.allows("unheard-of", "root", "ann"));
        assert!(maps.contains("other") && !maps.contains("unheard-of"));
    }

    #[test]
    fn all_in_quotes_is_a_name() {
        let maps = IdentMaps::parse("m root \"all\"").unwrap();
        assert!(maps.allows("m", "root", "all") && !maps.allows("m", "root", "ann"));
    }

    #[test]
    fn every_broken_line_is_named() {
        let errors = IdentMaps::parse("m root ann\nm root\n\nm root ann bob\nm \"x").unwrap_err();
        let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [2, 4, 5]);
    }
}
