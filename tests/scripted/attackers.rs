//! Peers that want in without a right to it, or want others to stay out.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use pgspan::auth::scram::{ClientBinding, ScramClient};
use pgspan::config::tls::{Tls, TlsMode};
use pgspan::net::socket::{Socket, Stream};
use pgspan::net::tls::ServerTls;
use pgspan::server::encryption::{Attempt, encrypt};

use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::messages::{
    Message, field_of, password, ssl_request, startup, startup_version,
};
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer};
use crate::support::wire::Wire;

const ANN: &[(&str, &str)] = &[("user", "ann"), ("database", "app")];

/// Ann must prove herself by SCRAM; the server takes everybody.
fn config(server: &ScriptedServer) -> ConfigText {
    ConfigText::default().and(&format!(
        "[auth]\nmethod = \"scram-sha-256\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.ann]\npassword = \"sesame\"\n",
        server.port()
    ))
}

fn with_tls(config: ConfigText, authority: &Authority) -> ConfigText {
    authority.issue("pgspan", "pgspan", &["localhost"]);
    config.and(&format!(
        "[listen.tls]\nmode = \"prefer\"\ncert = {}\nkey = {}\n",
        authority.quoted("pgspan.crt"),
        authority.quoted("pgspan.key")
    ))
}

fn sasl_initial(mechanism: &str, message: &[u8]) -> Message {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Message::tagged(
        b'p',
        &[mechanism.as_bytes(), b"\0", &length, message].concat(),
    )
}

fn sasl_response(message: &[u8]) -> Message {
    Message::tagged(b'p', message)
}

/// Begins a login as Ann; the client's and the server's first message.
fn begin(proxy: &Proxy, version: u32) -> (Wire, ScramClient, Vec<u8>) {
    let mut wire = Wire::connect(proxy.address());
    wire.send(startup_version(version, ANN));
    assert_eq!(&wire.receive().body()[..4], &10_u32.to_be_bytes());
    let (client, first) = ScramClient::begin([1; 18], ClientBinding::Impossible);
    wire.send(sasl_initial("SCRAM-SHA-256", first.as_bytes()));
    let challenge = wire.receive().body()[4..].to_vec();
    (wire, client, challenge)
}

const V3_0: u32 = 3 << 16;
const V3_2: u32 = V3_0 + 2;

#[test]
fn the_right_password_is_let_in_over_either_version_of_the_protocol() {
    let server = ScriptedServer::start();
    let proxy = Proxy::with(&config(&server));
    for version in [V3_0, V3_2] {
        let (mut wire, client, challenge) = begin(&proxy, version);
        let (_, last) = client
            .on_server_first(&challenge, Some(b"sesame"), None)
            .unwrap();
        wire.send(sasl_response(last.as_bytes()));
        assert_eq!(&wire.receive().body()[..4], &12_u32.to_be_bytes());
        assert_eq!(wire.receive().body(), &0_u32.to_be_bytes());
    }
}

#[test]
fn a_recorded_proof_is_of_no_use_a_second_time() {
    let server = ScriptedServer::start();
    let proxy = Proxy::with(&config(&server));
    let (mut wire, client, challenge) = begin(&proxy, V3_0);
    let (_, last) = client
        .on_server_first(&challenge, Some(b"sesame"), None)
        .unwrap();
    wire.send(sasl_response(last.as_bytes()));
    assert_eq!(&wire.receive().body()[..4], &12_u32.to_be_bytes());

    let (mut wire, ..) = begin(&proxy, V3_0);
    wire.send(sasl_response(last.as_bytes()));
    let refusal = wire.receive();
    assert_eq!(field_of(&refusal, b'C').as_deref(), Some("08P01"));
    assert_eq!(
        field_of(&refusal, b'M').as_deref(),
        Some("invalid SCRAM response")
    );
    wire.expect_end();
}

#[test]
fn half_a_proof_and_an_enormous_one_prove_nothing() {
    let server = ScriptedServer::start();
    let proxy = Proxy::with(&config(&server));
    let (mut wire, client, challenge) = begin(&proxy, V3_0);
    let (_, last) = client
        .on_server_first(&challenge, Some(b"sesame"), None)
        .unwrap();
    wire.send(sasl_response(&last.as_bytes()[..last.len() - 8]));
    let refusal = wire.receive();
    assert_eq!(
        field_of(&refusal, b'M').as_deref(),
        Some("malformed SCRAM message")
    );
    wire.expect_end();

    let (mut wire, ..) = begin(&proxy, V3_0);
    wire.send(sasl_response(&[b'x'; 4000]));
    wire.expect_end();

    // Before anything of it is read.
    let mut wire = Wire::connect(proxy.address());
    wire.send(startup(ANN));
    wire.receive();
    wire.send_bytes(b"p\x7f\xff\xff\xff");
    wire.expect_end();
}

#[test]
fn nobody_can_tell_a_wrong_password_from_a_user_who_is_not_there() {
    let server = ScriptedServer::start();
    let proxy = Proxy::with(&config(&server));
    let attempt = |user: &str| {
        let mut wire = Wire::connect(proxy.address());
        wire.send(startup(&[("user", user), ("database", "app")]));
        let offer = wire.receive();
        let (client, first) = ScramClient::begin([1; 18], ClientBinding::Impossible);
        wire.send(sasl_initial("SCRAM-SHA-256", first.as_bytes()));
        let challenge = wire.receive();
        let (_, last) = client
            .on_server_first(&challenge.body()[4..], Some(b"wrong"), None)
            .unwrap();
        wire.send(sasl_response(last.as_bytes()));
        let refusal = wire.receive();
        wire.expect_end();
        let said = String::from_utf8_lossy(refusal.body()).replace(user, "NAME");
        (offer, challenge.body().len(), said)
    };
    assert_eq!(attempt("ann"), attempt("eve"));
}

/// What the proxy says first in SCRAM to somebody of this name: the salt and the rounds.
fn salt_and_rounds(proxy: &Proxy, user: &str, database: &str) -> String {
    let mut wire = Wire::connect(proxy.address());
    wire.send(startup(&[("user", user), ("database", database)]));
    assert_eq!(&wire.receive().body()[..4], &10_u32.to_be_bytes());
    let (_, first) = ScramClient::begin([1; 18], ClientBinding::Impossible);
    wire.send(sasl_initial("SCRAM-SHA-256", first.as_bytes()));
    let challenge = wire.receive();
    let text = String::from_utf8_lossy(&challenge.body()[4..]);
    let (_, salt_and_rounds) = text.split_once(',').unwrap();
    salt_and_rounds.to_owned()
}

#[test]
fn a_salt_stays_over_reloads_and_restarts_whether_there_is_such_a_user_or_not() {
    let (server, authority) = (ScriptedServer::start(), Authority::new());
    let config = with_tls(config(&server), &authority);
    let proxy = Proxy::with(&config);
    let seen = |proxy: &Proxy| ["ann", "eve"].map(|user| salt_and_rounds(proxy, user, "app"));
    let before = seen(&proxy);
    assert_ne!(before[0], before[1]);
    assert!(before.iter().all(|first| first.ends_with(",i=4096")));
    proxy.signal("HUP");
    proxy.wait_for_log(&["the configuration was read again"]);
    assert_eq!(seen(&proxy), before);
    drop(proxy);
    assert_eq!(seen(&Proxy::with(&config)), before);
}

#[test]
fn the_configured_rounds_are_everybodys() {
    let server = ScriptedServer::start();
    let folder = tempfile::tempdir().unwrap();
    let hba = folder.path().join("hba");
    std::fs::write(&hba, "host all all all scram-sha-256\n").unwrap();
    let hashed = "[users.max]\npassword = \"md57cd2b9a92689eab2e58caf2da80afa15\"\n";
    for (method, users) in [
        ("\"scram-sha-256\"".to_owned(), ""),
        (format!("\"hba\"\nhba_file = {hba:?}"), hashed),
    ] {
        let text = format!(
            "[auth]\nmethod = {method}\nscram_iterations = 5000\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n\
             [users.ann]\npassword = \"sesame\"\n{users}",
            server.port()
        );
        let proxy = Proxy::with(&ConfigText::default().and(&text));
        for user in ["ann", "max", "eve", "adam", "moritz"] {
            for database in ["app", "nowhere"] {
                let first = salt_and_rounds(&proxy, user, database);
                assert!(first.ends_with(",i=5000"), "{user}: {first}");
            }
        }
    }
}

#[test]
fn words_in_clear_behind_a_request_for_tls_are_refused() {
    let (server, authority) = (ScriptedServer::start(), Authority::new());
    let proxy = Proxy::with(&with_tls(config(&server), &authority));
    let mut wire = Wire::connect(proxy.address());
    wire.send_all([ssl_request(), startup(ANN)]);
    let refusal = wire.receive();
    assert_eq!(
        field_of(&refusal, b'M').as_deref(),
        Some("received unencrypted data after SSL request")
    );
    wire.expect_end();
}

#[test]
fn words_in_clear_behind_a_servers_yes_are_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 8];
            if stream.read_exact(&mut request).is_ok() {
                // And the end of a login that nobody has seen.
                let _ = stream.write_all(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
            }
        }
    });
    let config = ConfigText::for_port(port)
        .and("[server_tls]\nmode = \"require\"\n[pool]\ncheckout_timeout = \"1s\"\n");
    let proxy = Proxy::with(&config);
    ScriptedClient::refused(proxy.address(), &[("user", "app"), ("database", "app")]);
    proxy.wait_for_log(&["received unencrypted data after SSL response"]);
}

#[test]
fn a_client_that_has_been_told_there_is_no_binding_is_told_of_the_lie() {
    let (server, authority) = (ScriptedServer::start(), Authority::new());
    let proxy = Proxy::with(&with_tls(config(&server), &authority));
    let stream = TcpStream::connect(proxy.address()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let refusal = runtime.block_on(async {
        let stream = Stream::Tcp(stream);
        stream.prepare(&pgspan::config::Tcp::default()).unwrap();
        let mut socket = Socket::new(stream).unwrap();
        let tls = ServerTls::new(&Tls::of(TlsMode::Require)).unwrap();
        encrypt(&mut socket, Attempt::Encrypted, &tls, "localhost")
            .await
            .unwrap();
        let mut heard = bytes::BytesMut::new();
        socket.write_all(&startup(ANN).0).await.unwrap();
        socket.read_buf(&mut heard).await.unwrap();
        let offer = String::from_utf8_lossy(&heard).into_owned();
        assert!(offer.contains("SCRAM-SHA-256-PLUS"), "{offer:?}");
        heard.clear();
        // Somebody in between has taken the better mechanism out of the offer.
        let (_, first) = ScramClient::begin([1; 18], ClientBinding::NotOffered);
        socket
            .write_all(&sasl_initial("SCRAM-SHA-256", first.as_bytes()).0)
            .await
            .unwrap();
        socket.read_buf(&mut heard).await.unwrap();
        Message(heard.to_vec())
    });
    assert_eq!(
        field_of(&refusal, b'M').as_deref(),
        Some("SCRAM channel binding negotiation error")
    );
}

#[test]
fn whoever_dawdles_is_cut_off_at_whichever_step() {
    let (server, authority) = (ScriptedServer::start(), Authority::new());
    let config = with_tls(config(&server), &authority).listen("login_timeout = \"1s\"");
    let proxy = Proxy::with(&config);
    let dawdlers = [
        Vec::new(),
        startup(ANN).0[..9].to_vec(),
        startup(ANN).0,
        // Into the handshake, and no further.
        [&ssl_request().0[..], b""].concat(),
        b"\x16\x03\x01\x02\0\x01".to_vec(),
    ];
    let mut wires: Vec<_> = dawdlers
        .iter()
        .map(|said| {
            let mut wire = Wire::connect(proxy.address());
            wire.send_bytes(said);
            wire
        })
        .collect();
    for wire in &mut wires {
        let mut rest = Vec::new();
        // To the end, which comes in time or fails the test.
        let mut stream = wire.stream();
        stream.read_to_end(&mut rest).unwrap();
    }
    assert_eq!(
        proxy.metric("pgspan_clients_rejected_total", &["reason=\"timeout\""]),
        5.0
    );
}

#[test]
fn a_thousand_half_open_logins_keep_nobody_out() {
    const LIMIT: usize = 100;
    let server = ScriptedServer::start();
    // They don't take the clients' places either.
    let config = config(&server).listen(&format!(
        "max_unauthenticated_connections = {LIMIT}\nmax_client_connections = 10"
    ));
    let proxy = Proxy::with(&config);
    let mut half_open: Vec<_> = (0..1000)
        .map(|_| {
            let mut wire = Wire::connect(proxy.address());
            wire.send(startup(ANN));
            wire
        })
        .collect();
    let (mut wire, client, challenge) = begin(&proxy, V3_0);
    let (_, last) = client
        .on_server_first(&challenge, Some(b"sesame"), None)
        .unwrap();
    wire.send(sasl_response(last.as_bytes()));
    assert_eq!(&wire.receive().body()[..4], &12_u32.to_be_bytes());
    // The oldest had to go.
    let mut oldest = half_open.remove(0);
    while oldest.receive_or_end().is_some() {}
    let settled = eventually(|| {
        let logging_in = proxy.metric("pgspan_clients_logging_in", &[]);
        (logging_in <= LIMIT as f64).then_some(())
    });
    assert!(settled.is_some());
    assert!(
        proxy.metric(
            "pgspan_limits_hit_total",
            &["limit=\"unauthenticated_connections\""]
        ) >= 900.0
    );
}

#[test]
fn an_address_that_has_failed_waits_before_it_tries_again() {
    let server = ScriptedServer::start();
    let text = "[auth]\nmethod = \"password\"\nfailed_login_backoff = \"400ms\"\n";
    let config = ConfigText::default().and(&format!(
        "{text}[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.ann]\npassword = \"sesame\"\n",
        server.port()
    ));
    let proxy = Proxy::with(&config);
    let told = |word: &str| {
        let mut wire = Wire::connect(proxy.address());
        wire.send(startup(ANN));
        let asked = wire.receive();
        if asked.tag() == b'E' {
            return field_of(&asked, b'M');
        }
        wire.send(password(word));
        let answer = wire.receive();
        (answer.tag() == b'E').then(|| field_of(&answer, b'M').unwrap())
    };
    let failed = "password authentication failed for user \"ann\"".to_owned();
    assert_eq!(told("wrong"), Some(failed));
    let later = "too many failed logins from this address, try again later".to_owned();
    assert_eq!(told("sesame"), Some(later));
    let again = eventually(|| {
        thread::sleep(Duration::from_millis(50));
        told("sesame").is_none().then_some(())
    });
    assert!(again.is_some());
}

#[test]
fn guesses_that_come_in_together_are_not_all_heard() {
    let server = ScriptedServer::start();
    let text = "[auth]\nmethod = \"password\"\nfailed_login_backoff = \"1h\"\n";
    let config = ConfigText::default().and(&format!(
        "{text}[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.ann]\npassword = \"sesame\"\n",
        server.port()
    ));
    let proxy = Proxy::with(&config);
    let mut guessers: Vec<_> = (0..5)
        .map(|_| {
            let mut wire = Wire::connect(proxy.address());
            wire.send(startup(ANN));
            assert_eq!(wire.receive().tag(), b'R');
            wire
        })
        .collect();
    let told = |wire: &mut Wire, word: &str| {
        wire.send(password(word));
        field_of(&wire.receive(), b'M').unwrap()
    };
    let (first, others) = guessers.split_first_mut().unwrap();
    let failed = "password authentication failed for user \"ann\"";
    assert_eq!(told(first, "wrong"), failed);
    for wire in others {
        let later = "too many failed logins from this address, try again later";
        assert_eq!(told(wire, "sesame"), later);
    }
}
