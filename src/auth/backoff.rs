//! Who has failed to log in must wait before the next try, by address: twice as long each time.
//!
//! Only time makes up for a failure. A login that goes well does not: whoever has a password of one user could forget with it what
//! guesses at another's have cost.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The addresses that have failed lately.
#[derive(Debug, Default)]
pub struct Backoff(HashMap<IpAddr, Failures>);

#[derive(Debug)]
struct Failures {
    count: u32,
    until: Instant,
}

impl Backoff {
    /// The longest that an address has to wait.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// The most addresses that are remembered; those of further ones need not wait.
    pub const MAX_ADDRESSES: usize = 10_000;

    /// Whether an address must still wait.
    pub fn must_wait(&self, address: IpAddr, now: Instant) -> bool {
        let failures = self.0.get(&network(address));
        failures.is_some_and(|failures| now < failures.until)
    }

    /// A login from there has failed. The first failure costs `base`.
    pub fn on_failure(&mut self, address: IpAddr, base: Duration, now: Instant) {
        if base.is_zero() {
            return;
        }
        let address = network(address);
        if self.0.len() >= Self::MAX_ADDRESSES && !self.0.contains_key(&address) {
            // What is long over is forgotten.
            self.0
                .retain(|_, failures| now < failures.until + Self::LONGEST);
            if self.0.len() >= Self::MAX_ADDRESSES {
                return;
            }
        }
        let failures = self.0.entry(address).or_insert(Failures {
            count: 0,
            until: now,
        });
        if failures.until + Self::LONGEST < now {
            failures.count = 0;
        }
        let factor = 1_u32.checked_shl(failures.count).unwrap_or(u32::MAX);
        failures.count += 1;
        failures.until = now + base.saturating_mul(factor).min(Self::LONGEST);
    }
}

/// Whoever has one address of IPv6 has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "std has no other moment")]
    fn some_instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_failure_costs_twice_as_much_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let (ann, start) = (address("10.0.0.1"), some_instant());
        assert!(!backoff.must_wait(ann, start));
        let mut now = start;
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.on_failure(ann, SECOND, now);
            let end = now + expected * SECOND;
            assert!(backoff.must_wait(ann, end - SECOND / 2));
            assert!(!backoff.must_wait(ann, end));
            assert!(!backoff.must_wait(address("10.0.0.2"), now));
            now = end;
        }
    }

    #[test]
    fn failures_long_ago_are_forgotten() {
        let mut backoff = Backoff::default();
        let (ann, start) = (address("10.0.0.1"), some_instant());
        backoff.on_failure(ann, SECOND, start);
        backoff.on_failure(ann, SECOND, start);
        let later = start + 2 * Backoff::LONGEST;
        backoff.on_failure(ann, SECOND, later);
        assert!(!backoff.must_wait(ann, later + SECOND));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut backoff = Backoff::default();
        let start = some_instant();
        backoff.on_failure(address("2001:db8::1"), SECOND, start);
        assert!(backoff.must_wait(address("2001:db8::2"), start));
        assert!(!backoff.must_wait(address("2001:db8:0:1::1"), start));
    }

    #[test]
    fn without_a_base_nobody_waits_and_memory_has_an_end() {
        let mut backoff = Backoff::default();
        let start = some_instant();
        backoff.on_failure(address("10.0.0.1"), Duration::ZERO, start);
        assert!(!backoff.must_wait(address("10.0.0.1"), start));
        for number in 0..=Backoff::MAX_ADDRESSES {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap());
            backoff.on_failure(address.into(), SECOND, start);
        }
        assert_eq!(backoff.0.len(), Backoff::MAX_ADDRESSES);
    }
}
