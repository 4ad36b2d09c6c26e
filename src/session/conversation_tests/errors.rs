//! Errors in the extended protocol: everything up to Sync is skipped, and its effects are undone.

use super::*;

#[test]
fn an_error_at_any_message_skips_to_sync() {
    let group = ["P:|SELECT 1|||", "B:||||||||", "D:P|", "E:|||||", "S:"];
    let replies = ["1:", "2:", "T:columns", "C:SELECT 1|"];
    for failing in 0..4 {
        let mut pair = Pair::new();
        pair.client(&group);
        let error = error("XX000");
        let mut said = replies[..failing].to_vec();
        said.extend([&*error, "Z:I"]);
        assert_eq!(pair.server(&said), said, "at {failing}");
        assert!(pair.is_releasable());
        let outcomes: Vec<_> = pair.records().iter().map(|record| record.outcome).collect();
        assert!(matches!(outcomes[..], [Outcome::Failed(_)]), "at {failing}");
    }
}

#[test]
fn what_comes_behind_an_error_goes_nowhere_until_sync() {
    let mut pair = Pair::new();
    pair.client(&["P:|SELEC|||", "H:"]);
    let error = error("42601");
    assert_eq!(pair.server(&[&error]), [&*error]);
    assert!(!pair.is_releasable());
    assert_eq!(
        pair.client(&["B:||||||||", "Q:SELECT 1|", "P:s|SELECT 2|||", "C:Ss|"]),
        [""; 0]
    );
    assert_eq!(pair.client(&["S:"]), ["S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["Z:I"]);
    assert!(pair.is_releasable());
    assert!(pair.client.statements.is_empty());
}

#[test]
fn a_failed_parse_frees_its_name_and_is_not_counted_as_the_servers() {
    let mut pair = Pair::new();
    assert_eq!(
        pair.client(&["P:s|SELEC|||", "S:"]),
        ["P:pgspan_1|SELEC|||", "S:"]
    );
    pair.server(&[&error("42601"), "Z:I"]);
    assert!(pair.client.statements.is_empty());
    assert!(pair.server.as_ref().unwrap().statements.is_empty());
    // Under the same name, another text.
    assert_eq!(
        pair.client(&["P:s|SELECT 1|||", "S:"]),
        ["P:pgspan_2|SELECT 1|||", "S:"]
    );
    assert_eq!(pair.server(&["1:", "Z:I"]), ["1:", "Z:I"]);
    assert_eq!(pair.client.statements.len(), 1);
}

#[test]
fn a_skipped_parse_frees_its_name_too() {
    let mut pair = Pair::new();
    pair.client(&["B:|nobody||||||", "P:s|SELECT 1|||", "S:"]);
    pair.server(&[&error("26000"), "Z:I"]);
    assert!(pair.client.statements.is_empty());
    assert!(pair.server.as_ref().unwrap().statements.is_empty());
}

#[test]
fn a_skipped_close_leaves_the_statement() {
    let mut pair = Pair::new();
    pair.client(&["P:s|SELECT 1|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    pair.client(&["B:|nobody||||||", "C:Ss|", "P:s|SELECT 2|||", "S:"]);
    pair.server(&[&error("26000"), "Z:I"]);
    assert_eq!(
        pair.client(&["B:|s||||||", "S:"]),
        ["B:|pgspan_1||||||", "S:"],
        "it is the first one still"
    );
}

#[test]
fn a_skipped_parse_and_close_leave_nothing() {
    let mut pair = Pair::new();
    pair.client(&["B:|nobody||||||", "P:s|SELECT 2|||", "C:Ss|", "S:"]);
    pair.server(&[&error("26000"), "Z:I"]);
    assert!(pair.client.statements.is_empty());
}

#[test]
fn a_skipped_eviction_is_taken_back() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    pair.client(&["P:a|SELECT 'a'|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    assert_eq!(
        pair.client(&["B:|nobody||||||", "P:b|SELECT 'b'|||", "S:"]),
        [
            "B:|nobody||||||",
            "C:Spgspan_1|",
            "P:pgspan_2|SELECT 'b'|||",
            "S:"
        ]
    );
    let reply = [error("26000"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert_eq!(
        pair.client(&["B:|a||||||", "S:"]),
        ["B:|pgspan_1||||||", "S:"],
        "the server has it, and needs no Parse"
    );
}

#[test]
fn a_statement_that_was_prepared_and_evicted_in_a_skipped_group_is_not_there() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    // a is prepared, then evicted for b; all of it is skipped.
    pair.client(&[
        "B:|nobody||||||",
        "P:a|SELECT 'a'|||",
        "P:b|SELECT 'b'|||",
        "S:",
    ]);
    pair.server(&[&error("26000"), "Z:I"]);
    assert!(pair.server.as_ref().unwrap().statements.is_empty());
    assert!(pair.client.statements.is_empty());
}

#[test]
fn a_statement_that_failed_and_whose_eviction_is_skipped_is_not_there() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    // b is to take the place of a, whose failure is not known yet.
    pair.client(&["P:a|SELEC|||", "S:"]);
    pair.client(&["E:|||||", "P:b|SELECT 'b'|||", "S:"]);
    pair.server(&[&error("42601"), "Z:I"]);
    pair.server(&[&error("34000"), "Z:I"]);
    assert!(pair.server.as_ref().unwrap().statements.is_empty());
}

#[test]
fn a_statement_that_a_later_group_evicts_does_not_come_back_with_an_earlier_one() {
    let mut pair = Pair::with(PoolMode::Transaction, 1);
    pair.client(&["P:a|SELECT 'a'|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    // The first group fails ahead of the eviction of a for b; the second one evicts what it finds.
    pair.client(&["E:|||||", "P:b|SELECT 'b'|||", "S:"]);
    pair.client(&["P:c|SELECT 'c'|||", "S:"]);
    pair.server(&[&error("34000"), "Z:I"]);
    pair.server(&["3:", "1:", "Z:I"]);
    assert_eq!(pair.server.as_ref().unwrap().statements.len(), 2);
}

#[test]
fn what_an_earlier_group_may_not_have_done_is_waited_for() {
    let mut pair = Pair::new();
    pair.client(&["P:s|SELECT 1|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    pair.unlink();
    let other = ServerSession::new(Rc::clone(&pair.client.parameters));
    pair.link(other);
    // The first group fails in front of the Parse that is sent for it; the second one needs it nevertheless.
    assert_eq!(
        pair.client(&[
            "B:|nobody||||||",
            "B:|s||||||",
            "S:",
            "B:|s||||||",
            "E:|||||",
            "S:"
        ]),
        [
            "B:|nobody||||||",
            "P:pgspan_1|SELECT 1|||",
            "B:|pgspan_1||||||",
            "S:",
            "H:"
        ]
    );
    let reply = [error("26000"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert_eq!(
        pair.sent(),
        [
            "P:pgspan_1|SELECT 1|||",
            "B:|pgspan_1||||||",
            "E:|||||",
            "S:"
        ]
    );
    assert_eq!(
        pair.server(&["1:", "2:", "C:SELECT 1|", "Z:I"]),
        ["2:", "C:SELECT 1|", "Z:I"]
    );
    assert!(pair.is_releasable());
}

#[test]
fn a_name_that_a_failing_parse_holds_is_free_in_the_next_group() {
    let mut pair = Pair::new();
    assert_eq!(
        pair.client(&["P:s|SELEC|||", "S:", "P:s|SELECT 1|||", "S:"]),
        ["P:pgspan_1|SELEC|||", "S:", "H:"]
    );
    pair.server(&[&error("42601"), "Z:I"]);
    assert_eq!(pair.sent(), ["P:pgspan_2|SELECT 1|||", "S:"]);
    assert_eq!(pair.server(&["1:", "Z:I"]), ["1:", "Z:I"]);
    assert_eq!(pair.client.statements.len(), 1);
}

#[test]
fn an_error_at_sync_is_followed_by_ready() {
    let mut pair = Pair::new();
    pair.client(&["P:|INSERT|||", "B:||||||||", "E:|||||", "S:", "S:"]);
    let error = error("23503");
    let reply = ["1:", "2:", "C:INSERT 0 1|", &error, "Z:I", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn a_query_in_a_skipped_group_is_skipped_too() {
    let mut pair = Pair::new();
    pair.client(&["P:|SELEC|||", "Q:SELECT 1|", "S:"]);
    let reply = [error("42601"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert!(pair.is_releasable());
    // The trace has not lost count: what is set in a transaction that is rolled back is undone.
    pair.client(&["Q:BEGIN|"]);
    pair.server(&["C:BEGIN|", "Z:T"]);
    pair.client(&["Q:SET pgspan.correlation_id = 'a'|"]);
    pair.client(&["Q:ROLLBACK|"]);
    pair.server(&["C:ROLLBACK|", "Z:I"]);
    assert_eq!(pair.client(&["Q:SELECT 1|"]), ["Q:SELECT 1|"]);
}

#[test]
fn a_command_of_a_skipped_group_is_not_answered() {
    let mut pair = Pair::new();
    pair.client(&["P:|SELEC|||", "Q:SET pgspan.correlation_id = 'a'|", "S:"]);
    let reply = [error("42601"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert!(pair.is_releasable());
}
