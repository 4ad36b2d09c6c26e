//! Unnamed statements that are served from named ones.

use super::*;

const GROUP: [&str; 5] = ["P:|SELECT $1|||", "B:|||||||", "D:P|", "E:|||||", "S:"];
const REPLY: [&str; 5] = ["1:", "2:", "n:", "C:SELECT 1|", "Z:I"];

const GONE: &str = "E:SERROR|VERROR|C26000|Munnamed prepared statement does not exist||";

/// Its text has come once, and is parsed on the server under a name since it came again.
fn pair() -> Pair {
    let mut pair = Pair::new();
    pair.policy.unnamed_statements = UnnamedStatements::Cache;
    assert_eq!(pair.client(&GROUP), GROUP);
    assert_eq!(pair.server(&REPLY), REPLY);
    let named = [
        "P:pgspan_1|SELECT $1|||",
        "B:|pgspan_1||||||",
        "D:P|",
        "E:|||||",
        "S:",
    ];
    assert_eq!(pair.client(&GROUP), named);
    assert_eq!(pair.server(&REPLY), REPLY);
    pair
}

#[test]
fn the_third_time_a_text_is_not_parsed() {
    let mut pair = pair();
    assert_eq!(
        pair.client(&GROUP),
        ["B:|pgspan_1||||||", "D:P|", "E:|||||", "S:"]
    );
    assert_eq!(pair.received(), ["1:"]);
    assert_eq!(pair.server(&REPLY[1..]), REPLY[1..]);
    assert_eq!(
        pair.records().last().map(|query| query.sql.clone()),
        Some("SELECT $1".into())
    );
}

#[test]
fn a_simple_query_ends_the_unnamed_statement() {
    let mut pair = pair();
    pair.client(&["Q:SELECT 1|"]);
    pair.server(&["T:", "C:SELECT 1|", "Z:I"]);
    assert_eq!(pair.client(&["B:|||||||", "S:"]), [""; 0]);
    assert_eq!(pair.received(), [GONE, "Z:I"]);
}

#[test]
fn another_text_takes_its_place_also_behind_a_sync() {
    let mut pair = pair();
    let other = ["P:|SELECT 2|||", "S:"];
    assert_eq!(pair.client(&other), other);
    pair.server(&["1:", "Z:I"]);
    assert_eq!(
        pair.client(&["D:S|", "B:|||||||", "S:"]),
        ["D:S|", "B:|||||||", "S:"]
    );
}

#[test]
fn it_is_described_bound_and_closed_behind_a_sync_and_on_another_server() {
    let mut pair = pair();
    pair.unlink();
    pair.link(ServerSession::new(Rc::clone(&pair.client.parameters)));
    let sent = pair.client(&["D:S|", "S:"]);
    assert_eq!(sent, ["P:pgspan_1|SELECT $1|||", "D:Spgspan_1|", "S:"]);
    assert_eq!(pair.server(&["1:", "t:", "n:", "Z:I"]), ["t:", "n:", "Z:I"]);
    assert_eq!(pair.client(&["C:S|", "S:"]), ["S:"]);
    assert_eq!(pair.server(&["Z:I"]), ["3:", "Z:I"]);
    pair.client(&["D:S|", "S:"]);
    assert_eq!(pair.received(), [GONE, "Z:I"]);
}

#[test]
fn what_an_error_skips_was_not_parsed() {
    let mut pair = pair();
    pair.client(&["P:|SELECT 3|||", "S:"]);
    pair.server(&["1:", "Z:I"]);
    pair.client(&["P:x|oops|||", "P:|SELECT 3|||", "B:|||||||", "S:"]);
    let error = error("42601");
    assert_eq!(pair.server(&[&error, "Z:I"]), [&*error, "Z:I"]);
    // It is the one from before, as on the server.
    assert_eq!(pair.client(&["B:|||||||", "S:"]), ["B:|||||||", "S:"]);
}

#[test]
fn a_text_with_a_comment_of_its_own_is_not_kept() {
    let mut pair = pair();
    let commented = ["P:|SELECT 1 /* x */|||", "B:|||||||", "E:|||||", "S:"];
    for _ in 0..3 {
        assert_eq!(pair.client(&commented), commented);
        pair.server(&["1:", "2:", "C:SELECT 1|", "Z:I"]);
    }
}
