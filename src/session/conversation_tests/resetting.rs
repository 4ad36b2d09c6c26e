//! RESET goes back to what the client's startup packet says, within the client's own reply.

use super::*;

/// A client that asked for a time zone and a search path; the server has them set, but would not go back to them.
fn pair() -> Pair {
    let mut pair = Pair::new();
    let set = [("TimeZone", "Asia/Tokyo"), ("search_path", "app")];
    let all = Rc::new(parameters(&set));
    let trace = SessionTrace::new(Arc::new(TracePolicy::new(TraceRules::default())));
    pair.client = ClientSession::new(PoolMode::Transaction, trace, Rc::clone(&all), 150_000);
    pair.client.own = Rc::new(all.only(set.iter().map(|(name, _)| name.as_bytes())));
    let server = pair.server.as_mut().expect("it is linked");
    server.parameters = all;
    pair
}

const PATH: &str = "Q:SELECT pg_catalog.set_config('search_path', 'app', false)|";
const BOTH: &str = "Q:SELECT pg_catalog.set_config('search_path', 'app', false), \
                    pg_catalog.set_config('TimeZone', 'Asia/Tokyo', false)|";
const SET: [&str; 4] = ["T:", "D:", "C:SELECT 1|", "Z:I"];

#[test]
fn a_reset_ends_when_the_clients_own_value_is_set() {
    let mut pair = pair();
    let sent = pair.client(&["Q:RESET search_path|"]);
    assert_eq!(sent, ["Q:RESET search_path|", PATH]);
    assert_eq!(pair.server(&["C:RESET|", "Z:I"]), ["C:RESET|"]);
    assert!(!pair.is_releasable());
    assert_eq!(pair.server(&SET), ["Z:I"]);
}

#[test]
fn what_the_packet_did_not_set_is_the_servers() {
    let mut pair = pair();
    assert_eq!(pair.client(&["Q:RESET work_mem|"]), ["Q:RESET work_mem|"]);
    assert_eq!(pair.server(&["C:RESET|", "Z:I"]), ["C:RESET|", "Z:I"]);
}

#[test]
fn values_that_come_and_go_within_a_reset_are_not_reported() {
    let mut pair = pair();
    assert_eq!(pair.client(&["Q:DISCARD ALL|"]), ["Q:DISCARD ALL|", BOTH]);
    let reply = ["C:DISCARD ALL|", "S:TimeZone|UTC|", "Z:I"];
    assert_eq!(pair.server(&reply), ["C:DISCARD ALL|"]);
    let again = ["T:", "D:", "C:SELECT 1|", "S:TimeZone|Asia/Tokyo|", "Z:I"];
    assert_eq!(pair.server(&again), ["Z:I"]);
    let server = pair.server.as_ref().expect("it is linked");
    assert_eq!(server.parameters, pair.client.parameters);
}

#[test]
fn a_value_that_the_client_had_set_meanwhile_is_reported_back() {
    let mut pair = pair();
    pair.client(&["Q:SET TimeZone = 'GMT'|"]);
    pair.server(&["C:SET|", "S:TimeZone|GMT|", "Z:I"]);
    pair.client(&["Q:RESET TIME ZONE|"]);
    assert_eq!(
        pair.server(&["C:RESET|", "S:TimeZone|UTC|", "Z:I"]),
        ["C:RESET|"]
    );
    let report = "S:TimeZone|Asia/Tokyo|";
    assert_eq!(
        pair.server(&["T:", "D:", "C:SELECT 1|", report, "Z:I"]),
        [report, "Z:I"]
    );
}

#[test]
fn a_reset_that_fails_with_its_transaction_is_one_error() {
    let mut pair = pair();
    pair.client(&["Q:BEGIN|"]);
    pair.server(&["C:BEGIN|", "Z:T"]);
    pair.client(&["Q:SELECT 1/0|", "Q:RESET ALL|"]);
    let (division, failed) = (error("22012"), error("25P02"));
    assert_eq!(pair.server(&[&division, "Z:E"]), [&*division, "Z:E"]);
    assert_eq!(
        pair.server(&[&failed, "Z:E", &failed, "Z:E"]),
        [&*failed, "Z:E"]
    );
}

#[test]
fn a_reset_in_a_pipeline_is_followed_by_the_clients_own_value() {
    let mut pair = pair();
    let sent = pair.client(&["P:|RESET search_path|||", "B:|||||||", "E:|||||", "S:"]);
    assert_eq!(
        sent[2..],
        [
            "E:|||||",
            "P:pgspan_again|SELECT pg_catalog.set_config('search_path', 'app', false)|||",
            "B:pgspan_again|pgspan_again|||||||",
            "E:pgspan_again|||||",
            "C:Ppgspan_again|",
            "C:Spgspan_again|",
            "S:",
        ]
    );
    let reply = [
        "1:",
        "2:",
        "C:RESET|",
        "1:",
        "2:",
        "D:",
        "C:SELECT 1|",
        "3:",
        "3:",
        "Z:I",
    ];
    assert_eq!(pair.server(&reply), ["1:", "2:", "C:RESET|", "Z:I"]);
}
