use std::time::Duration;

use super::*;
use crate::protocol::backend::TransactionStatus::{Failed, Idle, InTransaction};

const FIRST: &str = "00-11111111111111111111111111111111-1111111111111111-01";
const SECOND: &str = "00-22222222222222222222222222222222-2222222222222222-01";

#[test]
fn nothing_said_leaves_the_static_tags_and_no_trace() {
    let mut trace = session_with(TraceRules {
        static_tags: vec![("application".into(), "pay".into())],
        ..TraceRules::default()
    });
    let (context, state) = trace.context();
    assert_eq!(
        (context.parent, context.tag("application")),
        (None, Some("pay"))
    );
    assert_eq!(state, ContextState::None);
    assert_eq!(comment(&mut trace), " /*application='pay'*/");
}

#[test]
fn the_nearest_layer_wins_field_by_field() {
    let mut trace = started(&[("pgspan.traceparent", FIRST), ("pgspan.route", "/a")]);
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    assert_eq!(parent(&mut trace), SECOND);
    assert_eq!(trace.context().0.tag("route"), Some("/a"));
    assert_eq!(trace.value(Field::TraceParent), Some(SECOND));
    assert_eq!(trace.value(Field::CorrelationId), None);
}

#[test]
fn set_local_ends_with_the_transaction() {
    let mut trace = session();
    begin(&mut trace);
    set(&mut trace, Scope::Local, Field::TraceParent, FIRST);
    assert_eq!(parent(&mut trace), FIRST);
    query(&mut trace, "SELECT 1", InTransaction);
    assert_eq!(parent(&mut trace), FIRST);
    commit(&mut trace);
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn set_in_a_transaction_is_kept_by_commit_and_undone_by_rollback() {
    let mut trace = session();
    begin(&mut trace);
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    commit(&mut trace);
    assert_eq!(parent(&mut trace), FIRST);
    begin(&mut trace);
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    assert_eq!(parent(&mut trace), SECOND);
    rollback(&mut trace);
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn a_failed_transaction_undoes_set_even_if_it_is_committed() {
    let mut trace = session();
    begin(&mut trace);
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    failed_query(&mut trace, InTransaction, Failed);
    trace.on_transaction_command(&TransactionCommand::Commit { chain: false }, 1);
    trace.on_query_sent(Idle);
    trace.on_command_complete(b"ROLLBACK");
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn a_rollback_that_only_its_tag_tells_of_undoes_set() {
    let mut trace = session();
    set_in_extended_transaction(&mut trace);
    trace.on_request_sent();
    trace.on_command_complete(b"ROLLBACK");
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn a_commit_that_only_its_tag_tells_of_keeps_set() {
    let mut trace = session();
    set_in_extended_transaction(&mut trace);
    trace.on_request_sent();
    trace.on_command_complete(b"COMMIT");
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn set_outside_a_transaction_outlives_a_later_error() {
    let mut trace = session();
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    trace.on_query_answered_here(Idle);
    failed_query(&mut trace, Idle, Idle);
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn an_implicit_transaction_that_fails_undoes_its_set() {
    let mut trace = session();
    // SELECT 1; SET …; SELECT 1/0
    trace
        .set(Scope::Session, Field::TraceParent, FIRST.as_bytes(), 1)
        .unwrap();
    trace.on_query_sent(Idle);
    assert_eq!(parent(&mut trace), FIRST);
    trace.on_command_complete(b"SELECT 1");
    trace.on_error();
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn set_behind_the_statement_that_fails_was_never_run() {
    let mut trace = session();
    // SELECT 1/0; SET …
    trace
        .set(Scope::Session, Field::TraceParent, FIRST.as_bytes(), 1)
        .unwrap();
    trace.on_query_sent(Idle);
    trace.on_error();
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn what_a_message_committed_before_its_error_stays() {
    let mut trace = session();
    // BEGIN; SET first; COMMIT; SET second; SELECT 1/0
    trace.on_transaction_command(&TransactionCommand::Begin, 1);
    trace
        .set(Scope::Session, Field::TraceParent, FIRST.as_bytes(), 1)
        .unwrap();
    trace.on_transaction_command(&TransactionCommand::Commit { chain: false }, 2);
    trace
        .set(Scope::Session, Field::TraceParent, SECOND.as_bytes(), 2)
        .unwrap();
    trace.on_query_sent(Idle);
    assert_eq!(parent(&mut trace), SECOND);
    trace.on_command_complete(b"BEGIN");
    trace.on_command_complete(b"COMMIT");
    trace.on_error();
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn an_error_in_a_pipeline_leaves_the_later_messages_their_settings() {
    let mut trace = session();
    trace
        .set(Scope::Session, Field::TraceParent, FIRST.as_bytes(), 0)
        .unwrap();
    trace.on_query_sent(Idle);
    trace
        .set(Scope::Session, Field::CorrelationId, b"second", 0)
        .unwrap();
    trace.on_query_sent(Idle);
    trace.on_error();
    trace.on_ready(Idle);
    assert_eq!(parent(&mut trace), "");
    assert_eq!(trace.context().0.correlation_id.as_deref(), Some("second"));
    trace.on_command_complete(b"SELECT 1");
    trace.on_ready(Idle);
    assert_eq!(trace.context().0.correlation_id.as_deref(), Some("second"));
}

#[test]
fn the_status_is_foretold_while_messages_are_unanswered() {
    let mut trace = session();
    assert_eq!(trace.status(Idle), Idle);
    trace.on_query_sent(InTransaction);
    assert_eq!(trace.status(Idle), InTransaction);
    trace.on_request_sent();
    assert_eq!(trace.status(Idle), Idle);
    trace.on_ready(InTransaction);
    trace.on_ready(InTransaction);
    assert_eq!(trace.status(InTransaction), InTransaction);
}

#[test]
fn rolling_back_to_a_savepoint_undoes_what_came_after_it() {
    let mut trace = session();
    begin(&mut trace);
    set(&mut trace, Scope::Local, Field::TraceParent, FIRST);
    savepoint(&mut trace, b"a");
    set(&mut trace, Scope::Local, Field::TraceParent, SECOND);
    failed_query(&mut trace, InTransaction, Failed);
    rollback_to(&mut trace, b"a");
    assert_eq!(parent(&mut trace), FIRST);
    set(&mut trace, Scope::Local, Field::TraceParent, SECOND);
    rollback_to(&mut trace, b"a");
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn a_savepoint_older_than_every_change_undoes_all_of_them() {
    let mut trace = session();
    begin(&mut trace);
    savepoint(&mut trace, b"a");
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    rollback_to(&mut trace, b"a");
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn a_released_savepoint_changes_nothing() {
    let mut trace = session();
    begin(&mut trace);
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    savepoint(&mut trace, b"a");
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    trace.on_transaction_command(&TransactionCommand::Release(b"a".into()), 1);
    query(&mut trace, "RELEASE", InTransaction);
    assert_eq!(parent(&mut trace), SECOND);
    rollback(&mut trace);
    assert_eq!(parent(&mut trace), "");
}

#[test]
fn reset_goes_back_to_the_startup_value() {
    let mut trace = started(&[("pgspan.traceparent", FIRST)]);
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    trace.reset(Scope::Session, Field::TraceParent, 0);
    trace.on_query_answered_here(Idle);
    assert_eq!(parent(&mut trace), FIRST);
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    set(&mut trace, Scope::Session, Field::Tag(1), "/a");
    trace.reset_all(1);
    query(&mut trace, "RESET", Idle);
    assert_eq!(parent(&mut trace), FIRST);
    // As PostgreSQL has it of a parameter that was once set.
    assert_eq!(trace.value(Field::Tag(1)), Some(""));
    assert_eq!(trace.value(Field::Tag(2)), None);
}

#[test]
fn set_local_to_default_hides_the_session_for_the_transaction() {
    let mut trace = session();
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    trace.on_query_answered_here(Idle);
    begin(&mut trace);
    trace.reset(Scope::Local, Field::TraceParent, 0);
    trace.on_query_answered_here(InTransaction);
    assert_eq!(parent(&mut trace), "");
    commit(&mut trace);
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn set_behind_set_local_holds_at_once_and_beyond_the_transaction() {
    let mut trace = session();
    begin(&mut trace);
    set(&mut trace, Scope::Local, Field::TraceParent, FIRST);
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    assert_eq!(parent(&mut trace), SECOND);
    commit(&mut trace);
    assert_eq!(parent(&mut trace), SECOND);
}

#[test]
fn an_invalid_trace_hides_the_valid_one_before_it() {
    let mut trace = session();
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    let warning = trace
        .set(Scope::Session, Field::TraceParent, b"00-0", 0)
        .unwrap_err();
    assert_eq!(
        warning.to_warning().message,
        "invalid value for parameter \"pgspan.traceparent\": a traceparent of version 00 has exactly 55 characters"
    );
    assert_eq!(parent(&mut trace), "");
    assert_eq!(trace.context().1, ContextState::Invalid);
    assert_eq!(trace.value(Field::TraceParent), Some(""));
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    assert_eq!(trace.context().1, ContextState::Provided);
}

#[test]
fn the_plain_pair_makes_a_trace_once_it_is_complete() {
    let mut trace = session();
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    set(&mut trace, Scope::Session, Field::TraceId, &"2".repeat(32));
    assert_eq!(parent(&mut trace), "");
    set(&mut trace, Scope::Session, Field::SpanId, &"2".repeat(16));
    assert_eq!(parent(&mut trace), SECOND);
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    assert_eq!(parent(&mut trace), FIRST);
}

#[test]
fn a_tracestate_never_outlives_its_trace() {
    let mut trace = started(&[("pgspan.traceparent", FIRST), ("pgspan.tracestate", "a=1")]);
    assert_eq!(trace.context().0.tracestate.as_deref(), Some("a=1"));
    set(&mut trace, Scope::Session, Field::TraceParent, SECOND);
    assert_eq!(trace.context().0.tracestate, None);
    set(&mut trace, Scope::Session, Field::TraceState, "b=2");
    assert_eq!(trace.context().0.tracestate.as_deref(), Some("b=2"));
    set(&mut trace, Scope::Session, Field::TraceParent, "");
    assert_eq!(trace.context().0.tracestate, None);
}

#[test]
fn tags_come_one_by_one_or_together() {
    let mut trace = session();
    set(
        &mut trace,
        Scope::Session,
        Field::Tags,
        "route='%2Fa',action='b'",
    );
    set(&mut trace, Scope::Session, Field::Tag(1), "/c");
    let (context, state) = trace.context();
    assert_eq!(
        (context.tag("route"), context.tag("action")),
        (Some("/c"), Some("b"))
    );
    assert_eq!(state, ContextState::None);
}

#[test]
fn of_several_tags_only_those_that_are_not_allowed_are_left_out() {
    let mut trace = session();
    let text = b"route='/a',user='7'";
    assert!(trace.set(Scope::Session, Field::Tags, text, 0).is_err());
    assert_eq!(trace.context().0.tags, [("route".into(), "/a".into())]);
}

#[test]
fn a_session_takes_little_memory() {
    assert!(
        size_of::<SessionTrace>() <= 512,
        "{}",
        size_of::<SessionTrace>()
    );
}

#[test]
fn a_made_up_trace_lasts_for_one_transaction() {
    let mut trace = session_with(TraceRules {
        generate: Some(counting),
        ..TraceRules::default()
    });
    assert_eq!(trace.context().1, ContextState::Generated);
    begin(&mut trace);
    let first = parent(&mut trace);
    query(&mut trace, "SELECT 1", InTransaction);
    assert_eq!(parent(&mut trace), first);
    commit(&mut trace);
    assert_ne!(parent(&mut trace), first);
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    trace.on_query_answered_here(Idle);
    assert_eq!(parent(&mut trace), FIRST);
    assert_eq!(trace.context().1, ContextState::Provided);
}

#[test]
fn a_comment_in_the_text_is_nearer_than_the_session() {
    let mut trace = session();
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    set(&mut trace, Scope::Session, Field::CorrelationId, "c");
    let text = format!("/*route='%2Fa',traceparent='{SECOND}',user='7'*/");
    let comment = Comment::parse(text.as_bytes()).unwrap();
    let (context, state) = trace.context_with_comment(&comment);
    assert_eq!(context.parent.unwrap().to_string(), SECOND);
    assert_eq!(context.correlation_id.as_deref(), Some("c"));
    assert_eq!(context.tags, [("route".into(), "/a".into())]);
    assert_eq!(state, ContextState::Provided);
    let (context, _) = trace.context_with_tags(&comment);
    assert_eq!(context.parent.unwrap().to_string(), FIRST);
    assert_eq!(context.tag("route"), Some("/a"));
    let invalid = Comment::parse(b"/*traceparent='x'*/").unwrap();
    let (context, state) = trace.context_with_comment(&invalid);
    assert_eq!((context.parent, state), (None, ContextState::Invalid));
}

#[test]
fn the_startup_packet_is_read_and_stripped() {
    let options = format!(
        "-c geqo=off  -c pgspan.traceparent={FIRST} --pgspan.route=a\\ b\\\\c -cpgspan.rout=x --search-path=x\\ y -c"
    );
    let startup = SessionTrace::at_startup(
        Arc::new(TracePolicy::new(TraceRules::default())),
        [
            (&b"user"[..], &b"ann"[..]),
            (b"options", options.as_bytes()),
            (b"application_name", SECOND.as_bytes()),
            (b"PGSPAN.correlation_id", b"c"),
            (b"pgspan.tracestate", b"="),
        ],
    );
    let forwarded: Vec<_> = startup.parameters.iter().map(|(k, v)| (*k, &**v)).collect();
    assert_eq!(
        forwarded,
        [
            (&b"user"[..], &b"ann"[..]),
            (b"options", b"-c geqo=off --search-path=x\\ y -c")
        ]
    );
    let mut trace = startup.trace;
    assert_eq!(parent(&mut trace), SECOND);
    assert_eq!(trace.context().0.tag("route"), Some("a b\\c"));
    assert_eq!(trace.context().0.correlation_id.as_deref(), Some("c"));
    let warnings: Vec<_> = startup.warnings.iter().map(|w| w.hint.as_deref()).collect();
    assert_eq!(
        warnings,
        [Some("Perhaps you meant \"pgspan.route\"."), None]
    );
}

#[test]
fn options_without_anything_of_ours_are_forwarded_as_they_are() {
    let mut startup = at_startup(&[
        ("options", " -c  geqo=off -e"),
        ("application_name", "psql"),
    ]);
    assert_eq!(
        startup.parameters.remove(0).1,
        Cow::Borrowed(b" -c  geqo=off -e")
    );
    assert_eq!(startup.parameters.remove(0).1, Cow::Borrowed(b"psql"));
    let startup = at_startup(&[("options", "--pgspan.trace-id=x")]);
    assert!(startup.parameters.is_empty());
}

#[test]
fn an_application_name_is_left_alone_where_absorbing_is_off() {
    let rules = TraceRules {
        absorb_application_name: false,
        ..TraceRules::default()
    };
    let startup = SessionTrace::at_startup(
        Arc::new(TracePolicy::new(rules)),
        [(&b"application_name"[..], FIRST.as_bytes())],
    );
    assert_eq!(startup.parameters.len(), 1);
}

#[test]
fn the_comment_is_written_once_for_a_context() {
    let mut trace = session();
    set(&mut trace, Scope::Session, Field::TraceParent, FIRST);
    let first = trace
        .comment(CommentFormat::Sqlcommenter, Placement::Suffix)
        .as_ptr();
    query(&mut trace, "SELECT 1", Idle);
    let second = trace
        .comment(CommentFormat::Sqlcommenter, Placement::Suffix)
        .as_ptr();
    assert_eq!(first, second);
    assert_eq!(comment(&mut trace), format!(" /*traceparent='{FIRST}'*/"));
    assert_eq!(
        trace.comment(CommentFormat::Plain, Placement::Prefix),
        b"/* trace_id: 11111111111111111111111111111111 */ "
    );
}

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};

use proptest::prelude::*;

#[test]
#[expect(clippy::disallowed_methods)]
fn a_trace_that_too_many_transactions_have_is_stale_and_the_next_one_is_not() {
    let mut trace = SessionTrace::new(Arc::new(TracePolicy::new(TraceRules {
        stale_transactions: 2,
        stale_after: Duration::from_secs(60),
        ..TraceRules::default()
    })));
    let now = Instant::now();
    let state = |trace: &mut SessionTrace| trace.context().1;
    let parent = |digit: &str| format!("00-{}-{}-01", digit.repeat(32), digit.repeat(16));
    let set = |trace: &mut SessionTrace, digit: &str| {
        let parent = parent(digit);
        trace
            .set(Scope::Session, Field::TraceParent, parent.as_bytes(), 0)
            .unwrap();
    };
    set(&mut trace, "1");
    for expected in [
        ContextState::Provided,
        ContextState::Provided,
        ContextState::Provided,
        ContextState::Stale,
    ] {
        assert_eq!(state(&mut trace), expected);
        trace.on_transaction_end(now);
    }
    // It is still the trace.
    assert_eq!(trace.context().0.parent.unwrap().to_string(), parent("1"));
    set(&mut trace, "1");
    assert_eq!(state(&mut trace), ContextState::Stale);
    set(&mut trace, "2");
    assert_eq!(state(&mut trace), ContextState::Provided);
    trace.on_transaction_end(now);
    trace.on_transaction_end(now + Duration::from_secs(61));
    assert_eq!(state(&mut trace), ContextState::Stale);
    trace.reset(Scope::Session, Field::TraceParent, 0);
    assert_eq!(state(&mut trace), ContextState::None);
}

proptest! {
    #[test]
    fn arbitrary_options_never_panic(options in prop::collection::vec(any::<u8>(), 0..60)) {
        let policy = Arc::new(TracePolicy::new(TraceRules::default()));
        let parameters = [(&b"options"[..], options.as_slice())];
        let _ = SessionTrace::at_startup(policy, parameters);
    }

    #[test]
    fn once_everything_is_answered_the_plan_is_what_was_answered(
        steps in prop::collection::vec((0_u8..10, any::<bool>()), 0..40),
    ) {
        let mut trace = session();
        let mut status = Idle;
        for (step, fails) in steps {
            let scope = if fails { Scope::Session } else { Scope::Local };
            match step {
                0..3 => set(&mut trace, scope, Field::TraceParent, [FIRST, SECOND, ""][usize::from(step)]),
                3 => savepoint(&mut trace, b"a"),
                4 => rollback_to(&mut trace, b"a"),
                5 => { begin(&mut trace); status = InTransaction }
                6 => { commit(&mut trace); status = Idle }
                7 => { rollback(&mut trace); status = Idle }
                _ if fails && status == Idle => failed_query(&mut trace, Idle, Idle),
                _ if fails => { failed_query(&mut trace, InTransaction, Failed); status = Failed }
                _ => query(&mut trace, "SELECT 1", status),
            }
        }
        query(&mut trace, "SELECT 1", Idle);
        prop_assert!(trace.journal.is_empty() && trace.planned.is_settled());
        prop_assert_eq!(&trace.planned, &trace.answered);
    }
}

fn counting() -> [u8; 24] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    [NEXT.fetch_add(1, Ordering::Relaxed); 24]
}

fn session() -> SessionTrace {
    session_with(TraceRules::default())
}

fn session_with(rules: TraceRules) -> SessionTrace {
    SessionTrace::new(Arc::new(TracePolicy::new(rules)))
}

fn at_startup<'a>(parameters: &[(&'a str, &'a str)]) -> Startup<'a> {
    let parameters = parameters.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes()));
    SessionTrace::at_startup(
        Arc::new(TracePolicy::new(TraceRules::default())),
        parameters,
    )
}

fn started(parameters: &[(&str, &str)]) -> SessionTrace {
    at_startup(parameters).trace
}

fn set(trace: &mut SessionTrace, scope: Scope, field: Field, text: &str) {
    trace.set(scope, field, text.as_bytes(), 0).unwrap();
}

fn query(trace: &mut SessionTrace, tag: &str, status: TransactionStatus) {
    trace.on_query_sent(status);
    trace.on_command_complete(tag.as_bytes());
    trace.on_ready(status);
}

fn failed_query(trace: &mut SessionTrace, predicted: TransactionStatus, status: TransactionStatus) {
    trace.on_query_sent(predicted);
    trace.on_error();
    trace.on_ready(status);
}

fn begin(trace: &mut SessionTrace) {
    trace.on_transaction_command(&TransactionCommand::Begin, 1);
    query(trace, "BEGIN", InTransaction);
}

fn commit(trace: &mut SessionTrace) {
    trace.on_transaction_command(&TransactionCommand::Commit { chain: false }, 1);
    query(trace, "COMMIT", Idle);
}

fn rollback(trace: &mut SessionTrace) {
    trace.on_transaction_command(&TransactionCommand::Rollback { chain: false }, 1);
    query(trace, "ROLLBACK", Idle);
}

fn savepoint(trace: &mut SessionTrace, name: &[u8]) {
    trace.on_transaction_command(&TransactionCommand::Savepoint(name.into()), 1);
    query(trace, "SAVEPOINT", InTransaction);
}

fn rollback_to(trace: &mut SessionTrace, name: &[u8]) {
    trace.on_transaction_command(&TransactionCommand::RollbackTo(name.into()), 1);
    query(trace, "ROLLBACK", InTransaction);
}

fn set_in_extended_transaction(trace: &mut SessionTrace) {
    trace.on_request_sent();
    trace.on_command_complete(b"BEGIN");
    trace.on_ready(InTransaction);
    set(trace, Scope::Session, Field::TraceParent, FIRST);
}

fn parent(trace: &mut SessionTrace) -> String {
    let parent = trace.context().0.parent;
    parent.map(|parent| parent.to_string()).unwrap_or_default()
}

fn comment(trace: &mut SessionTrace) -> String {
    let comment = trace.comment(CommentFormat::Sqlcommenter, Placement::Suffix);
    String::from_utf8(comment.to_vec()).unwrap()
}
