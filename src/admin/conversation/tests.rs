use super::*;
use crate::admin::show::Show;
use crate::admin::table::Value;
use crate::protocol::encode;

const SELECT: Command = Command::Show(Show::State);

#[test]
fn a_simple_query_is_answered_by_rows_and_ready() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    let step = say(&mut conversation, &query("SHOW STATE"), &mut out);
    assert_eq!((step, &*out), (Step::Run(SELECT), &b""[..]));
    conversation.on_answer(Answer::Rows(state()), &mut out);
    assert_eq!(tags(&out), "TDDCZ");
    assert!(out.windows(5).any(|bytes| bytes == b"SHOW\0"));
}

#[test]
fn what_is_no_command_is_an_error_and_the_client_goes_on() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    let step = say(&mut conversation, &query("what"), &mut out);
    assert_eq!((step, &*tags(&out)), (Step::Next, "EZ"));
    let error = b"C08P01\0Minvalid command 'what', use SHOW HELP;\0\0";
    assert!(out.windows(error.len()).any(|bytes| bytes == error));
}

#[test]
fn the_extended_protocol_is_answered_in_the_formats_that_were_asked_for() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    let group = [
        parse("", "SHOW STATE"),
        describe(b'S', ""),
        bind("", "", &[1]),
        describe(b'P', ""),
    ];
    for message in &group {
        assert_eq!(say(&mut conversation, message, &mut out), Step::Next);
    }
    assert_eq!(tags(&out), "1tT2T");
    out.clear();
    let step = say(&mut conversation, &execute("", 0), &mut out);
    assert_eq!(step, Step::Run(SELECT));
    conversation.on_answer(Answer::Rows(state()), &mut out);
    assert_eq!(say(&mut conversation, &sync(), &mut out), Step::Next);
    assert_eq!(tags(&out), "DDCZ");
}

#[test]
fn rows_come_in_the_portions_that_the_client_wants() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    say(&mut conversation, &parse("s", "SHOW STATE"), &mut out);
    say(&mut conversation, &bind("p", "s", &[]), &mut out);
    out.clear();
    say(&mut conversation, &execute("p", 1), &mut out);
    conversation.on_answer(Answer::Rows(state()), &mut out);
    assert_eq!(tags(&out), "Ds");
    assert_eq!(
        say(&mut conversation, &execute("p", 5), &mut out),
        Step::Next
    );
    assert_eq!(tags(&out), "DsDC");
}

#[test]
fn after_an_error_nothing_is_done_until_sync() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    for message in [
        parse("", "DROP"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
        bind("", "gone", &[]),
        sync(),
    ] {
        assert_eq!(say(&mut conversation, &message, &mut out), Step::Next);
    }
    assert_eq!(tags(&out), "EZEZ");
}

#[test]
fn a_command_that_fails_fails_its_group() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    say(&mut conversation, &parse("", "RELOAD"), &mut out);
    say(&mut conversation, &describe(b'S', ""), &mut out);
    say(&mut conversation, &bind("", "", &[]), &mut out);
    say(&mut conversation, &execute("", 0), &mut out);
    conversation.on_answer(Answer::failed("no"), &mut out);
    say(&mut conversation, &execute("", 0), &mut out);
    say(&mut conversation, &sync(), &mut out);
    assert_eq!(tags(&out), "1tn2EZ");
}

#[test]
fn a_client_has_a_limited_number_of_statements() {
    let (mut conversation, mut out) = (Conversation::default(), Vec::new());
    for number in 0..MAX_NAMES {
        say(
            &mut conversation,
            &parse(&number.to_string(), "SHOW STATE"),
            &mut out,
        );
    }
    out.clear();
    say(
        &mut conversation,
        &parse("one more", "SHOW STATE"),
        &mut out,
    );
    assert_eq!(tags(&out), "E");
}

#[test]
fn a_message_that_makes_no_sense_ends_the_session() {
    for (tag, body) in [
        (b'd', &b""[..]),
        (b'Q', b"no end"),
        (b'B', b"\0"),
        (b'E', b"\0\0"),
        (b'!', b""),
    ] {
        let mut conversation = Conversation::default();
        let mut out = Vec::new();
        let error = conversation
            .on_message(Frame { tag, body }, &mut out)
            .unwrap_err();
        assert_eq!(error.code, SqlState::PROTOCOL_VIOLATION);
        assert!(out.is_empty());
    }
}

fn state() -> Table {
    Table {
        columns: Show::State.columns(),
        rows: vec![
            vec![Value::text("active"), Value::text("yes")],
            vec![Value::text("paused"), Value::text("no")],
        ],
    }
}

fn say(conversation: &mut Conversation, message: &[u8], out: &mut Vec<u8>) -> Step {
    let (&tag, rest) = message.split_first().unwrap();
    let frame = Frame {
        tag,
        body: &rest[4..],
    };
    conversation.on_message(frame, out).unwrap()
}

fn query(text: &str) -> Vec<u8> {
    written(|out| encode::query(out, text.as_bytes()))
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    written(|out| encode::parse(out, name.as_bytes(), text.as_bytes(), &[]))
}

fn bind(portal: &str, statement: &str, formats: &[u8]) -> Vec<u8> {
    written(|out| {
        encode::message(out, b'B', |body| {
            body.extend_from_slice(format!("{portal}\0{statement}\0").as_bytes());
            body.extend_from_slice(&[0, 0, 0, 0, 0, u8::try_from(formats.len()).unwrap()]);
            formats
                .iter()
                .for_each(|format| body.extend_from_slice(&[0, *format]));
        });
    })
}

fn describe(kind: u8, name: &str) -> Vec<u8> {
    written(|out| {
        encode::message(out, b'D', |body| {
            body.push(kind);
            body.extend_from_slice(format!("{name}\0").as_bytes());
        });
    })
}

fn execute(portal: &str, max_rows: u32) -> Vec<u8> {
    written(|out| {
        encode::message(out, b'E', |body| {
            body.extend_from_slice(format!("{portal}\0").as_bytes());
            body.extend_from_slice(&max_rows.to_be_bytes());
        });
    })
}

fn sync() -> Vec<u8> {
    written(encode::sync)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// The tags of all messages.
fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk() {
        tags.push(char::from(tag));
        let length = u32::from_be_bytes([a, b, c, d]);
        bytes = &bytes[1 + usize::try_from(length).unwrap()..];
    }
    tags
}
