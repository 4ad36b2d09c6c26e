//! What a client leaves in a server's session, and the names that it gave to statements, in SQL.

use super::*;
use crate::config::choices::{ListenMode, SessionState};
use crate::session::alteration::COUNT_BELONGINGS;

fn after(query: &str, tag: &str) -> Pair {
    let mut pair = Pair::new();
    run(&mut pair, query, tag);
    pair
}

fn run(pair: &mut Pair, query: &str, tag: &str) {
    pair.client(&[&format!("Q:{query}|")]);
    pair.server(&[&format!("C:{tag}|"), "Z:I"]);
}

fn server(pair: &mut Pair) -> &mut ServerSession {
    pair.server.as_mut().expect("it is linked")
}

/// What the server is asked before it goes back.
fn asked(pair: &mut Pair) -> Vec<String> {
    let mut out = Vec::new();
    server(pair).ask_before_release(&mut out);
    texts_of(&out)
}

#[test]
fn a_server_stays_until_it_has_said_that_nothing_is_left() {
    let mut pair = after("CREATE TEMP TABLE t (a int)", "CREATE TABLE");
    assert!(server(&mut pair).left.stays());
    run(&mut pair, "SELECT 1", "SELECT 1");
    assert!(server(&mut pair).left.stays());
    run(&mut pair, "DROP TABLE t, u", "DROP TABLE");
    assert!(!server(&mut pair).left.stays());
    assert_eq!(asked(&mut pair), [format!("Q:{COUNT_BELONGINGS}|")]);
    assert_eq!(
        pair.server(&["T:", "D:|\u{1}|||\u{1}1", "C:SELECT 1|", "Z:I"]),
        [""; 0]
    );
    assert!(server(&mut pair).left.stays());
    run(&mut pair, "DROP TABLE v", "DROP TABLE");
    asked(&mut pair);
    assert_eq!(
        pair.server(&["T:", "D:|\u{1}|||\u{1}0", "C:SELECT 1|", "Z:I"]),
        [""; 0]
    );
    assert!(!server(&mut pair).left.has_belongings());
    assert_eq!(asked(&mut pair), [""; 0]);
}

#[test]
fn a_server_that_cannot_say_what_is_left_stays() {
    let mut pair = after("LISTEN a", "LISTEN");
    run(&mut pair, "UNLISTEN *", "UNLISTEN");
    asked(&mut pair);
    let error = error("42501");
    assert_eq!(pair.server(&[&error, "Z:I"]), [""; 0]);
    assert!(server(&mut pair).left.stays());
}

#[test]
fn what_no_query_shows_lasts_until_the_session_is_reset() {
    let mut pair = after("SET SESSION AUTHORIZATION bob", "SET");
    run(&mut pair, "UNLISTEN *", "UNLISTEN");
    assert!(server(&mut pair).left.stays());
    run(&mut pair, "DISCARD ALL", "DISCARD ALL");
    assert!(!server(&mut pair).left.stays());
}

#[test]
fn where_it_may_leak_nothing_is_followed() {
    let mut pair = Pair::new();
    pair.client.session_state = SessionState::Leak;
    run(&mut pair, "LISTEN a", "LISTEN");
    run(&mut pair, "SET search_path = app", "SET");
    assert!(!server(&mut pair).left.stays());
    assert_eq!(asked(&mut pair), [""; 0]);
}

#[test]
fn deallocate_and_execute_know_the_statements_of_the_protocol() {
    let mut pair = Pair::new();
    pair.client(&["P:S 1|SELECT $1|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    let execute = "EXECUTE \"S 1\" (5)";
    assert_eq!(
        pair.client(&[&format!("Q:{execute}|")]),
        ["Q:EXECUTE pgspan_1 (5)|"]
    );
    pair.server(&["T:", "D:", "C:SELECT 1|", "Z:I"]);
    assert_eq!(
        pair.client(&["Q:DEALLOCATE PREPARE \"S 1\";|"]),
        ["Q:DEALLOCATE PREPARE pgspan_1;|"]
    );
    // Until it is known how that ends, nothing is known of the name.
    assert_eq!(pair.client(&["P:S 1|SELECT 2|||", "S:"]), ["H:"]);
    pair.server(&["C:DEALLOCATE|", "Z:I"]);
    assert_eq!(pair.sent(), ["P:pgspan_2|SELECT 2|||", "S:"]);
    assert_eq!(pair.server(&["1:", "Z:I"]), ["1:", "Z:I"]);
    assert_eq!(pair.client.statements.len(), 1);
}

#[test]
fn a_server_that_lacks_the_statement_gets_it_in_a_group_of_its_own() {
    let mut pair = Pair::new();
    pair.client(&["P:s|SELECT 1|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    pair.unlink();
    pair.link(ServerSession::new(Rc::clone(&pair.client.parameters)));
    assert_eq!(
        pair.client(&["Q:DEALLOCATE s|"]),
        ["P:pgspan_1|SELECT 1|||", "S:", "Q:DEALLOCATE pgspan_1|"]
    );
    let reply = ["1:", "Z:I", "C:DEALLOCATE|", "Z:I"];
    assert_eq!(pair.server(&reply), ["C:DEALLOCATE|", "Z:I"]);
    assert!(pair.client.statements.is_empty() && pair.is_releasable());
}

#[test]
fn a_deallocate_over_the_extended_protocol_frees_the_name_when_it_is_done() {
    let mut pair = Pair::new();
    pair.client(&["P:s|SELECT 1|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    let sent = pair.client(&["P:|DEALLOCATE s|||", "B:|||||||", "E:|||||", "S:"]);
    assert_eq!(sent[0], "P:|DEALLOCATE pgspan_1|||");
    assert_eq!(pair.client.statements.len(), 1);
    pair.server(&["1:", "2:", "C:DEALLOCATE|", "Z:I"]);
    assert!(pair.client.statements.is_empty());
}

#[test]
fn a_refused_listen_fails_as_any_other_command_does() {
    let mut pair = Pair::new();
    pair.client.listen = ListenMode::Refuse;
    let refused = "E:SERROR|VERROR|C0A000|MLISTEN is refused in transaction pooling (listen_in_transaction_mode)||";
    let sent = pair.client(&["Q:SELECT 1; LISTEN a|"]);
    assert!(
        sent[0].starts_with("Q:pgspan: LISTEN is refused"),
        "{sent:?}"
    );
    assert_eq!(pair.server(&[&error("42601"), "Z:I"]), [refused, "Z:I"]);
    assert_eq!(pair.client(&["Q:NOTIFY a|"]), ["Q:NOTIFY a|"]);
    pair.server(&["C:NOTIFY|", "Z:I"]);
    pair.client(&["P:|LISTEN a|||", "S:"]);
    assert_eq!(pair.received(), [refused, "Z:I"]);
}
