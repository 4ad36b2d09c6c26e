use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::protocol::backend::TransactionStatus::{Failed, Idle, InTransaction};
use crate::session::trace::{Field, Scope, TracePolicy, TraceRules};
use crate::sql::lexer::Token;
use crate::trace_context::ContextState;

const FIRST: &str = "00-11111111111111111111111111111111-1111111111111111-01";
const SECOND: &str = "00-22222222222222222222222222222222-2222222222222222-01";
/// What the plain format says of them.
const ONE: &str = "/* trace_id: 11111111111111111111111111111111 */";
const TWO: &str = "/* trace_id: 22222222222222222222222222222222 */";

#[test]
fn data_statements_get_the_comment_behind_their_last_token() {
    for (text, sent) in [
        ("SELECT 1", "SELECT 1 {1}"),
        ("SELECT 1 ;\n", "SELECT 1 {1} ;\n"),
        ("SELECT 1 -- done", "SELECT 1 {1} -- done"),
        ("INSERT INTO t VALUES (1);", "INSERT INTO t VALUES (1) {1};"),
        ("update t set a = 1", "update t set a = 1 {1}"),
        ("DELETE FROM t", "DELETE FROM t {1}"),
        (
            "MERGE INTO t USING s ON true",
            "MERGE INTO t USING s ON true {1}",
        ),
        ("VALUES (1)", "VALUES (1) {1}"),
        ("TABLE t", "TABLE t {1}"),
        (
            "WITH a AS (SELECT 1) SELECT 1",
            "WITH a AS (SELECT 1) SELECT 1 {1}",
        ),
        ("((SELECT 1))", "((SELECT 1)) {1}"),
        ("SELECT 1; SELECT ';' ;;", "SELECT 1 {1}; SELECT ';' {1} ;;"),
    ] {
        let mut session = Session::traced();
        assert_eq!(session.plan(text), Verdict::Edited);
        assert_eq!(session.sent(text), expand(sent));
        assert_eq!(session.plan.skipped(), None);
    }
}

#[test]
fn the_sqlcommenter_format_is_written_too() {
    let mut session = Session::traced();
    session.policy.format = CommentFormat::Sqlcommenter;
    session
        .trace
        .set(Scope::Session, Field::Tag(1), b"/a b", 0)
        .unwrap();
    session.plan("SELECT 1;");
    assert_eq!(
        session.sent("SELECT 1;"),
        format!("SELECT 1 /*route='%2Fa%20b',traceparent='{FIRST}'*/;")
    );
}

#[test]
fn utility_statements_are_left_alone_before_16_and_annotated_from_there_on() {
    for text in [
        "COPY t TO STDOUT",
        "EXPLAIN SELECT 1",
        "CALL f()",
        "DO 'x'",
        "CREATE TABLE a ()",
        "SELECT 1 INTO a",
        "EXECUTE a",
    ] {
        let mut session = Session::traced();
        session.around.server_version = 150_020;
        assert_eq!(
            session.plan(text),
            Verdict::Untouched(SkipReason::Utility),
            "{text}"
        );
        session.around.server_version = 160_000;
        assert_eq!(session.plan(text), Verdict::Edited, "{text}");
    }
}

#[test]
fn session_commands_are_never_annotated() {
    for text in [
        "BEGIN",
        "COMMIT",
        "SAVEPOINT a",
        "SET a = 1",
        "RESET a",
        "SHOW a",
        "DISCARD TEMP",
        "LISTEN a",
        "NOTIFY a",
        "UNLISTEN a",
        "FETCH 1 FROM a",
        "MOVE 1 FROM a",
        "CLOSE a",
        "DEALLOCATE a",
    ] {
        let mut session = Session::traced();
        assert_eq!(
            session.plan(text),
            Verdict::Untouched(SkipReason::Utility),
            "{text}"
        );
    }
}

#[test]
fn another_application_name_ends_the_trace_that_the_last_one_was() {
    let mut session = Session::new();
    session.plan(&format!("SET application_name = '{FIRST}'"));
    assert_eq!(session.plan("SELECT 1"), Verdict::Edited);
    let other = "SET application_name = 'shop'; SELECT 2";
    session.plan(other);
    assert_eq!(session.sent(other), other);
    // One that was set by its own name stays.
    session.plan(&format!("SET application_name = '{FIRST}'"));
    session.plan(&format!("SET pgspan.traceparent = '{SECOND}'"));
    session.plan("RESET application_name");
    assert_eq!(session.plan("SELECT 3"), Verdict::Edited);
    assert_eq!(session.sent("SELECT 3"), expand("SELECT 3 {2}"));
}

#[test]
fn commands_in_a_form_that_is_not_understood_are_the_servers() {
    for text in [
        "SELECT set_config('pgspan.route', 'a' || 'b', false)",
        "INSERT INTO audit SELECT current_setting('pgspan.route', true)",
        "ALTER ROLE app SET pgspan.route = '/a'",
        "DO $$ BEGIN SET pgspan.route = '/a'; END $$",
        "SET pgspan.route = 'a', 'b'",
    ] {
        let mut session = Session::traced();
        session.plan(text);
        assert_eq!(session.plan.stray(), Stray::Unrecognised, "{text}");
        assert_ne!(session.plan.verdict(), Verdict::Answered, "{text}");
    }
    let mut session = Session::traced();
    session.plan("SET pgspan.route = '/a'; SELECT 1");
    assert_eq!(session.plan.stray(), Stray::None);
    // The server keeps the text, the command in it included.
    session.plan("SET pgspan.route = '/a'; PREPARE p AS SELECT 1");
    assert_eq!(session.plan.stray(), Stray::Known);
}

#[test]
fn of_a_mixed_message_only_the_data_statements_are_annotated() {
    let mut session = Session::traced();
    let text = "BEGIN; COPY t TO STDOUT; SELECT 1; COMMIT";
    session.around.server_version = 150_020;
    assert_eq!(session.plan(text), Verdict::Edited);
    assert_eq!(
        session.sent(text),
        expand("BEGIN; COPY t TO STDOUT; SELECT 1 {1}; COMMIT")
    );
}

#[test]
fn what_must_not_be_touched_is_not() {
    let too_long = format!("SELECT '{}'", "x".repeat(200));
    for (text, reason) in [
        ("PREPARE a AS SELECT 1", SkipReason::PrepareOrDeclare),
        (
            "SELECT 1; DECLARE a CURSOR FOR SELECT 1",
            SkipReason::PrepareOrDeclare,
        ),
        ("SELECT 1 /*route='a'*/", SkipReason::AlreadyCommented),
        (
            "/*route='a'*/ SELECT 1; SELECT 2",
            SkipReason::AlreadyCommented,
        ),
        ("", SkipReason::Empty),
        (" ; -- x", SkipReason::Empty),
        ("SELECT '\0'", SkipReason::Nul),
        ("SELECT 'abc", SkipReason::Unterminated),
        ("SELECT 1 /* abc", SkipReason::Unterminated),
        ("SELECT '\\'; SELECT ' '", SkipReason::StringsDiffer),
        (&too_long, SkipReason::TooLong),
    ] {
        let mut session = Session::traced();
        assert_eq!(session.plan(text), Verdict::Untouched(reason), "{text}");
        assert_eq!(session.sent(text), text);
        assert!(session.plan.positions().is_identity());
    }
}

#[test]
fn surroundings_can_forbid_a_comment() {
    let verdict = |change: fn(&mut Session)| {
        let mut session = Session::traced();
        change(&mut session);
        session.plan("SELECT 1")
    };
    let untouched = Verdict::Untouched;
    assert_eq!(
        verdict(|s| s.around.replication = true),
        untouched(SkipReason::Replication)
    );
    assert_eq!(
        verdict(|s| s.policy.enabled = false),
        untouched(SkipReason::Disabled)
    );
    assert_eq!(
        verdict(|s| s.around.encoding = ClientEncoding::from_name(b"SJIS")),
        untouched(SkipReason::ClientEncoding)
    );
    assert_eq!(
        verdict(|s| s.trace.reset(Scope::Session, Field::TraceParent, 0)),
        untouched(SkipReason::NothingToSay)
    );
}

#[test]
fn a_backslash_that_changes_nothing_does_no_harm() {
    let mut session = Session::traced();
    assert_eq!(session.plan("SELECT 'a\\b'"), Verdict::Edited);
}

#[test]
fn a_prefix_stands_at_the_very_start_once() {
    let mut session = Session::traced();
    session.policy.placement = Placement::Prefix;
    for (text, sent) in [
        ("SELECT 1; SELECT 2", "{1} SELECT 1; SELECT 2"),
        ("\n SELECT 1", "{1} \n SELECT 1"),
    ] {
        assert_eq!(session.plan(text), Verdict::Edited);
        assert_eq!(session.sent(text), expand(sent));
    }
    assert_eq!(
        session.plan("BEGIN; SELECT 1"),
        Verdict::Untouched(SkipReason::Utility)
    );
}

#[test]
fn a_prefix_never_stands_before_a_hint_and_a_suffix_may() {
    let mut session = Session::traced();
    let text = "/*+ SeqScan(a) */ SELECT 1";
    assert_eq!(session.plan(text), Verdict::Edited);
    assert_eq!(session.sent(text), expand("/*+ SeqScan(a) */ SELECT 1 {1}"));
    session.policy.placement = Placement::Prefix;
    assert_eq!(
        session.plan(text),
        Verdict::Untouched(SkipReason::HintInFront)
    );
}

#[test]
fn a_comment_of_the_application_says_whose_query_it_is() {
    let mut session = Session::traced();
    session.plan(&format!("SELECT 1 /*route='%2Fa',traceparent='{SECOND}'*/"));
    let trace = session.plan.trace().unwrap();
    assert_eq!(trace.parent.unwrap().to_string(), SECOND);
    assert_eq!(trace.tag("route"), Some("/a"));
    session.plan("SELECT 1");
    assert_eq!(session.parent(), FIRST);
}

#[test]
fn a_single_set_is_answered_without_a_server() {
    let mut session = Session::new();
    assert_eq!(session.plan(&set(SECOND)), Verdict::Answered);
    assert_eq!(session.replies(), [(0, "C SET".into())]);
    session.plan("SELECT 1");
    assert_eq!(session.sent("SELECT 1"), expand("SELECT 1 {2}"));
    assert_eq!(session.plan.context(), ContextState::Provided);
}

#[test]
fn set_is_cut_out_wherever_it_stands_and_holds_from_there_on() {
    for (text, sent, replies) in [
        ("{s}; SELECT 1", " SELECT 1 {2}", vec![(0, "C SET")]),
        (
            "SELECT 1; {s} /* x */ ; SELECT 2;",
            "SELECT 1 {1};  SELECT 2 {2};",
            vec![(1, "C SET")],
        ),
        ("SELECT 1; {s}", "SELECT 1 {1}; ", vec![(1, "C SET")]),
        (
            "{s};{s};SELECT 1",
            "SELECT 1 {2}",
            vec![(0, "C SET"), (0, "C SET")],
        ),
        (
            "SELECT 1; RESET pgspan.traceparent; SELECT 2",
            "SELECT 1 {1};  SELECT 2",
            vec![(1, "C RESET")],
        ),
        (
            "SELECT 1; SHOW pgspan.traceparent; SELECT 2",
            "SELECT 1 {1};  SELECT 2 {1}",
            vec![(1, "T D C SHOW")],
        ),
        (
            "SELECT set_config('pgspan.traceparent','{t}',false); SELECT 1",
            " SELECT 1 {2}",
            vec![(0, "T D C SELECT 1")],
        ),
        (
            "SET application_name = '{t}'; SELECT 1",
            " SELECT 1 {2}",
            vec![(0, "C SET")],
        ),
    ] {
        let text = text.replace("{s}", &set(SECOND)).replace("{t}", SECOND);
        let mut session = Session::traced();
        assert_eq!(session.plan(&text), Verdict::Edited, "{text}");
        assert_eq!(session.sent(&text), expand(sent), "{text}");
        let expected: Vec<_> = replies
            .into_iter()
            .map(|(n, text)| (n, text.to_owned()))
            .collect();
        assert_eq!(session.replies(), expected, "{text}");
    }
}

#[test]
fn commands_are_answered_where_annotation_is_off_and_where_a_comment_stands() {
    let mut session = Session::new();
    session.policy.enabled = false;
    assert_eq!(session.plan(&set(FIRST)), Verdict::Answered);
    assert_eq!(
        session.plan(&(set(SECOND) + " /*route='a'*/")),
        Verdict::Answered
    );
    let text = set(SECOND) + "; SELECT 1";
    assert_eq!(session.plan(&text), Verdict::Edited);
    assert_eq!(session.sent(&text), " SELECT 1");
    assert_eq!(session.plan.skipped(), Some(SkipReason::Disabled));
}

#[test]
fn an_application_name_passes_where_absorbing_is_off() {
    let mut session = Session::with(TraceRules {
        absorb_application_name: false,
        ..TraceRules::default()
    });
    let text = format!("SET application_name = '{FIRST}'");
    assert_eq!(session.plan(&text), Verdict::Untouched(SkipReason::Utility));
    assert_eq!(session.plan.trace(), None);
}

#[test]
fn a_set_beside_a_prepare_is_noticed_and_left_in_the_text() {
    let mut session = Session::new();
    let text = set(FIRST) + "; PREPARE a AS SELECT 1";
    assert_eq!(
        session.plan(&text),
        Verdict::Untouched(SkipReason::PrepareOrDeclare)
    );
    session.complete(&["SET", "PREPARE"], Idle);
    session.plan("SELECT 1");
    assert_eq!(session.parent(), FIRST);
}

#[test]
fn set_local_outside_a_transaction_warns_and_holds_for_nothing() {
    let mut session = Session::new();
    session.plan(&set(FIRST).replace("SET", "SET LOCAL"));
    assert_eq!(session.replies(), [(0, "N C SET".into())]);
    assert_eq!(
        session.plan("SELECT 1"),
        Verdict::Untouched(SkipReason::NothingToSay)
    );
}

#[test]
fn set_local_in_a_message_of_several_statements_holds_to_its_end() {
    let mut session = Session::new();
    let text = set(FIRST).replace("SET", "SET LOCAL") + "; SELECT 1";
    session.plan(&text);
    assert_eq!(session.replies(), [(0, "C SET".into())]);
    assert_eq!(session.sent(&text), expand(" SELECT 1 {1}"));
    session.complete(&["SELECT 1"], Idle);
    assert_eq!(
        session.plan("SELECT 1"),
        Verdict::Untouched(SkipReason::NothingToSay)
    );
}

#[test]
fn a_transaction_in_one_message_ends_its_set_local() {
    let mut session = Session::new();
    let text =
        format!("BEGIN; SET LOCAL pgspan.traceparent = '{FIRST}'; SELECT 1; COMMIT; SELECT 2");
    session.plan(&text);
    assert_eq!(
        session.sent(&text),
        expand("BEGIN;  SELECT 1 {1}; COMMIT; SELECT 2")
    );
    assert_eq!(session.replies(), [(1, "C SET".into())]);
}

#[test]
fn whose_query_it_is_was_decided_before_its_commit() {
    let mut session = Session::new();
    session.plan(&format!(
        "BEGIN; SET LOCAL pgspan.traceparent = '{FIRST}'; COMMIT"
    ));
    assert_eq!(session.parent(), FIRST);
}

#[test]
fn begin_set_and_work_in_a_pipeline_belong_together() {
    let mut session = Session::new();
    session.plan("BEGIN");
    assert_eq!(
        session.plan(&set(FIRST).replace("SET", "SET LOCAL")),
        Verdict::Answered
    );
    assert_eq!(session.replies(), [(0, "C SET".into())]);
    session.plan("SELECT 1");
    assert_eq!(session.parent(), FIRST);
    session.plan("ROLLBACK");
    assert_eq!(
        session.plan("SELECT 1"),
        Verdict::Untouched(SkipReason::NothingToSay)
    );
}

#[test]
fn a_rollback_undoes_set_and_a_commit_keeps_it() {
    for (end, expected) in [("ROLLBACK", ""), ("COMMIT", FIRST)] {
        let mut session = Session::new();
        session.run("BEGIN", InTransaction);
        session.plan(&set(FIRST));
        session.run("SELECT 1", InTransaction);
        assert_eq!(session.parent(), FIRST);
        session.run(end, Idle);
        session.run("SELECT 1", Idle);
        assert_eq!(session.parent(), expected, "{end}");
    }
}

#[test]
fn a_message_that_fails_takes_its_set_back() {
    let mut session = Session::traced();
    session.plan(&(set(SECOND) + "; SELECT 1/0"));
    assert_eq!(session.parent(), SECOND);
    session.fail(Idle);
    session.plan("SELECT 1");
    assert_eq!(session.parent(), FIRST);
}

#[test]
fn a_failed_transaction_refuses_set_and_lets_its_end_pass() {
    let mut session = Session::traced();
    session.around.status = Failed;
    assert_eq!(session.plan(&set(SECOND)), Verdict::Answered);
    assert_eq!(session.replies(), [(0, "E".into())]);
    assert_eq!(
        session.plan(&(set(SECOND) + "; SELECT 1")),
        Verdict::Answered
    );
    assert_eq!(session.replies(), [(0, "E".into())]);
    let text = "ROLLBACK; ".to_owned() + &set(SECOND) + "; SELECT 1";
    assert_eq!(session.plan(&text), Verdict::Edited);
    assert_eq!(session.sent(&text), expand("ROLLBACK;  SELECT 1 {2}"));
}

#[test]
fn showing_what_was_never_set_fails_where_the_transaction_is() {
    let mut session = Session::new();
    assert_eq!(session.plan("SHOW pgspan.route"), Verdict::Answered);
    assert_eq!(session.replies(), [(0, "E".into())]);
    session.around.status = InTransaction;
    assert_eq!(
        session.plan("SHOW pgspan.route"),
        Verdict::Untouched(SkipReason::Utility)
    );
    session.fail(Failed);
    session.around.status = Idle;
    let text = "SELECT 1; SHOW pgspan.route; SELECT 2";
    assert_eq!(
        session.plan(text),
        Verdict::Untouched(SkipReason::NothingToSay)
    );
}

#[test]
fn reset_all_and_discard_all_clear_the_context_and_go_on() {
    for text in ["RESET ALL", "DISCARD ALL"] {
        let mut session = Session::traced();
        assert_eq!(session.plan(text), Verdict::Untouched(SkipReason::Utility));
        session.complete(&[text], Idle);
        assert_eq!(
            session.plan("SELECT 1"),
            Verdict::Untouched(SkipReason::NothingToSay)
        );
    }
    let mut session = Session::traced();
    session.plan("RESET ALL; SELECT 1");
    session.fail(Idle);
    session.plan("SELECT 1");
    assert_eq!(session.parent(), FIRST);
}

#[test]
fn an_invalid_trace_warns_and_leaves_none() {
    let mut session = Session::traced();
    session.plan(&set("00-nonsense"));
    assert_eq!(session.replies(), [(0, "N C SET".into())]);
    assert_eq!(
        session.plan("SELECT 1"),
        Verdict::Untouched(SkipReason::NothingToSay)
    );
    assert_eq!(session.plan.context(), ContextState::Invalid);
}

#[test]
fn positions_are_those_of_the_clients_text() {
    let mut session = Session::traced();
    let text = "SELECT 'é'; ".to_owned() + &set(SECOND) + "; SELECT nosuch";
    session.plan(&text);
    let sent = session.sent(&text);
    let at = |text: &str| {
        u32::try_from(text[..text.find("nosuch").unwrap()].chars().count() + 1).unwrap()
    };
    assert_eq!(session.plan.positions().to_client(at(&sent)), at(&text));
    let end = |text: &str| u32::try_from(text.chars().count() + 1).unwrap();
    assert_eq!(session.plan.positions().to_client(end(&sent)), end(&text));
}

#[test]
fn a_message_that_the_comments_would_make_too_long_goes_without_them() {
    let mut session = Session::traced();
    assert_eq!(session.annotator.longest_message, 0x3FFF_FFFE);
    let text = "SELECT 1";
    session.annotator.longest_message = 4 + text.len() + " ".len() + ONE.len() + 1;
    assert_eq!(session.plan(text), Verdict::Edited);
    session.annotator.longest_message -= 1;
    assert_eq!(session.plan(text), Verdict::Untouched(SkipReason::TooLong));
    assert_eq!(session.plan.inserted_len(), 0);
}

#[test]
fn a_text_that_is_not_ascii_is_not_cut_under_a_client_only_encoding() {
    let mut session = Session::new();
    session.around.encoding = ClientEncoding::from_name(b"SJIS");
    assert_eq!(session.plan(&set(FIRST)), Verdict::Answered);
    assert_eq!(
        session.plan("SET pgspan.route = 'é'"),
        Verdict::Untouched(SkipReason::ClientEncoding)
    );
}

#[test]
fn a_plan_in_the_steady_state_keeps_its_memory() {
    let mut session = Session::traced();
    session.plan("SELECT 1; SELECT 2");
    let before = (
        session.plan.inserted_len(),
        session
            .plan
            .edits()
            .map(|e| e.insert.as_ptr())
            .collect::<Vec<_>>(),
    );
    session.plan("SELECT 1; SELECT 2");
    let after = (
        session.plan.inserted_len(),
        session
            .plan
            .edits()
            .map(|e| e.insert.as_ptr())
            .collect::<Vec<_>>(),
    );
    assert_eq!(before, after);
}

proptest! {
    #[test]
    fn the_server_reads_the_same_tokens_but_for_what_was_answered(
        pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..12),
        placement in prop::sample::select(vec![Placement::Suffix, Placement::Prefix]),
        version in prop::sample::select(vec![150_000, 180_000]),
        status in prop::sample::select(vec![Idle, InTransaction, Failed]),
    ) {
        let text = pieces.concat();
        let mut session = Session::traced();
        session.policy.placement = placement;
        session.policy.max_query_bytes = 1 << 20;
        session.around.server_version = version;
        session.around.status = status;
        let verdict = session.plan(&text);
        let sent = session.sent(&text);
        prop_assert_eq!(
            sent.len(),
            text.len() + session.plan.inserted_len() - session.plan.removed_len()
        );
        let edits: Vec<_> = session.plan.edits().map(|edit| (edit.at, edit.at + edit.remove)).collect();
        prop_assert!(edits.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        match verdict {
            Verdict::Answered => prop_assert!(edits.is_empty() && session.plan.replies().count() > 0),
            Verdict::Untouched(_) => prop_assert_eq!(&sent, &text),
            Verdict::Edited => {
                // What is left of the client's text, token by token, with its positions.
                let kept: Vec<_> = tokens(&text)
                    .into_iter()
                    .filter(|token| !edits.iter().any(|(start, end)| *start <= token.start && token.end <= *end))
                    .collect();
                let read = tokens(&sent);
                prop_assert_eq!(kept.len(), read.len());
                let positions = session.plan.positions();
                for (client, server) in kept.iter().zip(&read) {
                    prop_assert_eq!(client.text(text.as_bytes()), server.text(sent.as_bytes()));
                    let character = |text: &str, at| u32::try_from(text[..at].chars().count() + 1).unwrap();
                    prop_assert_eq!(
                        positions.to_client(character(&sent, server.start)),
                        character(&text, client.start)
                    );
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut session = Session::traced();
        let Session { annotator, policy, trace, around, plan } = &mut session;
        annotator.plan(policy, &text, trace, around, plan);
        prop_assert!(plan.edits().all(|edit| edit.at + edit.remove <= text.len()));
    }
}

const PIECES: &[&str] = &[
    "SELECT 1",
    "SELECT 'é;' ",
    "SELECT 'a''b'",
    "SELECT $$;$$",
    "INSERT INTO t VALUES (1, -2)",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "COPY t TO STDOUT",
    "CREATE RULE a AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
    ";",
    ";",
    ";",
    " ",
    "\n",
    "-- x\n",
    "/* c /* d */ */",
    "SET pgspan.route = '/é'",
    "SET LOCAL pgspan.route TO x",
    "RESET pgspan.route",
    "SHOW pgspan.action",
    "RESET ALL",
    "SELECT set_config('pgspan.action', 'a', false)",
    "SELECT E'\\''",
    "'",
    "/*",
    "\\",
    "U&'a'",
    "/*+ x */",
];

fn tokens(text: &str) -> Vec<Token> {
    Lexer::new(
        text.as_bytes(),
        StandardConformingStrings::On,
        ClientEncoding::Utf8,
    )
    .filter(|token| !token.kind.is_blank())
    .collect()
}

/// A client on a server of version 18, with the plain format.
struct Session {
    annotator: Annotator,
    policy: AnnotationPolicy,
    trace: SessionTrace,
    around: Surroundings,
    plan: QueryPlan,
}

impl Session {
    fn new() -> Self {
        Self::with(TraceRules::default())
    }

    fn with(rules: TraceRules) -> Self {
        Self {
            annotator: Annotator::new(),
            policy: AnnotationPolicy {
                enabled: true,
                format: CommentFormat::Plain,
                placement: Placement::Suffix,
                max_query_bytes: 200,
                unnamed_parse: false,
                prepared: PreparedChannel::None,
            },
            trace: SessionTrace::new(Arc::new(TracePolicy::new(rules))),
            around: Surroundings {
                server_version: 180_000,
                strings: StandardConformingStrings::On,
                encoding: ClientEncoding::Utf8,
                status: Idle,
                replication: false,
            },
            plan: QueryPlan::new(),
        }
    }

    fn traced() -> Self {
        let mut session = Self::new();
        session.plan(&set(FIRST));
        session
    }

    fn plan(&mut self, text: &str) -> Verdict {
        let Self {
            annotator,
            policy,
            trace,
            around,
            plan,
        } = self;
        annotator.plan(policy, text.as_bytes(), trace, around, plan);
        plan.verdict()
    }

    /// Plans a message of one statement and lets the server complete it.
    fn run(&mut self, text: &str, status: TransactionStatus) {
        self.plan(text);
        self.complete(&[text], status);
    }

    fn complete(&mut self, tags: &[&str], status: TransactionStatus) {
        for tag in tags {
            self.trace.on_command_complete(tag.as_bytes());
        }
        self.trace.on_ready(status);
        self.around.status = status;
    }

    fn fail(&mut self, status: TransactionStatus) {
        self.trace.on_error();
        self.trace.on_ready(status);
        self.around.status = status;
    }

    /// The client's text with the plan's edits.
    fn sent(&self, text: &str) -> String {
        let (mut sent, mut at) = (Vec::new(), 0);
        for edit in self.plan.edits() {
            sent.extend_from_slice(&text.as_bytes()[at..edit.at]);
            sent.extend_from_slice(edit.insert);
            at = edit.at + edit.remove;
        }
        sent.extend_from_slice(&text.as_bytes()[at..]);
        String::from_utf8(sent).unwrap()
    }

    /// The replies by the tags of their messages; of CommandComplete, its own tag too.
    fn replies(&self) -> Vec<(usize, String)> {
        let describe = |mut messages: &[u8]| {
            let mut words = Vec::new();
            while let [tag, a, b, c, d, rest @ ..] = messages {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
                let (body, behind) = rest.split_at(length);
                words.push(char::from(*tag).to_string());
                if *tag == b'C' {
                    words.push(String::from_utf8_lossy(&body[..length - 1]).into_owned());
                }
                messages = behind;
            }
            words.join(" ")
        };
        self.plan
            .replies()
            .map(|reply| (reply.after_statements, describe(reply.messages)))
            .collect()
    }

    fn parent(&self) -> String {
        let parent = self.plan.trace().and_then(|trace| trace.parent);
        parent.map(|parent| parent.to_string()).unwrap_or_default()
    }
}

fn set(value: &str) -> String {
    format!("SET pgspan.traceparent = '{value}'")
}

fn expand(text: &str) -> String {
    text.replace("{1}", ONE).replace("{2}", TWO)
}
