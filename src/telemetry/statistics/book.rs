//! Which statements there are, kept away from the workers: by whoever reads their texts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sql::fingerprint::Fingerprint;
use crate::telemetry::labels::Uncounted;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::query_text::QueryText;
use crate::telemetry::registry::PoolName;
use crate::telemetry::statistics::cells::{Figures, Observation, TAG_SETS};
use crate::telemetry::statistics::counts::{Counts, KNOWN_SHAPES};
use crate::trace_context::TraceContext;

/// What a worker asks about: a text that it has no cells for, or a set of tags that it has not met with a statement.
#[derive(Debug)]
pub(super) enum Sighting {
    Text {
        worker: usize,
        pool: u32,
        name: PoolName,
        shape: u64,
        text: Box<[u8]>,
        observation: Observation,
        tags: Option<(u64, Arc<TraceContext>)>,
    },
    /// The same again, before the answer has come: without its text.
    Again {
        worker: usize,
        shape: u64,
        observation: Observation,
        tags: Option<(u64, Arc<TraceContext>)>,
    },
    Tags {
        shape: u64,
        hash: u64,
        trace: Arc<TraceContext>,
    },
}

/// The statements that are known.
#[derive(Debug)]
pub(super) struct Book {
    limit: usize,
    statements: HashMap<u64, Statement>,
    by_key: HashMap<Key, u64>,
    by_shape: HashMap<u64, u64>,
    pools: HashMap<u32, PoolName>,
    workers: Vec<Desk>,
    next_id: u64,
    /// Statements from this one on have come since room was made last.
    first_new: u64,
    process: Arc<ProcessMetrics>,
}

type Key = (PoolName, Option<Fingerprint>);

/// A statement: what one user asks of one database again and again.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) key: Key,
    pub(super) text: Option<String>,
    pub(super) summary: Option<String>,
    /// What was counted before a worker had cells for it.
    base: Figures,
    /// Its cells by worker.
    slots: Vec<(usize, usize)>,
    tags: Vec<(u64, Arc<TraceContext>)>,
}

/// The cells of one worker: which are free.
#[derive(Debug)]
struct Desk {
    counts: Arc<Counts>,
    /// Never used yet.
    unused: std::ops::Range<usize>,
    /// Given up, and since when: the worker may still be at it.
    resting: VecDeque<(Instant, usize)>,
}

/// How long cells rest before another statement gets them. A worker is at them for microseconds.
const REST: Duration = Duration::from_secs(1);

/// How much of a statement's text is kept, in characters.
const TEXT_LIMIT: usize = 1_000;

/// The part of the statements that makes room when there are as many as there may be: a twentieth.
const EVICTED_PART: usize = 20;

impl Book {
    pub(super) fn new(limit: usize, process: Arc<ProcessMetrics>) -> Self {
        Self {
            limit,
            statements: HashMap::new(),
            by_key: HashMap::new(),
            by_shape: HashMap::new(),
            pools: HashMap::new(),
            workers: Vec::new(),
            next_id: 0,
            first_new: 0,
            process,
        }
    }

    /// How many cells a worker needs, those that rest included.
    pub(super) fn slots(limit: usize) -> usize {
        limit + limit.div_ceil(4)
    }

    /// Another worker; its number.
    pub(super) fn add_worker(&mut self, counts: Arc<Counts>) -> usize {
        self.workers.push(Desk {
            unused: 0..counts.slots(),
            counts,
            resting: VecDeque::new(),
        });
        self.workers.len() - 1
    }

    /// Enters a sighting. `text` is what may be told of its text.
    pub(super) fn enter(&mut self, sighting: Sighting, text: QueryText, now: Instant) {
        match sighting {
            Sighting::Text {
                worker,
                pool,
                name,
                shape,
                observation,
                tags,
                ..
            } => {
                self.pools.entry(pool).or_insert_with(|| name.clone());
                let id = self.find_or_add(name, text, now);
                if self.by_shape.len() >= 2 * KNOWN_SHAPES {
                    self.forget_shapes();
                }
                self.by_shape.insert(shape, id);
                let slot = self.slot_of(id, worker, now);
                let Some(statement) = self.statements.get_mut(&id) else {
                    return;
                };
                statement.observe(&observation, tags);
                if let (Some(slot), Some(desk)) = (slot, self.workers.get(worker)) {
                    desk.counts.publish(shape, slot);
                }
            }
            Sighting::Again {
                worker,
                shape,
                observation,
                tags,
            } => {
                let id = self.by_shape.get(&shape).copied();
                let slot = id.and_then(|id| self.slot_of(id, worker, now));
                let statement = id.and_then(|id| self.statements.get_mut(&id));
                match (statement, self.workers.get(worker)) {
                    (Some(statement), Some(desk)) => {
                        statement.observe(&observation, tags);
                        if let Some(slot) = slot {
                            desk.counts.publish(shape, slot);
                        }
                    }
                    (None, Some(desk)) => {
                        desk.counts.ask_again(shape);
                        self.process
                            .uncounted_queries
                            .of(Uncounted::Unknown)
                            .increase();
                    }
                    _ => {}
                }
            }
            Sighting::Tags { shape, hash, trace } => {
                let statement =
                    (self.by_shape.get(&shape)).and_then(|id| self.statements.get_mut(id));
                if let Some(statement) = statement {
                    statement.learn_tags(hash, trace);
                }
            }
        }
        self.process
            .query_statements
            .set(self.statements.len() as u64);
    }

    /// The statement of a shape.
    pub(super) fn statement_of(&self, shape: u64) -> Option<&Statement> {
        self.statements.get(self.by_shape.get(&shape)?)
    }

    /// The pool of this number.
    pub(super) fn pool(&self, number: u32) -> Option<&PoolName> {
        self.pools.get(&number)
    }

    /// All statements with their figures.
    pub(super) fn figures(&self) -> impl Iterator<Item = (&Statement, Figures)> {
        (self.statements.values()).map(|statement| (statement, self.figures_of(statement)))
    }

    /// The workers' counts.
    pub(super) fn counts(&self) -> Vec<Arc<Counts>> {
        (self.workers.iter())
            .map(|desk| Arc::clone(&desk.counts))
            .collect()
    }

    fn figures_of(&self, statement: &Statement) -> Figures {
        let mut figures = statement.base.clone();
        for (worker, slot) in &statement.slots {
            let cells = (self.workers.get(*worker)).and_then(|desk| desk.counts.cells(*slot));
            if let Some(cells) = cells {
                figures.add(cells);
            }
        }
        figures
    }

    fn find_or_add(&mut self, name: PoolName, text: QueryText, now: Instant) -> u64 {
        let key = (name, text.fingerprint);
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        if self.statements.len() >= self.limit {
            self.make_room(now);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_key.insert(key.clone(), id);
        let statement = Statement {
            key,
            text: text.text,
            summary: text.summary,
            base: Figures::default(),
            slots: Vec::new(),
            tags: Vec::new(),
        };
        self.statements.insert(id, statement);
        id
    }

    /// Those with the least time go; the newest stay, as they had no chance yet.
    fn make_room(&mut self, now: Instant) {
        let mut candidates: Vec<(bool, Duration, u64)> = (self.statements.iter())
            .map(|(id, statement)| {
                let is_new = *id >= self.first_new;
                (is_new, self.figures_of(statement).total.sum(), *id)
            })
            .collect();
        candidates.sort_unstable();
        candidates.truncate(self.limit.div_ceil(EVICTED_PART).max(1));
        self.first_new = self.next_id;
        let mut given_up = vec![Vec::new(); self.workers.len()];
        for (_, _, id) in candidates {
            let Some(statement) = self.statements.remove(&id) else {
                continue;
            };
            let figures = self.figures_of(&statement);
            self.by_key.remove(&statement.key);
            self.process.query_statements_evicted.increase();
            self.process.evicted_queries.add(figures.calls);
            for (worker, slot) in statement.slots {
                if let Some(slots) = given_up.get_mut(worker) {
                    slots.push(slot);
                }
            }
        }
        let statements = &self.statements;
        self.by_shape.retain(|_, id| statements.contains_key(id));
        for (desk, mut slots) in self.workers.iter_mut().zip(given_up) {
            slots.sort_unstable();
            desk.counts
                .retract(|slot| slots.binary_search(&slot).is_ok());
            desk.resting
                .extend(slots.into_iter().map(|slot| (now, slot)));
        }
    }

    /// The workers ask again about what they still meet.
    fn forget_shapes(&mut self) {
        self.by_shape.clear();
        for desk in &self.workers {
            desk.counts.retract(|_| true);
        }
    }

    /// The cells of a statement on a worker. `None` where all are taken or rest: it asks again.
    fn slot_of(&mut self, id: u64, worker: usize, now: Instant) -> Option<usize> {
        let statement = self.statements.get_mut(&id)?;
        if let Some((_, slot)) = statement.slots.iter().find(|(known, _)| *known == worker) {
            return Some(*slot);
        }
        let desk = self.workers.get_mut(worker)?;
        let slot = desk.unused.next().or_else(|| {
            let has_rested =
                |(since, _): &mut (Instant, usize)| now.saturating_duration_since(*since) >= REST;
            let (_, slot) = desk.resting.pop_front_if(has_rested)?;
            Some(slot)
        })?;
        desk.counts.make(slot)?.clear();
        statement.slots.push((worker, slot));
        Some(slot)
    }
}

impl Statement {
    /// Counts a query that no worker had cells for.
    fn observe(&mut self, observation: &Observation, tags: Option<(u64, Arc<TraceContext>)>) {
        self.base.observe(observation);
        if let Some((hash, trace)) = tags {
            self.base.count_tags(hash, 1);
            self.learn_tags(hash, trace);
        }
    }

    fn learn_tags(&mut self, hash: u64, trace: Arc<TraceContext>) {
        if self.tags.len() < TAG_SETS && self.tags.iter().all(|(known, _)| *known != hash) {
            self.tags.push((hash, trace));
        }
    }

    /// Calls by the value of a tag, most first. With several sets that have the value, their calls together.
    pub(super) fn tag_calls(&self, figures: &Figures) -> Vec<(Box<str>, Box<str>, u64)> {
        let mut calls: Vec<(Box<str>, Box<str>, u64)> = Vec::new();
        for (hash, trace) in &self.tags {
            let count = (figures.tag_sets.iter()).find(|(known, _)| known == hash);
            let Some((_, count)) = count else {
                continue;
            };
            for (key, value) in &trace.tags {
                match calls
                    .iter_mut()
                    .find(|(known_key, known, _)| known_key == key && known == value)
                {
                    Some((_, _, calls)) => *calls += count,
                    None => calls.push((key.clone(), value.clone(), *count)),
                }
            }
        }
        calls.sort_by(|one, other| (&one.0, other.2, &one.1).cmp(&(&other.0, one.2, &other.1)));
        calls
    }
}

/// What may be told of the text of a sighting. Costs a few walks over it.
pub(super) fn read(sighting: &Sighting, masked: bool) -> QueryText {
    match sighting {
        Sighting::Text { text, .. } => QueryText::of(text, masked, TEXT_LIMIT),
        Sighting::Again { .. } | Sighting::Tags { .. } => QueryText::default(),
    }
}
