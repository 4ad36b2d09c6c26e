//! The client's prepared statements and the server's: the same text, under names that differ.
//!
//! A client prepares once and may then meet any server of its pool. So each definition (text and parameter types) gets one
//! name of the proxy's own for each [`Meaning`], and a server that lacks it is sent the Parse again, ahead of whatever needs it.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;

use thin_vec::ThinVec;

use crate::protocol::frame::split_cstr;
use crate::session::meaning::{self, Meaning};
use crate::session::parameters::ParameterSet;

/// A prepared statement that clients share if their text, its meaning and its parameter types are the same.
#[derive(Debug)]
pub struct Statement {
    /// Its number, which makes its name on servers: no other statement of its pool has it, on any worker.
    id: u64,
    /// Text, NUL, and parameter types, as they stand in a Parse behind the name.
    definition: Box<[u8]>,
    /// By which settings it is prepared. `None`: by some of one client's alone.
    meaning: Option<Rc<Meaning>>,
    /// A server has found that its result is another by now: who prepares the text again gets another statement.
    is_stale: Cell<bool>,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for Statement {}

impl Statement {
    /// Whether it is the same on servers. One that has come with a server from another worker knows its number alone.
    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether it is prepared by these settings.
    pub fn has_meaning(&self, meaning: &Rc<Meaning>) -> bool {
        let own = self.meaning.as_ref();
        own.is_some_and(|own| Rc::ptr_eq(own, meaning))
    }

    /// Whether it is one client's alone.
    pub fn is_private(&self) -> bool {
        self.meaning.is_none()
    }

    /// Whether its result may be another than its clients were told.
    pub fn is_stale(&self) -> bool {
        self.is_stale.get()
    }

    /// A server has found that its result is another by now.
    pub fn set_stale(&self) {
        self.is_stale.set(true);
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        split_cstr(&self.definition).map_or(&self.definition[..], |(text, _)| text)
    }

    /// Appends its name on servers.
    pub fn write_name(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(Self::NAME_PREFIX.as_bytes());
        let mut digits = [0; 20];
        let mut rest = self.id;
        let mut at = digits.len();
        loop {
            at -= 1;
            if let Some(digit) = digits.get_mut(at) {
                *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            }
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(digits.get(at..).unwrap_or_default());
    }

    /// Text, NUL, and parameter types.
    pub fn definition(&self) -> &[u8] {
        &self.definition
    }

    /// What the names on servers begin with.
    pub const NAME_PREFIX: &'static str = "pgspan_";
}

/// What a client's unnamed statement is.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum UnnamedStatement {
    /// The server's unnamed one, if it has any.
    #[default]
    Servers,
    /// One that has a name on servers.
    Shared(Rc<Statement>),
    /// None, although the server may have one: it is not this client's any more.
    Gone,
}

/// All definitions that some client or server of a pool still knows.
#[derive(Debug)]
pub struct Definitions {
    by_settings: HashMap<Box<[u8]>, Rc<Meaning>>,
    /// Kept for its room.
    settings: Vec<u8>,
    next_id: u64,
    /// How far apart its numbers are: others number theirs in between.
    stride: u64,
    /// At this many settings, those that nobody has any more are swept out.
    sweep_at: usize,
    /// Hashes of texts of unnamed statements that came last, each at the place that it leads to. Made when the first comes.
    seen: Vec<u64>,
    hasher: RandomState,
}

/// How many texts of unnamed statements are remembered at most.
const SEEN: usize = 4096;

impl Default for Definitions {
    fn default() -> Self {
        Self::of_worker(0, 1)
    }
}

impl Definitions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, of one of so many workers: servers move between them, and the names that they have must tell statements apart.
    pub fn of_worker(number: u64, workers: u64) -> Self {
        Self {
            by_settings: HashMap::new(),
            settings: Vec::new(),
            next_id: number,
            stride: workers,
            sweep_at: 0,
            seen: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// Whether an unnamed statement with this definition came before; from now on it did. Forgets, and may rarely be wrong.
    pub fn was_seen(&mut self, definition: &[u8]) -> bool {
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN];
        }
        let hash = self.hasher.hash_one(definition);
        let at = usize::try_from(hash % SEEN as u64).expect("less than the number of places");
        self.seen
            .get_mut(at)
            .is_some_and(|seen| std::mem::replace(seen, hash) == hash)
    }

    /// What texts mean by these settings.
    pub fn meaning_of(&mut self, parameters: &ParameterSet) -> Rc<Meaning> {
        const SWEEP_AT_LEAST: usize = 64;
        self.settings.clear();
        meaning::write_key(parameters, &mut self.settings);
        if let Some(known) = self.by_settings.get(&*self.settings) {
            return Rc::clone(known);
        }
        if self.by_settings.len() >= self.sweep_at {
            // Those that a client has, or a statement.
            self.by_settings
                .retain(|_, meaning| Rc::strong_count(meaning) > 1);
            self.sweep_at = SWEEP_AT_LEAST.max(2 * self.by_settings.len());
        }
        let meaning = Rc::default();
        self.by_settings
            .insert(self.settings.as_slice().into(), Rc::clone(&meaning));
        meaning
    }

    /// The one statement with this definition and meaning; with `None` one that nobody shares.
    pub fn intern(&mut self, meaning: Option<&Rc<Meaning>>, definition: &[u8]) -> Rc<Statement> {
        if let Some(known) = meaning.and_then(|meaning| meaning.find(definition)) {
            return known;
        }
        self.next_id += self.stride;
        let statement = Rc::new(Statement {
            id: self.next_id,
            definition: definition.into(),
            meaning: meaning.map(Rc::clone),
            is_stale: Cell::new(false),
        });
        if let Some(meaning) = meaning {
            meaning.insert(&statement);
        }
        statement
    }

    /// Tables, views or functions are others by now: whoever prepares a text again gets another statement, of the new ones. Who has
    /// one keeps it, and is told by the server if its result has changed, as on a connection of its own.
    pub fn on_schema_changed(&self) {
        for meaning in self.by_settings.values() {
            meaning.forget();
        }
    }
}

type ByName = HashMap<Box<[u8]>, Rc<Statement>>;

/// What a client's names stand for.
#[derive(Debug, Default)]
pub struct ClientStatements {
    /// Made when the first one is prepared: most idle clients have none.
    by_name: Option<Box<ByName>>,
    /// The names whose Parse failed most recently: errors of what was sent behind it may still name them.
    failed: ThinVec<(Box<[u8]>, Rc<Statement>)>,
}

impl ClientStatements {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.as_ref().map_or(0, |by_name| by_name.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names that a client may have at a time: more than any driver's cache, and an end for one that never closes any.
    pub const MAX: usize = 20_000;

    /// Whether there may be no more.
    pub fn is_full(&self) -> bool {
        self.len() >= Self::MAX
    }

    /// What a name stands for.
    pub fn find(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.by_name.as_ref()?.get(name)
    }

    /// A name gets a meaning.
    pub fn insert(&mut self, name: &[u8], statement: Rc<Statement>) {
        self.by_name
            .get_or_insert_default()
            .insert(name.into(), statement);
    }

    /// A name is free again.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some(by_name) = &mut self.by_name {
            by_name.remove(name);
        }
    }

    /// A name is free again, since its Parse failed or was never done.
    pub fn forget_failed(&mut self, name: &[u8]) {
        /// More than a pipeline usually has.
        const KEPT: usize = 8;
        if let Some((name, statement)) = self
            .by_name
            .as_mut()
            .and_then(|by_name| by_name.remove_entry(name))
        {
            if self.failed.len() >= KEPT {
                self.failed.remove(0);
            }
            self.failed.push((name, statement));
        }
    }

    /// All names are free again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends a server's text, with the statements in it named as the client does.
    pub fn write_with_client_names(&self, text: &[u8], out: &mut Vec<u8>) {
        let prefix = Statement::NAME_PREFIX.as_bytes();
        let mut rest = text;
        while let Some(at) = memchr::memmem::find(rest, prefix) {
            let (before, named) = rest.split_at(at);
            let digits = named.get(prefix.len()..).unwrap_or_default();
            let len = digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let (name, behind) = named.split_at(prefix.len() + len);
            out.extend_from_slice(before);
            out.extend_from_slice(self.client_name(name).unwrap_or(name));
            rest = behind;
        }
        out.extend_from_slice(rest);
    }

    /// The client's name of the statement that servers have by this one.
    fn client_name(&self, server_name: &[u8]) -> Option<&[u8]> {
        let named = self.by_name.iter().flat_map(|by_name| by_name.iter());
        let failed = self
            .failed
            .iter()
            .map(|(name, statement)| (name, statement));
        let mut own = Vec::new();
        named.chain(failed).find_map(|(name, statement)| {
            own.clear();
            statement.write_name(&mut own);
            (own == server_name).then_some(&**name)
        })
    }
}

/// The statements that a server has, or will have once it has come to the messages it was sent.
#[derive(Debug, Default)]
pub struct ServerStatements {
    by_id: HashMap<u64, Held>,
    uses: u64,
}

#[derive(Debug)]
struct Held {
    statement: Rc<Statement>,
    /// Counts up with every use: the smallest is the least recently used.
    last_use: u64,
}

impl ServerStatements {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Their numbers, the least recently used first.
    pub fn ids(&self) -> Vec<u64> {
        let mut held: Vec<_> = self.by_id.iter().collect();
        held.sort_by_key(|(_, held)| held.last_use);
        held.into_iter().map(|(id, _)| *id).collect()
    }

    /// Of a server that comes from elsewhere: nobody here knows what these are, but they make room by their names.
    pub fn of_ids(ids: &[u64]) -> Self {
        let mut statements = Self::default();
        for id in ids {
            statements.insert(Rc::new(Statement {
                id: *id,
                definition: Box::default(),
                meaning: None,
                is_stale: Cell::new(true),
            }));
        }
        statements
    }

    /// Whether the server has it; being asked for is being used.
    pub fn touch(&mut self, statement: &Statement) -> bool {
        self.uses += 1;
        let uses = self.uses;
        self.by_id
            .get_mut(&statement.id)
            .map(|held| held.last_use = uses)
            .is_some()
    }

    /// The server gets it, or keeps it after all.
    pub fn insert(&mut self, statement: Rc<Statement>) {
        self.uses += 1;
        let last_use = self.uses;
        self.by_id.insert(
            statement.id,
            Held {
                statement,
                last_use,
            },
        );
    }

    /// The server does not have it after all.
    pub fn remove(&mut self, statement: &Statement) {
        self.by_id.remove(&statement.id);
    }

    /// Takes out the least recently used one, if there are `limit` or more: there must be room before another is prepared.
    pub fn evict(&mut self, limit: usize) -> Option<Rc<Statement>> {
        if self.by_id.len() < limit {
            return None;
        }
        let oldest = self
            .by_id
            .values()
            .min_by_key(|held| held.last_use)?
            .statement
            .id;
        self.by_id.remove(&oldest).map(|held| held.statement)
    }

    /// The server has forgotten them all.
    pub fn clear(&mut self) {
        self.by_id.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a client whose settings are the usual ones.
    fn intern(definitions: &mut Definitions, definition: &[u8]) -> Rc<Statement> {
        let meaning = definitions.meaning_of(&ParameterSet::default());
        definitions.intern(Some(&meaning), definition)
    }

    #[test]
    fn clients_with_the_same_text_and_types_share_a_statement() {
        let mut definitions = Definitions::new();
        let one = intern(&mut definitions, b"SELECT $1\0\0\0");
        assert!(Rc::ptr_eq(
            &one,
            &intern(&mut definitions, b"SELECT $1\0\0\0")
        ));
        assert!(!Rc::ptr_eq(
            &one,
            &intern(&mut definitions, b"SELECT $1\0\0\x01\0\0\0\x17")
        ));
        let mut name = Vec::new();
        one.write_name(&mut name);
        assert_eq!(name, b"pgspan_1");
        assert_eq!(one.text(), b"SELECT $1");
    }

    #[test]
    fn a_text_whose_result_has_changed_gets_another_statement() {
        let mut definitions = Definitions::new();
        let before = intern(&mut definitions, b"SELECT * FROM t\0\0\0");
        before.set_stale();
        let after = intern(&mut definitions, b"SELECT * FROM t\0\0\0");
        assert!(!Rc::ptr_eq(&before, &after) && !after.is_stale());
        assert!(Rc::ptr_eq(
            &after,
            &intern(&mut definitions, b"SELECT * FROM t\0\0\0")
        ));
    }

    #[test]
    fn texts_that_mean_something_else_are_other_statements() {
        let mut definitions = Definitions::new();
        let mut settings = ParameterSet::default();
        settings.insert(b"search_path", b"a");
        let (here, there) = (
            definitions.meaning_of(&ParameterSet::default()),
            definitions.meaning_of(&settings),
        );
        let text = b"SELECT * FROM t\0\0\0";
        let one = definitions.intern(Some(&here), text);
        let other = definitions.intern(Some(&there), text);
        assert!(!one.is(&other) && other.has_meaning(&there) && !other.has_meaning(&here));
        assert!(definitions.intern(Some(&there), text).is(&other));
        settings.insert(b"work_mem", b"1MB");
        assert!(Rc::ptr_eq(&definitions.meaning_of(&settings), &there));
        let [own, next] = [(); 2].map(|()| definitions.intern(None, text));
        assert!(!own.is(&next) && !own.has_meaning(&here));
        definitions.on_schema_changed();
        assert!(!definitions.intern(Some(&here), text).is(&one));
    }

    #[test]
    fn settings_that_nobody_has_are_swept_out() {
        let mut definitions = Definitions::new();
        for number in 0..1000 {
            let mut settings = ParameterSet::default();
            settings.insert(b"search_path", format!("tenant{number}").as_bytes());
            definitions.meaning_of(&settings);
        }
        assert!(definitions.by_settings.len() <= 65);
    }

    #[test]
    fn definitions_that_nobody_knows_are_swept_out() {
        let mut definitions = Definitions::new();
        let kept = intern(&mut definitions, b"kept\0\0\0");
        for number in 0..10_000 {
            intern(&mut definitions, format!("{number}\0\0\0").as_bytes());
        }
        let meaning = definitions.meaning_of(&ParameterSet::default());
        assert!(meaning.len() <= 257);
        assert!(Rc::ptr_eq(&kept, &intern(&mut definitions, b"kept\0\0\0")));
    }

    #[test]
    fn a_client_has_an_end_of_names() {
        let (mut definitions, mut client) = (Definitions::new(), ClientStatements::default());
        let statement = intern(&mut definitions, b"SELECT 1\0\0\0");
        for number in 0..ClientStatements::MAX {
            assert!(!client.is_full());
            client.insert(&number.to_be_bytes(), statement.clone());
        }
        assert!(client.is_full());
    }

    #[test]
    fn a_server_that_comes_back_has_the_same_statements() {
        let (mut definitions, mut server) = (Definitions::new(), ServerStatements::default());
        let one = intern(&mut definitions, b"1");
        server.insert(one.clone());
        let mut back = ServerStatements::of_ids(&server.ids());
        assert!(back.touch(&one));
        assert!(back.evict(1).is_some_and(|evicted| evicted.is(&one)));
    }

    #[test]
    fn statements_of_two_workers_have_names_of_their_own() {
        let mut definitions = [0, 1].map(|worker| Definitions::of_worker(worker, 2));
        let mut names = Vec::new();
        for text in [b"1", b"2", b"3"] {
            for definitions in &mut definitions {
                let mut name = Vec::new();
                intern(definitions, text).write_name(&mut name);
                assert!(!names.contains(&name));
                names.push(name);
            }
        }
    }

    #[test]
    fn a_server_from_elsewhere_makes_room_in_the_same_order() {
        let (mut definitions, mut server) = (Definitions::new(), ServerStatements::default());
        let [one, two] = [b"1", b"2"].map(|text| intern(&mut definitions, text));
        server.insert(one.clone());
        server.insert(two.clone());
        server.touch(&one);
        let mut moved = ServerStatements::of_ids(&server.ids());
        let mut evicted = || moved.evict(1).map(|statement| statement.id);
        assert_eq!(
            [evicted(), evicted(), evicted()],
            [Some(two.id), Some(one.id), None]
        );
    }

    #[test]
    fn the_least_recently_used_statement_makes_room() {
        let (mut definitions, mut server) = (Definitions::new(), ServerStatements::default());
        let [one, two, three] = [b"1", b"2", b"3"].map(|text| intern(&mut definitions, text));
        server.insert(one.clone());
        server.insert(two.clone());
        assert!(server.touch(&one));
        assert_eq!(server.evict(3), None);
        assert_eq!(server.evict(2), Some(two.clone()));
        server.insert(three);
        assert!(!server.touch(&two));
    }
}
