use super::*;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut out);
    out.split_off(6)
}

#[test]
fn authentication_messages_are_postgresqls() {
    assert_eq!(written(authentication_ok), b"R\0\0\0\x08\0\0\0\0");
    assert_eq!(
        written(authentication_cleartext_password),
        b"R\0\0\0\x08\0\0\0\x03"
    );
    assert_eq!(
        written(|out| authentication_sasl(out, &["SCRAM-SHA-256"])),
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
    );
    assert_eq!(
        written(|out| authentication_sasl_continue(out, b"r=x")),
        b"R\0\0\0\x0b\0\0\0\x0br=x"
    );
    assert_eq!(
        written(|out| authentication_sasl_final(out, b"v=x")),
        b"R\0\0\0\x0b\0\0\0\x0cv=x"
    );
}

#[test]
fn the_start_of_a_session_is_postgresqls() {
    assert_eq!(
        written(|out| negotiate_protocol_version(
            out,
            ProtocolVersion::V3_2,
            [&b"_pq_.x"[..]].into_iter()
        )),
        b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
    );
    assert_eq!(
        written(|out| parameter_status(out, b"TimeZone", b"UTC")),
        b"S\0\0\0\x11TimeZone\0UTC\0"
    );
    assert_eq!(
        written(|out| backend_key_data(out, &CancelKey::new(7, b"abcd").unwrap())),
        b"K\0\0\0\x0c\0\0\0\x07abcd"
    );
    assert_eq!(
        written(|out| ready_for_query(out, TransactionStatus::InTransaction)),
        b"Z\0\0\0\x05T"
    );
}

#[test]
fn answers_to_commands_are_postgresqls() {
    assert_eq!(
        written(|out| command_complete(out, "SET")),
        b"C\0\0\0\x08SET\0"
    );
    assert_eq!(
        written(|out| {
            empty_query_response(out);
            parse_complete(out);
            bind_complete(out);
            close_complete(out);
            no_data(out);
        }),
        b"I\0\0\0\x041\0\0\0\x042\0\0\0\x043\0\0\0\x04n\0\0\0\x04"
    );
}

#[test]
fn first_packets_have_no_tag() {
    assert_eq!(written(ssl_request), b"\0\0\0\x08\x04\xd2\x16\x2f");
    assert_eq!(
        written(|out| cancel_request(out, &CancelKey::new(7, b"abcd").unwrap())),
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd"
    );
    assert_eq!(
        written(|out| startup_message(
            out,
            ProtocolVersion::V3_0,
            b"ann",
            b"shop",
            &[((*b"a").into(), (*b"b").into())]
        )),
        b"\0\0\0\x24\0\x03\0\0user\0ann\0database\0shop\0a\0b\0\0"
    );
}

#[test]
fn frontend_messages_are_libpqs() {
    assert_eq!(written(|out| query(out, b"BEGIN")), b"Q\0\0\0\x0aBEGIN\0");
    assert_eq!(
        written(|out| parse(out, b"s", b"SELECT $1", &[23])),
        b"P\0\0\0\x16s\0SELECT $1\0\0\x01\0\0\0\x17"
    );
    assert_eq!(
        written(|out| {
            close_statement(out, b"s");
            sync(out);
            terminate(out);
        }),
        b"C\0\0\0\x07Ss\0S\0\0\0\x04X\0\0\0\x04"
    );
    assert_eq!(
        written(|out| password_message(out, b"hunter2")),
        b"p\0\0\0\x0chunter2\0"
    );
    assert_eq!(
        written(|out| sasl_initial_response(out, "SCRAM-SHA-256", b"n,,n=,r=x")),
        b"p\0\0\0\x1fSCRAM-SHA-256\0\0\0\0\x09n,,n=,r=x"
    );
    assert_eq!(written(|out| sasl_response(out, b"c=")), b"p\0\0\0\x06c=");
}
