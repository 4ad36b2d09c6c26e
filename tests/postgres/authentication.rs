//! Who proves what to whom, over what: clients to the proxy, and the proxy to a server with TLS.

use std::fs;
use std::sync::{Arc, OnceLock};

use pgspan::dev::postgres::{Postgres, Settings};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::support::authority::Authority;
use crate::support::messages::{Message, startup};
use crate::support::postgres::{psql, started};
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::wire::Wire;

/// A server with TLS: each role logs in as its name says, over either kind of connection unless its name says otherwise.
struct Server {
    postgres: Postgres,
    authority: Authority,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let authority = Authority::new();
        authority.issue("server", "server", &["localhost"]);
        authority.give_to_postgres("server");
        authority.issue("pgspan", "pgspan", &["localhost", "127.0.0.1"]);
        authority.issue("cert_user", "cert_user", &[]);
        authority.issue("robot", "robot", &[]);
        let configuration = format!(
            "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nssl_ca_file = '{}'\n",
            authority.path("server.crt").display(),
            authority.path("server.key").display(),
            authority.path("ca.crt").display(),
        );
        let postgres = started(Settings {
            configuration: &configuration,
            host_based_authentication: "
local     all all trust
host      all password_user 127.0.0.1/32 password
host      all md5_user      127.0.0.1/32 md5
host      all scram_user    127.0.0.1/32 scram-sha-256
host      all asker         127.0.0.1/32 scram-sha-256
hostssl   all cert_user     127.0.0.1/32 cert
hostssl   all tls_user      127.0.0.1/32 scram-sha-256
hostnossl all clear_user    127.0.0.1/32 scram-sha-256
host      all postgres      127.0.0.1/32 trust
",
        });
        for sql in [
            "CREATE ROLE password_user LOGIN PASSWORD 'sesame'",
            "SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN PASSWORD 'sesame'",
            "CREATE ROLE scram_user LOGIN PASSWORD 'sesame'",
            "CREATE ROLE cert_user LOGIN",
            "CREATE ROLE tls_user LOGIN PASSWORD 'sesame'",
            "CREATE ROLE clear_user LOGIN PASSWORD 'sesame'",
            "CREATE ROLE asker LOGIN PASSWORD 'open' SUPERUSER",
            "CREATE ROLE expired LOGIN PASSWORD 'sesame' VALID UNTIL '2001-01-01'",
            "CREATE DATABASE app",
        ] {
            postgres.psql("postgres", sql).unwrap();
        }
        Server {
            postgres,
            authority,
        }
    })
}

/// The tables `[listen.tls]`, `[server_tls]` and the databases `clear` and `tls`, with these keys in `[auth]`.
fn config(auth: &str, users: &str) -> ConfigText {
    let Server {
        postgres,
        authority,
    } = server();
    let (cert, key, ca) = (
        authority.quoted("pgspan.crt"),
        authority.quoted("pgspan.key"),
        authority.quoted("ca.crt"),
    );
    let port = postgres.port();
    ConfigText::default().and(&format!(
        "[listen.tls]\nmode = \"prefer\"\ncert = {cert}\nkey = {key}\nca = {ca}\n\
         [auth]\n{auth}\n\
         [server_tls]\nca = {ca}\n\
         [databases.clear]\nhost = \"localhost\"\nport = {port}\ndbname = \"app\"\ntls.mode = \"disable\"\n\
         [databases.tls]\nhost = \"localhost\"\nport = {port}\ndbname = \"app\"\ntls.mode = \"verify-full\"\n\
         {users}"
    ))
}

const SESAME: &str = "
    [users.password_user]\npassword = \"sesame\"\n[users.md5_user]\npassword = \"sesame\"\n[users.scram_user]\npassword = \"sesame\"\n";

/// Who one is on the server, and whether the connection there is encrypted.
const WHO: &str = "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[test]
fn every_method_of_clients_goes_with_every_method_of_servers_encrypted_or_not() {
    for method in ["trust", "password", "md5", "scram-sha-256"] {
        let proxy = Proxy::with(&config(&format!("method = \"{method}\""), SESAME));
        for user in ["password_user", "md5_user", "scram_user"] {
            for (database, is_encrypted) in [("clear", 'f'), ("tls", 't')] {
                for sslmode in ["disable", "require"] {
                    let login =
                        format!("user={user} dbname={database} sslmode={sslmode} password=sesame");
                    let said = psql(&proxy.conninfo(&login), WHO);
                    let expected = format!("{user}|{is_encrypted}\n");
                    assert_eq!(said.stdout, expected, "{method}, {login}: {said:?}");
                }
            }
        }
        let wrong = "user=scram_user dbname=tls sslmode=require password=wrong";
        let said = psql(&proxy.conninfo(wrong), "SELECT 1");
        assert_eq!(said.succeeded, method == "trust", "{method}: {said:?}");
    }
}

#[test]
fn libpq_binds_scram_to_the_connection_and_knows_the_proxys_certificate() {
    let console = "[console]\nadmin_users = [\"scram_user\"]\n";
    let users = [SESAME, console].concat();
    let proxy = Proxy::with(&config("method = \"scram-sha-256\"", &users));
    let login = format!(
        "user=scram_user dbname=tls password=sesame sslmode=verify-full sslrootcert={} channel_binding=require",
        server().authority.path("ca.crt").display()
    );
    let said = psql(&proxy.conninfo(&login), WHO);
    assert_eq!(said.stdout, "scram_user|t\n", "{said:?}");
    proxy.wait_for_log(&["login attempt: db=tls user=scram_user tls=TLSv1.3/"]);
    let console = proxy.conninfo(&login.replace("dbname=tls", "dbname=pgbouncer"));
    let shown = psql(&console, "SHOW CLIENTS");
    assert!(shown.stdout.contains("TLSv1.3/TLS_"), "{shown:?}");
    proxy.wait_for_log(&["login attempt: db=pgbouncer user=scram_user tls=TLSv1.3/"]);
    let shown = psql(&console, "SHOW SERVERS");
    assert!(shown.stdout.contains("TLSv1.3/TLS_"), "{shown:?}");
    let old = format!("{login} ssl_max_protocol_version=TLSv1.2");
    assert_eq!(psql(&proxy.conninfo(&old), WHO).stdout, "scram_user|t\n");
}

#[test]
fn a_stored_verifier_and_a_clients_password_log_in_at_the_server() {
    let verifier = server()
        .postgres
        .psql(
            "postgres",
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'",
        )
        .unwrap();
    let users = format!("[users.scram_user]\npassword = \"{}\"\n", verifier.trim());
    for method in ["scram-sha-256", "md5", "password"] {
        let proxy = Proxy::with(&config(&format!("method = \"{method}\""), &users));
        for database in ["clear", "tls"] {
            let login = format!("user=scram_user dbname={database} password=sesame");
            let said = psql(&proxy.conninfo(&login), "SELECT current_user");
            assert_eq!(said.stdout, "scram_user\n", "{method}: {said:?}");
        }
    }
}

#[test]
fn the_mode_decides_about_encryption_where_the_server_insists() {
    let users =
        "[users.tls_user]\npassword = \"sesame\"\n[users.clear_user]\npassword = \"sesame\"\n";
    let port = server().postgres.port();
    let modes = ["disable", "allow", "prefer", "require"];
    let databases: String = modes
        .iter()
        .map(|mode| {
            format!(
                "[databases.{mode}]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\ntls.mode = \"{mode}\"\n"
            )
        })
        .collect();
    let proxy = Proxy::with(&config(
        "method = \"trust\"",
        &(users.to_owned() + &databases),
    ));
    let encrypted = |user: &str| {
        modes.map(|mode| {
            let said = psql(&proxy.conninfo(&format!("user={user} dbname={mode}")), WHO);
            said.stdout.trim().chars().last()
        })
    };
    assert_eq!(
        encrypted("tls_user"),
        [None, Some('t'), Some('t'), Some('t')]
    );
    assert_eq!(
        encrypted("clear_user"),
        [Some('f'), Some('f'), Some('f'), None]
    );
}

#[test]
fn certificates_prove_clients_to_the_proxy_and_the_proxy_to_servers() {
    let Server { authority, .. } = server();
    let folder = tempfile::tempdir().unwrap();
    let (hba, ident) = (folder.path().join("hba"), folder.path().join("ident"));
    fs::write(
        &hba,
        "hostssl all cert_user all cert\nhostssl all md5_user all cert map=robots\nhost all all all reject\n",
    )
    .unwrap();
    fs::write(&ident, "robots robot md5_user\n").unwrap();
    let auth = format!("method = \"hba\"\nhba_file = {hba:?}\nident_file = {ident:?}");
    let users = format!(
        "tls.cert = {}\ntls.key = {}\n[users.cert_user]\n[users.md5_user]\npassword = \"sesame\"\n",
        authority.quoted("cert_user.crt"),
        authority.quoted("cert_user.key"),
    );
    let proxy = Proxy::with(&config(&auth, &users));
    let said = |user: &str, certificate: &str| {
        let login = format!(
            "user={user} dbname=tls sslmode=require sslcert={0}.crt sslkey={0}.key",
            authority.path(certificate).display()
        );
        psql(&proxy.conninfo(&login), "SELECT current_user")
    };
    assert_eq!(said("cert_user", "cert_user").stdout, "cert_user\n");
    assert_eq!(said("md5_user", "robot").stdout, "md5_user\n");
    for (user, certificate) in [("cert_user", "robot"), ("md5_user", "cert_user")] {
        let said = said(user, certificate);
        assert!(
            said.stderr.contains("certificate authentication failed"),
            "{said:?}"
        );
    }
    let without = psql(
        &proxy.conninfo("user=cert_user dbname=tls sslmode=require sslcert=none"),
        "SELECT 1",
    );
    assert!(
        without.stderr.contains("certificate authentication failed"),
        "{without:?}"
    );
    let rejected = psql(
        &proxy.conninfo("user=cert_user dbname=tls sslmode=disable"),
        "SELECT 1",
    );
    assert!(rejected.stderr.contains("login rejected"), "{rejected:?}");
}

#[test]
fn a_server_that_is_somebody_else_is_not_logged_in_at() {
    let elsewhere = Authority::new();
    let users = format!(
        "tls.ca = {}\n[databases.nameless]\nhost = \"127.0.0.1\"\nport = {}\ntls.mode = \"verify-full\"\n{SESAME}[pool]\ncheckout_timeout = \"1s\"\n",
        elsewhere.quoted("ca.crt"),
        server().postgres.port(),
    );
    let proxy = Proxy::with(&config("method = \"trust\"", &users));
    for database in ["tls", "nameless"] {
        let login = format!("user=scram_user dbname={database}");
        assert!(!psql(&proxy.conninfo(&login), "SELECT 1").succeeded);
    }
    proxy.wait_for_log(&["TLS handshake with server failed: certificate verify failed"]);
}

#[test]
fn a_reload_changes_the_certificate_for_new_clients_and_leaves_sessions_alone() {
    let Server { authority, .. } = server();
    authority.issue("changing", "first", &["localhost", "127.0.0.1"]);
    let text = |ca: &str| {
        ConfigText::default().and(&format!(
            "[listen.tls]\nmode = \"require\"\ncert = {}\nkey = {}\n[auth]\nmethod = \"trust\"\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {}\ntls.ca = {ca}\n[users.postgres]\n",
            authority.quoted("changing.crt"),
            authority.quoted("changing.key"),
            server().postgres.port(),
        ))
    };
    let proxy = Proxy::with(&text("\"\""));
    let mut staying = crate::support::postgres::psql_session(
        &proxy.conninfo("user=postgres dbname=app sslmode=require"),
    );
    assert_eq!(staying.ask("SELECT 1"), "1");

    let other = Authority::new();
    other.issue("changing", "second", &["localhost", "127.0.0.1"]);
    for file in ["changing.crt", "changing.key"] {
        fs::copy(other.path(file), authority.path(file)).unwrap();
    }
    proxy.signal("HUP");
    let login = format!(
        "user=postgres dbname=app sslmode=verify-ca sslrootcert={}",
        other.path("ca.crt").display()
    );
    let is_new = || {
        psql(&proxy.conninfo(&login), "SELECT 1")
            .succeeded
            .then_some(())
    };
    assert!(
        crate::support::eventually(is_new).is_some(),
        "the old certificate is still shown"
    );
    assert_eq!(staying.ask("SELECT 2"), "2");
    let in_clear = psql(
        &proxy.conninfo("user=postgres dbname=app sslmode=disable"),
        "SELECT 1",
    );
    assert!(in_clear.stderr.contains("SSL required"), "{in_clear:?}");
}

#[test]
fn users_that_are_not_configured_are_asked_for() {
    let users = "[users.asker]\npassword = \"open\"\n";
    let auth = "method = \"scram-sha-256\"\nuser = \"asker\"\ndbname = \"tls\"\ncache_ttl = \"0\"";
    let proxy = Proxy::with(&config(auth, users));
    let said = |user: &str, password: &str| {
        let login = format!("user={user} dbname=clear password={password}");
        psql(&proxy.conninfo(&login), "SELECT current_user")
    };
    // The verifier that was found serves as if it had been configured: the client's proof logs in at the server.
    assert_eq!(said("scram_user", "sesame").stdout, "scram_user\n");
    let refused = |user, password| said(user, password).stderr;
    let wrong = |user: &str| format!("password authentication failed for user \"{user}\"");
    assert!(refused("scram_user", "wrong").contains(&wrong("scram_user")));
    assert!(refused("nobody", "sesame").contains(&wrong("nobody")));
    assert!(refused("expired", "sesame").contains(&wrong("expired")));
    server()
        .postgres
        .psql("postgres", "CREATE ROLE newcomer LOGIN PASSWORD 'hello'")
        .unwrap();
    let said = said("newcomer", "hello");
    assert!(!said.stderr.contains(&wrong("newcomer")), "{said:?}");
}

#[test]
fn the_console_lets_in_whom_a_server_knows() {
    let users = "[console]\nadmin_users = [\"scram_user\"]\n[users.asker]\npassword = \"open\"\n";
    let auth = "method = \"scram-sha-256\"\nuser = \"asker\"\ndbname = \"tls\"";
    let proxy = Proxy::with(&config(auth, users));
    let login = "user=scram_user dbname=pgbouncer password=sesame";
    let said = psql(&proxy.conninfo(login), "SHOW VERSION");
    assert!(said.stdout.starts_with("PgBouncer "), "{said:?}");
    // A second time it is known.
    assert!(psql(&proxy.conninfo(login), "SHOW VERSION").succeeded);
    let count = |outcome| proxy.metric("pgspan_auth_queries_total", &[outcome]);
    assert!((count("outcome=\"found\""), count("outcome=\"cached\"")) == (1.0, 1.0));
    assert!(proxy.metric("pgspan_auth_query_connections", &[]) == 1.0);
    assert!(proxy.metric("pgspan_auth_query_answers", &[]) == 1.0);
}

#[test]
fn who_logs_in_at_the_same_time_by_the_same_name_is_asked_for_once() {
    let users = "[console]\nadmin_users = [\"scram_user\"]\n[users.asker]\npassword = \"open\"\n";
    let auth = "method = \"scram-sha-256\"\nuser = \"asker\"\ndbname = \"tls\"\n\
                query = \"SELECT usename, passwd FROM pg_shadow, pg_sleep(0.3) WHERE usename = $1\"";
    let proxy = Proxy::with(&config(auth, users));
    let login = "user=scram_user dbname=pgbouncer password=sesame";
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert!(psql(&proxy.conninfo(login), "SHOW VERSION").succeeded));
        }
    });
    let count = |outcome| proxy.metric("pgspan_auth_queries_total", &[outcome]);
    assert_eq!(
        (count("outcome=\"found\""), count("outcome=\"cached\"")),
        (1.0, 4.0)
    );
}

#[test]
fn while_no_server_can_be_asked_nobody_can_tell_who_is_configured() {
    // Nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let users = format!(
        "[databases.gone]\nhost = \"127.0.0.1\"\nport = {port}\n{SESAME}[users.asker]\npassword = \"open\"\n"
    );
    for (dbname, reason) in [
        ("gone", "auth_query failed: connect failed"),
        (
            "nowhere",
            "authentication database \"nowhere\" is not configured",
        ),
        (
            "pgbouncer",
            "cannot use the reserved \"pgbouncer\" database",
        ),
    ] {
        for method in ["scram-sha-256", "password", "md5"] {
            let auth = format!("method = \"{method}\"\nuser = \"asker\"\ndbname = \"{dbname}\"");
            let proxy = Proxy::with(&config(&auth, &users));
            let told = |user: &str| {
                let login = format!("user={user} dbname=clear password=wrong sslmode=disable");
                let said = psql(&proxy.conninfo(&login), "SELECT 1");
                assert!(!said.succeeded);
                said.stderr
            };
            let expected = told("nobody");
            assert!(
                expected.contains("authentication query failed"),
                "{expected}"
            );
            assert_eq!(told("scram_user"), expected, "{method}");
            proxy.wait_for_log(&[reason]);
            let right = "user=scram_user dbname=clear password=sesame";
            assert!(psql(&proxy.conninfo(right), "SELECT 1").succeeded);
        }
    }
}

#[test]
fn passwords_that_a_server_has_in_clear_serve_for_scram() {
    let Server { postgres, .. } = server();
    for sql in [
        "CREATE TABLE clear_passwords (name text, password text)",
        "INSERT INTO clear_passwords VALUES ('scram_user', 'sesame'), ('nothing', NULL)",
    ] {
        postgres.psql("app", sql).unwrap();
    }
    let auth = "method = \"scram-sha-256\"\nuser = \"asker\"\nscram_iterations = 5000\n\
        query = \"SELECT name, password FROM clear_passwords WHERE name = $1\"";
    let proxy = Proxy::with(&config(auth, "[users.asker]\npassword = \"open\"\n"));
    let login = |user: &str, password: &str| {
        let login = format!("user={user} dbname=clear password={password} sslmode=disable");
        psql(&proxy.conninfo(&login), "SELECT current_user")
    };
    for _ in 0..2 {
        assert_eq!(login("scram_user", "sesame").stdout, "scram_user\n");
        for (user, password) in [
            ("scram_user", "wrong"),
            ("nothing", "sesame"),
            ("eve", "sesame"),
        ] {
            let failed = format!("password authentication failed for user \"{user}\"");
            let said = login(user, password);
            assert!(said.stderr.contains(&failed), "{said:?}");
        }
    }
    // Whoever it is that asks: the same rounds, and a salt that stays.
    let firsts = |user: &str| {
        let mut wire = Wire::connect(proxy.address());
        wire.send(startup(&[("user", user), ("database", "clear")]));
        wire.receive();
        let first = b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
        wire.send(Message::tagged(b'p', first));
        let challenge = wire.receive();
        let text = String::from_utf8_lossy(challenge.body()).into_owned();
        text.split_once(",s=").unwrap().1.to_owned()
    };
    for user in ["scram_user", "nothing", "eve", "adam"] {
        let first = firsts(user);
        assert!(first.ends_with(",i=5000"), "{first}");
        assert_eq!(firsts(user), first);
    }
}

#[test]
fn a_query_of_ones_own_is_asked_as_the_asker_and_nothing_of_a_client_is_there() {
    let Server { postgres, .. } = server();
    for sql in [
        "CREATE FUNCTION look_up(name text) RETURNS TABLE (usename text, passwd text) LANGUAGE sql AS \
         $$ SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = name $$",
        "CREATE SCHEMA trap",
        "CREATE FUNCTION trap.look_up(name text) RETURNS TABLE (usename text, passwd text) LANGUAGE sql AS \
         $$ SELECT name, 'let me in'::text $$",
        "GRANT USAGE ON SCHEMA trap TO PUBLIC",
    ] {
        postgres.psql("app", sql).unwrap();
    }
    let auth = "method = \"password\"\nuser = \"asker\"\nquery = \"SELECT * FROM look_up($1)\"\ncache_ttl = \"0\"";
    let users = "pool.size = 1\n[users.asker]\npassword = \"open\"\n";
    let proxy = Proxy::with(&config(auth, users));
    let login = |user: &str, password: &str, options: &str| {
        let login = format!("user={user} dbname=tls password={password} options='{options}'");
        psql(&proxy.conninfo(&login), "SELECT current_user")
    };
    // Even the asker itself leaves nothing behind that the next question would meet.
    let mut asker = crate::support::postgres::psql_session(
        &proxy.conninfo("user=asker dbname=tls password=open options='-c search_path=trap'"),
    );
    assert_eq!(asker.ask("SHOW search_path"), "trap");
    let trapped = login("scram_user", "'let me in'", "-c search_path=trap");
    assert!(
        trapped.stderr.contains("password authentication failed"),
        "{trapped:?}"
    );
    assert_eq!(login("scram_user", "sesame", "").stdout, "scram_user\n");
}

#[test]
fn nothing_secret_leaves_the_process() {
    let Server { postgres, .. } = server();
    let verifier = postgres
        .psql(
            "postgres",
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'",
        )
        .unwrap();
    let keys = verifier.trim().rsplit('$').next().unwrap();
    let (stored_key, server_key) = keys.split_once(':').unwrap();
    let users = format!(
        "[users.scram_user]\npassword = \"{}\"\n[users.md5_user]\npassword = \"opensesame\"\n[users.asker]\npassword = \"open-wide\"\n\
         [log]\nlevel = \"trace\"\n[slow_query]\nthreshold = \"0\"\n[console]\nadmin_users = [\"md5_user\"]\n",
        verifier.trim()
    );
    let auth = "method = \"password\"\nuser = \"asker\"";
    let proxy = Proxy::with(&config(auth, &users));
    let mut seen = String::new();
    for (user, password, database) in [
        ("scram_user", "sesame", "tls"),
        ("scram_user", "hunter2-wrong", "tls"),
        ("md5_user", "opensesame", "clear"),
        ("nobody", "hunter2-unknown", "tls"),
        ("md5_user", "opensesame", "pgbouncer"),
    ] {
        let login = format!("user={user} dbname={database} password={password} sslmode=prefer");
        for sql in [
            "SHOW DATABASES",
            "SHOW USERS",
            "SHOW CONFIG",
            "SHOW CLIENTS",
            "SHOW SERVERS",
            "SELECT 1",
        ] {
            let said = psql(&proxy.conninfo(&login), sql);
            seen += &format!("{}{}", said.stdout, said.stderr);
        }
    }
    seen += &proxy.metrics();
    seen += &proxy.log().join("\n");
    assert!(seen.contains("login attempt") && seen.contains("password authentication failed"));
    let secrets = ["hunter2", "opensesame", "open-wide", stored_key, server_key];
    for secret in secrets {
        assert!(!seen.contains(secret), "{secret} is in:\n{seen}");
    }
    // The word itself is in no name.
    assert!(!seen.contains("sesame"), "the password is in:\n{seen}");
}

#[tokio::test]
async fn tokio_postgres_logs_in_by_any_method() {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(server().authority.path("ca.crt")).unwrap();
    roots.add(ca).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = MakeRustlsConnect::new(tls);
    for method in ["trust", "password", "md5", "scram-sha-256"] {
        let proxy = Proxy::with(&config(&format!("method = \"{method}\""), SESAME));
        let bound = match method {
            "scram-sha-256" => "sslmode=require channel_binding=require",
            _ => "sslmode=require channel_binding=disable",
        };
        for user in ["password_user", "md5_user", "scram_user"] {
            for database in ["clear", "tls"] {
                for over in ["sslmode=disable", "sslmode=require", bound] {
                    let login = format!("user={user} dbname={database} password=sesame {over}");
                    let conninfo = proxy.conninfo(&login);
                    let connected = tokio_postgres::connect(&conninfo, tls.clone()).await;
                    let (client, connection) = connected.unwrap();
                    tokio::spawn(connection);
                    let row = client.query_one("SELECT current_user::text", &[]).await;
                    let told = row.unwrap().get::<_, String>(0);
                    assert_eq!(told, user, "{method}, {login}");
                }
            }
        }
    }
}

#[test]
fn the_systems_user_is_known_over_a_unix_socket() {
    let me = String::from_utf8(
        std::process::Command::new("id")
            .arg("-un")
            .output()
            .unwrap()
            .stdout,
    );
    let me = me.unwrap().trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let ident = folder.path().join("ident");
    fs::write(&ident, format!("local {me} ann\n")).unwrap();
    let hba = folder.path().join("hba");
    fs::write(
        &hba,
        "local all ann peer map=local\nlocal all all peer\nhost all all all peer\n",
    )
    .unwrap();
    let text = ConfigText::default()
        .listen(&format!("unix_socket_dir = {:?}", folder.path()))
        .and(&format!(
            "[auth]\nmethod = \"hba\"\nhba_file = {hba:?}\nident_file = {ident:?}\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\n[users.{me}]\n[users.ann]\n[users.eve]\n",
            server().postgres.port()
        ));
    let proxy = Proxy::with(&text);
    let local = |user: &str| {
        let login = format!(
            "host={} port={} user={user} dbname=app",
            folder.path().display(),
            proxy.port()
        );
        psql(&login, "SELECT 'in'")
    };
    assert_eq!(local(&me).stdout, "in\n", "{:?}", local(&me));
    assert_eq!(local("ann").stdout, "in\n");
    assert!(local("eve").stderr.contains("unix socket login rejected"));
    let remote = psql(
        &proxy.conninfo(&format!("user={me} dbname=app")),
        "SELECT 'in'",
    );
    assert!(
        remote.stderr.contains("unix socket login rejected"),
        "{remote:?}"
    );
}
