use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::session::trace::{TracePolicy, TraceRules};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn set_is_recognised_in_all_its_spellings() {
    for (text, scope, name, value) in [
        (
            "SET pgspan.route = '/a'",
            Scope::Session,
            "route",
            Some("/a"),
        ),
        (
            "set session PGSPAN . Route to \"Big\";",
            Scope::Session,
            "route",
            Some("Big"),
        ),
        (
            "/*x*/ SET LOCAL \"pgspan.route\" TO small -- y",
            Scope::Local,
            "route",
            Some("small"),
        ),
        (
            "SET pgspan.route='it''s'",
            Scope::Session,
            "route",
            Some("it's"),
        ),
        (
            "SET pgspan.route = E'a\\'b'",
            Scope::Session,
            "route",
            Some("a'b"),
        ),
        ("SET pgspan.route TO DEFAULT", Scope::Session, "route", None),
        (
            "SET pgspan.route = -1.5",
            Scope::Session,
            "route",
            Some("-1.5"),
        ),
        ("SET pgspan.route = 7;;", Scope::Session, "route", Some("7")),
        ("SET pgspan.a.b = on", Scope::Session, "a.b", Some("on")),
    ] {
        let expected = TraceCommand::Set {
            scope,
            name: name.as_bytes().into(),
            value: value.map(|value| value.as_bytes().into()),
            form: Form::Command,
        };
        assert_eq!(recognise(text), Some(expected), "{text}");
    }
}

#[test]
fn a_traceparent_in_application_name_is_recognised_and_nothing_else_is() {
    let text = format!("SET LOCAL application_name TO '{PARENT}'");
    let expected = TraceCommand::SetApplicationName {
        scope: Scope::Local,
        value: PARENT.as_bytes().into(),
        form: Form::Command,
    };
    assert_eq!(recognise(&text), Some(expected));
    let text = format!("SELECT set_config('Application_Name', '{PARENT}', 'f')");
    let expected = TraceCommand::SetApplicationName {
        scope: Scope::Session,
        value: PARENT.as_bytes().into(),
        form: Form::Function,
    };
    assert_eq!(recognise(&text), Some(expected));
    let other = "SELECT set_config('application_name', 'psql', false)";
    assert_eq!(recognise(other), None);
    for other in [
        "SET application_name = 'psql'",
        "SET SESSION application_name TO DEFAULT",
        "RESET application_name",
    ] {
        let expected = Some(TraceCommand::OtherApplicationName);
        assert_eq!(recognise(other), expected, "{other}");
    }
    assert_eq!(recognise("SET LOCAL application_name = 'psql'"), None);
}

#[test]
fn functions_are_recognised_with_constants() {
    let set = |scope| TraceCommand::Set {
        scope,
        name: b"route".into(),
        value: Some(b"/a".into()),
        form: Form::Function,
    };
    let show = |missing| TraceCommand::Show {
        name: b"route".into(),
        form: Form::Function,
        missing,
    };
    for (text, expected) in [
        (
            "SELECT set_config('pgspan.route', '/a', false)",
            Some(set(Scope::Session)),
        ),
        (
            "select pg_catalog.set_config('PGSPAN.route','/a',TRUE);",
            Some(set(Scope::Local)),
        ),
        (
            "SELECT current_setting('pgspan.route')",
            Some(show(Missing::IsAnError)),
        ),
        (
            "SELECT current_setting('pgspan.route', true)",
            Some(show(Missing::IsNull)),
        ),
        (
            "SELECT set_config('pgspan.route'::text, '/a'::varchar, 'on'::boolean)",
            Some(set(Scope::Local)),
        ),
        ("SELECT set_config('pgspan.route', '/a', 'o')", None),
        ("SELECT set_config('pgspan.route', '/a'::name, false)", None),
        (
            "SELECT set_config('pgspan.route', '/a' || 'b', false)",
            None,
        ),
        ("SELECT set_config('pgspan.route', '/a', false), 1", None),
        ("SELECT set_config('search_path', 'a', false)", None),
        ("SELECT current_setting('pgspan.route') FROM t", None),
        ("SELECT 1", None),
        ("SELECT", None),
    ] {
        assert_eq!(recognise(text), expected, "{text}");
    }
}

#[test]
fn other_commands_are_the_servers() {
    let reset = TraceCommand::Reset {
        name: b"tags".into(),
    };
    assert_eq!(recognise("RESET pgspan.tags"), Some(reset));
    assert_eq!(recognise("RESET ALL;"), Some(TraceCommand::ResetAll));
    assert_eq!(recognise("discard all"), Some(TraceCommand::ResetAll));
    for text in [
        "",
        "SET search_path = a",
        "SET pgspan = a",
        "SET pgspan.route",
        "SET pgspan.route = 'a', 'b'",
        "SET pgspan.route = 'a' 'b'",
        "SET pgspanx.route = 'a'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "RESET pgspan",
        "RESET ALL x",
        "DISCARD TEMP",
        "SHOW ALL",
        "SET pgspan.route = 'a",
        "(SELECT set_config('pgspan.route', '/a', false))",
    ] {
        assert_eq!(recognise(text), None, "{text}");
    }
}

#[test]
fn set_is_answered_like_a_setting_of_the_server() {
    let mut trace = session();
    assert_eq!(
        answer(&mut trace, "SET pgspan.route = '/a'", Block::Outside),
        "C\0\0\0\x08SET\0"
    );
    assert_eq!(
        answer(&mut trace, "SHOW pgspan.ROUTE", Block::Outside),
        "T\0\0\0\x25\0\x01pgspan.route\0\0\0\0\0\0\0\0\0\0\x19\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\0\0\
         D\0\0\0\x0c\0\x01\0\0\0\x02/aC\0\0\0\x09SHOW\0"
    );
    assert_eq!(
        answer(&mut trace, "RESET pgspan.route", Block::Inside),
        "C\0\0\0\x0aRESET\0"
    );
}

#[test]
fn functions_are_answered_with_a_row() {
    let mut trace = session();
    let done = execute(
        &mut trace,
        "SELECT set_config('pgspan.route', '/a', true)",
        Block::Outside,
    );
    let done = done.unwrap();
    assert_eq!(row(&done), ["set_config=/a"]);
    assert_eq!((done.tag, done.warnings.len()), ("SELECT 1", 0));
    let shown = execute(
        &mut trace,
        "SELECT current_setting('pgspan.action', true)",
        Block::Inside,
    );
    assert_eq!(row(&shown.unwrap()), ["current_setting=NULL"]);
    let text = answer(
        &mut trace,
        "SELECT current_setting('pgspan.x', true)",
        Block::Inside,
    );
    assert!(
        text.contains("D\0\0\0\x0a\0\x01\u{fffd}\u{fffd}\u{fffd}\u{fffd}C"),
        "{text:?}"
    );
}

#[test]
fn several_fields_are_set_with_one_select() {
    let mut trace = session();
    let text = "SELECT set_config('pgspan.route', '/a', false) AS \"Route\", set_config('pgspan.action', 'buy', true) AS b, \
                current_setting('pgspan.tags', true)";
    let done = execute(&mut trace, text, Block::Inside).unwrap();
    assert_eq!(row(&done), ["Route=/a", "b=buy", "current_setting=NULL"]);
    assert_eq!(done.tag, "SELECT 1");
    assert_eq!(trace.context().0.tag("route"), Some("/a"));
    assert_eq!(trace.context().0.tag("action"), Some("buy"));
    let failing = "SELECT set_config('pgspan.route', '/b', false), current_setting('pgspan.tags')";
    let error = execute(&mut trace, failing, Block::Inside).unwrap_err();
    assert_eq!(error.code, SqlState::UNDEFINED_OBJECT);
    assert_eq!(trace.context().0.tag("route"), Some("/a"));
}

#[test]
fn a_setting_that_was_never_set_is_unrecognized() {
    let mut trace = session();
    for text in [
        "SHOW pgspan.route",
        "SELECT current_setting('pgspan.route')",
    ] {
        let error = execute(&mut trace, text, Block::Outside).unwrap_err();
        assert_eq!(error.code, SqlState::UNDEFINED_OBJECT);
        assert_eq!(
            error.message,
            "unrecognized configuration parameter \"pgspan.route\""
        );
    }
}

#[test]
fn an_unknown_field_is_warned_about_and_the_command_succeeds() {
    let mut trace = session();
    for text in ["SET pgspan.rute = 'x'", "RESET pgspan.rute"] {
        let done = execute(&mut trace, text, Block::Outside).unwrap();
        let warning = &done.warnings[0];
        assert_eq!(
            warning.message,
            "unrecognized configuration parameter \"pgspan.rute\""
        );
        assert_eq!(
            warning.hint.as_deref(),
            Some("Perhaps you meant \"pgspan.route\".")
        );
    }
}

#[test]
fn set_local_needs_a_transaction_and_set_config_does_not_say_so() {
    let mut trace = session();
    let done = execute(
        &mut trace,
        "SET LOCAL pgspan.traceparent = 'x'",
        Block::Outside,
    )
    .unwrap();
    let codes: Vec<_> = done.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(
        codes,
        [
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            SqlState::INVALID_PARAMETER_VALUE
        ]
    );
    let inside = execute(&mut trace, "SET LOCAL pgspan.route = 'x'", Block::Inside).unwrap();
    assert!(inside.warnings.is_empty());
}

#[test]
fn a_failed_transaction_refuses_everything() {
    let mut trace = session();
    for text in [
        "SET pgspan.route = 'x'",
        "SHOW pgspan.route",
        "RESET pgspan.route",
    ] {
        let error = execute(&mut trace, text, Block::Failed).unwrap_err();
        assert_eq!(error.code, SqlState::IN_FAILED_SQL_TRANSACTION);
    }
    assert_eq!(trace.context().0.tag("route"), None);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(set|show|reset|select)? ?(local )?(pgspan|set_config)?[ .='a(,\"\\\\;]{0,12}") {
        let _ = recognise(&text);
    }
}

fn recognise(text: &str) -> Option<TraceCommand<'_>> {
    let strings = StandardConformingStrings::On;
    TraceCommand::recognise(text.as_bytes(), strings, ClientEncoding::Utf8)
}

fn execute(trace: &mut SessionTrace, text: &str, block: Block) -> Result<Answer, ErrorResponse> {
    recognise(text).expect(text).execute(trace, block, 0)
}

fn answer(trace: &mut SessionTrace, text: &str, block: Block) -> String {
    let mut out = Vec::new();
    execute(trace, text, block).unwrap().encode(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The answer's only row.
fn row(answer: &Answer) -> Vec<String> {
    let values = answer.values.iter().map(|value| match value {
        Some(value) => String::from_utf8_lossy(value).into_owned(),
        None => "NULL".to_owned(),
    });
    let columns = answer.columns.iter().zip(values);
    columns
        .map(|(column, value)| format!("{column}={value}"))
        .collect()
}

fn session() -> SessionTrace {
    SessionTrace::new(Arc::new(TracePolicy::new(TraceRules::default())))
}
