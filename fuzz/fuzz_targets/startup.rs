//! The first bytes of a connection: however they are cut on their way, they are understood in the same way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::protocol::startup::StartupPacket;
use pgspan_fuzz::session::greeting::{Encryption, Greeting, GreetingStep};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_length, bytes) = input;
    let _ = StartupPacket::parse(bytes);
    // Where encryption is offered, bytes behind the request are an attack or not depending on when they come.
    let whole = story(bytes, bytes.len());
    let in_pieces = story(bytes, usize::from(piece_length).max(1));
    assert_eq!(whole, in_pieces);
});

/// What a greeting came to.
fn story(bytes: &[u8], piece_length: usize) -> Vec<String> {
    let mut greeting = Greeting::new(Encryption::Refused);
    let mut story = Vec::new();
    for mut piece in bytes.chunks(piece_length.max(1)) {
        loop {
            match greeting.advance(&mut piece) {
                Ok(GreetingStep::NeedMore) => break,
                Ok(step @ GreetingStep::Reply(_)) => story.push(format!("{step:?}")),
                outcome => {
                    story.push(format!("{outcome:?}"));
                    return story;
                }
            }
        }
    }
    story
}
