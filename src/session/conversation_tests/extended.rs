//! The extended protocol.

use super::*;

#[test]
fn a_statement_without_a_name_passes_as_it_is() {
    let mut pair = Pair::new();
    let group = ["P:|SELECT 1|||", "B:||||||||", "D:P|", "E:|||||", "S:"];
    assert_eq!(pair.client(&group), group);
    assert!(!pair.is_releasable());
    let reply = ["1:", "2:", "T:columns", "D:row", "C:SELECT 1|", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn a_pipeline_without_sync_keeps_its_server() {
    let mut pair = Pair::new();
    assert_eq!(
        pair.client(&["P:|SELECT 1|||", "H:"]),
        ["P:|SELECT 1|||", "H:"]
    );
    assert_eq!(pair.server(&["1:"]), ["1:"]);
    assert!(!pair.is_releasable());
    pair.client(&["B:||||||||", "E:|||||", "H:"]);
    assert_eq!(pair.server(&["2:", "C:SELECT 1|"]), ["2:", "C:SELECT 1|"]);
    assert!(!pair.is_releasable());
    pair.client(&["S:"]);
    pair.server(&["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn every_sync_has_its_ready() {
    let mut pair = Pair::new();
    pair.client(&["S:", "S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["Z:I"]);
    assert!(!pair.is_releasable());
    assert_eq!(pair.server(&["Z:I"]), ["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn groups_in_a_pipeline_fail_one_by_one() {
    let mut pair = Pair::new();
    let group = ["P:|SELECT 1|||", "B:||||||||", "E:|||||", "S:"];
    pair.client(&[&group[..], &group, &group].concat());
    let error = error("22012");
    let good = ["1:", "2:", "C:SELECT 1|", "Z:I"];
    let bad = ["1:", "2:", &error, "Z:I"];
    let reply = [&good[..], &bad, &good].concat();
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
    let outcomes: Vec<_> = pair.records().iter().map(|record| record.outcome).collect();
    assert!(matches!(
        outcomes[..],
        [Outcome::Completed, Outcome::Failed(_), Outcome::Completed]
    ));
}

#[test]
fn a_portal_may_be_fetched_in_parts() {
    let mut pair = Pair::new();
    pair.client(&[
        "P:|SELECT a|||",
        "B:c||||||||",
        "E:c||||\u{2}",
        "E:c||||\u{2}",
        "C:Pc|",
        "S:",
    ]);
    let reply = [
        "1:",
        "2:",
        "D:1",
        "D:2",
        "s:",
        "D:3",
        "C:SELECT 1|",
        "3:",
        "Z:I",
    ];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
    let texts: Vec<_> = pair
        .records()
        .into_iter()
        .map(|record| record.sql)
        .collect();
    assert_eq!(texts, ["SELECT a", "SELECT a"]);
}

#[test]
fn an_empty_statement_and_one_without_rows_have_their_replies() {
    let mut pair = Pair::new();
    pair.client(&["P:||||", "B:||||||||", "D:S|", "D:P|", "E:|||||", "S:"]);
    let reply = ["1:", "2:", "t:types", "n:", "n:", "I:", "Z:I"];
    assert_eq!(pair.server(&reply), reply);
    assert!(pair.is_releasable());
}

#[test]
fn a_query_in_an_open_group_keeps_the_server_until_its_sync() {
    let mut pair = Pair::new();
    pair.client(&["P:|SELECT 1|||", "B:||||||||", "Q:SELECT 2|"]);
    pair.server(&["1:", "2:", "C:SELECT 1|", "Z:I"]);
    assert!(!pair.is_releasable());
    pair.client(&["S:"]);
    pair.server(&["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn in_session_mode_everything_is_what_the_client_sent() {
    let mut pair = Pair::in_session_mode();
    let said = [
        "P:s|SELECT $1|\u{0}\u{1}||\u{0}\u{17}",
        "B:portal|s|||\u{0}\u{1}||\u{0}\u{1}x||",
        "D:Ss|",
        "D:Pportal|",
        "E:portal|||||",
        "C:Pportal|",
        "C:Ss|",
        "S:",
    ];
    pair.client_bytes(&bytes_of(&said)).unwrap();
    assert_eq!(pair.to_server, bytes_of(&said));
}

#[test]
fn in_transaction_mode_only_the_name_is_another() {
    let mut pair = Pair::new();
    let (first, second) = (
        "SELECT $1 -- 's'|\u{0}\u{1}||\u{0}\u{17}",
        "|\u{0}\u{1}||\u{0}\u{1}x||",
    );
    let said = |name: &str| {
        [
            format!("P:{name}|{first}"),
            format!("B:portal|{name}|{second}"),
            format!("D:S{name}|"),
            "D:Pportal|".to_owned(),
            "E:portal|||||".to_owned(),
            "S:".to_owned(),
        ]
    };
    let bytes = |name: &str| bytes_of(&said(name).each_ref().map(|text| &**text));
    pair.client_bytes(&bytes("a name of the client's")).unwrap();
    assert_eq!(pair.to_server, bytes("pgspan_1"));
}

#[test]
fn malformed_messages_are_the_servers_to_refuse() {
    for malformed in [
        "P:no end",
        "B:no end",
        "D:Xs|",
        "D:",
        "C:Ss",
        "E:no end",
        "P:s|no end",
    ] {
        let mut pair = Pair::new();
        assert_eq!(pair.client(&[malformed, "S:"]).len(), 2, "{malformed}");
        let reply = [error("08P01"), "Z:I".into()];
        assert_eq!(pair.server(&[&reply[0], &reply[1]]), reply);
        assert!(pair.is_releasable());
        assert!(pair.client.statements.is_empty());
    }
}

#[test]
fn when_too_much_is_outstanding_the_server_is_asked_to_answer() {
    let mut pair = Pair::new();
    let executes = vec!["E:|||||"; 10_000];
    let mut all = vec!["P:|SELECT 1|||", "B:||||||||"];
    all.extend(&executes);
    all.push("S:");
    let sent = pair.client(&all);
    assert_eq!(
        (sent.len(), sent.last().map(|last| &**last)),
        (8193, Some("H:"))
    );
    assert_eq!(pair.pause, Some(Pause::Throttled));
    let mut replies = vec!["1:", "2:"];
    replies.extend(["C:SELECT 0|"; 8190]);
    pair.server(&replies);
    assert_eq!(pair.sent().len(), 10_003 - 8192);
    let mut replies = vec!["C:SELECT 0|"; 1810];
    replies.push("Z:I");
    pair.server(&replies);
    assert!(pair.is_releasable());
}

#[test]
fn answers_of_the_proxys_own_don_t_block_a_full_queue() {
    let mut pair = Pair::new();
    let mut all = vec!["B:||||||||"];
    all.extend(["C:Ss|"; 9000]);
    all.push("S:");
    assert_eq!(pair.client(&all), ["B:||||||||", "H:"]);
    // The rest of them is judged, and answered, as soon as there is room.
    assert_eq!(pair.server(&["2:"]).len(), 9001);
    assert_eq!(pair.sent(), ["S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn syncs_alone_fill_the_queue_too() {
    let mut pair = Pair::new();
    pair.client(&["S:"; 9000]);
    assert_eq!(pair.pause, Some(Pause::Throttled));
    pair.server(&["Z:I"; 8192]);
    pair.server(&["Z:I"; 9000 - 8192]);
    assert!(pair.is_releasable());
}

#[test]
fn an_unnamed_statement_that_is_not_bound_yet_keeps_its_server() {
    let mut pair = Pair::new();
    // As pg8000 and lib/pq do.
    pair.client(&["P:|SELECT 1|||", "D:S|", "S:"]);
    pair.server(&["1:", "t:types", "T:columns", "Z:I"]);
    assert!(!pair.is_releasable());
    pair.client(&["B:||||||||", "E:|||||", "S:"]);
    pair.server(&["2:", "C:SELECT 1|", "Z:I"]);
    assert!(pair.is_releasable());
    // Whoever only wanted it described goes on with something else.
    pair.client(&["P:|SELECT 1|||", "D:S|", "S:"]);
    pair.server(&["1:", "t:types", "T:columns", "Z:I"]);
    pair.client(&["Q:SELECT 2|"]);
    pair.server(&["C:SELECT 1|", "Z:I"]);
    assert!(pair.is_releasable());
    // One that failed is not there.
    pair.client(&["P:|SELEC|||", "S:"]);
    pair.server(&[&error("42601"), "Z:I"]);
    assert!(pair.is_releasable());
}

#[test]
fn an_annotated_unnamed_statement_has_its_positions_mapped_back_wherever_it_fails() {
    let at = |position: u32| format!("E:SERROR|VERROR|C42P01|Mno t|P{position}||");
    let replies: [&[&str]; 3] = [&[], &["1:"], &["1:", "2:"]];
    for before in replies {
        let mut pair = Pair::new();
        pair.policy.annotation.unnamed_parse = true;
        pair.policy.annotation.placement = Placement::Prefix;
        pair.client(&["Q:SET pgspan.correlation_id = 'a'|"]);
        pair.received();
        assert_eq!(
            pair.client(&["P:|SELECT a FROM t|||", "B:|||||||", "E:|||||", "S:"]),
            [
                "P:|/*correlation_id='a'*/ SELECT a FROM t|||",
                "B:|||||||",
                "E:|||||",
                "S:"
            ]
        );
        let error = at(38);
        let said: Vec<&str> = before.iter().copied().chain([&*error, "Z:I"]).collect();
        let expected: Vec<String> = (before.iter().map(|said| (*said).to_owned()))
            .chain([at(15), "Z:I".into()])
            .collect();
        assert_eq!(pair.server(&said), expected);
        // It is one failed query, whatever failed of it.
        let records = pair.records();
        assert_eq!(records.len(), 1, "{before:?}");
        assert_eq!(records[0].sql, "SELECT a FROM t");
    }
}
