//! Who may come from where, and how they must prove it: pg_hba.conf, as far as PgBouncer has it.
//!
//! Sources: <https://www.pgbouncer.org/config.html#hba-file-format>,
//! <https://www.postgresql.org/docs/current/auth-pg-hba-conf.html>.

use std::collections::HashSet;
use std::net::IpAddr;

use super::ident::IdentMaps;
use super::rule_words::{LineError, Word, words};

/// The rules, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hba(Vec<HbaRule>);

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaRule {
    /// Its line in the file, from 1.
    pub line: usize,
    connections: Connections,
    databases: Names,
    users: Names,
    /// How the client must prove who it is.
    pub method: HbaMethod,
    /// The map that holds for certificates and peers.
    pub map: Option<Box<str>>,
}

/// How a client must prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaMethod {
    /// Not at all.
    Trust,
    /// It can't: it is not let in.
    Reject,
    /// By a hash of its password, or SCRAM.
    Md5,
    /// By its password.
    Password,
    /// By SCRAM.
    Scram,
    /// By being that user on this system.
    Peer,
    /// By a certificate.
    Cert,
}

/// Who stands at the door.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Its address; `None` over a unix socket.
    pub address: Option<IpAddr>,
    /// Whether it uses TLS.
    pub is_encrypted: bool,
    /// Whether it wants physical replication, which is of no database.
    pub is_physical_replication: bool,
    /// The database that it wants.
    pub database: &'a str,
    /// The user that it says it is.
    pub user: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Connections {
    Local,
    Host(Encryption, Addresses),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Either,
    Tls,
    Clear,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Addresses {
    All,
    /// An address and a mask, both as numbers of the family's width.
    V4(u32, u32),
    V6(u128, u128),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    same_user: bool,
    replication: bool,
    named: HashSet<Box<str>>,
}

/// What a list of names is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Databases,
    Users,
}

impl Hba {
    /// Reads rules. `included` is the text of a file that one of them names by `@`; `maps` are those that they may name.
    ///
    /// # Errors
    /// Every line that is none: a rule that is not understood may be one that keeps somebody out.
    pub fn parse<'a>(
        text: &str,
        included: &dyn Fn(&str) -> Option<&'a str>,
        maps: &IdentMaps,
    ) -> Result<Self, Vec<LineError>> {
        let mut rules = Vec::new();
        let mut errors = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            match rule(line, content, included, maps) {
                Ok(rule) => rules.extend(rule),
                Err(why) => errors.push(LineError {
                    line,
                    why: why.into(),
                }),
            }
        }
        match errors.is_empty() {
            true => Ok(Self(rules)),
            false => Err(errors),
        }
    }

    /// The first rule that fits.
    pub fn rule_for(&self, visitor: &Visitor<'_>) -> Option<&HbaRule> {
        self.0.iter().find(|rule| rule.fits(visitor))
    }

    /// Whether any rule asks for this method.
    pub fn has_method(&self, method: HbaMethod) -> bool {
        self.0.iter().any(|rule| rule.method == method)
    }

    /// The lines that ask for this method.
    pub fn lines_of(&self, method: HbaMethod) -> impl Iterator<Item = usize> {
        let rules = self.0.iter();
        rules
            .filter(move |rule| rule.method == method)
            .map(|rule| rule.line)
    }

    /// The lines that trust whoever comes from another machine.
    pub fn trusting_lines(&self) -> impl Iterator<Item = usize> {
        let trusts = |rule: &&HbaRule| {
            rule.method == HbaMethod::Trust && rule.connections.reach_beyond_this_machine()
        };
        self.0.iter().filter(trusts).map(|rule| rule.line)
    }
}

impl HbaRule {
    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        let is_database = match visitor.is_physical_replication {
            true => self.databases.replication,
            false => self.databases.contain(visitor.database, visitor.user),
        };
        self.connections.contain(visitor)
            && is_database
            && self.users.contain(visitor.user, visitor.database)
    }
}

impl Connections {
    fn contain(&self, visitor: &Visitor<'_>) -> bool {
        match (self, visitor.address) {
            (Self::Local, None) => true,
            (Self::Host(encryption, addresses), Some(address)) => {
                let is_so_encrypted = match encryption {
                    Encryption::Either => true,
                    Encryption::Tls => visitor.is_encrypted,
                    Encryption::Clear => !visitor.is_encrypted,
                };
                is_so_encrypted && addresses.contain(address.to_canonical())
            }
            _ => false,
        }
    }

    fn reach_beyond_this_machine(&self) -> bool {
        match self {
            Self::Local => false,
            Self::Host(_, Addresses::All) => true,
            Self::Host(_, Addresses::V4(address, mask)) => {
                // Within 127.0.0.0/8.
                !(mask >> 24 == 0xff && address >> 24 == 127)
            }
            Self::Host(_, Addresses::V6(address, mask)) => !(*mask == u128::MAX && *address == 1),
        }
    }
}

impl Addresses {
    fn contain(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::All, _) => true,
            (Self::V4(base, mask), IpAddr::V4(address)) => address.to_bits() & mask == base & mask,
            (Self::V6(base, mask), IpAddr::V6(address)) => address.to_bits() & mask == base & mask,
            _ => false,
        }
    }
}

impl Names {
    fn contain(&self, name: &str, other: &str) -> bool {
        self.all || self.same_user && name == other || self.named.contains(name)
    }
}

/// A rule, if the line holds one.
fn rule<'a>(
    line: usize,
    content: &str,
    included: &dyn Fn(&str) -> Option<&'a str>,
    maps: &IdentMaps,
) -> Result<Option<HbaRule>, String> {
    let words = words(content).map_err(|_| "a quote is not closed")?;
    let mut rest = &*words;
    let Some(kind) = take(&mut rest) else {
        return Ok(None);
    };
    let encryption = match kind {
        Word::Bare("local") => None,
        Word::Bare("host") => Some(Encryption::Either),
        Word::Bare("hostssl") => Some(Encryption::Tls),
        Word::Bare("hostnossl") => Some(Encryption::Clear),
        _ => return Err("expected local, host, hostssl or hostnossl".to_owned()),
    };
    let databases = names(&mut rest, Of::Databases, included)?;
    let users = names(&mut rest, Of::Users, included)?;
    let connections = match encryption {
        None => Connections::Local,
        Some(encryption) => Connections::Host(encryption, addresses(&mut rest)?),
    };
    let method = match take(&mut rest) {
        Some(Word::Bare("trust")) => HbaMethod::Trust,
        Some(Word::Bare("reject")) => HbaMethod::Reject,
        Some(Word::Bare("md5")) => HbaMethod::Md5,
        Some(Word::Bare("password")) => HbaMethod::Password,
        Some(Word::Bare("scram-sha-256")) => HbaMethod::Scram,
        Some(Word::Bare("peer")) => HbaMethod::Peer,
        Some(Word::Bare("cert")) => HbaMethod::Cert,
        Some(Word::Bare(other)) => return Err(format!("the method {other} is not supported")),
        _ => return Err("expected a method".to_owned()),
    };
    let map = match take(&mut rest) {
        None => None,
        Some(Word::Bare(option)) => match option.strip_prefix("map=") {
            Some(map) if maps.contains(map) => Some(map.into()),
            Some(map) => return Err(format!("there is no ident map {map}")),
            None => return Err(format!("the option {option} is not supported")),
        },
        Some(_) => return Err("expected map=name or nothing".to_owned()),
    };
    if !rest.is_empty() {
        return Err("something stands behind the end of the rule".to_owned());
    }
    Ok(Some(HbaRule {
        line,
        connections,
        databases,
        users,
        method,
        map,
    }))
}

fn take<'w, 'a>(words: &mut &'w [Word<'a>]) -> Option<&'w Word<'a>> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

/// Names with commas in between.
fn names<'a>(
    words: &mut &[Word<'_>],
    of: Of,
    included: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<Names, String> {
    let mut names = Names::default();
    loop {
        add_name(&mut names, take(words), of, included, 0)?;
        match words {
            [Word::Comma, rest @ ..] => *words = rest,
            _ => return Ok(names),
        }
    }
}

fn add_name<'a>(
    names: &mut Names,
    word: Option<&Word<'_>>,
    of: Of,
    included: &dyn Fn(&str) -> Option<&'a str>,
    depth: usize,
) -> Result<(), String> {
    /// Files may name files; in a circle they never end.
    const MAX_DEPTH: usize = 8;
    match (word, of) {
        (Some(Word::Bare("all")), _) => names.all = true,
        (Some(Word::Bare("sameuser")), Of::Databases) => names.same_user = true,
        (Some(Word::Bare("replication")), Of::Databases) => names.replication = true,
        (Some(Word::Bare(role @ ("samerole" | "samegroup"))), Of::Databases) => {
            return Err(format!("{role} is not supported"));
        }
        (Some(Word::Bare(name)), _) => match name.as_bytes() {
            [b'+', ..] => return Err(format!("{name}: members of a role are not known here")),
            [b'@', ..] if depth == MAX_DEPTH => return Err(format!("{name}: too deep")),
            [b'@', ..] => {
                let file = name.get(1..).unwrap_or_default();
                let text = included(file).ok_or_else(|| format!("{name} cannot be read"))?;
                for line in text.lines() {
                    let words =
                        words(line).map_err(|_| format!("{name}: a quote is not closed"))?;
                    for word in words.iter().filter(|word| **word != Word::Comma) {
                        add_name(names, Some(word), of, included, depth + 1)?;
                    }
                }
            }
            _ => {
                names.named.insert((*name).into());
            }
        },
        (Some(Word::Quoted(name)), _) => {
            names.named.insert((**name).into());
        }
        (Some(Word::Comma) | None, Of::Databases) => return Err("expected a database".to_owned()),
        (Some(Word::Comma) | None, Of::Users) => return Err("expected a user".to_owned()),
    }
    Ok(())
}

/// `all`, an address and the length of its mask, or an address and a mask.
fn addresses(words: &mut &[Word<'_>]) -> Result<Addresses, String> {
    let Some(Word::Bare(word)) = take(words) else {
        return Err("expected an address".to_owned());
    };
    if *word == "all" {
        return Ok(Addresses::All);
    }
    let (address, length) = match word.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (*word, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("{address} is no IP address"))?;
    let wrong = |mask: &str| format!("{mask} is no mask of such an address");
    let (width, mask) = match (address, length) {
        (_, Some(length)) => (length.parse::<u32>().ok(), length),
        (_, None) => match take(words) {
            Some(Word::Bare(mask)) => {
                let parsed: IpAddr = mask.parse().map_err(|_| wrong(mask))?;
                return match (address, parsed) {
                    (IpAddr::V4(address), IpAddr::V4(mask)) => {
                        Ok(Addresses::V4(address.to_bits(), mask.to_bits()))
                    }
                    (IpAddr::V6(address), IpAddr::V6(mask)) => {
                        Ok(Addresses::V6(address.to_bits(), mask.to_bits()))
                    }
                    _ => Err(wrong(mask)),
                };
            }
            _ => return Err(format!("expected the mask of {address}")),
        },
    };
    match (address, width) {
        (IpAddr::V4(address), Some(width @ 0..=32)) => Ok(Addresses::V4(
            address.to_bits(),
            u32::MAX.checked_shl(32 - width).unwrap_or(0),
        )),
        (IpAddr::V6(address), Some(width @ 0..=128)) => Ok(Addresses::V6(
            address.to_bits(),
            u128::MAX.checked_shl(128 - width).unwrap_or(0),
        )),
        _ => Err(wrong(mask)),
    }
}

#[cfg(test)]
mod tests;
