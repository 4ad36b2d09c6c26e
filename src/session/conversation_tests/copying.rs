//! COPY in both directions.

use super::*;

#[test]
fn copy_out_passes_as_it_is() {
    let mut pair = Pair::new();
    pair.client(&["Q:COPY t TO STDOUT|"]);
    let reply = ["H:format", "d:one", "d:two", "c:", "C:COPY 2|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
    pair.client(&["P:|COPY t TO STDOUT|||", "B:||||||||", "E:|||||", "S:"]);
    let reply = ["1:", "2:", "H:format", "d:one", "c:", "C:COPY 1|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn copy_in_holds_its_server_to_its_end() {
    for (end, reply) in [("c:", "C:COPY 1|".to_owned()), ("f:no|", error("57014"))] {
        let mut pair = Pair::new();
        pair.client(&["Q:COPY t FROM STDIN|"]);
        assert_eq!(pair.server(&["G:format"]), ["G:format"]);
        assert!(!pair.is_releasable());
        assert_eq!(
            pair.client(&["d:one", "d:two", end]),
            ["d:one", "d:two", end]
        );
        assert!(!pair.is_releasable());
        assert_eq!(pair.server(&[&reply, "Z:I"]), [&*reply, "Z:I"]);
        assert!(pair.is_releasable());
    }
}

#[test]
fn two_copies_in_one_text_each_have_their_end() {
    let mut pair = Pair::new();
    pair.client(&["Q:COPY t FROM STDIN; COPY u FROM STDIN|"]);
    pair.server(&["G:format"]);
    pair.client(&["d:one", "c:"]);
    pair.server(&["C:COPY 1|", "G:format"]);
    // A Sync is ignored while the server copies.
    pair.client(&["d:two", "S:", "c:"]);
    pair.server(&["C:COPY 1|", "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn a_sync_in_front_of_the_data_is_ignored_and_one_behind_them_is_not() {
    let mut pair = Pair::new();
    // As libpq does: it does not know that the command is a COPY.
    pair.client(&["P:|COPY t FROM STDIN|||", "B:||||||||", "E:|||||", "S:"]);
    assert_eq!(
        pair.server(&["1:", "2:", "G:format"]),
        ["1:", "2:", "G:format"]
    );
    assert!(!pair.is_releasable());
    pair.client(&["d:one", "S:", "c:", "S:"]);
    assert_eq!(pair.server(&["C:COPY 1|", "Z:I"]), ["C:COPY 1|", "Z:I"]);
    assert!(pair.is_releasable());
    // The trace has not lost count of what is answered.
    pair.client(&["Q:BEGIN|"]);
    pair.server(&["C:BEGIN|", "Z:T"]);
    pair.client(&["Q:SET pgspan.correlation_id = 'a'|", "Q:ROLLBACK|"]);
    pair.server(&["C:ROLLBACK|", "Z:I"]);
    assert_eq!(pair.client(&["Q:SELECT 1|"]), ["Q:SELECT 1|"]);
}

#[test]
fn data_may_be_sent_before_the_server_asks_for_them() {
    let mut pair = Pair::new();
    let all = [
        "P:|COPY t FROM STDIN|||",
        "B:||||||||",
        "E:|||||",
        "d:one",
        "c:",
        "S:",
    ];
    assert_eq!(pair.client(&all), all);
    let reply = ["1:", "2:", "G:format", "C:COPY 1|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());

    pair.client(&["Q:COPY t FROM STDIN|", "d:one", "c:", "Q:SELECT 1|"]);
    let reply = ["G:format", "C:COPY 1|", "Z:I", "C:SELECT 1|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn data_for_a_copy_that_could_not_begin_are_ignored() {
    let mut pair = Pair::new();
    pair.client(&[
        "P:|COPY t FROM STDIN|||",
        "B:||||||||",
        "E:|||||",
        "d:one",
        "c:",
        "S:",
    ]);
    let reply = [error("42P01"), "Z:I".into()];
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert!(pair.is_releasable());
    pair.client(&["Q:COPY t FROM STDIN|", "d:one", "c:"]);
    assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
    assert!(pair.is_releasable());
}

#[test]
fn an_error_in_the_data_is_followed_by_the_sync_behind_them() {
    let mut pair = Pair::new();
    pair.client(&["P:|COPY t FROM STDIN|||", "B:||||||||", "E:|||||", "S:"]);
    pair.server(&["1:", "2:", "G:format"]);
    pair.client(&["d:one"]);
    let error = "E:SERROR|VERROR|C22P02|Mno number|WCOPY t, line 1||";
    assert_eq!(pair.server(&[error]), [error]);
    assert!(!pair.is_releasable());
    pair.client(&["d:two", "c:", "S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn a_copy_that_fails_before_it_reads_answers_the_sync_in_front_of_the_data() {
    let mut pair = Pair::new();
    pair.client(&["P:|COPY t FROM STDIN|||", "B:||||||||", "E:|||||", "S:"]);
    // A trigger BEFORE INSERT FOR EACH STATEMENT says no.
    let error = error("P0001");
    let reply = ["1:", "2:", "G:format", &error, "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
    // The client finds out later.
    pair.client(&["d:one", "c:", "S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn a_copy_that_fails_before_it_reads_may_have_been_sent_all_its_data() {
    let mut pair = Pair::new();
    pair.client(&[
        "P:|COPY t FROM STDIN FREEZE|||",
        "B:||||||||",
        "E:|||||",
        "S:",
    ]);
    pair.server(&["1:", "2:", "G:format"]);
    pair.client(&["d:one", "c:", "S:"]);
    let reply = [&*error("55000"), "Z:I", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn a_server_of_which_it_is_unknown_whether_it_answers_is_not_given_away() {
    let mut pair = Pair::new();
    pair.client(&["P:|COPY t FROM STDIN|||", "B:||||||||", "E:|||||", "S:"]);
    pair.server(&["1:", "2:", "G:format", &error("P0001")]);
    pair.client(&["c:", "S:"]);
    pair.server(&["Z:I"]);
    assert!(!pair.is_releasable(), "there may be one more to come");
    pair.server(&["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn a_stream_for_replication_goes_both_ways_until_both_have_ended_it() {
    let mut pair = Pair::in_session_mode();
    pair.client.is_replication = true;
    let start = "Q:START_REPLICATION SLOT s LOGICAL 0/0|";
    assert_eq!(pair.client(&[start]), [start]);
    let stream = ["W:|||", "d:wal"];
    assert_eq!(pair.server(&stream), stream);
    assert_eq!(pair.client(&["d:status"]), ["d:status"]);
    assert_eq!(pair.server(&["d:more", "c:"]), ["d:more", "c:"]);
    assert_eq!(pair.client(&["d:status", "c:"]), ["d:status", "c:"]);
    assert_eq!(pair.server(&["C:COPY 0|", "Z:I"]), ["C:COPY 0|", "Z:I"]);
    assert!(pair.is_releasable() && pair.records().is_empty());
}
