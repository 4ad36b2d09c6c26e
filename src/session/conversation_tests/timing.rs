//! What telemetry is told of each query.

use super::*;

fn record(sql: &str, phases: [u128; 3]) -> Record {
    Record {
        sql: sql.to_owned(),
        kind: QueryKind::Simple,
        phases,
        outcome: Outcome::Completed,
        rows: 1,
    }
}

#[test]
fn the_phases_of_a_query_follow_each_other() {
    let mut pair = Pair::new();
    pair.at(5).client(&["Q:SELECT 1|"]);
    pair.at(12).server(&["T:columns"]);
    pair.at(20).server(&["D:row"]);
    pair.at(32).server(&["C:SELECT 1|", "Z:I"]);
    assert_eq!(pair.records(), [record("SELECT 1", [0, 7, 20])]);
}

#[test]
fn waiting_for_a_server_is_the_first_phase() {
    let mut pair = Pair::new();
    let server = pair.server.take().unwrap();
    assert_eq!(pair.at(5).client(&["Q:SELECT 1|"]), [""; 0]);
    assert_eq!(pair.pause, Some(Pause::NeedsServer));
    assert_eq!(pair.at(45).link(server), ["Q:SELECT 1|"]);
    pair.at(50).server(&["T:columns", "C:SELECT 1|", "Z:I"]);
    assert_eq!(pair.records(), [record("SELECT 1", [40, 5, 0])]);
}

#[test]
fn each_query_of_a_pipeline_has_its_own_times() {
    let mut pair = Pair::new();
    pair.at(0).client(&["Q:SELECT 1|", "Q:SELECT 2|"]);
    pair.at(10).server(&["T:1", "C:SELECT 1|", "Z:I", "T:2"]);
    pair.at(30).server(&["C:SELECT 1|", "Z:I"]);
    assert_eq!(
        pair.records(),
        [
            record("SELECT 1", [0, 10, 0]),
            record("SELECT 2", [0, 0, 20])
        ]
    );
}

#[test]
fn each_execute_of_a_pipeline_has_its_own_times() {
    let mut pair = Pair::new();
    pair.at(0).client(&[
        "P:|SELECT 1|||",
        "B:||||||||",
        "E:|||||",
        "P:|SELECT 2|||",
        "B:||||||||",
        "E:|||||",
        "S:",
    ]);
    pair.at(10).server(&["1:", "2:", "D:row"]);
    pair.at(30).server(&["C:SELECT 1|"]);
    pair.at(70).server(&["1:", "2:", "D:row"]);
    pair.at(75).server(&["C:SELECT 1|"]);
    pair.at(500).server(&["Z:I"]);
    let execute = |sql, phases| Record {
        kind: QueryKind::Execute,
        ..record(sql, phases)
    };
    assert_eq!(
        pair.records(),
        [
            execute("SELECT 1", [0, 10, 20]),
            execute("SELECT 2", [0, 40, 5])
        ]
    );
}

#[test]
fn while_a_client_sends_copy_data_the_time_is_the_clients() {
    let mut pair = Pair::new();
    pair.at(0).client(&["Q:COPY t FROM STDIN|"]);
    pair.at(3).server(&["G:columns"]);
    pair.at(900).client(&["d:data", "c:"]);
    pair.at(904).server(&["C:COPY 1|", "Z:I"]);
    assert_eq!(pair.records(), [record("COPY t FROM STDIN", [0, 3, 4])]);
}

#[test]
fn a_group_counts_from_its_first_message() {
    let mut pair = Pair::new();
    pair.at(0).client(&["P:|SELECT 1|||", "B:||||||||"]);
    pair.at(3).client(&["E:|||||", "S:"]);
    pair.at(10)
        .server(&["1:", "2:", "D:row", "C:SELECT 1|", "Z:I"]);
    let kind = QueryKind::Execute;
    assert_eq!(
        pair.records(),
        [Record {
            kind,
            ..record("SELECT 1", [0, 10, 0])
        }]
    );
}

#[test]
fn what_a_client_thinks_about_between_two_flushes_is_not_the_querys_time() {
    let mut pair = Pair::new();
    pair.at(0).client(&["P:|SELECT 1|||", "B:||||||||", "H:"]);
    pair.at(5).server(&["1:", "2:"]);
    pair.at(60_000).client(&["E:|||||", "S:"]);
    pair.at(60_002).server(&["C:SELECT 1|", "Z:I"]);
    assert_eq!(pair.records()[0].phases, [0, 2, 0]);
}

#[test]
fn texts_that_nobody_asks_for_are_not_kept() {
    let mut pair = Pair::new();
    for _ in 0..1000 {
        pair.client(&[&format!("P:|SELECT '{}'|||", "x".repeat(4000)), "S:"]);
        pair.server(&["1:", "Z:I"]);
    }
    pair.client(&["Q:SELECT 1|"]);
    pair.server(&["C:SELECT 1|", "Z:I"]);
    assert_eq!(pair.records()[0].sql, "SELECT 1");
}

#[test]
fn a_bind_that_fails_is_the_fault_of_its_own_query() {
    let mut pair = Pair::new();
    pair.client(&["B:|nobody||||||", "P:s|SELECT 1|||", "B:|s||||||", "S:"]);
    pair.server(&[&error("26000"), "Z:I"]);
    assert_eq!(pair.records(), []);
    pair.client(&["B:|nobody||||||", "E:|||||", "S:"]);
    pair.server(&[&error("26000"), "Z:I"]);
    assert_eq!(pair.records().len(), 1);
}
