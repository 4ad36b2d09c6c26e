//! Commands on `pgspan.*` in a form that is not understood: the server takes them, and must not keep what they set for others.
//!
//! `ALTER ROLE … SET pgspan.x`, a SET in a DO block, `set_config('pgspan.x', a || b, false)` in a larger query. Told by the words in
//! front of the name; a name that is put together at run time can't be told.

/// The names `pgspan.…` that a text may set or ask for, as they are written, each with its prefix.
pub fn names_in(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    memchr::memchr_iter(b'.', text).filter_map(|dot| {
        let start = dot.checked_sub(PREFIX.len())?;
        let prefix = text.get(start..dot)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) || !is_behind_command(text.get(..start)?) {
            return None;
        }
        let rest = text.get(dot + 1..)?;
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'))
            .count();
        (length > 0).then(|| text.get(start..dot + 1 + length))?
    })
}

/// Whether a text may set or ask for a name `pgspan.…`.
pub fn is_in(text: &[u8]) -> bool {
    names_in(text).next().is_some()
}

/// Whether what stands in front of a name makes it a parameter's.
fn is_behind_command(before: &[u8]) -> bool {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'\'' | b'"' | b'(');
    let between = before
        .iter()
        .rev()
        .take_while(|byte| is_between(byte))
        .count();
    let before = before
        .get(..before.len() - between)
        .filter(|_| between > 0)
        .unwrap_or_default();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = before.iter().rev().take_while(|byte| is_part(byte)).count();
    let word = before.get(before.len() - length..).unwrap_or_default();
    COMMANDS
        .iter()
        .any(|command| command.eq_ignore_ascii_case(word))
}

const PREFIX: &[u8] = b"pgspan";

const COMMANDS: [&[u8]; 7] = [
    b"set",
    b"local",
    b"session",
    b"reset",
    b"show",
    b"set_config",
    b"current_setting",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_behind_a_command_is_found_wherever_it_is() {
        for (text, names) in [
            ("ALTER ROLE a SET pgspan.route = '/a'", "pgspan.route"),
            (
                "DO $$ BEGIN SET LOCAL \"pgspan.tags\" = 'x'; SET PGSPAN.a.b = 1; END $$",
                "pgspan.tags PGSPAN.a.b",
            ),
            (
                "SELECT set_config( 'pgspan.route', a || b, false), current_setting('pgspan.x') FROM t",
                "pgspan.route pgspan.x",
            ),
            ("SET pgspan.route FROM CURRENT", "pgspan.route"),
            ("SELECT pgspan.route FROM pgspan.events", ""),
            ("UPDATE pgspan.t SET a = 1.5", ""),
            ("SELECT 'pgspan.route'", ""),
            ("SELECT offset_pgspan.x", ""),
            ("SET pgspan.", ""),
            ("pgspan.x", ""),
            (".", ""),
        ] {
            let found: Vec<&str> = names_in(text.as_bytes())
                .map(|name| str::from_utf8(name).unwrap())
                .collect();
            assert_eq!(found.join(" "), names, "{text}");
        }
    }
}
