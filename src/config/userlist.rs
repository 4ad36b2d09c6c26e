//! PgBouncer's userlist file: `"user" "password"`, one pair a line.
//!
//! Source: <https://www.pgbouncer.org/config.html#authentication-file-format>.

use std::borrow::Cow;

/// One user's line.
#[derive(Clone, PartialEq, Eq)]
pub struct UserLine<'a> {
    /// The line's number, from 1.
    pub line: usize,
    /// The user's name.
    pub user: Cow<'a, str>,
    /// The password, `md5…` or `SCRAM-SHA-256$…`; empty where the user has none.
    pub password: Cow<'a, str>,
}

/// The users in the file, in its order; or the number of the first line that is none.
///
/// A quote within quotes is doubled. Behind a `;` stands a comment. What stands behind the password is not looked at.
pub fn parse_userlist(text: &str) -> Result<Vec<UserLine<'_>>, usize> {
    let mut users = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim_start();
        if content.is_empty() || content.starts_with([';', '#']) {
            continue;
        }
        let (user, rest) = quoted(content).ok_or(line)?;
        let (password, _) = quoted(rest.trim_start()).ok_or(line)?;
        if user.is_empty() || user.contains('\0') || password.contains('\0') {
            return Err(line);
        }
        users.push(UserLine {
            line,
            user,
            password,
        });
    }
    Ok(users)
}

/// The text in quotes at the beginning, and what stands behind it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut from = 0;
    loop {
        let end = from + inside.get(from..)?.find('"')?;
        let rest = inside.get(end + 1..)?;
        if rest.starts_with('"') {
            from = end + 2;
            continue;
        }
        let text = inside.get(..end)?;
        return Some(match text.contains('"') {
            true => (text.replace("\"\"", "\"").into(), rest),
            false => (text.into(), rest),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, usize> {
        let users = parse_userlist(text)?;
        Ok(users
            .into_iter()
            .map(|it| (it.user.into(), it.password.into()))
            .collect())
    }

    #[test]
    fn a_line_is_a_user_and_a_password_in_quotes() {
        assert_eq!(
            pairs("; ours\n\"ann\" \"secret\"\n\n  \"bob\"\t\"md5abc\" and more\n\"eve\" \"\""),
            Ok(vec![
                ("ann".into(), "secret".into()),
                ("bob".into(), "md5abc".into()),
                ("eve".into(), String::new()),
            ])
        );
    }

    #[test]
    fn a_quote_is_doubled_and_everything_else_stands_for_itself() {
        assert_eq!(
            pairs(r#""a ""b""" "c;d\ ""#),
            Ok(vec![(r#"a "b""#.into(), r"c;d\ ".into())])
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        for wrong in [
            "ann secret",
            "\"ann\"",
            "\"ann\" \"secret",
            "\"\" \"x\"",
            "\"ann\" secret",
        ] {
            assert_eq!(pairs(&format!("\"x\" \"y\"\n{wrong}")), Err(2), "{wrong}");
        }
    }
}
