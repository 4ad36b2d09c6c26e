//! Prepared statements over servers that change.

use super::*;

fn prepared(name: &str, text: &str) -> Pair {
    let mut pair = Pair::new();
    prepare(&mut pair, name, text);
    pair
}

fn prepare(pair: &mut Pair, name: &str, text: &str) {
    pair.client(&[&format!("P:{name}|{text}|||"), "S:"]);
    assert_eq!(pair.server(&["1:", "Z:I"]), ["1:", "Z:I"]);
}

fn moved(pair: &mut Pair) {
    pair.unlink();
    let other = ServerSession::new(Rc::clone(&pair.client.parameters));
    assert_eq!(pair.link(other), [""; 0]);
}

#[test]
fn a_server_that_lacks_the_statement_gets_it_first_and_nobody_hears_of_it() {
    for (use_of_it, use_sent, reply) in [
        ("B:|s||||||", "B:|pgspan_1||||||", "2:"),
        ("D:Ss|", "D:Spgspan_1|", "n:"),
    ] {
        let mut pair = prepared("s", "SELECT 1");
        moved(&mut pair);
        assert_eq!(
            pair.client(&[use_of_it, "S:"]),
            ["P:pgspan_1|SELECT 1|||", use_sent, "S:"]
        );
        assert_eq!(pair.server(&["1:", reply, "Z:I"]), [reply, "Z:I"]);
        assert!(pair.is_releasable());
        assert_eq!(pair.client(&[use_of_it, "S:"]), [use_sent, "S:"]);
    }
}

#[test]
fn a_notice_of_a_parse_that_nobody_asked_for_stays_here() {
    let mut pair = prepared("s", "SELECT 1");
    moved(&mut pair);
    pair.client(&["B:|s||||||", "S:"]);
    let notice = "N:SNOTICE|VNOTICE|C00000|Mhello||";
    assert_eq!(pair.server(&[notice, "1:", "2:", "Z:I"]), ["2:", "Z:I"]);
}

#[test]
fn an_error_of_a_parse_that_nobody_asked_for_is_the_clients() {
    let mut pair = prepared("s", "SELECT a FROM t");
    moved(&mut pair);
    pair.client(&["B:|s||||||", "E:|||||", "S:"]);
    let reply = [error("42P01"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert!(pair.is_releasable());
    assert_eq!(
        pair.client.statements.len(),
        1,
        "the client's name is not lost over it"
    );
    assert_eq!(
        pair.client(&["B:|s||||||", "S:"]),
        ["P:pgspan_1|SELECT a FROM t|||", "B:|pgspan_1||||||", "S:"]
    );
}

#[test]
fn a_statement_that_the_server_has_is_not_parsed_again() {
    let mut pair = prepared("a", "SELECT 1");
    assert_eq!(
        pair.client(&["P:b|SELECT 1|||", "B:|b||||||", "S:"]),
        ["B:|pgspan_1||||||", "S:"]
    );
    assert_eq!(pair.received(), ["1:"]);
    assert_eq!(pair.server(&["2:", "Z:I"]), ["2:", "Z:I"]);
    // Behind something else its answer waits.
    pair.client(&["B:|a||||||", "P:c|SELECT 1|||", "S:"]);
    assert_eq!(pair.received(), [""; 0]);
    assert_eq!(pair.server(&["2:", "Z:I"]), ["2:", "1:", "Z:I"]);
}

#[test]
fn a_name_that_is_taken_is_the_servers_to_refuse() {
    let mut pair = prepared("s", "SELECT 1");
    assert_eq!(
        pair.client(&["P:s|SELECT 2|||", "S:"]),
        ["P:pgspan_1|SELECT 2|||", "S:"]
    );
    let reply = [error("42P05"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert_eq!(
        pair.client(&["B:|s||||||", "S:"]),
        ["B:|pgspan_1||||||", "S:"]
    );
}

#[test]
fn the_least_recently_used_is_closed_for_another() {
    let mut pair = Pair::with(PoolMode::Transaction, 2);
    prepare(&mut pair, "a", "SELECT 'a'");
    prepare(&mut pair, "b", "SELECT 'b'");
    pair.client(&["B:|a||||||", "S:"]);
    pair.server(&["2:", "Z:I"]);
    assert_eq!(
        pair.client(&["P:c|SELECT 'c'|||", "S:"]),
        ["C:Spgspan_2|", "P:pgspan_3|SELECT 'c'|||", "S:"]
    );
    assert_eq!(pair.server(&["3:", "1:", "Z:I"]), ["1:", "Z:I"]);
    // b is prepared again when it is needed.
    assert_eq!(
        pair.client(&["B:|b||||||", "S:"]),
        [
            "C:Spgspan_1|",
            "P:pgspan_2|SELECT 'b'|||",
            "B:|pgspan_2||||||",
            "S:"
        ]
    );
    assert_eq!(pair.server(&["3:", "1:", "2:", "Z:I"]), ["2:", "Z:I"]);
}

#[test]
fn a_close_is_answered_here_in_its_turn() {
    let mut pair = prepared("s", "SELECT 1");
    assert_eq!(pair.client(&["C:Ss|", "S:"]), ["S:"]);
    assert_eq!(pair.received(), ["3:"]);
    pair.server(&["Z:I"]);
    pair.client(&["P:t|SELECT 1|||", "B:|t||||||", "C:St|", "C:Snobody|", "S:"]);
    assert_eq!(pair.received(), ["1:"]);
    assert_eq!(pair.server(&["2:", "Z:I"]), ["2:", "3:", "3:", "Z:I"]);
    assert!(pair.client.statements.is_empty());
    // Portals and the unnamed statement are the server's to close.
    assert_eq!(
        pair.client(&["C:Pp|", "C:S|", "S:"]),
        ["C:Pp|", "C:S|", "S:"]
    );
}

#[test]
fn a_name_of_the_proxys_reaches_nobody_elses_statement() {
    let mut pair = prepared("s", "SELECT 'secret'");
    assert_eq!(
        pair.client(&["B:p|pgspan_1||||||", "D:Spgspan_1|", "C:Spgspan_1|", "S:"]),
        ["B:p|_pgspan_1||||||", "D:S_pgspan_1|", "S:"]
    );
    let reply = [error("26000"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    // The client may have such a name itself.
    assert_eq!(
        pair.client(&["P:pgspan_1|SELECT 2|||", "B:|pgspan_1||||||", "S:"]),
        ["P:pgspan_2|SELECT 2|||", "B:|pgspan_2||||||", "S:"]
    );
}

#[test]
fn discard_all_forgets_the_statements_of_both() {
    for text in ["DISCARD ALL", "deallocate all"] {
        let mut pair = prepared("s", "SELECT 1");
        pair.client(&[&format!("Q:{text}|")]);
        let tag = format!("C:{}|", text.to_uppercase());
        pair.server(&[&tag, "Z:I"]);
        assert!(pair.client.statements.is_empty());
        assert_eq!(
            pair.client(&["P:s|SELECT 1|||", "S:"]),
            ["P:pgspan_2|SELECT 1|||", "S:"]
        );
    }
}

#[test]
fn a_statement_prepared_right_behind_discard_all_is_prepared() {
    // Known to the client and to the server, when the message is judged; to neither, when the server comes to it.
    let mut pair = prepared("s", "SELECT 1");
    assert_eq!(
        pair.client(&["Q:DISCARD ALL|", "P:s|SELECT 1|||", "B:|s||||||", "S:"]),
        ["Q:DISCARD ALL|", "H:"]
    );
    assert_eq!(
        pair.server(&["C:DISCARD ALL|", "Z:I"]),
        ["C:DISCARD ALL|", "Z:I"]
    );
    assert_eq!(
        pair.sent(),
        ["P:pgspan_2|SELECT 1|||", "B:|pgspan_2||||||", "S:"]
    );
    pair.server(&["1:", "2:", "Z:I"]);
    assert_eq!(
        pair.client(&["B:|s||||||", "S:"]),
        ["B:|pgspan_2||||||", "S:"]
    );
}

#[test]
fn a_statement_prepared_behind_an_executed_discard_all_is_kept() {
    let mut pair = Pair::new();
    pair.client(&[
        "P:|DISCARD ALL|||",
        "B:||||||||",
        "E:|||||",
        "S:",
        "P:s|SELECT 1|||",
        "S:",
    ]);
    pair.server(&["1:", "2:", "C:DISCARD ALL|", "Z:I", "1:", "Z:I"]);
    assert_eq!(
        pair.client(&["B:|s||||||", "S:"]),
        ["B:|pgspan_1||||||", "S:"]
    );
}

#[test]
fn an_enormous_text_cannot_be_asked_for_again_and_again_by_short_messages() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    let (a, b) = ("a".repeat(400_000), "b".repeat(400_000));
    prepare(&mut pair, "a", &a);
    pair.client(&[&format!("P:b|{b}|||"), "S:"]);
    pair.server(&["3:", "1:", "Z:I"]);
    pair.client(&[["B:|a||||||", "B:|b||||||"]; 50].concat());
    assert_eq!(pair.pause, Some(Pause::Throttled));
    assert!(pair.to_server.len() < 2 << 20, "{}", pair.to_server.len());
}

#[test]
fn a_statement_that_the_server_has_is_refused_in_a_failed_transaction_by_the_server() {
    let mut pair = Pair::new();
    pair.client(&["P:a|SELECT 1|||", "P:r|ROLLBACK|||", "S:"]);
    pair.server(&["1:", "1:", "Z:I"]);
    pair.client(&["Q:BEGIN|"]);
    pair.server(&["C:BEGIN|", "Z:T"]);
    pair.client(&["Q:SELECT x|"]);
    let failed = error("42703");
    pair.server(&[&*failed, "Z:E"]);
    // What ends the transaction may be parsed, and is there already.
    assert_eq!(pair.client(&["P:q|ROLLBACK|||", "S:"]), ["S:"]);
    assert_eq!(pair.server(&["Z:E"]), ["1:", "Z:E"]);
    assert_eq!(
        pair.client(&["P:b|SELECT 1|||", "S:"]),
        ["P:pgspan_1|SELECT 1|||", "S:"]
    );
    let refused = error("25P02");
    assert_eq!(pair.server(&[&*refused, "Z:E"]), [&*refused, "Z:E"]);
    pair.client(&["Q:ROLLBACK|"]);
    pair.server(&["C:ROLLBACK|", "Z:I"]);
    // The client's name is free, and the server still has the statement.
    assert_eq!(pair.client(&["P:b|SELECT 1|||", "S:"]), ["S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["1:", "Z:I"]);
}

fn changed() -> String {
    "E:SERROR|VERROR|C0A000|Mcached plan must not change result type|RRevalidateCachedQuery||"
        .into()
}

#[test]
fn a_text_whose_result_has_changed_is_parsed_anew_for_who_prepares_it_again() {
    let mut pair = prepared("s", "SELECT * FROM t");
    pair.client(&["B:|s||||||", "E:|||||", "S:"]);
    let changed = changed();
    assert_eq!(pair.server(&[&changed, "Z:I"]), [&*changed, "Z:I"]);
    let sent = pair.client(&["C:Ss|", "P:s|SELECT * FROM t|||", "B:|s||||||", "S:"]);
    assert_eq!(
        sent,
        ["P:pgspan_2|SELECT * FROM t|||", "B:|pgspan_2||||||", "S:"]
    );
}

#[test]
fn who_does_not_prepare_it_again_is_told_so_on_every_server() {
    let mut pair = prepared("s", "SELECT * FROM t");
    pair.client(&["B:|s||||||", "E:|||||", "S:"]);
    pair.server(&[&changed(), "Z:I"]);
    moved(&mut pair);
    assert_eq!(pair.client(&["B:|s||||||", "E:|||||", "S:"]), [""; 0]);
    let refused = "E:SERROR|VERROR|C0A000|Mcached plan must not change result type||";
    assert_eq!(pair.received(), [refused, "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn a_name_that_is_taken_waits_until_it_is_known_whether_its_statement_was_evicted() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    prepare(&mut pair, "s", "SELECT 1");
    pair.client(&["P:t|SELECT 2|||", "H:"]);
    assert_eq!(pair.server(&["3:", "1:"]), ["1:"]);
    pair.client(&["E:|||||", "D:Ss|", "S:"]);
    assert_eq!(pair.client(&["P:t|SELECT 3|||", "S:"]), ["H:"]);
    let error = error("34000");
    assert_eq!(pair.server(&[&error, "Z:I"]), [&*error, "Z:I"]);
    assert_eq!(pair.sent(), ["P:pgspan_2|SELECT 3|||", "S:"]);
}

#[test]
fn a_name_that_is_taken_is_refused_by_what_the_settings_make_of_it_now() {
    let mut pair = prepared("a", "SELECT 1");
    pair.client(&["Q:SET TimeZone = 'Asia/Tokyo'|"]);
    pair.server(&["S:TimeZone|Asia/Tokyo|", "C:SET|", "Z:I"]);
    let other = another(&pair);
    pair.unlink();
    pair.link(other);
    assert_eq!(
        pair.client(&["P:a|SELECT 2|||", "S:"]),
        ["P:pgspan_3|SELECT 1|||", "P:pgspan_3|SELECT 2|||", "S:"]
    );
    let reply = [error("42P05"), "Z:I".into()];
    assert_eq!(pair.server(&["1:", &reply[0], &reply[1]]), reply);
}

/// A server like the client's own that has nothing yet.
fn another(pair: &Pair) -> ServerSession {
    ServerSession::new(Rc::clone(&pair.client.parameters))
}

#[test]
fn a_text_is_shared_only_where_the_settings_make_it_mean_the_same() {
    let mut pair = prepared("a", "SELECT '2020-01-01'::timestamptz");
    let set = ["Q:SET TimeZone = 'Asia/Tokyo'|"];
    pair.client(&set);
    pair.server(&["S:TimeZone|Asia/Tokyo|", "C:SET|", "Z:I"]);
    assert_eq!(
        pair.client(&["P:b|SELECT '2020-01-01'::timestamptz|||", "S:"])[0],
        "P:pgspan_2|SELECT '2020-01-01'::timestamptz|||"
    );
    pair.server(&["1:", "Z:I"]);
    // What is prepared stays what it is, where it is.
    assert_eq!(pair.client(&["B:|a||||||", "S:"])[0], "B:|pgspan_1||||||");
    pair.server(&["2:", "Z:I"]);
    // Elsewhere it would become what the settings make of it now, and so it is this.
    let other = another(&pair);
    pair.unlink();
    pair.link(other);
    assert_eq!(
        pair.client(&["B:|a||||||", "S:"]),
        [
            "P:pgspan_2|SELECT '2020-01-01'::timestamptz|||",
            "B:|pgspan_2||||||",
            "S:"
        ]
    );
    pair.server(&["1:", "2:", "Z:I"]);
    assert_eq!(
        pair.client(&["D:Sa|", "B:|b||||||", "S:"]),
        ["D:Spgspan_2|", "B:|pgspan_2||||||", "S:"]
    );
}

#[test]
fn what_is_prepared_while_the_settings_are_not_known_is_nobody_elses() {
    let parse = ["P:b|SELECT * FROM t|||", "S:"];
    for (behind, is_shared) in [
        (&["Q:BEGIN|", "Q:SET LOCAL search_path = a|"][..], false),
        (&["Q:BEGIN|", "Q:SET LOCAL statement_timeout = '5s'|"], true),
    ] {
        let mut pair = prepared("a", "SELECT * FROM t");
        for query in behind {
            pair.client(&[query]);
            let tag = if *query == "Q:BEGIN|" {
                "C:BEGIN|"
            } else {
                "C:SET|"
            };
            pair.server(&[tag, "Z:T"]);
        }
        let sent = pair.client(&parse);
        let expected = match is_shared {
            true => &["S:"][..],
            false => &["P:pgspan_2|SELECT * FROM t|||", "S:"],
        };
        assert_eq!(sent, expected, "{behind:?}");
        let reply = if is_shared {
            &["Z:T"][..]
        } else {
            &["1:", "Z:T"]
        };
        pair.server(reply);
        // With the transaction it is over.
        pair.client(&["Q:COMMIT|"]);
        pair.server(&["C:COMMIT|", "Z:I"]);
        assert_eq!(pair.client(&["P:c|SELECT * FROM t|||", "S:"]), ["S:"]);
    }
    // Nobody knows yet what becomes of what is on its way.
    let mut pair = prepared("a", "SELECT * FROM t");
    pair.client(&["Q:SET TimeZone = 'Asia/Tokyo'|"]);
    assert_eq!(pair.client(&parse)[0], "P:pgspan_2|SELECT * FROM t|||");
}

#[test]
fn a_statement_that_only_other_settings_make_fail_is_no_worse_for_others() {
    let mut pair = prepared("a", "SELECT * FROM t");
    let statement = Rc::clone(pair.client.statement(b"a").unwrap());
    pair.client(&["Q:SET TimeZone = 'Asia/Tokyo'|"]);
    pair.server(&["S:TimeZone|Asia/Tokyo|", "C:SET|", "Z:I"]);
    let changed =
        "E:SERROR|VERROR|C0A000|Mcached plan must not change result type|RRevalidateCachedQuery||";
    pair.client(&["B:|a||||||", "S:"]);
    pair.server(&[changed, "Z:I"]);
    assert!(!statement.is_stale());
    pair.client(&["Q:SET TimeZone = 'UTC'|"]);
    pair.server(&["S:TimeZone|UTC|", "C:SET|", "Z:I"]);
    pair.client(&["B:|a||||||", "S:"]);
    pair.server(&[changed, "Z:I"]);
    assert!(statement.is_stale());
}

#[test]
fn whoever_prepares_a_text_after_a_table_has_changed_gets_another_statement() {
    for (command, tag, has_changed) in [
        ("ALTER TABLE t ADD b int", "ALTER TABLE", true),
        ("DROP TABLE t", "DROP TABLE", true),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "CREATE VIEW", true),
        ("CREATE TABLE u ()", "CREATE TABLE", false),
    ] {
        let mut pair = prepared("a", "SELECT * FROM t");
        pair.client(&[&format!("Q:{command}|")]);
        pair.server(&[&format!("C:{tag}|"), "Z:I"]);
        let server = pair.server.as_mut().unwrap();
        assert_eq!(std::mem::take(&mut server.has_changed_schema), has_changed);
        if has_changed {
            pair.definitions.on_schema_changed();
            let sent = pair.client(&["P:b|SELECT * FROM t|||", "S:"]);
            assert_eq!(sent[0], "P:pgspan_2|SELECT * FROM t|||");
        }
    }
}

#[test]
fn what_is_prepared_beside_a_temporary_table_is_nobody_elses() {
    let mut pair = prepared("a", "SELECT * FROM t");
    pair.client(&["Q:CREATE TEMP TABLE t (a int)|"]);
    pair.server(&["C:CREATE TABLE|", "Z:I"]);
    let sent = pair.client(&["P:b|SELECT * FROM t|||", "S:"]);
    assert_eq!(sent[0], "P:pgspan_2|SELECT * FROM t|||");
    pair.server(&["1:", "Z:I"]);
    pair.client(&["P:c|SELECT * FROM t|||", "S:"]);
    assert_eq!(pair.server(&["1:", "Z:I"]), ["1:", "Z:I"]);
    pair.client(&["B:|b||||||", "B:|c||||||", "S:"]);
}

#[test]
fn a_name_whose_parse_was_skipped_is_free_again_also_where_it_was_used_before_that_was_known() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    // What Execute runs is not known, so nobody else shares what is prepared behind it; and the server keeps one statement only.
    let sent = pair.client(&["E:|||||", "P:a|SELECT 1|||", "P:b|SELECT 1|||", "D:Sa|"]);
    assert_eq!(sent.last().unwrap(), "D:Spgspan_3|", "a was prepared anew");
    pair.client(&["S:"]);
    let failed = [error("34000"), "Z:I".to_owned()];
    assert_eq!(pair.server(&[&failed[0], &failed[1]]), failed);
    assert!(pair.client.statements.is_empty());
}
