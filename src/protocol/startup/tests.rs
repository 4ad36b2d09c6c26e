use proptest::prelude::*;

use super::*;

fn startup(body: &[u8]) -> Result<StartupMessage, StartupError> {
    match StartupPacket::parse(body)? {
        StartupPacket::Startup(message) => Ok(message),
        other => panic!("{other:?}"),
    }
}

fn refusal(body: &[u8]) -> (String, String) {
    let response = StartupPacket::parse(body).unwrap_err().response();
    (response.code.to_string(), response.message.into_owned())
}

#[test]
fn psql_says_who_it_is_and_what_it_wants() {
    let message = startup(
        b"\0\x03\0\0user\0ann\0database\0shop\0application_name\0psql\0client_encoding\0UTF8\0\0",
    )
    .unwrap();
    assert_eq!(
        message,
        StartupMessage {
            version: ProtocolVersion::V3_0,
            user: (*b"ann").into(),
            database: (*b"shop").into(),
            parameters: vec![
                ((*b"application_name").into(), (*b"psql").into()),
                ((*b"client_encoding").into(), (*b"UTF8").into()),
            ],
            protocol_options: vec![],
            replication: Replication::None,
        }
    );
}

#[test]
fn the_database_defaults_to_the_user() {
    assert_eq!(
        &*startup(b"\0\x03\0\0user\0ann\0\0").unwrap().database,
        b"ann"
    );
    assert_eq!(
        &*startup(b"\0\x03\0\0database\0\0user\0ann\0\0")
            .unwrap()
            .database,
        b"ann"
    );
}

#[test]
fn the_last_of_two_users_holds() {
    assert_eq!(
        &*startup(b"\0\x03\0\0user\0ann\0user\0bob\0\0").unwrap().user,
        b"bob"
    );
}

#[test]
fn names_are_cut_like_postgresqls() {
    let mut body = b"\0\x03\0\0user\0".to_vec();
    body.extend([b'u'; 70]);
    body.extend(b"\0\0");
    let message = startup(&body).unwrap();
    assert_eq!(&*message.user, [b'u'; 63]);
    assert_eq!(&*message.database, [b'u'; 63]);
}

#[test]
fn protocol_options_are_listed_apart() {
    let message = startup(b"\0\x03\0\x02user\0ann\0_pq_.x\0on\0a.b\0c\0\0").unwrap();
    assert_eq!(message.version, ProtocolVersion::V3_2);
    assert_eq!(
        message.protocol_options,
        [((*b"_pq_.x").into(), (*b"on").into())]
    );
    assert_eq!(message.parameters, [((*b"a.b").into(), (*b"c").into())]);
}

#[test]
fn replication_is_a_boolean_or_a_database() {
    for (value, expected) in [
        ("database", Replication::Logical),
        ("true", Replication::Physical),
        ("TR", Replication::Physical),
        ("on", Replication::Physical),
        ("1", Replication::Physical),
        ("no", Replication::None),
        ("of", Replication::None),
        ("0", Replication::None),
    ] {
        let body = format!("\0\x03\0\0user\0ann\0replication\0{value}\0\0");
        assert_eq!(startup(body.as_bytes()).unwrap().replication, expected);
    }
    for value in ["", "o", "truely", "Database"] {
        let body = format!("\0\x03\0\0user\0ann\0replication\0{value}\0\0");
        assert_eq!(
            refusal(body.as_bytes()),
            (
                "22023".to_owned(),
                format!("invalid value for parameter \"replication\": \"{value}\"")
            )
        );
    }
}

#[test]
fn requests_are_known_by_their_codes() {
    assert_eq!(
        StartupPacket::parse(b"\x04\xd2\x16\x2f"),
        Ok(StartupPacket::SslRequest)
    );
    assert_eq!(
        StartupPacket::parse(b"\x04\xd2\x16\x30"),
        Ok(StartupPacket::GssEncRequest)
    );
    assert_eq!(
        StartupPacket::parse(b"\x04\xd2\x16\x2e\0\0\0\x07abcd"),
        Ok(StartupPacket::Cancel(CancelKey::new(7, b"abcd").unwrap()))
    );
}

#[test]
fn a_cancel_without_a_whole_key_is_refused() {
    assert_eq!(
        StartupPacket::parse(b"\x04\xd2\x16\x2e\0\0\0\x07abc"),
        Err(StartupError::InvalidLength)
    );
}

#[test]
fn a_length_is_eight_to_ten_thousand_and_four() {
    let length = |word: i32| StartupPacket::body_length(word.to_be_bytes());
    assert_eq!(length(8), Ok(4));
    assert_eq!(length(10_004), Ok(10_000));
    for word in [0, 4, 7, 10_005, -1, i32::MIN, i32::MAX] {
        assert_eq!(length(word), Err(StartupError::InvalidLength));
    }
    let response = StartupError::InvalidLength.response();
    assert_eq!(
        (response.severity, response.code, &*response.message),
        (
            crate::protocol::error_response::Severity::Fatal,
            SqlState::PROTOCOL_VIOLATION,
            "invalid length of startup packet"
        )
    );
}

#[test]
fn a_missing_terminator_is_refused() {
    for body in [
        &b"\0\x03\0\0"[..],
        b"\0\x03\0\0user\0ann\0",
        b"\0\x03\0\0user\0ann",
        b"\0\x03\0\0user\0",
        b"\0\x03\0\0user\0ann\0\0\0",
        b"\0\x03\0\0user\0ann\0\0x",
    ] {
        assert_eq!(
            refusal(body),
            (
                "08P01".to_owned(),
                "invalid startup packet layout: expected terminator as last byte".to_owned()
            )
        );
    }
}

#[test]
fn nobody_is_not_a_user() {
    for body in [&b"\0\x03\0\0\0"[..], b"\0\x03\0\0user\0\0\0"] {
        assert_eq!(
            refusal(body),
            (
                "28000".to_owned(),
                "no PostgreSQL user name specified in startup packet".to_owned()
            )
        );
    }
}

#[test]
fn other_protocols_are_refused() {
    for (body, version) in [(*b"\0\x02\0\0\0", "2.0"), (*b"\0\x04\0\x01\0", "4.1")] {
        assert_eq!(
            refusal(&body),
            (
                "0A000".to_owned(),
                format!("unsupported frontend protocol {version}: server supports 3.0 to 3.2")
            )
        );
    }
}

#[test]
fn long_cancel_keys_come_with_3_2() {
    assert!(!ProtocolVersion::from_code(0x0003_0001).has_long_cancel_keys());
    assert!(ProtocolVersion::from_code(0x0003_0002).has_long_cancel_keys());
    assert_eq!(ProtocolVersion::V3_2.code(), 196_610);
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_an_error(body: Vec<u8>) {
        let _ = StartupPacket::parse(&body);
    }

    #[test]
    fn any_bytes_behind_a_version_are_a_message_or_an_error(
        rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'u'), any::<u8>()], 0..64)
    ) {
        let mut body = b"\0\x03\0\0user\0".to_vec();
        body.extend(rest);
        if let Ok(StartupPacket::Startup(message)) = StartupPacket::parse(&body) {
            prop_assert!(!message.user.is_empty());
            prop_assert!(!message.database.is_empty());
        }
    }
}
