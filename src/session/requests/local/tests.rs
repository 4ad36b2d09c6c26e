use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use crate::config::choices::{CommentFormat, Placement, PoolMode, PreparedChannel};
use crate::protocol::backend::ErrorFields;
use crate::protocol::encode;
use crate::protocol::forwarder::Forwarder;
use crate::protocol::frame::FrameHeader;
use crate::protocol::outbound::Outbound;
use crate::session::annotator::AnnotationPolicy;
use crate::session::client_session::ClientSession;
use crate::session::local_statements::LocalStatements;
use crate::session::parameters::ParameterSet;
use crate::session::replies::Replies;
use crate::session::requests::{Pause, RequestPolicy, Requests, Workbench};
use crate::session::server_session::ServerSession;
use crate::session::statements::Definitions;
use crate::session::trace::{SessionTrace, TracePolicy, TraceRules};

const FIRST: &str = "00-11111111111111111111111111111111-1111111111111111-01";
const SET_FIRST: &str =
    "SET pgspan.traceparent = '00-11111111111111111111111111111111-1111111111111111-01'";
const SET_SECOND: &str =
    "SET pgspan.traceparent = '00-22222222222222222222222222222222-2222222222222222-01'";

#[test]
fn a_set_of_the_trace_is_answered_without_a_server() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[
        parse("", SET_FIRST),
        bind("", ""),
        describe_portal(""),
        execute(""),
        sync(),
    ]);
    assert_eq!(said, ["1", "2", "n", "C SET", "Z I"]);
    assert!(talk.server.is_none());
    assert_eq!(talk.trace_id(), "1".repeat(32));
    // Nothing is left of it but what the unnamed statement needs.
    talk.client(&[parse("", "SELECT 1"), sync()]);
    assert!(talk.session.local.is_none());
}

#[test]
fn a_named_command_is_described_and_executed_again_and_again() {
    let mut talk = Talk::new(PoolMode::Session);
    talk.client(&[parse("", SET_FIRST), bind("", ""), execute(""), sync()]);
    let said = talk.client(&[
        parse("s1", "SHOW pgspan.traceparent"),
        describe("s1"),
        sync(),
    ]);
    assert_eq!(said, ["1", "t 0", "T pgspan.traceparent 0", "Z I"]);
    for _ in 0..2 {
        let said = talk.client(&[bind("", "s1"), execute(""), sync()]);
        assert_eq!(said, ["2", &format!("D {FIRST}"), "C SHOW", "Z I"]);
    }
    assert_eq!(talk.client(&[close("s1"), sync()]), ["3", "Z I"]);
    assert!(talk.server.is_none());
}

#[test]
fn the_value_of_set_config_can_be_a_parameter() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let set = "SELECT set_config('pgspan.traceparent', $1, false)";
    let said = talk.client(&[parse("s1", set), describe("s1"), sync()]);
    assert_eq!(said, ["1", "t 1 25", "T set_config 0", "Z I"]);
    let bound = bind_values("", "s1", &[Some(FIRST)], &[1]);
    let said = talk.client(&[bound, describe_portal(""), execute(""), sync()]);
    assert_eq!(
        said,
        [
            "2",
            "T set_config 1",
            &format!("D {FIRST}"),
            "C SELECT 1",
            "Z I"
        ]
    );
    assert_eq!(talk.trace_id(), "1".repeat(32));
    talk.client(&[bind_values("", "s1", &[None], &[]), execute(""), sync()]);
    assert_eq!(talk.trace_id(), "");
    assert!(talk.server.is_none());
}

#[test]
fn the_scope_of_set_config_can_be_a_parameter_too() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let set = "SELECT set_config('pgspan.traceparent', $2::text, $1) AS done";
    let said = talk.client(&[parse("s1", set), describe("s1"), sync()]);
    assert_eq!(said, ["1", "t 2 16 25", "T done 0", "Z I"]);
    for (local, formats, is_kept) in [
        ("f", &[][..], true),
        ("\0", &[1], true),
        ("off", &[0], true),
        ("true", &[], false),
        ("\u{1}", &[1, 0], false),
    ] {
        let bound = bind_formats("", "s1", &[Some(local), Some(FIRST)], formats);
        let said = talk.client(&[bound, execute(""), sync()]);
        assert_eq!(said, ["2", &format!("D {FIRST}"), "C SELECT 1", "Z I"]);
        let expected = if is_kept {
            "1".repeat(32)
        } else {
            String::new()
        };
        assert_eq!(talk.trace_id(), expected, "{local:?}");
        talk.client(&[
            parse("", "RESET pgspan.traceparent"),
            bind("", ""),
            execute(""),
            sync(),
        ]);
    }
    let bound = bind_formats("", "s1", &[Some("maybe"), None], &[]);
    let said = talk.client(&[bound, execute(""), sync()]);
    assert_eq!(
        said,
        [
            "E 22P02 invalid input syntax for type boolean: \"maybe\"",
            "Z I"
        ]
    );
    assert!(talk.server.is_none());
}

#[test]
fn a_command_behind_a_group_that_may_fail_waits_to_see_whether_it_did() {
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.begin();
    let failing = [parse("", "SELECT nosuch"), sync()];
    let set = [parse("", SET_FIRST), bind("", ""), execute(""), sync()];
    let said = talk.client(&[&failing[..], &set[..]].concat());
    assert_eq!(said, [""; 0]);
    let refused =
        "E 25P02 current transaction is aborted, commands ignored until end of transaction block";
    let said = talk.server_says(&[ERROR, b"Z\0\0\0\x05E"].concat());
    assert_eq!(said, ["E 42703 no such column", "Z E", refused, "Z E"]);
    assert_eq!(talk.trace_id(), "");
}

#[test]
fn several_fields_are_set_with_parameters() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let set =
        "SELECT set_config('pgspan.route', $1, false), set_config('pgspan.traceparent', $3, $2)";
    let said = talk.client(&[parse("s1", set), describe("s1"), sync()]);
    assert_eq!(said, ["1", "t 3 25 16 25", "T set_config 0", "Z I"]);
    let values = [Some("/a"), Some("no"), Some(FIRST)];
    talk.client(&[bind_values("", "s1", &values, &[1, 0]), execute(""), sync()]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    assert_eq!(talk.session.trace.context().0.tag("route"), Some("/a"));
    assert!(talk.server.is_none());
}

#[test]
fn the_name_may_be_a_parameter_too_and_tells_whose_command_it_is() {
    // As SQLAlchemy writes func.set_config() over psycopg 3.
    let set = "SELECT set_config($1::VARCHAR, $2::VARCHAR, $3) AS set_config_1";
    let ours = [Some("pgspan.traceparent"), Some(FIRST), Some("f")];
    let servers = [Some("work_mem"), Some("64MB"), Some("f")];
    for name in ["", "s1"] {
        let mut talk = Talk::new(PoolMode::Transaction);
        let mut both = vec![parse(name, set)];
        both.extend([bind_values("", name, &ours, &[]), describe_portal("")]);
        both.extend([execute(""), sync()]);
        // The server has the statement: it is to say so first.
        assert_eq!(talk.client(&both), [""; 0]);
        let said = talk.server_says(b"1\0\0\0\x04Z\0\0\0\x05I");
        let done = ["T set_config_1 0", &format!("D {FIRST}"), "C SELECT 1"];
        assert_eq!(said, [&["1", "2"][..], &done[..], &["Z I"]].concat());
        assert_eq!(talk.trace_id(), "1".repeat(32));
        assert!(talk.server.as_ref().unwrap().is_releasable());
        assert_eq!(talk.take_sent().len(), 2);

        let asked = [bind_values("", name, &servers, &[]), execute(""), sync()];
        assert_eq!(talk.client(&asked), [""; 0]);
        assert_eq!(talk.take_sent().len(), 3, "the server is asked");
    }
}

#[test]
fn values_tell_also_where_they_are_binary_or_missing() {
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.client(&[
        parse("set", "SELECT pg_catalog.set_config($3, $1, $2)"),
        parse("name", "SELECT set_config('application_name', $1, false)"),
        parse("get", "select current_setting($2, $1)"),
        sync(),
    ]);
    let parsed = b"1\0\0\0\x04";
    talk.server_says(&[&parsed[..], parsed, parsed, b"Z\0\0\0\x05I"].concat());
    talk.take_sent();
    let set = |local, value| {
        let values = [value, Some(local), Some("PGSPAN.Traceparent")];
        [
            bind_formats("", "set", &values, &[1, 1, 1]),
            execute(""),
            sync(),
        ]
    };
    assert_eq!(talk.client(&set("\0", Some(FIRST))).len(), 4);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    let get = [Some("\u{1}"), Some("pgspan.traceparent")];
    let said = talk.client(&[bind_formats("", "get", &get, &[1, 0]), execute(""), sync()]);
    assert_eq!(said, ["2", &format!("D {FIRST}"), "C SELECT 1", "Z I"]);
    talk.client(&set("\0", None));
    assert_eq!(talk.trace_id(), "", "NULL is DEFAULT");
    talk.client(&[
        bind_values("", "name", &[Some(FIRST)], &[]),
        execute(""),
        sync(),
    ]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    assert_eq!(talk.take_sent(), [""; 0], "no server was asked");
    // Too few values, and another name.
    for values in [
        &[Some("x"); 2][..],
        &[Some("x"), Some("t"), Some("work_mem")],
    ] {
        talk.client(&[bind_values("", "set", values, &[]), sync()]);
        assert_eq!(talk.take_sent().len(), 2);
    }
}

#[test]
fn a_bound_name_in_a_form_that_is_not_understood_is_the_servers_and_stays_with_nobody() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let set = "SELECT set_config($1, $2, false) FROM generate_series(1, 2)";
    let values = [Some("pgspan.route"), Some("/a")];
    talk.client(&[parse("", set), bind_values("", "", &values, &[]), sync()]);
    assert_eq!(talk.take_sent().len(), 3);
    assert!(!talk.server.as_ref().unwrap().left.is_empty());
    assert_eq!(talk.bench.tally.unrecognised, 1);
}

#[test]
fn an_application_name_that_is_a_traceparent_is_taken_and_another_is_the_servers() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let name = format!("SET application_name = '{FIRST}'");
    let said = talk.client(&[parse("", &name), bind("", ""), execute(""), sync()]);
    assert_eq!(said, ["1", "2", "C SET", "Z I"]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    talk.client(&[parse("", "SET application_name = 'billing'"), sync()]);
    assert_eq!(
        talk.take_sent(),
        ["P |SET application_name = 'billing'|||", "S "]
    );
}

#[test]
fn other_statements_pass_byte_for_byte() {
    for text in [
        "SELECT a.b FROM pgspan.events",
        "SELECT 1; SET pgspan.traceparent = 'x'",
        "SELECT set_config('work_mem', $1, false)",
        "SELECT set_config($1, 'pgspan.traceparent', false)",
        "SHOW application_name",
    ] {
        let mut talk = Talk::new(PoolMode::Session);
        let sent = [parse("s1", text), bind("", "s1"), execute(""), sync()];
        assert_eq!(talk.client(&sent), [""; 0], "{text}");
        assert_eq!(talk.sent, sent.concat(), "{text}");
    }
}

#[test]
fn answers_leave_in_their_turn_behind_those_of_the_server() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[
        parse("", "SELECT 1"),
        bind("", ""),
        execute(""),
        parse("", SET_FIRST),
        bind("", ""),
        execute(""),
        parse("", "SELECT 2"),
        bind("", ""),
        execute(""),
        sync(),
    ]);
    assert_eq!(said, [""; 0]);
    let to_server = talk.take_sent();
    assert_eq!(to_server.len(), 7, "{to_server:?}");
    assert!(!to_server.concat().contains("pgspan"), "{to_server:?}");
    assert_eq!(
        talk.server_says(b"1\0\0\0\x042\0\0\0\x04C\0\0\0\x0dSELECT 1\0"),
        ["1", "2", "C SELECT 1", "1", "2", "C SET"]
    );
    assert_eq!(
        talk.server_says(b"1\0\0\0\x042\0\0\0\x04C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"),
        ["1", "2", "C SELECT 1", "Z I"]
    );
    assert_eq!(talk.trace_id(), "1".repeat(32));
}

#[test]
fn a_command_behind_an_error_has_no_effect() {
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.client(&[parse("", SET_FIRST), bind("", ""), execute(""), sync()]);
    talk.client(&[
        parse("", "SELECT nosuch"),
        parse("s1", SET_SECOND),
        bind("", "s1"),
        execute(""),
        sync(),
    ]);
    assert_eq!(talk.server_says(ERROR), ["E 42703 no such column"]);
    assert_eq!(talk.server_says(b"Z\0\0\0\x05I"), ["Z I"]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    // Its Parse was skipped too: the name is free.
    let said = talk.client(&[parse("s1", SET_SECOND), bind("", "s1"), execute(""), sync()]);
    assert_eq!(said, ["1", "2", "C SET", "Z I"]);
    assert_eq!(talk.trace_id(), "2".repeat(32));
}

#[test]
fn a_command_in_front_of_an_error_is_undone_with_its_pipeline() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[
        parse("", SET_FIRST),
        bind("", ""),
        execute(""),
        parse("", "SELECT nosuch"),
        sync(),
    ]);
    assert_eq!(said, ["1", "2", "C SET"]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    talk.server_says(ERROR);
    talk.server_says(b"Z\0\0\0\x05I");
    assert_eq!(talk.trace_id(), "");
}

#[test]
fn a_closed_statement_is_there_again_if_the_close_was_skipped() {
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.client(&[parse("s1", SET_FIRST), sync()]);
    talk.client(&[parse("", "SELECT nosuch"), close("s1"), sync()]);
    talk.server_says(ERROR);
    talk.server_says(b"Z\0\0\0\x05I");
    assert_eq!(talk.client(&[describe("s1"), sync()]), ["t 0", "n", "Z I"]);
}

#[test]
fn an_error_of_the_command_skips_the_rest_up_to_sync() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[
        parse("", SET_FIRST),
        bind("", ""),
        execute(""),
        parse("", "SHOW pgspan.tracestate"),
        bind("", ""),
        execute(""),
        parse("", "SELECT 1"),
        encode_query("SELECT 2"),
        sync(),
        parse("", SET_SECOND),
        sync(),
    ]);
    let refused = "E 42704 unrecognized configuration parameter \"pgspan.tracestate\"";
    assert_eq!(said, ["1", "2", "C SET", refused, "Z I", "1", "Z I"]);
    assert!(talk.server.is_none());
    assert_eq!(talk.trace_id(), "");
}

#[test]
fn an_error_of_the_command_fails_the_servers_transaction() {
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.begin();
    let said = talk.client(&[
        parse("", "SHOW pgspan.tracestate"),
        bind("", ""),
        execute(""),
        parse("", "SELECT 1"),
        sync(),
    ]);
    assert_eq!(said, [""; 0]);
    let to_server = talk.take_sent();
    assert!(
        to_server[0].starts_with("P |pgspan: unrecognized"),
        "{to_server:?}"
    );
    assert_eq!(to_server.last().unwrap(), "S ");
    let refused = "E 42704 unrecognized configuration parameter \"pgspan.tracestate\"";
    assert_eq!(talk.server_says(ERROR), [refused]);
    assert_eq!(talk.server_says(b"Z\0\0\0\x05E"), ["Z E"]);
    // From here on nothing but the end of the transaction is accepted, and the server need not be asked.
    let said = talk.client(&[parse("", SET_FIRST), bind("", ""), execute(""), sync()]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("E 25P02 "), "{said:?}");
    assert_eq!(said[1], "Z E");
    assert_eq!(talk.take_sent(), [""; 0]);
}

#[test]
fn inside_a_transaction_answers_leave_at_once_and_rollback_undoes_them() {
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.begin();
    let set = SET_FIRST.replace("SET", "SET LOCAL");
    let said = talk.client(&[parse("", &set), bind("", ""), execute(""), sync()]);
    assert_eq!(said, ["1", "2", "C SET", "Z T"]);
    assert_eq!(talk.take_sent(), [""; 0]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
    talk.client(&[encode_query("ROLLBACK")]);
    talk.server_says(b"C\0\0\0\x0dROLLBACK\0Z\0\0\0\x05I");
    assert_eq!(talk.trace_id(), "");
}

#[test]
fn a_set_local_warns_outside_of_a_transaction_but_not_behind_a_begin_in_its_pipeline() {
    let set = SET_FIRST.replace("SET", "SET LOCAL");
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[parse("", &set), bind("", ""), execute(""), sync()]);
    assert_eq!(
        said,
        [
            "1",
            "2",
            "N 25P01 SET LOCAL can only be used in transaction blocks",
            "C SET",
            "Z I"
        ]
    );
    assert_eq!(talk.trace_id(), "");
    talk.client(&[
        parse("", "BEGIN"),
        bind("", ""),
        execute(""),
        parse("", &set),
        bind("", ""),
        execute(""),
        sync(),
    ]);
    let said = talk.server_says(b"1\0\0\0\x042\0\0\0\x04C\0\0\0\x0aBEGIN\0Z\0\0\0\x05T");
    assert_eq!(said, ["1", "2", "C BEGIN", "1", "2", "C SET", "Z T"]);
    assert_eq!(talk.trace_id(), "1".repeat(32));
}

#[test]
fn a_name_is_given_once_and_the_unnamed_statement_again_and_again() {
    for (first, second) in [
        (SET_FIRST, SET_SECOND),
        (SET_FIRST, "SELECT 1"),
        ("SELECT 1", SET_FIRST),
    ] {
        let mut talk = Talk::new(PoolMode::Transaction);
        talk.client(&[parse("s1", first), sync()]);
        if talk.server.is_some() {
            talk.server_says(b"1\0\0\0\x04Z\0\0\0\x05I");
        }
        let said = talk.client(&[parse("s1", second), bind("", "s1"), sync()]);
        let refused = "E 42P05 prepared statement \"s1\" already exists";
        assert_eq!(said, [refused, "Z I"], "{first}, {second}");
    }
    let mut talk = Talk::new(PoolMode::Transaction);
    talk.client(&[
        parse("", SET_FIRST),
        parse("", SET_SECOND),
        bind("", ""),
        execute(""),
    ]);
    assert_eq!(talk.trace_id(), "2".repeat(32));
    talk.client(&[parse("", "SELECT 1"), bind("", ""), execute(""), sync()]);
    assert_eq!(talk.take_sent().len(), 4);
}

#[test]
fn a_bind_must_supply_what_the_statement_takes() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[
        parse("s1", SET_FIRST),
        bind_values("", "s1", &[Some("x")], &[]),
        execute(""),
        sync(),
    ]);
    let refused =
        "E 08P01 bind message supplies 1 parameters, but prepared statement \"s1\" requires 0";
    assert_eq!(said, ["1", refused, "Z I"]);
    let mut cut = bind("", "s1");
    cut.truncate(cut.len() - 1);
    cut[4] -= 1;
    assert_eq!(
        talk.client(&[cut, sync()]),
        ["E 08P01 invalid message format", "Z I"]
    );
}

#[test]
fn a_portal_runs_once() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let said = talk.client(&[
        parse("", SET_FIRST),
        bind("", ""),
        execute(""),
        execute(""),
        sync(),
    ]);
    assert_eq!(
        said,
        [
            "1",
            "2",
            "C SET",
            "E 55000 portal \"\" cannot be run",
            "Z I"
        ]
    );
    let show = "SELECT current_setting('pgspan.traceparent', true)";
    let said = talk.client(&[
        parse("", show),
        bind("", ""),
        execute_rows("", 1),
        execute_rows("", 1),
        sync(),
    ]);
    // It was set once, and that was undone.
    assert_eq!(said, ["1", "2", "D ", "s", "C SELECT 0", "Z I"]);
    // It ends with its transaction: the server is asked, and knows none.
    talk.client(&[execute("")]);
    assert_eq!(talk.take_sent(), ["E |||||"]);
}

#[test]
fn a_long_value_is_read_however_it_is_cut() {
    let mut talk = Talk::new(PoolMode::Transaction);
    let set = "SELECT set_config('pgspan.route', $1, false)";
    let route = "r".repeat(3000);
    talk.client(&[parse("s1", set), sync()]);
    let bytes = [
        bind_values("", "s1", &[Some(&route)], &[]),
        execute(""),
        sync(),
    ]
    .concat();
    let said: Vec<String> = bytes
        .chunks(1000)
        .flat_map(|piece| talk.client(&[piece.to_vec()]))
        .collect();
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(said[1].starts_with("N "), "too long, and says so: {said:?}");
    assert_eq!(said[3], "C SELECT 1");
}

#[test]
fn reset_all_and_discard_all_clear_the_trace_and_go_on_to_the_server() {
    for (command, tag) in [("RESET ALL", "RESET"), ("discard all;", "DISCARD ALL")] {
        let mut talk = Talk::new(PoolMode::Transaction);
        talk.client(&[parse("", SET_FIRST), bind("", ""), execute(""), sync()]);
        talk.client(&[parse("", command), bind("", ""), execute(""), sync()]);
        assert_eq!(talk.take_sent().len(), 4);
        let mut reply = b"1\0\0\0\x042\0\0\0\x04".to_vec();
        encode::command_complete(&mut reply, tag);
        reply.extend_from_slice(b"Z\0\0\0\x05I");
        talk.server_says(&reply);
        assert_eq!(talk.trace_id(), "", "{command}");
    }
}

#[test]
fn beyond_the_limit_a_command_is_prepared_on_a_server() {
    let mut talk = Talk::new(PoolMode::Transaction);
    for number in 0..LocalStatements::MAX_STATEMENTS {
        talk.client(&[parse(&format!("s{number}"), SET_FIRST)]);
    }
    assert!(talk.server.is_none());
    talk.client(&[parse("another", SET_FIRST)]);
    assert!(talk.server.is_some());
}

proptest! {
    #[test]
    fn a_pipeline_is_answered_the_same_however_it_is_cut(
        picks in prop::collection::vec(0_usize..14, 1..30),
        cuts in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let messages: Vec<Vec<u8>> = picks.into_iter().map(any_message).collect();
        let (mut whole, mut cut) = (Talk::new(PoolMode::Transaction), Talk::new(PoolMode::Transaction));
        let expected = whole.client(&messages);
        let mut said = Vec::new();
        let bytes = messages.concat();
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            said.extend(cut.client(&[piece.to_vec()]));
            rest = behind;
        }
        prop_assert_eq!(said, expected);
        prop_assert_eq!(cut.take_sent(), whole.take_sent());
        prop_assert_eq!(cut.trace_id(), whole.trace_id());
    }

    #[test]
    fn any_bind_is_answered(body in prop::collection::vec(any::<u8>(), 0..40), is_named: bool) {
        let mut talk = Talk::new(PoolMode::Transaction);
        talk.client(&[parse("s", "SELECT set_config('pgspan.route', $1, false)"), sync()]);
        let names: &[u8] = if is_named { b"\0s\0" } else { b"" };
        talk.client(&[message(b'B', &[names, &body].concat()), execute(""), sync()]);
    }
}

fn any_message(pick: usize) -> Vec<u8> {
    match pick {
        0 => parse("", SET_FIRST),
        1 => parse("", SET_SECOND),
        2 => parse("s", "SELECT set_config('pgspan.route', $1, true)"),
        3 => parse("", "SHOW pgspan.traceparent"),
        4 => parse("", "SELECT 1"),
        5 => bind("", ""),
        6 => bind_values("", "s", &[Some("/pay")], &[]),
        7 => describe(""),
        8 => describe_portal(""),
        9 => close("s"),
        10 | 11 => execute(""),
        12 => message(b'H', b""),
        _ => sync(),
    }
}

const ERROR: &[u8] = b"E\0\0\0\x2aSERROR\0VERROR\0C42703\0Mno such column\0\0";

/// A client, and the server that it gets when it needs one.
struct Talk {
    session: ClientSession,
    server: Option<ServerSession>,
    definitions: Definitions,
    policy: RequestPolicy,
    bench: Workbench,
    requests: Forwarder,
    replies: Forwarder,
    now: Instant,
    /// What the server got, and nobody has looked at.
    sent: Vec<u8>,
    /// What is judged when the server has said more.
    held: Option<Vec<u8>>,
}

impl Talk {
    #[expect(clippy::disallowed_methods)]
    fn new(mode: PoolMode) -> Self {
        let trace = SessionTrace::new(Arc::new(TracePolicy::new(TraceRules::default())));
        Self {
            session: ClientSession::new(mode, trace, ParameterSet::default().into(), 150_000),
            server: None,
            definitions: Definitions::new(),
            policy: RequestPolicy {
                annotation: AnnotationPolicy {
                    enabled: true,
                    format: CommentFormat::Sqlcommenter,
                    placement: Placement::Suffix,
                    max_query_bytes: 1 << 20,
                    unnamed_parse: false,
                    prepared: PreparedChannel::None,
                },
                max_prepared_statements: 100,
                unnamed_statements: crate::config::choices::UnnamedStatements::Pass,
            },
            bench: Workbench::new(),
            requests: Forwarder::new(),
            replies: Forwarder::new(),
            now: Instant::now(),
            sent: Vec::new(),
            held: None,
        }
    }

    /// The client sends; what it reads at once.
    fn client(&mut self, messages: &[Vec<u8>]) -> Vec<String> {
        let bytes = messages.concat();
        if let Some(held) = &mut self.held {
            held.extend_from_slice(&bytes);
            return Vec::new();
        }
        self.judge(&bytes)
    }

    fn judge(&mut self, bytes: &[u8]) -> Vec<String> {
        let (mut rest, mut said) = (bytes, Vec::new());
        loop {
            let (mut to_server, mut to_client) = (Outbound::new(), Outbound::new());
            let mut judge = Requests::new(
                &mut self.session,
                self.server.as_mut(),
                &mut self.definitions,
                &self.policy,
                &mut self.bench,
                &mut to_client,
                self.now,
            );
            // What it paused with may be held by the forwarder, or stand in front of the rest.
            let is_held = self.requests.resume(&mut judge, &mut to_server).unwrap();
            assert!(!is_held, "there is a server by then");
            let advanced = self
                .requests
                .advance(rest, &mut judge, &mut to_server)
                .unwrap();
            let pause = judge.paused();
            to_server.copy_rest(rest, 0, &mut self.sent);
            to_client.copy_rest(&[], 0, &mut said);
            rest = &rest[advanced.consumed..];
            match pause {
                Some(Pause::NeedsServer) => {
                    self.server = Some(ServerSession::new(ParameterSet::default().into()));
                }
                Some(Pause::Unsettled) => {
                    self.held = Some(rest.to_vec());
                    return told(&said);
                }
                _ => return told(&said),
            }
        }
    }

    /// The server sends; what the client reads.
    fn server_says(&mut self, bytes: &[u8]) -> Vec<String> {
        let (mut out, mut said) = (Outbound::new(), Vec::new());
        let server = self.server.as_mut().unwrap();
        let mut judge = Replies::new(&mut self.session, server, self.now);
        self.replies.advance(bytes, &mut judge, &mut out).unwrap();
        out.copy_rest(bytes, 0, &mut said);
        let mut said = told(&said);
        if let Some(held) = self.held.take() {
            said.extend(self.judge(&held));
        }
        said
    }

    /// What the server got since the last look.
    fn take_sent(&mut self) -> Vec<String> {
        frames(&std::mem::take(&mut self.sent))
            .map(|(tag, body)| {
                let body = String::from_utf8_lossy(body).replace('\0', "|");
                format!("{} {body}", char::from(tag))
            })
            .collect()
    }

    fn begin(&mut self) {
        self.client(&[encode_query("BEGIN")]);
        self.server_says(b"C\0\0\0\x0aBEGIN\0Z\0\0\0\x05T");
        self.sent.clear();
    }

    fn trace_id(&mut self) -> String {
        let (context, _) = self.session.trace.context();
        context
            .parent
            .map(|parent| parent.trace_id.to_string())
            .unwrap_or_default()
    }
}

/// What a client reads, message by message.
fn told(bytes: &[u8]) -> Vec<String> {
    frames(bytes)
        .map(|(tag, body)| {
            let text = String::from_utf8_lossy(body).replace('\0', "");
            let number = |at: usize, len: usize| {
                body[at..at + len]
                    .iter()
                    .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
            };
            match tag {
                b'C' | b'Z' => format!("{} {text}", char::from(tag)),
                b'E' | b'N' => {
                    let field = |kind| {
                        let text = ErrorFields::new(body).field(kind).unwrap();
                        String::from_utf8_lossy(text).into_owned()
                    };
                    format!("{} {} {}", char::from(tag), field(b'C'), field(b'M'))
                }
                b'D' if number(2, 4) == 0xffff_ffff => "D NULL".into(),
                b'D' => format!("D {}", String::from_utf8_lossy(&body[6..])),
                b'T' => {
                    let name: Vec<u8> = body[2..].iter().copied().take_while(|b| *b != 0).collect();
                    let format = number(body.len() - 2, 2);
                    format!("T {} {format}", String::from_utf8_lossy(&name))
                }
                b't' if number(0, 2) == 0 => "t 0".into(),
                b't' => {
                    let types = (2..body.len())
                        .step_by(4)
                        .map(|at| number(at, 4).to_string());
                    format!("t {} {}", number(0, 2), types.collect::<Vec<_>>().join(" "))
                }
                _ => char::from(tag).into(),
            }
        })
        .collect()
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let header = FrameHeader::parse(*bytes.first_chunk()?).unwrap();
        let (frame, rest) = bytes.split_at(FrameHeader::LEN + header.body_len);
        bytes = rest;
        Some((header.tag, &frame[FrameHeader::LEN..]))
    })
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, tag, |out| out.extend_from_slice(body));
    out
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode::parse(&mut out, name.as_bytes(), text.as_bytes(), &[]);
    out
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    bind_values(portal, statement, &[], &[])
}

fn bind_values(portal: &str, statement: &str, values: &[Option<&str>], formats: &[u16]) -> Vec<u8> {
    bind_all(portal, statement, (values, &[]), formats)
}

fn bind_formats(
    portal: &str,
    statement: &str,
    values: &[Option<&str>],
    formats: &[u16],
) -> Vec<u8> {
    bind_all(portal, statement, (values, formats), &[])
}

fn bind_all(
    portal: &str,
    statement: &str,
    (values, value_formats): (&[Option<&str>], &[u16]),
    formats: &[u16],
) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    body.extend_from_slice(&u16::try_from(value_formats.len()).unwrap().to_be_bytes());
    for format in value_formats {
        body.extend_from_slice(&format.to_be_bytes());
    }
    body.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default().as_bytes());
    }
    body.extend_from_slice(&u16::try_from(formats.len()).unwrap().to_be_bytes());
    for format in formats {
        body.extend_from_slice(&format.to_be_bytes());
    }
    message(b'B', &body)
}

fn describe(statement: &str) -> Vec<u8> {
    message(b'D', format!("S{statement}\0").as_bytes())
}

fn describe_portal(portal: &str) -> Vec<u8> {
    message(b'D', format!("P{portal}\0").as_bytes())
}

fn close(statement: &str) -> Vec<u8> {
    message(b'C', format!("S{statement}\0").as_bytes())
}

fn execute(portal: &str) -> Vec<u8> {
    execute_rows(portal, 0)
}

fn execute_rows(portal: &str, max_rows: i32) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.extend_from_slice(&max_rows.to_be_bytes());
    message(b'E', &body)
}

fn encode_query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode::query(&mut out, text.as_bytes());
    out
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}
