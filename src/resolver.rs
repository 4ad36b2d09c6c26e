//! The addresses that names of servers lead to, remembered for a while.
//!
//! The system's resolver does not tell how long an answer holds, so `dns.max_ttl` and `dns.nxdomain_ttl` do. A name is asked for again
//! when a connection is to be made and its answer is too old.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;

/// Remembers addresses. One for each worker.
#[derive(Debug)]
pub struct Resolver {
    clock: fn() -> Instant,
    names: RefCell<HashMap<Box<str>, Known>>,
}

/// How long answers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// An answer with addresses.
    pub found: Duration,
    /// That there are none.
    pub missing: Duration,
}

#[derive(Clone, Debug)]
struct Known {
    at: Instant,
    /// `None`: the name leads nowhere.
    addresses: Option<Rc<[IpAddr]>>,
    /// Which of them is used next.
    next: Rc<Cell<usize>>,
}

/// What a name leads to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// All its addresses, the one whose turn it is first.
    pub addresses: Vec<IpAddr>,
    /// The addresses that it led to before, and does not any more.
    pub gone: Vec<IpAddr>,
}

/// A name as the console shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownName {
    /// The name.
    pub name: Box<str>,
    /// How long its answer has been known.
    pub age: Duration,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Names that are remembered at most; beyond it the oldest answer is forgotten.
pub const MAX_NAMES: usize = 1000;

impl Resolver {
    /// Remembers nothing yet.
    pub fn new(clock: fn() -> Instant) -> Self {
        Self {
            clock,
            names: RefCell::default(),
        }
    }

    /// The addresses of a name, or of an address itself. Each call begins with another one.
    ///
    /// # Errors
    /// If the name leads nowhere, or that can't be found out.
    pub async fn resolve(&self, host: &str, ttl: Ttl) -> io::Result<Resolved> {
        if let Ok(address) = host.parse() {
            return Ok(Resolved {
                addresses: vec![address],
                gone: Vec::new(),
            });
        }
        let now = (self.clock)();
        let known = self.names.borrow().get(host).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.holds(ttl, now)) {
            return known.in_turn(Vec::new());
        }
        let answer = lookup_host((host, 0)).await;
        let before = known.and_then(|known| known.addresses);
        let learned = self.learn(host, answer, now)?;
        let is_gone = |address: &&IpAddr| {
            !learned
                .addresses
                .iter()
                .flat_map(|it| it.iter())
                .any(|new| new == *address)
        };
        let gone = before
            .iter()
            .flat_map(|it| it.iter())
            .filter(is_gone)
            .copied();
        learned.in_turn(gone.collect())
    }

    /// The names that are remembered.
    pub fn known(&self) -> Vec<KnownName> {
        let now = (self.clock)();
        let names = self.names.borrow();
        let known = names.iter().map(|(name, known)| KnownName {
            name: name.clone(),
            age: now.saturating_duration_since(known.at),
            addresses: known
                .addresses
                .iter()
                .flat_map(|it| it.iter().copied())
                .collect(),
        });
        known.collect()
    }

    /// That there is no answer counts as there being no address.
    fn learn(
        &self,
        host: &str,
        answer: io::Result<impl Iterator<Item = std::net::SocketAddr>>,
        now: Instant,
    ) -> io::Result<Known> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        let answer = answer.map(|found| {
            for address in found {
                if !addresses.contains(&address.ip()) {
                    addresses.push(address.ip());
                }
            }
        });
        let mut names = self.names.borrow_mut();
        if names.len() >= MAX_NAMES && !names.contains_key(host) {
            let oldest = names.iter().min_by_key(|(_, known)| known.at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                names.remove(&oldest);
            }
        }
        let next = names
            .get(host)
            .map_or_else(Rc::default, |known| Rc::clone(&known.next));
        let known = Known {
            at: now,
            addresses: (!addresses.is_empty()).then(|| addresses.into()),
            next,
        };
        names.insert(host.into(), known.clone());
        answer.map(|()| known)
    }
}

impl Known {
    fn holds(&self, ttl: Ttl, now: Instant) -> bool {
        let limit = match self.addresses {
            Some(_) => ttl.found,
            None => ttl.missing,
        };
        now.saturating_duration_since(self.at) < limit
    }

    fn in_turn(&self, gone: Vec<IpAddr>) -> io::Result<Resolved> {
        let Some(addresses) = &self.addresses else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ));
        };
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let mut addresses = addresses.to_vec();
        let len = addresses.len();
        addresses.rotate_left(turn % len);
        Ok(Resolved { addresses, gone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const TTL: Ttl = Ttl {
        found: Duration::from_secs(15),
        missing: Duration::from_secs(5),
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    fn answer(addresses: &[&str]) -> io::Result<std::vec::IntoIter<SocketAddr>> {
        let addresses = addresses
            .iter()
            .map(|it| SocketAddr::new(it.parse().unwrap(), 0));
        Ok(addresses.collect::<Vec<_>>().into_iter())
    }

    #[test]
    fn the_addresses_of_a_name_take_turns() {
        let resolver = Resolver::new(now);
        let known = resolver
            .learn("db", answer(&["10.0.0.1", "10.0.0.2", "10.0.0.1"]), now())
            .unwrap();
        let first = |known: &Known| known.in_turn(Vec::new()).unwrap().addresses[0].to_string();
        assert_eq!(first(&known), "10.0.0.1");
        assert_eq!(first(&known), "10.0.0.2");
        assert_eq!(first(&known), "10.0.0.1");
    }

    #[test]
    fn an_answer_holds_for_its_time() {
        let resolver = Resolver::new(now);
        let at = now();
        let known = resolver.learn("db", answer(&["10.0.0.1"]), at).unwrap();
        assert!(known.holds(TTL, at + Duration::from_secs(14)));
        assert!(!known.holds(TTL, at + Duration::from_secs(15)));
        let missing = resolver.learn("nowhere", answer(&[]), at).unwrap();
        assert!(missing.holds(TTL, at + Duration::from_secs(4)));
        assert!(!missing.holds(TTL, at + Duration::from_secs(5)));
        assert!(missing.in_turn(Vec::new()).is_err());
    }

    #[test]
    fn only_so_many_names_are_remembered() {
        let resolver = Resolver::new(now);
        let at = now();
        for number in 0..MAX_NAMES + 5 {
            let later = at + Duration::from_millis(number as u64);
            let _ = resolver.learn(&format!("db{number}"), answer(&["10.0.0.1"]), later);
        }
        let known = resolver.known();
        assert_eq!(known.len(), MAX_NAMES);
        assert!(!known.iter().any(|it| &*it.name == "db4"));
    }
}
