//! A session of the console: carries messages from the socket to the conversation, and replies back.

use std::io;

use bytes::{Buf, BytesMut};

use crate::admin::conversation::{Conversation, Step};
use crate::admin::visitors::Guest;
use crate::admin::{Console, PGBOUNCER_VERSION};
use crate::admission::{Visit, Visitor};
use crate::net::socket::Socket;
use crate::net::timer;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::frame::{Frame, FrameHeader};
use crate::shard::{Dismissal, GOODBYE_TIMEOUT};

/// The longest message that the console takes.
const MAX_MESSAGE: usize = 64 * 1024;

/// Why a session ended.
enum End {
    /// The client left, or its connection broke.
    Gone,
    /// It is told this.
    Refused(ErrorResponse),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Serves a client until it leaves.
pub(super) async fn serve(console: &Console, visitor: Visitor) {
    let Visitor {
        mut socket,
        visit,
        ahead,
        serial,
        accepted_at,
    } = visitor;
    let Visit {
        user,
        role,
        allowance: _counted_until_the_end,
    } = visit;
    let guest = Guest::new(serial, user, role, &socket, accepted_at);
    let presence = console.visitors.welcome(guest);
    let guest = &*presence.guest;
    let mut input = BytesMut::from(&*ahead);
    let mut out = Vec::new();
    welcome(&mut out);
    let mut conversation = Conversation::default();
    let served = async {
        loop {
            // Replies leave when there is nothing more to read at once.
            let Some(len) = frame_len(&input)? else {
                socket.write_all(&out).await?;
                out.clear();
                tokio::select! {
                    read = socket.read_buf(&mut input) => {
                        if read? == 0 {
                            return Err(End::Gone);
                        }
                    }
                    () = guest.dismissed.notified() => return Err(dismissed()),
                }
                continue;
            };
            let message = input.get(..len).unwrap_or_default();
            let (&tag, body) = message.split_first().expect("at least a header");
            let body = body.get(FrameHeader::LEN - 1..).unwrap_or_default();
            let step = conversation.on_message(Frame { tag, body }, &mut out);
            let step = step.map_err(End::Refused)?;
            input.advance(len);
            match step {
                Step::Next => {}
                Step::Left => return Err::<(), End>(End::Gone),
                Step::Run(command) => {
                    console.visitors.on_command();
                    let running = console.run(command, guest);
                    tokio::pin!(running);
                    let answer = loop {
                        tokio::select! {
                            biased;
                            answer = &mut running => break answer,
                            () = guest.dismissed.notified() => return Err(dismissed()),
                            // Only to find out whether it is still there.
                            read = socket.read_buf(&mut input), if input.len() < MAX_MESSAGE => {
                                if read? == 0 {
                                    return Err(End::Gone);
                                }
                            }
                        }
                    };
                    conversation.on_answer(answer, &mut out);
                }
            }
        }
    };
    let end = served.await;
    if let Err(End::Refused(response)) = end {
        tracing::info!(user = &*guest.user, "closing because: {}", response.message);
        response.encode(&mut out);
        say_goodbye(socket, &out).await;
    }
}

fn dismissed() -> End {
    let why = Dismissal::Killed.as_str();
    End::Refused(ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, why))
}

/// Tells a client why it is not served.
pub(super) async fn refuse(socket: Socket, why: &ErrorResponse) {
    let mut out = Vec::new();
    why.encode(&mut out);
    say_goodbye(socket, &out).await;
}

async fn say_goodbye(mut socket: Socket, out: &[u8]) {
    let goodbye = async {
        socket.write_all(out).await?;
        socket.shutdown()
    };
    // It may be that nobody reads it.
    let _ = timer::timeout(GOODBYE_TIMEOUT, goodbye).await;
}

/// What PgBouncer says to a client of its console.
fn welcome(out: &mut Vec<u8>) {
    let version = format!("{PGBOUNCER_VERSION}/bouncer");
    let parameters = [
        ("server_version", &*version),
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "on"),
    ];
    for (name, value) in parameters {
        encode::parameter_status(out, name.as_bytes(), value.as_bytes());
    }
    encode::ready_for_query(out, TransactionStatus::Idle);
}

/// How long the first message in `input` is, once all of it is there. Refused before anything is kept for it.
fn frame_len(input: &[u8]) -> Result<Option<usize>, End> {
    let Some(&header) = input.first_chunk() else {
        return Ok(None);
    };
    match FrameHeader::parse(header) {
        Some(header) if header.body_len <= MAX_MESSAGE => {
            let len = FrameHeader::LEN + header.body_len;
            Ok((input.len() >= len).then_some(len))
        }
        _ => Err(End::Refused(ErrorResponse::fatal(
            SqlState::PROTOCOL_VIOLATION,
            "invalid message length",
        ))),
    }
}
