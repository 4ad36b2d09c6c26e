//! Commands on `pgspan.route` through the proxy are answered as PostgreSQL answers the same commands on a parameter of nobody's.

use std::net::SocketAddr;

use crate::support::messages::{
    Message, bind, describe_portal, execute, parse, query, startup, sync, terminate,
};
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;

#[test]
fn commands_on_the_context_are_answered_as_postgresql_answers_its_own() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let stories: Vec<Vec<Vec<Message>>> = (0..STORIES).map(|_| random.story()).collect();
    let directly = ([127, 0, 0, 1], shared().port()).into();
    let expected: Vec<Vec<Message>> = stories.iter().map(|story| told(directly, story)).collect();
    let messages: usize = expected.iter().map(Vec::len).sum();
    for mode in ["session", "transaction"] {
        let proxy = Proxy::in_front_of(
            shared(),
            &format!("[pool]\nmode = \"{mode}\"\nsize = 2\n[annotation]\nenabled = false\n"),
        );
        for (story, expected) in stories.iter().zip(&expected) {
            let ours: Vec<Vec<Message>> = story
                .iter()
                .map(|group| group.iter().map(renamed).collect())
                .collect();
            let actual = told(proxy.address(), &ours);
            let expected: Vec<Message> = expected.iter().map(renamed).collect();
            if actual != expected {
                let pairs = expected.iter().zip(&actual);
                let same = pairs
                    .take_while(|(expected, actual)| expected == actual)
                    .count();
                panic!(
                    "{mode}:\n{}\nafter {same} equal messages\nPostgreSQL: {:?}\npgspan:     {:?}",
                    shown(&ours),
                    expected.get(same),
                    actual.get(same)
                );
            }
        }
        println!("{mode} pooling: {STORIES} stories, {messages} messages compared");
    }
}

/// The same of the proxy's own parameter, which is as long.
fn renamed(message: &Message) -> Message {
    let mut bytes = message.0.clone();
    for at in 0..bytes.len().saturating_sub(5) {
        if bytes[at..].starts_with(TWIN.as_bytes()) {
            bytes[at..at + TWIN.len()].copy_from_slice(b"pgspan");
        }
    }
    Message(bytes)
}

fn shown(story: &[Vec<Message>]) -> String {
    let groups = story.iter().map(|group| {
        let messages = group.iter().map(|message| format!("{message:?}"));
        messages.collect::<Vec<_>>().join("  ")
    });
    groups.collect::<Vec<_>>().join("\n")
}

fn told(address: SocketAddr, story: &[Vec<Message>]) -> Vec<Message> {
    let mut wire = Wire::connect(address);
    wire.send(startup(&[("user", "app"), ("database", "app")]));
    wire.receive_reply();
    let mut received = Vec::new();
    for group in story {
        let ends = group
            .iter()
            .filter(|message| matches!(message.tag(), b'Q' | b'S'));
        let ends = ends.count();
        wire.send_all(group.iter().cloned());
        for _ in 0..ends {
            received.extend(wire.receive_reply().into_iter().map(masked));
        }
    }
    wire.send(terminate());
    received
}

/// Without where in PostgreSQL's source an error arose.
fn masked(message: Message) -> Message {
    if !matches!(message.tag(), b'E' | b'N') {
        return message;
    }
    let is_told = |field: &&[u8]| !matches!(field, [b'F' | b'L' | b'R', ..]);
    let fields: Vec<&[u8]> = message
        .body()
        .split(|byte| *byte == 0)
        .filter(is_told)
        .collect();
    Message::tagged(message.tag(), &fields.join(&0))
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    /// What is sent before replies are awaited, group by group.
    fn story(&mut self) -> Vec<Vec<Message>> {
        (0..4 + self.below(8)).map(|_| self.group()).collect()
    }

    fn group(&mut self) -> Vec<Message> {
        match self.below(5) {
            0 | 1 => vec![query(&self.command())],
            2 => {
                let commands: Vec<String> =
                    (0..2 + self.below(2)).map(|_| self.command()).collect();
                vec![query(&commands.join("; "))]
            }
            3 => (0..2 + self.below(2))
                .map(|_| query(&self.command()))
                .collect(),
            _ => {
                let mut group = Vec::new();
                for _ in 0..=self.below(2) {
                    group.extend([
                        parse("", &self.command()),
                        bind("", "", &[]),
                        describe_portal(""),
                        execute("", 0),
                    ]);
                    if self.below(3) == 0 {
                        group.push(sync());
                    }
                }
                group.push(sync());
                group
            }
        }
    }

    fn command(&mut self) -> String {
        let value = ["a", "Shop", "/x/y", "", "it''s"][self.below(5)];
        let local = ["true", "false"][self.below(2)];
        match self.below(18) {
            0 | 1 => format!("SET {TWIN}.route = '{value}'"),
            2 => format!("SET LOCAL {TWIN}.route TO '{value}'"),
            3 => format!("SET SESSION {TWIN}.route TO DEFAULT"),
            4 => format!("RESET {TWIN}.route"),
            5 | 6 => format!("SHOW {TWIN}.route"),
            7 => format!("SELECT set_config('{TWIN}.route', '{value}', {local})"),
            8 => format!("SELECT current_setting('{TWIN}.route', true)"),
            9 => format!("SELECT current_setting('{TWIN}.route') AS now"),
            10 | 11 => "BEGIN".to_owned(),
            12 => "COMMIT".to_owned(),
            13 => "ROLLBACK".to_owned(),
            14 => "SAVEPOINT a".to_owned(),
            15 => "ROLLBACK TO a".to_owned(),
            16 => "SELECT 1".to_owned(),
            _ => ["SELECT 1 / 0", "SELEC 1", "RELEASE a", "RESET ALL"][self.below(4)].to_owned(),
        }
    }
}

/// A parameter that nobody has, with a name as long as the proxy's.
const TWIN: &str = "pgspun";

const STORIES: usize = 200;
