//! Values as people write them: durations and sizes with a unit, counts, ports and addresses.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

use super::Share;
use super::choices::WorkerCount;
use super::secret::Secret;

/// Declares a newtype that is read from text, from a whole number, or from either, and that says what it expects.
macro_rules! written {
    ($(#[$doc:meta])* $name:ident($inner:ty), $expecting:expr, text: $text:expr, number: $number:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let written = Written { expecting: $expecting, text: $text, number: $number };
                deserializer.deserialize_any(written).map(Self)
            }
        }
    };
}

written!(
    /// A duration; `"0"` is none at all.
    Time(Duration),
    "a duration such as \"250ms\", \"15s\", \"2m\", \"1h\" or \"0\"",
    text: Some(parse_duration),
    number: None
);

written!(
    /// A duration that cannot be zero.
    PositiveTime(Duration),
    "a duration longer than zero such as \"250ms\", \"15s\", \"2m\" or \"1h\"",
    text: Some(|text| parse_duration(text).filter(|time| !time.is_zero())),
    number: None
);

written!(
    /// A duration after which something ends; `"0"` is `None`: it never does.
    TimeLimit(Option<Duration>),
    "a duration such as \"250ms\", \"15s\", \"2m\" or \"1h\", or \"0\" for no limit",
    text: Some(|text| parse_duration(text).map(|time| (!time.is_zero()).then_some(time))),
    number: None
);

written!(
    /// How many rounds a key gets: more than a second's worth is nobody's wish.
    Iterations(NonZeroU32),
    "a whole number from 1 to 1000000",
    text: None,
    number: Some(|number| u32::try_from(number).ok().filter(|count| *count <= 1_000_000).and_then(NonZeroU32::new))
);

written!(
    /// A number of bytes, at least 1.
    Size(NonZeroUsize),
    "a size such as \"1000\", \"64KiB\", \"1MiB\" or \"1GiB\"",
    text: Some(|text| parse_size(text).and_then(NonZeroUsize::new)),
    number: Some(|number| usize::try_from(number).ok().and_then(NonZeroUsize::new))
);

written!(
    /// A whole number of 1 or more.
    Count(NonZeroUsize),
    "a whole number of 1 or more",
    text: None,
    number: Some(|number| usize::try_from(number).ok().and_then(NonZeroUsize::new))
);

written!(
    /// A number of which there may not be more; `0` is `None`: there is no limit.
    CountLimit(Option<NonZeroUsize>),
    "a whole number of 1 or more, or 0 for no limit",
    text: None,
    number: Some(|number| usize::try_from(number).ok().map(NonZeroUsize::new))
);

written!(
    /// A whole number of 0 or more.
    Number(usize),
    "a whole number of 0 or more",
    text: None,
    number: Some(|number| usize::try_from(number).ok())
);

written!(
    /// A TCP port to connect to.
    Port(u16),
    "a port from 1 to 65535",
    text: None,
    number: Some(|number| u16::try_from(number).ok().filter(|port| *port > 0))
);

written!(
    /// A length of the listen queue: the kernel takes a C `int`.
    Backlog(u32),
    "a whole number from 1 to 2147483647",
    text: None,
    number: Some(|number| u32::try_from(number).ok().filter(|length| (1..=0x7fff_ffff).contains(length)))
);

/// Addresses to listen on: one, a list, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addresses(pub(super) Vec<SocketAddr>);

written!(
    /// The mode of a file.
    Mode(u32),
    "the mode of a file such as \"0777\" or \"0770\"",
    text: Some(|text| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)),
    number: None
);

written!(
    /// An address to listen on; `""` is `None`: nothing listens.
    OptionalAddress(Option<SocketAddr>),
    "an IP address and a port such as \"127.0.0.1:9127\", or \"\" for none",
    text: Some(|text| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }),
    number: None
);

written!(
    /// How many workers.
    Workers(WorkerCount),
    "a whole number of 1 or more, or \"auto\"",
    text: Some(|text| (text == "auto").then_some(WorkerCount::Auto)),
    number: Some(|number| usize::try_from(number).ok().and_then(NonZeroUsize::new).map(WorkerCount::Fixed))
);

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrittenShare(pub(super) Share);

impl<'de> Deserialize<'de> for WrittenShare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = WrittenShare;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 1 such as 0.01")
            }

            fn visit_f64<E: Error>(self, share: f64) -> Result<WrittenShare, E> {
                let unexpected = Unexpected::Float(share);
                let share = Share::new(share).ok_or_else(|| E::invalid_value(unexpected, &self))?;
                Ok(WrittenShare(share))
            }

            fn visit_i64<E: Error>(self, share: i64) -> Result<WrittenShare, E> {
                self.visit_f64(share as f64)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

written!(
    /// Text that no error shows.
    SecretText(Secret),
    "a string",
    text: Some(|text| Some(Secret::new(text))),
    number: None
);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressesVisitor).map(Self)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Vec<SocketAddr>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an IP address and a port such as \"127.0.0.1:6432\", \"0.0.0.0:6432\" or \"[::]:6432\", or a list of them",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            "" => Ok(Vec::new()),
            _ => text
                .parse()
                .map(|address| vec![address])
                .map_err(|_| E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut addresses = Vec::new();
        while let Some(Addresses(one)) = items.next_element()? {
            addresses.extend(one);
        }
        Ok(addresses)
    }
}

/// Hosts: one, several with commas between them, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostList(pub(super) Vec<Box<str>>);

impl<'de> Deserialize<'de> for HostList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HostsVisitor).map(Self)
    }
}

struct HostsVisitor;

impl<'de> Visitor<'de> for HostsVisitor {
    type Value = Vec<Box<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host name, an IP address or the folder of a unix socket, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.split(',').map(|host| host.trim().into()).collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut hosts = Vec::new();
        while let Some(HostList(some)) = items.next_element()? {
            hosts.extend(some);
        }
        match hosts.is_empty() {
            true => Err(A::Error::invalid_length(0, &self)),
            false => Ok(hosts),
        }
    }
}

/// No duration is longer: clocks can add it to any point in time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A whole number and its unit, or `0`; `None` if it is not one or longer than a hundred years.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let milliseconds = match unit {
        "" if number == 0 => 0,
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" | "min" => number.checked_mul(60 * 1000)?,
        "h" => number.checked_mul(60 * 60 * 1000)?,
        _ => return None,
    };
    let duration = Duration::from_millis(milliseconds);
    (duration <= LONGEST).then_some(duration)
}

/// Bytes, or a whole number and its binary unit.
fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = split_number(text)?;
    let bytes = match unit {
        "" | "B" => number,
        "KiB" => number.checked_mul(1 << 10)?,
        "MiB" => number.checked_mul(1 << 20)?,
        "GiB" => number.checked_mul(1 << 30)?,
        _ => return None,
    };
    usize::try_from(bytes).ok()
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// One visitor for all of them: a form that is not accepted has no function.
struct Written<T> {
    expecting: &'static str,
    text: Option<fn(&str) -> Option<T>>,
    number: Option<fn(i64) -> Option<T>>,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let unexpected = Unexpected::Str(text);
        match self.text {
            None => Err(E::invalid_type(unexpected, &self)),
            Some(parse) => parse(text).ok_or_else(|| E::invalid_value(unexpected, &self)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let unexpected = Unexpected::Signed(number);
        match self.number {
            None => Err(E::invalid_type(unexpected, &self)),
            Some(parse) => parse(number).ok_or_else(|| E::invalid_value(unexpected, &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_unless_they_are_zero() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("15s"), Some(Duration::from_secs(15)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("2min"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for wrong in ["", "15", "s", "-1s", "1.5s", "1d", "1s2", "١s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duration_that_a_clock_could_not_add_is_refused() {
        assert_eq!(parse_duration("876000h"), Some(LONGEST));
        assert_eq!(parse_duration("876001h"), None);
        assert_eq!(parse_duration("18446744073709551615h"), None);
        assert_eq!(parse_duration("18446744073709551616ms"), None);
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        assert_eq!(parse_size("1000"), Some(1000));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("1MiB"), Some(1_048_576));
        assert_eq!(parse_size("2 GiB"), Some(2_147_483_648));
        for wrong in [
            "",
            "KiB",
            "1kb",
            "-1",
            "99999999999999999999",
            "17179869184GiB",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
