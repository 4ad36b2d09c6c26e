//! Clients and servers around a pool, against a small model of who may hold what: whatever happens in whatever order, no server goes
//! back with work outstanding, no reply reaches the wrong client, the limits hold, and nobody waits while a server is idle.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::pool::{Checkout, ConnectOutcome, Limits, Pool, Step, Turn};

const CLIENTS: usize = 4;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A client sends a message, or several at once.
    Says(usize, Vec<Word>),
    /// The server of a client comes to one more message.
    Answers(usize),
    /// A server that is being connected is there.
    Connects,
    /// It could not be connected.
    Fails(ConnectOutcome),
    /// A client vanishes; another one comes in its place.
    Vanishes(usize),
    /// The server of a client dies, or an idle one if the client has none.
    Dies(usize),
    /// The pool is paused, or goes on.
    Pauses(bool),
    /// Time passes.
    Passes(u8),
}

/// What a client says. What it asks for carries its own name.
#[derive(Clone, Copy, Debug)]
enum Word {
    Query,
    Begin,
    Commit,
    Failing,
    /// Parse, Bind and Execute of a statement; 0 is the unnamed one.
    Extended(u8),
    Sync,
}

fn words() -> impl Strategy<Value = Vec<Word>> {
    let word = prop_oneof![
        4 => Just(Word::Query),
        2 => Just(Word::Begin),
        3 => Just(Word::Commit),
        1 => Just(Word::Failing),
        3 => (0..3_u8).prop_map(Word::Extended),
        4 => Just(Word::Sync),
    ];
    prop::collection::vec(word, 1..4)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..CLIENTS, words()).prop_map(|(client, words)| Event::Says(client, words)),
        12 => (0..CLIENTS).prop_map(Event::Answers),
        6 => Just(Event::Connects),
        1 => Just(Event::Fails(ConnectOutcome::Unreachable)),
        1 => Just(Event::Fails(ConnectOutcome::Refused)),
        1 => (0..CLIENTS).prop_map(Event::Vanishes),
        1 => (0..CLIENTS).prop_map(Event::Dies),
        1 => any::<bool>().prop_map(Event::Pauses),
        2 => (0..20_u8).prop_map(Event::Passes),
    ];
    prop::collection::vec(event, 0..120)
}

/// A server after PostgreSQL's rules, as far as those words need them.
#[derive(Debug)]
struct Model {
    status: char,
    skips: bool,
    statements: BTreeMap<String, String>,
    portal: String,
}

impl Model {
    fn new() -> Self {
        Self {
            status: 'I',
            skips: false,
            statements: BTreeMap::new(),
            portal: String::new(),
        }
    }

    fn answer(&mut self, message: &str) -> Vec<String> {
        let (tag, body) = message.split_once(':').unwrap();
        let parts: Vec<&str> = body.split('|').collect();
        if self.skips && tag != "S" {
            return Vec::new();
        }
        match tag {
            "S" => {
                self.skips = false;
                vec![format!("Z:{}", self.status)]
            }
            "Q" => {
                // The annotation is not part of the text.
                let text = parts[0].split("/*").next().unwrap_or_default().trim();
                let mut reply = self.run(text);
                reply.push(format!("Z:{}", self.status));
                reply
            }
            "P" => {
                self.statements.insert(parts[0].into(), parts[1].into());
                vec!["1:".to_owned()]
            }
            "B" => match self.statements.get(parts[1]) {
                Some(text) => {
                    self.portal.clone_from(text);
                    vec!["2:".to_owned()]
                }
                None => self.fails("26000"),
            },
            "E" => {
                let reply = self.run(&self.portal.clone());
                self.skips = reply[0].starts_with('E');
                reply
            }
            "H" => Vec::new(),
            "C" => {
                self.statements.remove(&parts[0][1..]);
                vec!["3:".to_owned()]
            }
            _ => panic!("an unexpected message: {message}"),
        }
    }

    fn run(&mut self, text: &str) -> Vec<String> {
        let done = |tag: &str| vec![format!("C:{tag}|")];
        match text {
            "COMMIT" => {
                let tag = if self.status == 'E' {
                    "ROLLBACK"
                } else {
                    "COMMIT"
                };
                self.status = 'I';
                done(tag)
            }
            _ if self.status == 'E' => vec![error("25P02")],
            "BEGIN" => {
                self.status = 'T';
                done("BEGIN")
            }
            "FAIL" => {
                if self.status == 'T' {
                    self.status = 'E';
                }
                vec![error("22012")]
            }
            text => vec![format!("D:{text}"), "C:SELECT 1|".to_owned()],
        }
    }

    fn fails(&mut self, code: &str) -> Vec<String> {
        self.skips = true;
        if self.status == 'T' {
            self.status = 'E';
        }
        vec![error(code)]
    }

    /// Whether another client would notice anything of this one's work.
    fn is_clean(&self) -> bool {
        self.status == 'I' && !self.skips
    }
}

/// A server that is connected.
#[derive(Debug)]
struct Server {
    session: ServerSession,
    model: Model,
}

/// A client, with what its server has not come to yet.
struct Client {
    pair: Pair,
    /// The server's side of what it is linked to.
    model: Option<Model>,
    on_its_way: VecDeque<String>,
    waits: bool,
    /// Rises when another client takes its place, and with each query.
    life: usize,
    asked: usize,
    /// The names of queries whose rows it has not seen, in order.
    awaited: VecDeque<String>,
}

struct World {
    clients: Vec<Client>,
    pool: Pool<Server, usize>,
    connecting: usize,
    limits: Limits,
    now: Instant,
    /// The statements of all clients, which the pool knows once.
    definitions: Definitions,
}

impl Client {
    fn new(life: usize) -> Self {
        let mut pair = Pair::new();
        pair.server = None;
        Self {
            pair,
            model: None,
            on_its_way: VecDeque::new(),
            waits: false,
            life,
            asked: 0,
            awaited: VecDeque::new(),
        }
    }

    fn is_linked(&self) -> bool {
        self.model.is_some()
    }

    /// What goes to the server is on its way; what comes to the client is looked at.
    fn collect(&mut self) {
        let sent = self.pair.sent();
        assert!(sent.is_empty() || self.is_linked(), "{sent:?} for nobody");
        self.on_its_way.extend(sent);
        for message in self.pair.received() {
            let Some(name) = message.strip_prefix("D:") else {
                continue;
            };
            // What failed, or was skipped, has no row; what comes is in order, and its own.
            while self.awaited.pop_front().expect("it has asked for this") != name {}
        }
    }
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            clients: (0..CLIENTS).map(|_| Client::new(0)).collect(),
            pool: Pool::new(limits),
            connecting: 0,
            limits,
            now: epoch(),
            definitions: Definitions::new(),
        }
    }

    /// A client and its server do something with the statements of all.
    fn with_pair<T>(&mut self, at: usize, act: impl FnOnce(&mut Pair) -> T) -> T {
        let pair = &mut self.clients[at].pair;
        std::mem::swap(&mut self.definitions, &mut pair.definitions);
        let outcome = act(pair);
        std::mem::swap(&mut self.definitions, &mut pair.definitions);
        outcome
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Says(client, words) => {
                for word in words {
                    self.say(*client, *word);
                }
                self.settle(*client);
            }
            Event::Answers(client) => {
                self.answer(*client);
                self.settle(*client);
            }
            Event::Connects if self.connecting > 0 => {
                self.connecting -= 1;
                let server = Server {
                    session: ServerSession::new(Rc::new(parameters(&[("TimeZone", "UTC")]))),
                    model: Model::new(),
                };
                match self.pool.is_paused() {
                    true => self.pool.on_connecting_given_up(),
                    false => {
                        let given = self.pool.on_connected(server, self.now);
                        self.give(given);
                    }
                }
            }
            Event::Fails(outcome) if self.connecting > 0 => {
                self.connecting -= 1;
                for client in self.pool.on_connect_failed(*outcome, self.now) {
                    self.clients[client].waits = false;
                    self.replace(client);
                }
            }
            Event::Connects | Event::Fails(_) => {}
            Event::Vanishes(client) => self.vanish(*client),
            Event::Dies(client) => match self.clients[*client].is_linked() {
                true => {
                    self.pool.on_lost();
                    self.replace(*client);
                }
                false => {
                    let mut is_first = true;
                    self.pool.remove_idle(|_| std::mem::take(&mut is_first));
                }
            },
            Event::Pauses(true) => drop(self.pool.pause()),
            Event::Pauses(false) => self.pool.resume(),
            Event::Passes(seconds) => {
                self.now += Duration::from_secs((*seconds).into());
                for client in self.pool.remove_overdue(self.now) {
                    self.clients[client].waits = false;
                    self.replace(client);
                }
            }
        }
        self.advance();
        self.check();
    }

    fn say(&mut self, at: usize, word: Word) {
        let client = &mut self.clients[at];
        let mut named = || {
            client.asked += 1;
            let name = format!("SELECT c{at}l{}n{}", client.life, client.asked);
            client.awaited.push_back(name.clone());
            name
        };
        let messages = match word {
            Word::Query => vec![format!("Q:{}|", named())],
            Word::Begin => vec!["Q:BEGIN|".to_owned()],
            Word::Commit => vec!["Q:COMMIT|".to_owned()],
            Word::Failing => vec!["Q:FAIL|".to_owned()],
            Word::Extended(0) => vec![
                format!("P:|{}|||", named()),
                "B:|||||||".to_owned(),
                "E:|||||".to_owned(),
            ],
            Word::Extended(number) => {
                let name = named();
                vec![
                    format!("C:Ss{number}|"),
                    format!("P:s{number}|{name}|||"),
                    format!("B:|s{number}||||||"),
                    "E:|||||".to_owned(),
                ]
            }
            Word::Sync => vec!["S:".to_owned()],
        };
        let messages: Vec<&str> = messages.iter().map(|text| &**text).collect();
        self.with_pair(at, |pair| pair.client_bytes(&bytes_of(&messages)))
            .expect("the client keeps to the rules");
        self.clients[at].collect();
        self.ask_for_server(at);
    }

    /// A client that can't go on without a server gets one, waits, or is sent away.
    fn ask_for_server(&mut self, at: usize) {
        let client = &self.clients[at];
        if client.pair.pause != Some(Pause::NeedsServer) || client.waits || client.is_linked() {
            return;
        }
        match self.pool.checkout(|| at, self.now) {
            Checkout::Use(server) => self.link(at, server),
            Checkout::Wait => self.clients[at].waits = true,
            Checkout::QueueFull | Checkout::LoginFailing => self.replace(at),
        }
    }

    fn link(&mut self, at: usize, server: Server) {
        assert!(
            server.model.is_clean(),
            "work of another client: {server:?}"
        );
        let client = &mut self.clients[at];
        client.waits = false;
        client.model = Some(server.model);
        let sent = self.with_pair(at, |pair| pair.link(server.session));
        let client = &mut self.clients[at];
        client.on_its_way.extend(sent);
        client.collect();
    }

    fn give(&mut self, given: Option<(usize, Server)>) {
        if let Some((client, server)) = given {
            self.link(client, server);
            self.settle(client);
        }
    }

    fn answer(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(model) = &mut client.model else {
            return;
        };
        let Some(message) = client.on_its_way.pop_front() else {
            return;
        };
        for reply in model.answer(&message) {
            self.with_pair(at, |pair| pair.server_bytes(&bytes_of(&[&reply])))
                .expect("the server keeps to the rules");
        }
        self.clients[at].collect();
    }

    /// A server that is done with goes back.
    fn settle(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let is_done = client.is_linked()
            && client.pair.is_releasable()
            && client.pair.pause.is_none()
            && client.pair.held.is_empty();
        if is_done {
            let server = self.take_back(at);
            self.check_in(server);
        }
        self.ask_for_server(at);
    }

    fn take_back(&mut self, at: usize) -> Server {
        let client = &mut self.clients[at];
        assert!(
            client.on_its_way.is_empty(),
            "{:?} outstanding",
            client.on_its_way
        );
        Server {
            session: client.pair.server.take().expect("it is linked"),
            model: client.model.take().expect("it is linked"),
        }
    }

    fn check_in(&mut self, server: Server) {
        match self.pool.is_paused() {
            true => self.pool.on_lost(),
            false => {
                let given = self.pool.checkin(server, self.now);
                self.give(given);
            }
        }
    }

    /// As a link parts: a server that owes nothing goes back, any other is closed.
    fn vanish(&mut self, at: usize) {
        let client = &self.clients[at];
        if client.waits {
            self.pool.forget(|waiting| *waiting == at);
        } else if client.is_linked() {
            match client.pair.is_releasable() {
                true => {
                    let server = self.take_back(at);
                    self.check_in(server);
                }
                false => self.pool.on_lost(),
            }
        }
        self.replace(at);
    }

    fn replace(&mut self, at: usize) {
        let life = self.clients[at].life + 1;
        self.clients[at] = Client::new(life);
    }

    fn advance(&mut self) {
        while let Some(step) = self.pool.next_step(true, self.now) {
            match step {
                Step::Serve(client, server) => self.give(Some((client, server))),
                Step::Check(server) => {
                    let given = self.pool.on_checked(server, self.now);
                    self.give(given);
                }
                Step::Connect(_) => {
                    self.pool.on_connecting();
                    self.connecting += 1;
                }
            }
        }
    }

    fn check(&self) {
        let occupancy = self.pool.occupancy(self.now);
        let linked = self
            .clients
            .iter()
            .filter(|client| client.is_linked())
            .count();
        let waiting = self.clients.iter().filter(|client| client.waits).count();
        assert_eq!(occupancy.in_use, linked);
        assert_eq!(occupancy.waiting, waiting);
        assert_eq!(occupancy.connecting, self.connecting);
        let servers = occupancy.idle + occupancy.in_use + occupancy.checking + occupancy.connecting;
        let size = self.limits.size.map_or(usize::MAX, NonZeroUsize::get);
        assert!(
            servers <= size.saturating_add(self.limits.reserve_size),
            "{occupancy:?}"
        );
        assert!(waiting <= self.limits.max_waiting);
        if self.pool.is_paused() {
            assert_eq!(occupancy.idle, 0);
        } else {
            assert!(waiting == 0 || occupancy.idle == 0, "{occupancy:?}");
            let waits_its_turn = self.limits.connects_in_turn && occupancy.connecting > 0;
            let could_connect = servers < size && !self.pool.is_failing() && !waits_its_turn;
            assert!(
                !could_connect || occupancy.connecting >= waiting,
                "{occupancy:?}"
            );
        }
        for client in &self.clients {
            let needs = client.pair.pause == Some(Pause::NeedsServer);
            assert!(
                !needs || client.waits,
                "forgotten without a place in the queue"
            );
        }
    }

    /// Everything that is under way comes to its end.
    fn finish(&mut self) {
        self.happen(&Event::Pauses(false));
        for client in 0..CLIENTS {
            self.happen(&Event::Says(client, vec![Word::Sync, Word::Commit]));
        }
        for _ in 0..1000 {
            self.happen(&Event::Connects);
            for client in 0..CLIENTS {
                self.happen(&Event::Answers(client));
            }
            if self.connecting == 0 && !self.clients.iter().any(|it| it.is_linked() || it.waits) {
                break;
            }
            if self.pool.is_failing() {
                self.now += self.limits.login_retry;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn whatever_happens_servers_go_only_to_who_may_have_them(
        events in events(),
        size in 0..4_usize,
        reserve_size in 0..2_usize,
        min_size in 0..3_usize,
        max_waiting in 1..5_usize,
        check_after in prop::option::of(0..10_u64),
        takes_turns in any::<bool>(),
    ) {
        let limits = Limits {
            size: NonZeroUsize::new(size),
            min_size,
            reserve_size,
            reserve_timeout: Some(Duration::from_secs(5)),
            max_waiting,
            checkout_timeout: Some(Duration::from_secs(60)),
            wait_notice: None,
            server_idle_timeout: None,
            server_lifetime: Duration::from_secs(3600),
            login_retry: Duration::from_secs(15),
            check_after: check_after.map(Duration::from_secs),
            connects_in_turn: takes_turns,
            turn: if takes_turns { Turn::LongestIdle } else { Turn::LastUsed },
        };
        let mut world = World::new(limits);
        for event in &events {
            world.happen(event);
        }
        world.finish();
        for client in &world.clients {
            prop_assert!(!client.waits && !client.is_linked(), "somebody is left waiting");
        }
        let occupancy = world.pool.occupancy(world.now);
        prop_assert_eq!((occupancy.in_use, occupancy.connecting, occupancy.waiting), (0, 0, 0));
    }
}
