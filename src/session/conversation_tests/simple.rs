//! The simple protocol.

use super::*;

#[test]
fn a_query_and_its_reply_pass_as_they_are() {
    let mut pair = Pair::new();
    assert_eq!(pair.client(&["Q:SELECT 1|"]), ["Q:SELECT 1|"]);
    assert!(!pair.is_releasable());
    let reply = ["T:columns", "D:row", "C:SELECT 1|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn a_transaction_holds_its_server() {
    let mut pair = Pair::new();
    for (sent, status, is_releasable) in [
        ("Q:BEGIN|", "Z:T", false),
        ("Q:SELECT x|", "Z:E", false),
        ("Q:ROLLBACK|", "Z:I", true),
    ] {
        pair.client(&[sent]);
        pair.server(&["C:DONE|", status]);
        assert_eq!(pair.is_releasable(), is_releasable, "{sent}");
    }
}

#[test]
fn every_statement_of_a_text_has_its_reply() {
    let mut pair = Pair::new();
    pair.client(&["Q:SELECT 1; UPDATE t SET a = 1|"]);
    let reply = ["T:columns", "D:row", "C:SELECT 1|", "C:UPDATE 7|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert_eq!(pair.records()[0].rows, 8);
}

#[test]
fn an_empty_query_has_its_own_reply() {
    let mut pair = Pair::new();
    assert_eq!(pair.client(&["Q: ;|"]), ["Q: ;|"]);
    assert_eq!(pair.server(&["I:", "Z:I"]), ["I:", "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn an_error_ends_a_query() {
    let mut pair = Pair::new();
    pair.client(&["Q:SELECT 1; SELECT 1/0; SELECT 3|"]);
    let error = error("22012");
    let reply = ["T:columns", "D:row", "C:SELECT 1|", &error, "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn pipelined_queries_are_answered_in_turn() {
    let mut pair = Pair::new();
    pair.client(&["Q:SELECT 1|", "Q:SELECT 2|"]);
    pair.server(&["C:SELECT 1|", "Z:I"]);
    assert!(!pair.is_releasable());
    pair.server(&["C:SELECT 1|", "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn ready_for_query_alone_answers_no_query() {
    let mut pair = Pair::new();
    pair.client(&["Q:SELECT 1|"]);
    assert_eq!(
        pair.server_bytes(&bytes_of(&["Z:I"])),
        Err(Violation::ServerUnexpected(b'Z'))
    );
}

#[test]
fn what_the_server_says_of_its_own_accord_passes_at_any_time() {
    let mut pair = Pair::new();
    let notice = "N:SNOTICE|VNOTICE|C00000|Mhello||";
    let asynchronous = ["A:\u{0}channel|", "S:in_hot_standby|on|", notice];
    assert_eq!(
        pair.server(&asynchronous),
        texts_of(&bytes_of(&asynchronous))
    );
    pair.client(&["Q:SELECT 1|"]);
    assert_eq!(
        pair.server(&asynchronous),
        texts_of(&bytes_of(&asynchronous))
    );
    pair.server(&["T:columns", "D:row"]);
    assert_eq!(
        pair.server(&asynchronous),
        texts_of(&bytes_of(&asynchronous))
    );
    pair.server(&["C:SELECT 1|", "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn the_server_may_end_the_session_at_any_time() {
    let mut pair = Pair::new();
    let fatal = "E:SFATAL|VFATAL|C57P01|Mterminating||";
    let server = pair.server.as_mut().unwrap();
    let mut judge = Replies::new(&mut pair.client, server, pair.now);
    let mut out = Outbound::new();
    Forwarder::new()
        .advance(&bytes_of(&[fatal]), &mut judge, &mut out)
        .unwrap();
    assert_eq!(
        judge.fatal().map(|state| state.to_string()).as_deref(),
        Some("57P01")
    );
    assert_eq!(out.len(), bytes_of(&[fatal]).len());
}

#[test]
fn a_function_call_is_a_request_of_its_own() {
    let mut pair = Pair::new();
    assert_eq!(pair.client(&["F:call"]), ["F:call"]);
    assert!(!pair.is_releasable());
    assert_eq!(pair.server(&["V:result", "Z:I"]), ["V:result", "Z:I"]);
    assert!(pair.is_releasable());
    assert_eq!(pair.records()[0].kind, QueryKind::FunctionCall);
    pair.client(&["F:call"]);
    pair.server(&[&error("42883"), "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn parameters_are_restored_ahead_of_the_query_and_nobody_hears_of_it() {
    let mut pair = Pair::new();
    pair.server = Some(ServerSession::new(Rc::new(parameters(&[(
        "TimeZone", "GMT",
    )]))));
    assert_eq!(
        pair.client(&["Q:SELECT 1|"]),
        [
            "Q:SELECT pg_catalog.set_config('TimeZone', 'UTC', false)|",
            "Q:SELECT 1|"
        ]
    );
    assert_eq!(
        pair.server(&[
            "T:columns",
            "D:row",
            "C:SELECT 1|",
            "S:TimeZone|UTC|",
            "Z:I"
        ]),
        [""; 0]
    );
    assert!(!pair.is_releasable());
    assert_eq!(pair.server(&["C:SELECT 1|", "Z:I"]), ["C:SELECT 1|", "Z:I"]);
    assert!(pair.is_releasable());
    assert_eq!(pair.records().len(), 1);
    // Now it is as the client wants it.
    let server = pair.unlink();
    assert_eq!(pair.link(server), [""; 0]);
}

#[test]
fn a_server_that_refuses_the_parameters_is_of_no_use() {
    let mut pair = Pair::new();
    pair.server = Some(ServerSession::new(Rc::new(parameters(&[(
        "TimeZone", "GMT",
    )]))));
    pair.client(&["Q:SELECT 1|"]);
    let refused = pair.server_bytes(&bytes_of(&[&error("22023")]));
    assert!(matches!(
        refused,
        Err(Violation::ServerRefusedParameters(_))
    ));
}

#[test]
fn a_parameter_that_the_client_changes_follows_it() {
    let mut pair = Pair::new();
    pair.client(&["Q:SET TimeZone = 'GMT'|"]);
    let reply = ["C:SET|", "S:TimeZone|GMT|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    pair.unlink();
    let other = ServerSession::new(Rc::new(parameters(&[("TimeZone", "UTC")])));
    pair.link(other);
    assert_eq!(
        pair.client(&["Q:SELECT 1|"]),
        ["Q:SELECT 1|"],
        "the change went ahead when it was linked"
    );
}

#[test]
fn a_command_in_the_middle_of_a_text_is_answered_in_its_place() {
    let mut pair = Pair::new();
    assert_eq!(
        pair.client(&["Q:SELECT 1; SET pgspan.correlation_id = 'a'; SELECT 2|"]),
        ["Q:SELECT 1;  SELECT 2 /*correlation_id='a'*/|"]
    );
    assert_eq!(
        pair.server(&[
            "T:one",
            "D:1",
            "C:SELECT 1|",
            "T:two",
            "D:2",
            "C:SELECT 1|",
            "Z:I"
        ]),
        [
            "T:one",
            "D:1",
            "C:SELECT 1|",
            "C:SET|",
            "T:two",
            "D:2",
            "C:SELECT 1|",
            "Z:I"
        ]
    );
}

#[test]
fn a_command_at_either_end_of_a_text_is_answered_in_its_place() {
    let mut pair = Pair::new();
    pair.client(&["Q:SET pgspan.correlation_id = 'a'; SELECT 2|"]);
    assert_eq!(
        pair.server(&["T:two", "C:SELECT 1|", "Z:I"]),
        ["C:SET|", "T:two", "C:SELECT 1|", "Z:I"]
    );
    pair.client(&["Q:SELECT 2; RESET pgspan.correlation_id|"]);
    assert_eq!(
        pair.server(&["T:two", "C:SELECT 1|", "Z:I"]),
        ["T:two", "C:SELECT 1|", "C:RESET|", "Z:I"]
    );
}

#[test]
fn nothing_of_a_text_with_a_syntax_error_is_answered() {
    let mut pair = Pair::new();
    pair.client(&["Q:SET pgspan.correlation_id = 'zzz'; SELEC 2|"]);
    let reply = [error("42601"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    pair.client(&["Q:SHOW pgspan.correlation_id|"]);
    assert!(!pair.received().concat().contains("zzz"), "it was undone");
}

#[test]
fn a_command_behind_a_failed_statement_is_not_answered() {
    let mut pair = Pair::new();
    pair.client(&["Q:SELECT 1/0; SET pgspan.correlation_id = 'a'; SELECT 2|"]);
    let reply = [error("22012"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
}

#[test]
fn a_command_alone_needs_no_server_and_waits_for_its_turn() {
    let mut pair = Pair::new();
    let server = pair.server.take();
    assert_eq!(
        pair.client(&["Q:SET pgspan.correlation_id = 'a'|"]),
        [""; 0]
    );
    assert_eq!(pair.received(), ["C:SET|", "Z:I"]);
    pair.server = server;
    assert_eq!(
        pair.client(&[
            "Q:BEGIN|",
            "Q:SET pgspan.correlation_id = 'b'|",
            "Q:SELECT 1|"
        ]),
        ["Q:BEGIN|", "Q:SELECT 1 /*correlation_id='b'*/|"]
    );
    assert_eq!(pair.received(), [""; 0]);
    assert_eq!(
        pair.server(&["C:BEGIN|", "Z:T", "C:SELECT 1|", "Z:T"]),
        ["C:BEGIN|", "Z:T", "C:SET|", "Z:T", "C:SELECT 1|", "Z:T"]
    );
}

#[test]
fn a_position_in_the_edited_text_becomes_one_in_the_clients() {
    let mut pair = Pair::new();
    pair.client(&["Q:SET pgspan.correlation_id = 'a'|"]);
    pair.received();
    assert_eq!(
        pair.client(&["Q:SELECT 1; SELECT x|"]),
        ["Q:SELECT 1 /*correlation_id='a'*/; SELECT x /*correlation_id='a'*/|"]
    );
    let at = |position: u32| format!("E:SERROR|VERROR|C42703|Mno x|P{position}||");
    // x is the 18th character for the client, 23 of comment later for the server.
    assert_eq!(pair.server(&[&at(41), "Z:I"]), [at(18), "Z:I".into()]);
}

#[test]
fn a_query_longer_than_the_limit_streams() {
    let mut pair = Pair::new();
    let query = format!("Q:SELECT '{}'|", "x".repeat(9000));
    let bytes = bytes_of(&[&query]);
    let (first, second) = bytes.split_at(2000);
    pair.client_bytes(first).unwrap();
    assert_eq!(std::mem::take(&mut pair.to_server), first);
    assert!(pair.requests.is_mid_message());
    pair.client_bytes(second).unwrap();
    assert_eq!(std::mem::take(&mut pair.to_server), second);
    assert!(!pair.requests.is_mid_message());
}

#[test]
fn a_sync_without_a_server_needs_none() {
    let mut pair = Pair::new();
    pair.server = None;
    assert_eq!(pair.client(&["S:", "H:", "c:"]), [""; 0]);
    assert_eq!(pair.received(), ["Z:I"]);
    assert_eq!(pair.pause, None);
}
