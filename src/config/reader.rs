//! Reads tables into structs, and finds every wrong key instead of the first only.
//!
//! The toml crate's own deserializer puts values into its messages, and a value may be a password; it also does
//! not say which key is nearest to a misspelt one. So the parsed document is read by the deserializer here.

use std::fmt::{self, Display};
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A key or a value that cannot be read.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The keys from the root to the wrong one.
    pub(super) path: Vec<String>,
    /// The bytes to blame.
    pub(super) span: Option<Range<usize>>,
    pub(super) reason: Reason,
}

#[derive(Debug)]
pub(super) enum Reason {
    /// No setting has this name; these do.
    UnknownKey(&'static [&'static str]),
    /// What was expected and what stands there.
    WrongValue(String),
}

/// What can be read of `document`, and what cannot: a refused key is taken out and the rest read again.
pub(super) fn read<T: DeserializeOwned + Default>(document: &DeTable<'_>) -> (T, Vec<Refusal>) {
    let mut document = document.clone();
    let mut refusals = Vec::new();
    loop {
        match T::deserialize(TableReader(&document)) {
            Ok(table) => return (table, refusals),
            Err(refusal) => {
                let taken_out = remove(&mut document, &refusal.path);
                refusals.push(refusal);
                if !taken_out {
                    return (T::default(), refusals);
                }
            }
        }
    }
}

fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(key.as_str()).is_some(),
        [key, rest @ ..] => match table.get_mut(key.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// The nearest of `known`, if it is near enough to be a slip of the finger.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&word.to_lowercase(), name);
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    (distance(best) <= 1 + word.chars().count() / 4).then_some(best)
}

/// Names for an error message: `` `a`, `b` ``.
pub(super) fn enumerate(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

impl Refusal {
    fn new(reason: Reason) -> Self {
        Self {
            path: Vec::new(),
            span: None,
            reason,
        }
    }

    /// On its way up: the place where it is found out first is the most exact.
    fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn under(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::UnknownKey(_) => f.write_str("unknown key"),
            Reason::WrongValue(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Reason::WrongValue(message.to_string()))
    }

    /// Without the value: a password of the wrong type is still a password.
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        Self::custom(format_args!("expected {expected}, found {found}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Str(text) => {
                Self::custom(format_args!("expected {expected}, found {text:?}"))
            }
            Unexpected::Signed(number) => {
                Self::custom(format_args!("expected {expected}, found {number}"))
            }
            other => Self::invalid_type(other, expected),
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known = enumerate(expected);
        match nearest(variant, expected) {
            Some(name) => Self::custom(format_args!(
                "{variant:?} is not one of {known}, did you mean `{name}`?"
            )),
            None => Self::custom(format_args!("{variant:?} is not one of {known}")),
        }
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Reason::UnknownKey(expected))
    }
}

struct TableReader<'a, 'i>(&'a DeTable<'i>);

struct ValueReader<'a, 'i>(&'a Spanned<DeValue<'i>>);

impl<'de> de::Deserializer<'de> for TableReader<'_, '_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_map(Entries {
            entries: self.0.iter(),
            value: None,
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> de::Deserializer<'de> for ValueReader<'_, '_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let read = match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => visitor.visit_i64(number),
                    // TOML's integers have 64 bits; a longer one is an error there too.
                    Err(_) => Err(de::Error::custom("this number is too large")),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::invalid_type(Unexpected::Float(0.0), &visitor)),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => {
                Err(de::Error::invalid_type(Unexpected::Other("date"), &visitor))
            }
            DeValue::Array(items) => visitor.visit_seq(Items(items.iter())),
            DeValue::Table(table) => TableReader(table).deserialize_any(visitor),
        };
        read.map_err(|refusal| refusal.at(self.0.span()))
    }

    /// What is written is never nothing: TOML has no null.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    /// From a table only: serde would also fill a struct from a list, by position.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.0.get_ref() {
            DeValue::Array(_) => {
                let refusal: Refusal = de::Error::invalid_type(Unexpected::Seq, &visitor);
                Err(refusal.at(self.0.span()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.0.get_ref() {
            DeValue::String(name) => visitor.visit_enum(StrDeserializer::new(name)),
            _ => Err(de::Error::custom(format_args!(
                "expected one of {}",
                enumerate(names)
            ))),
        }
        .map_err(|refusal: Refusal| refusal.at(self.0.span()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// A table's entries, and the one whose key has been read.
struct Entries<'a, 'i, I> {
    entries: I,
    value: Option<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)>,
}

impl<'a, 'i: 'a, 'de, I> MapAccess<'de> for Entries<'a, 'i, I>
where
    I: Iterator<Item = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)>,
{
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else {
            return Ok(None);
        };
        seed.deserialize(StrDeserializer::new(key.get_ref()))
            .map(Some)
            .map_err(|refusal: Refusal| refusal.at(key.span()).under(key.get_ref()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let (key, value) = self.value.take().expect("serde asks for the key first");
        seed.deserialize(ValueReader(value))
            .map_err(|refusal| refusal.under(key.get_ref()))
    }
}

struct Items<I>(I);

impl<'a, 'i: 'a, 'de, I: Iterator<Item = &'a Spanned<DeValue<'i>>>> SeqAccess<'de> for Items<I> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        self.0
            .next()
            .map(|item| seed.deserialize(ValueReader(item)))
            .transpose()
    }
}
