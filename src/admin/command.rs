//! What is asked of the console: a query's text in, a [`Command`] out.
//!
//! PgBouncer's grammar is `word [word]` and `SET word =|TO value`, one command in a text; see `admin_parse_query` in its src/admin.c.

use crate::admin::select::{Select, SelectError};
use crate::admin::show::Show;

/// A command of the console.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Nothing: a comment, or blanks.
    Empty,
    /// `SHOW x`, and `SELECT x`, its other name.
    Show(Show),
    /// `SHOW TRACE 'id'`: the queries of a trace.
    Trace(Box<str>),
    /// A SELECT from what can be shown.
    Select(Select),
    /// A SELECT whose rows are fetched by portions, under this name.
    Declare(Box<str>, Select),
    /// `FETCH n FROM cursor`; `None`: all.
    Fetch(Option<usize>, Box<str>),
    /// `CLOSE cursor`; `None`: all.
    Close(Option<Box<str>>),
    /// The beginning of a transaction, in which nothing differs; with its tag.
    Begin(&'static str),
    /// Its end, with its tag.
    End(&'static str),
    /// `DISCARD ALL` or `DEALLOCATE ALL`: with its tag.
    Forget(&'static str),
    /// `SHOW x` of a setting that clients ask for without need.
    ShowSetting(&'static ClientSetting),
    /// `SET x = y` of such a setting, which changes nothing.
    IgnoredSet,
    /// `SET key = value`: changes a setting of the proxy.
    Set {
        /// The setting, as written.
        key: Box<str>,
        /// What it is to be.
        value: Box<str>,
    },
    /// Reads the configuration again.
    Reload,
    /// Serves no more clients, of one database or of all, and waits until the servers are free.
    Pause(Option<Box<str>>),
    /// Goes on after [`Command::Pause`], [`Command::Kill`] and [`Command::Suspend`].
    Resume(Option<Box<str>>),
    /// Closes each server connection as soon as it is free, of one database or of all.
    Reconnect(Option<Box<str>>),
    /// Closes all connections of a database at once.
    Kill(Option<Box<str>>),
    /// Closes the connection of the client with this id.
    KillClient(Option<Box<str>>),
    /// Lets no new clients into a database.
    Disable(Option<Box<str>>),
    /// Lets them in again.
    Enable(Option<Box<str>>),
    /// Waits until the servers that [`Command::Reconnect`] closes are closed.
    WaitClose(Option<Box<str>>),
    /// Stops everything without closing anything: not supported.
    Suspend,
    /// Ends the proxy.
    Shutdown(Shutdown),
}

/// How the proxy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// At once: connections are cut.
    Immediate,
    /// When no server is in use any more.
    WaitForServers,
    /// When no client is there any more.
    WaitForClients,
}

/// A setting of PostgreSQL's that the console answers, since some clients ask before they say anything else.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientSetting {
    /// Its name.
    pub name: &'static str,
    /// What it is said to be.
    pub value: &'static str,
}

/// PgBouncer's list, and its values.
static CLIENT_SETTINGS: [ClientSetting; 5] = [
    ClientSetting {
        name: "client_encoding",
        value: "UTF-8",
    },
    ClientSetting {
        name: "default_transaction_isolation",
        value: "read committed",
    },
    ClientSetting {
        name: "standard_conforming_strings",
        value: "on",
    },
    ClientSetting {
        name: "datestyle",
        value: "ISO",
    },
    ClientSetting {
        name: "timezone",
        value: "GMT",
    },
];

/// What drivers, dblink and postgres_fdw set on every connection. None of these is a setting of the proxy.
const ALSO_IGNORED: [&str; 9] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "statement_timeout",
];

/// Why a text is no command. The words are PgBouncer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is none that is known.
    #[error("invalid command '{0}', use SHOW HELP;")]
    Unknown(Box<str>),
    /// A word is longer than any that is known.
    #[error("bad arguments")]
    BadArguments,
    /// A SELECT that can't be read.
    #[error(transparent)]
    Select(#[from] SelectError),
}

/// The longest command word, the longest argument and the longest value (PgBouncer's buffers, less their terminator).
const MAX_WORD: usize = 15;
const MAX_ARGUMENT: usize = 63;
const MAX_VALUE: usize = 255;

impl Command {
    /// Reads a query's text.
    ///
    /// # Errors
    /// If it is no command.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let unknown = || CommandError::Unknown(text.into());
        if let Some(command) = Self::parse_sql(text)? {
            return Ok(command);
        }
        let mut tokens = tokens(text).ok_or_else(unknown)?;
        if tokens.last() == Some(&Token::Semicolon) {
            tokens.pop();
        }
        let words: Vec<&str> = match &*tokens {
            [] => return Ok(Self::Empty),
            [Token::Word(set), Token::Word(key), sign, value]
                if set.eq_ignore_ascii_case("set") && sign.is_assignment() =>
            {
                return match value {
                    Token::Word(value) | Token::Text(value) => Self::set(key, value),
                    _ => Err(unknown()),
                };
            }
            [Token::Word(show), Token::Word(trace), Token::Text(id)]
                if show.eq_ignore_ascii_case("show") && trace.eq_ignore_ascii_case("trace") =>
            {
                return Ok(Self::Trace(id.as_str().into()));
            }
            [Token::Word(command)] => vec![command],
            [Token::Word(command), Token::Word(argument)] => vec![command, argument],
            _ => return Err(unknown()),
        };
        let word = words.first().copied().unwrap_or_default();
        let argument = words.get(1).copied();
        if word.len() > MAX_WORD || argument.is_some_and(|argument| argument.len() > MAX_ARGUMENT) {
            return Err(CommandError::BadArguments);
        }
        let name = argument.map(Box::from);
        Ok(match &*word.to_ascii_lowercase() {
            "show" | "select" => return argument.and_then(Self::show).ok_or_else(unknown),
            "reload" if name.is_none() => Self::Reload,
            "suspend" if name.is_none() => Self::Suspend,
            "shutdown" => Self::Shutdown(match argument {
                None => Shutdown::Immediate,
                Some(how) if how.eq_ignore_ascii_case("wait_for_servers") => {
                    Shutdown::WaitForServers
                }
                Some(how) if how.eq_ignore_ascii_case("wait_for_clients") => {
                    Shutdown::WaitForClients
                }
                Some(_) => return Err(unknown()),
            }),
            "pause" => Self::Pause(name),
            "resume" => Self::Resume(name),
            "reconnect" => Self::Reconnect(name),
            "kill" => Self::Kill(name),
            "kill_client" => Self::KillClient(name),
            "disable" => Self::Disable(name),
            "enable" => Self::Enable(name),
            "wait_close" => Self::WaitClose(name),
            _ => return Err(unknown()),
        })
    }

    /// Whether it only tells: what those in `stats_users` may ask.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::Empty
            | Self::Show(_)
            | Self::Trace(_)
            | Self::Select(_)
            | Self::Declare(..)
            | Self::Fetch(..)
            | Self::Close(_)
            | Self::Begin(_)
            | Self::End(_)
            | Self::Forget(_)
            | Self::ShowSetting(_)
            | Self::IgnoredSet => true,
            Self::Set { .. }
            | Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Reconnect(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::WaitClose(_)
            | Self::Suspend
            | Self::Shutdown(_) => false,
        }
    }

    /// What is none of PgBouncer's commands, but what postgres_fdw and drivers say around a SELECT.
    fn parse_sql(text: &str) -> Result<Option<Self>, CommandError> {
        let statement = text.trim().trim_end_matches(';').trim_end();
        let lower = statement.to_ascii_lowercase();
        let words: Vec<&str> = lower.split_ascii_whitespace().collect();
        Ok(Some(match &*words {
            ["select", rest @ ..] if rest.contains(&"from") => Self::Select(Select::parse(text)?),
            ["declare", cursor, rest @ ..]
                if rest.windows(2).any(|words| words == ["for", "select"]) =>
            {
                let is_query = |at: usize| {
                    lower
                        .get(..at)
                        .is_some_and(|head| head.trim_end().ends_with("for"))
                };
                let mut found = lower.match_indices("select").map(|(at, _)| at);
                let at = found.find(|at| is_query(*at)).unwrap_or_default();
                let select = Select::parse(statement.get(at..).unwrap_or_default())?;
                Self::Declare((*cursor).into(), select)
            }
            ["fetch", "forward", count, "from" | "in", cursor]
            | ["fetch", count, "from" | "in", cursor] => {
                let number = match *count {
                    "all" => None,
                    "next" => Some(1),
                    count => match count.parse() {
                        Ok(number) => Some(number),
                        Err(_) => return Ok(None),
                    },
                };
                Self::Fetch(number, (*cursor).into())
            }
            ["close", "all"] => Self::Close(None),
            ["close", cursor] => Self::Close(Some((*cursor).into())),
            ["begin", ..] => Self::Begin("BEGIN"),
            ["start", "transaction", ..] => Self::Begin("START TRANSACTION"),
            ["commit" | "end"] | ["commit" | "end", "transaction" | "work"] => Self::End("COMMIT"),
            ["rollback" | "abort"] | ["rollback" | "abort", "transaction" | "work"] => {
                Self::End("ROLLBACK")
            }
            ["discard", "all"] => Self::Forget("DISCARD ALL"),
            ["deallocate", "all"] => Self::Forget("DEALLOCATE ALL"),
            _ => return Ok(None),
        }))
    }

    fn show(what: &str) -> Option<Self> {
        let setting = CLIENT_SETTINGS
            .iter()
            .find(|setting| setting.name.eq_ignore_ascii_case(what));
        match setting {
            Some(setting) => Some(Self::ShowSetting(setting)),
            None => Show::from_name(what).map(Self::Show),
        }
    }

    fn set(key: &str, value: &str) -> Result<Self, CommandError> {
        if key.is_empty() || key.len() > MAX_ARGUMENT || value.len() > MAX_VALUE {
            return Err(CommandError::BadArguments);
        }
        let ignored = CLIENT_SETTINGS.iter().map(|setting| setting.name);
        Ok(
            match ignored
                .chain(ALSO_IGNORED)
                .any(|name| name.eq_ignore_ascii_case(key))
            {
                true => Self::IgnoredSet,
                false => Self::Set {
                    key: key.into(),
                    value: value.into(),
                },
            },
        )
    }
}

/// A piece of a command.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Bare, or in double quotes.
    Word(String),
    /// In single quotes.
    Text(String),
    Equals,
    Semicolon,
}

impl Token {
    fn is_assignment(&self) -> bool {
        match self {
            Self::Equals => true,
            Self::Word(to) => to.eq_ignore_ascii_case("to"),
            Self::Text(_) | Self::Semicolon => false,
        }
    }
}

/// Cuts a text into tokens; comments are left out. `None` where there is something that is no token.
fn tokens(mut rest: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return Some(tokens);
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (token, behind) = match first {
            '-' if rest.starts_with("--") => {
                rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                (_, rest) = rest.split_once("*/")?;
                continue;
            }
            '"' => quoted(rest, '"').map(|(word, behind)| (Token::Word(word), behind))?,
            '\'' => quoted(rest, '\'').map(|(text, behind)| (Token::Text(text), behind))?,
            '=' => (Token::Equals, rest.get(1..)?),
            ';' => (Token::Semicolon, rest.get(1..)?),
            first if is_word(first) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                (Token::Word(word.to_owned()), behind)
            }
            _ => return None,
        };
        tokens.push(token);
        rest = behind;
    }
}

/// What stands in quotes at the beginning of `text`, and what follows. A doubled quote stands for one.
pub(super) fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let (part, behind) = rest.split_once(quote)?;
        word.push_str(part);
        match behind.strip_prefix(quote) {
            Some(behind) => {
                word.push(quote);
                rest = behind;
            }
            None => return Some((word, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_is_asked_in_any_case_and_by_its_other_name() {
        for text in [
            "SHOW POOLS",
            "show pools;",
            " Select \"pools\" ; ",
            "/* exporter */ SHOW pools -- now",
        ] {
            assert_eq!(
                Command::parse(text),
                Ok(Command::Show(Show::Pools)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_database_may_be_named_or_not() {
        assert_eq!(Command::parse("PAUSE"), Ok(Command::Pause(None)));
        let named = Some("Weird \"db".into());
        assert_eq!(
            Command::parse("pause \"Weird \"\"db\";"),
            Ok(Command::Pause(named))
        );
    }

    #[test]
    fn a_setting_is_set_by_a_word_or_a_text() {
        let set = |key: &str, value: &str| {
            Ok(Command::Set {
                key: key.into(),
                value: value.into(),
            })
        };
        assert_eq!(
            Command::parse("SET query_timeout=5"),
            set("query_timeout", "5")
        );
        assert_eq!(
            Command::parse("set auth_query TO 'select ''it''';"),
            set("auth_query", "select 'it'")
        );
        assert_eq!(Command::parse("set x = ''"), set("x", ""));
    }

    #[test]
    fn what_clients_set_without_need_is_ignored() {
        for text in [
            "SET datestyle TO 'ISO'",
            "set Client_Encoding = UTF8",
            "SET extra_float_digits = 3",
        ] {
            assert_eq!(Command::parse(text), Ok(Command::IgnoredSet), "{text}");
        }
        let Ok(Command::ShowSetting(setting)) = Command::parse("SHOW TimeZone") else {
            panic!("not answered");
        };
        assert_eq!((setting.name, setting.value), ("timezone", "GMT"));
    }

    #[test]
    fn a_shutdown_says_what_it_waits_for() {
        let shutdown = |text| Command::parse(text);
        assert_eq!(
            shutdown("SHUTDOWN"),
            Ok(Command::Shutdown(Shutdown::Immediate))
        );
        assert_eq!(
            shutdown("shutdown wait_for_servers"),
            Ok(Command::Shutdown(Shutdown::WaitForServers))
        );
        assert_eq!(
            shutdown("SHUTDOWN WAIT_FOR_CLIENTS;"),
            Ok(Command::Shutdown(Shutdown::WaitForClients))
        );
    }

    #[test]
    fn a_select_may_come_in_a_cursor_and_a_transaction() {
        let Ok(Command::Declare(name, select)) =
            Command::parse("DECLARE c1 CURSOR FOR\nSELECT calls FROM public.Queries")
        else {
            panic!("not a cursor");
        };
        assert_eq!((&*name, &*select.view), ("c1", "queries"));
        for (text, command) in [
            ("FETCH 100 FROM c1", Command::Fetch(Some(100), "c1".into())),
            ("fetch all in c1;", Command::Fetch(None, "c1".into())),
            ("CLOSE c1", Command::Close(Some("c1".into()))),
            (
                "START TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                Command::Begin("START TRANSACTION"),
            ),
            ("COMMIT TRANSACTION", Command::End("COMMIT")),
            ("abort", Command::End("ROLLBACK")),
            ("DEALLOCATE ALL", Command::Forget("DEALLOCATE ALL")),
            ("SHOW TRACE 'ab'", Command::Trace("ab".into())),
        ] {
            assert_eq!(Command::parse(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn nothing_is_asked_by_blanks_and_comments() {
        for text in ["", " \n", ";", "-- ping"] {
            assert_eq!(Command::parse(text), Ok(Command::Empty), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_command_is_named_in_pgbouncers_words() {
        for text in [
            "SHOW",
            "SHOW nothing",
            "DROP TABLE x",
            "RELOAD db",
            "SHUTDOWN now",
            "SET x",
            "SHOW POOLS; SHOW LISTS",
            "SHOW 'pools'",
            "SHOW \"pools",
            "\u{1f418}",
        ] {
            let error = Command::parse(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid command '{text}', use SHOW HELP;")
            );
        }
        for long in [
            format!("SHOW {}", "x".repeat(64)),
            format!("SET x = '{}'", "x".repeat(256)),
            format!("SET {} = 1", "x".repeat(64)),
            "WAIT_FOR_GODOT_x".to_owned(),
        ] {
            assert_eq!(
                Command::parse(&long),
                Err(CommandError::BadArguments),
                "{long}"
            );
        }
    }
}
