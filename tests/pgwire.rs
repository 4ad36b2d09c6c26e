//! Another implementation of the protocol reads what the proxy says, and would have said the same.

use bytes::BytesMut;
use pgspan::protocol::backend::TransactionStatus;
use pgspan::protocol::cancel_key::CancelKey;
use pgspan::protocol::encode;
use pgspan::protocol::error_response::{ErrorResponse, SqlState};
use pgwire::messages::{
    DecodeContext, PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion,
};

#[test]
fn what_the_proxy_says_to_clients() {
    let key = CancelKey::from_bytes(b"\0\0\x01\x02abcd").unwrap();
    for (name, written) in [
        ("AuthenticationOk", write(encode::authentication_ok)),
        (
            "AuthenticationCleartextPassword",
            write(encode::authentication_cleartext_password),
        ),
        (
            "AuthenticationSASL",
            write(|out| encode::authentication_sasl(out, &["SCRAM-SHA-256"])),
        ),
        (
            "ParameterStatus",
            write(|out| encode::parameter_status(out, b"TimeZone", b"Etc/UTC")),
        ),
        (
            "BackendKeyData",
            write(|out| encode::backend_key_data(out, &key)),
        ),
        (
            "ReadyForQuery",
            write(|out| encode::ready_for_query(out, TransactionStatus::Failed)),
        ),
        (
            "CommandComplete",
            write(|out| encode::command_complete(out, "SELECT 1")),
        ),
        ("EmptyQueryResponse", write(encode::empty_query_response)),
        ("ParseComplete", write(encode::parse_complete)),
        ("BindComplete", write(encode::bind_complete)),
        ("CloseComplete", write(encode::close_complete)),
        ("NoData", write(encode::no_data)),
        ("ErrorResponse", write(|out| error().encode(out))),
        (
            "NoticeResponse",
            write(|out| {
                ErrorResponse::warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "w").encode(out)
            }),
        ),
    ] {
        let mut unread = BytesMut::from(&*written);
        let read = PgWireBackendMessage::decode(&mut unread, &context())
            .unwrap()
            .expect(name);
        assert!(unread.is_empty(), "{name}: {unread:?} is left");
        let mut again = BytesMut::new();
        read.encode(&mut again).unwrap();
        assert_eq!(again, written, "{name}");
    }
}

#[test]
fn what_the_proxy_says_to_servers() {
    for (name, written) in [
        ("Query", write(|out| encode::query(out, b"SELECT 1"))),
        (
            "Parse",
            write(|out| encode::parse(out, b"s", b"SELECT $1", &[23])),
        ),
        ("Close", write(|out| encode::close_statement(out, b"s"))),
        ("Sync", write(encode::sync)),
        ("Terminate", write(encode::terminate)),
    ] {
        let mut unread = BytesMut::from(&*written);
        let read = PgWireFrontendMessage::decode(&mut unread, &context())
            .unwrap()
            .expect(name);
        assert!(unread.is_empty(), "{name}: {unread:?} is left");
        let mut again = BytesMut::new();
        read.encode(&mut again).unwrap();
        assert_eq!(again, written, "{name}");
    }
}

fn error() -> ErrorResponse {
    ErrorResponse::fatal(SqlState::INVALID_PASSWORD, "no")
        .with_detail("really")
        .with_hint("yes")
}

fn write(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Of a connection that is past its first packets.
fn context() -> DecodeContext {
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    context.awaiting_frontend_ssl = false;
    context.awaiting_frontend_startup = false;
    context
}
