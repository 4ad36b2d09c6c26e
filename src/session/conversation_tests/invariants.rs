//! What holds for every conversation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// What a client asks for in the extended protocol, and in the simple one.
#[derive(Clone, Debug)]
enum Ask {
    Parse { name: u8, text: u8 },
    Bind { name: u8 },
    Describe { name: u8 },
    Execute,
    Close { name: u8 },
    Query { text: u8 },
    DeallocateAll,
    Flush,
    Sync,
}

impl Ask {
    fn message(&self) -> String {
        let name = |name: &u8| match name {
            0 => String::new(),
            name => format!("s{name}"),
        };
        match self {
            Self::Parse { name: n, text } => format!("P:{}|{}|||", name(n), text_of(*text)),
            Self::Bind { name: n } => format!("B:|{}||||||", name(n)),
            Self::Describe { name: n } => format!("D:S{}|", name(n)),
            Self::Execute => "E:|||||".to_owned(),
            Self::Close { name: n } => format!("C:S{}|", name(n)),
            Self::Query { text } => format!("Q:{}|", text_of(*text)),
            Self::DeallocateAll => "Q:DEALLOCATE ALL|".to_owned(),
            Self::Flush => "H:".to_owned(),
            Self::Sync => "S:".to_owned(),
        }
    }
}

/// One text can't be parsed, one can't be executed.
fn text_of(text: u8) -> String {
    match text {
        0 => "SELEC".to_owned(),
        1 => "FAIL".to_owned(),
        text => format!("SELECT {text}"),
    }
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = prop_oneof![
        4 => (0..4_u8, 0..5_u8).prop_map(|(name, text)| Ask::Parse { name, text }),
        4 => (0..4_u8).prop_map(|name| Ask::Bind { name }),
        1 => (0..4_u8).prop_map(|name| Ask::Describe { name }),
        4 => Just(Ask::Execute),
        1 => (0..4_u8).prop_map(|name| Ask::Close { name }),
        1 => (0..5_u8).prop_map(|text| Ask::Query { text }),
        1 => Just(Ask::DeallocateAll),
        1 => Just(Ask::Flush),
        5 => Just(Ask::Sync),
    ];
    prop::collection::vec(ask, 0..30)
}

/// A server that follows PostgreSQL's rules (PostgresMain in postgres.c), as far as those messages need them.
#[derive(Default)]
struct Model {
    statements: BTreeMap<String, String>,
    portal: Option<String>,
    skips: bool,
}

impl Model {
    fn answer(&mut self, message: &str) -> Vec<String> {
        let (tag, body) = message.split_once(':').unwrap();
        let parts: Vec<&str> = body.split('|').collect();
        if self.skips && tag != "S" {
            return Vec::new();
        }
        let outcome: Result<Vec<&str>, &str> = match tag {
            "S" => {
                self.skips = false;
                // Portals end with the transaction that the messages up to here were.
                self.portal = None;
                return vec!["Z:I".to_owned()];
            }
            "H" => Ok(vec![]),
            "Q" => {
                self.statements.remove("");
                self.portal = None;
                let answer = match parts[0] {
                    "DEALLOCATE ALL" => {
                        self.statements.clear();
                        "C:DEALLOCATE ALL|".to_owned()
                    }
                    "SELEC" => error("42601"),
                    "FAIL" => error("22012"),
                    _ => "C:SELECT 1|".to_owned(),
                };
                return vec![answer, "Z:I".to_owned()];
            }
            // The proxy's own, for an error of its own.
            "P" if parts[1].starts_with("pgspan: ") => Err("42601"),
            "P" if parts[1] == "SELEC" => {
                if parts[0].is_empty() {
                    self.statements.remove("");
                }
                Err("42601")
            }
            "P" if !parts[0].is_empty() && self.statements.contains_key(parts[0]) => Err("42P05"),
            "P" => {
                self.statements.insert(parts[0].into(), parts[1].into());
                Ok(vec!["1:"])
            }
            "B" => match self.statements.get(parts[1]) {
                Some(text) => {
                    self.portal = Some(text.clone());
                    Ok(vec!["2:"])
                }
                None => Err("26000"),
            },
            "D" => match self.statements.get(&parts[0][1..]) {
                Some(_) => Ok(vec!["t:types", "T:columns"]),
                None => Err("26000"),
            },
            "E" => match self.portal.as_deref() {
                None => Err("34000"),
                Some("FAIL") => Err("22012"),
                Some(text) => return vec![format!("D:{text}"), "C:SELECT 1|".to_owned()],
            },
            "C" => {
                self.statements.remove(&parts[0][1..]);
                Ok(vec!["3:"])
            }
            _ => panic!("an unexpected message: {message}"),
        };
        match outcome {
            Ok(replies) => replies.into_iter().map(str::to_owned).collect(),
            Err(code) => {
                self.skips = true;
                vec![error(code)]
            }
        }
    }
}

/// A connection through the proxy to a model server that answers when it is told to.
struct Proxied {
    pair: Pair,
    model: Model,
    on_its_way: VecDeque<String>,
    received: Vec<String>,
}

impl Proxied {
    fn new(max_prepared_statements: usize) -> Self {
        Self {
            pair: Pair::with(PoolMode::Transaction, max_prepared_statements),
            model: Model::default(),
            on_its_way: VecDeque::new(),
            received: Vec::new(),
        }
    }

    fn with_unnamed_statements_from_the_cache(limit: usize) -> Self {
        let mut proxied = Self::new(limit);
        proxied.pair.policy.unnamed_statements = UnnamedStatements::Cache;
        proxied
    }

    fn collect(&mut self) {
        let sent = self.pair.sent();
        self.on_its_way.extend(sent);
        let received = self.pair.received();
        self.received.extend(received);
    }

    fn say(&mut self, ask: &Ask) {
        self.pair
            .client_bytes(&bytes_of(&[&ask.message()]))
            .unwrap();
        self.collect();
    }

    /// The server comes to one more message.
    fn step(&mut self) -> bool {
        let Some(message) = self.on_its_way.pop_front() else {
            return false;
        };
        let is_idle = |pair: &Pair| pair.server.as_ref().unwrap().exchange.is_idle();
        let answer = self.model.answer(&message);
        if !answer.is_empty() {
            assert!(!is_idle(&self.pair), "{answer:?} is awaited");
            assert!(!self.pair.is_releasable());
        }
        for reply in &answer {
            self.pair.server_bytes(&bytes_of(&[reply])).unwrap();
            self.collect();
        }
        true
    }

    fn finish(&mut self) {
        while self.step() {}
        self.say(&Ask::Sync);
        while self.step() {}
    }

    fn is_settled(&self) -> bool {
        self.pair.pause.is_none() && self.pair.held.is_empty()
    }
}

/// The code of an error alone: one that the proxy answers has a text of its own.
fn without_texts(replies: &[String]) -> Vec<String> {
    let code = |reply: &String| match reply.split_once("|C") {
        Some((error, code)) if error.starts_with("E:") => code.chars().take(5).collect(),
        _ => reply.clone(),
    };
    replies.iter().map(code).collect()
}

proptest! {
    #[test]
    fn replies_are_those_of_a_direct_connection(
        asks in asks(),
        steps in prop::collection::vec(0..4_u8, 30),
        limit in 1..4_usize,
    ) {
        let mut direct = Model::default();
        let mut expected: Vec<String> = Vec::new();
        for ask in asks.iter().chain([&Ask::Sync]) {
            expected.extend(direct.answer(&ask.message()));
        }
        let mut proxied = Proxied::new(limit);
        for (ask, steps) in asks.iter().zip(steps) {
            proxied.say(ask);
            for _ in 0..steps {
                proxied.step();
            }
        }
        proxied.finish();
        prop_assert_eq!(&proxied.received, &expected);
        prop_assert!(proxied.is_settled());
        prop_assert!(proxied.pair.server.as_ref().unwrap().exchange.is_releasable());
        // What the proxy thinks the server has is what it has.
        let server = proxied.pair.server.as_ref().unwrap();
        let has: BTreeSet<&str> = proxied.model.statements.keys().map(|name| &**name).filter(|name| !name.is_empty()).collect();
        prop_assert_eq!(server.statements.len(), has.len());
        prop_assert!(!server.exchange.has_unsettled());
        prop_assert_eq!(proxied.pair.client.statements.len(), direct.statements.keys().filter(|name| !name.is_empty()).count());
        // Evictions that were skipped are made up for with the next statement.
        proxied.say(&Ask::Parse { name: 9, text: 9 });
        proxied.finish();
        let has = proxied.model.statements.keys().filter(|name| !name.is_empty()).count();
        prop_assert!(has <= limit);
    }

    #[test]
    fn a_cache_of_unnamed_statements_changes_no_reply(
        asks in asks(),
        steps in prop::collection::vec(0..4_u8, 30),
        limit in 1..4_usize,
    ) {
        // Not known to hold where a simple DEALLOCATE ALL stands in a group of the extended protocol that fails.
        if is_skipped(&asks, |ask| matches!(ask, Ask::DeallocateAll)) {
            return Ok(());
        }
        let mut direct = Model::default();
        let mut expected: Vec<String> = Vec::new();
        for ask in asks.iter().chain([&Ask::Sync]) {
            expected.extend(direct.answer(&ask.message()));
        }
        let mut proxied = Proxied::with_unnamed_statements_from_the_cache(limit);
        for (ask, steps) in asks.iter().zip(steps) {
            proxied.say(ask);
            for _ in 0..steps {
                proxied.step();
            }
        }
        proxied.finish();
        prop_assert_eq!(without_texts(&proxied.received), without_texts(&expected));
        prop_assert!(proxied.is_settled());
        let server = proxied.pair.server.as_ref().unwrap();
        prop_assert!(server.exchange.is_releasable() && !server.exchange.has_unsettled());
        let has = proxied.model.statements.keys().filter(|name| !name.is_empty()).count();
        prop_assert_eq!(server.statements.len(), has);
    }

    #[test]
    fn any_cut_of_both_streams_gives_the_same(
        asks in asks(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let requests: Vec<String> = asks.iter().chain([&Ask::Sync]).map(Ask::message).collect();
        let requests: Vec<&str> = requests.iter().map(|text| &**text).collect();
        let (sent, received, records) = conversation(&requests, &[], &[]);
        prop_assert_eq!(conversation(&requests, &cuts, &[]), (sent, received.clone(), records.clone()));
        // When an error comes decides whether a message behind it is skipped here or there: only the client can't tell.
        let (_, received_in_pieces, records_in_pieces) = conversation(&requests, &cuts, &cuts);
        prop_assert_eq!(received_in_pieces, received);
        // Where a Parse of the unnamed statement was skipped, what is said of the text that it would have replaced depends on it too.
        let are_texts_certain = !is_skipped(&asks, |ask| matches!(ask, Ask::Parse { name: 0, .. }));
        let completed = |records: Vec<Record>| -> Vec<Record> {
            let completed = records.into_iter().filter(|record| record.outcome == Outcome::Completed);
            let with_text = |mut record: Record| {
                if !are_texts_certain {
                    record.sql = String::new();
                }
                record
            };
            completed.map(with_text).collect()
        };
        prop_assert_eq!(completed(records_in_pieces), completed(records));
    }

    #[test]
    fn garbage_never_panics(
        requests in prop::collection::vec((prop::sample::select(b"QPBDECHSFdcfXp\x00y".to_vec()), prop::collection::vec(prop::sample::select(b"sSP\0\0\0a;".to_vec()), 0..12)), 0..12),
        replies in prop::collection::vec((prop::sample::select(b"123TDCIstnVGHWdcENASZRK\x00".to_vec()), prop::collection::vec(prop::sample::select(b"ITE\0\0SCV1".to_vec()), 0..6)), 0..12),
        interleaving in prop::collection::vec(any::<bool>(), 0..24),
    ) {
        let mut pair = Pair::new();
        let (mut requests, mut replies) = (requests.into_iter(), replies.into_iter());
        let message = |(tag, body): (u8, Vec<u8>)| {
            let mut bytes = Vec::new();
            encode::message(&mut bytes, tag, |out| out.extend_from_slice(&body));
            bytes
        };
        for from_client in interleaving {
            let kept = match from_client {
                true => requests.next().map(|request| pair.client_bytes(&message(request))),
                false => replies.next().map(|reply| pair.server_bytes(&message(reply))),
            };
            if !matches!(kept, Some(Ok(()))) || pair.pause == Some(Pause::Terminated) {
                break;
            }
        }
        let now = pair.now;
        pair.server.as_mut().unwrap().exchange.on_lost(now);
    }
}

/// Whether PostgreSQL does not come to one that `is_it` says of.
fn is_skipped(asks: &[Ask], is_it: impl Fn(&Ask) -> bool) -> bool {
    let mut direct = Model::default();
    asks.iter().any(|ask| {
        let is_skipped = direct.skips && is_it(ask);
        direct.answer(&ask.message());
        is_skipped
    })
}

/// The bytes in both directions, and the records, of requests that are all sent before the model answers.
fn conversation(
    requests: &[&str],
    request_cuts: &[prop::sample::Index],
    reply_cuts: &[prop::sample::Index],
) -> (Vec<String>, Vec<String>, Vec<Record>) {
    let mut pair = Pair::new();
    let mut model = Model::default();
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for piece in pieces(&bytes_of(requests), request_cuts) {
        pair.client_bytes(piece).unwrap();
    }
    let mut unanswered = std::mem::take(&mut pair.to_server);
    while !unanswered.is_empty() {
        let messages = texts_of(&unanswered);
        let replies: Vec<String> = messages
            .iter()
            .flat_map(|text| model.answer(text))
            .collect();
        sent.extend(messages);
        let replies: Vec<&str> = replies.iter().map(|text| &**text).collect();
        for piece in pieces(&bytes_of(&replies), reply_cuts) {
            pair.server_bytes(piece).unwrap();
        }
        unanswered = std::mem::take(&mut pair.to_server);
    }
    received.extend(pair.received());
    (sent, received, pair.records())
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut from = 0;
    ends.into_iter()
        .map(|end| {
            let piece = &bytes[from..end];
            from = end;
            piece
        })
        .collect()
}
