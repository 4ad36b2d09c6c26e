use tokio_postgres::SimpleQueryMessage;

use crate::connect;
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;

/// Values that try to get out of the comment, among random ones.
#[tokio::test(flavor = "multi_thread")]
async fn no_tag_leaves_its_comment_or_changes_the_statement() {
    let proxy = Proxy::in_front_of(shared(), "");
    let client = connect(&proxy).await;
    let set = client.prepare(
        "SELECT set_config('pgspan.route', $1, false), set_config('pgspan.action', $2, false)",
    );
    let set = set.await.unwrap();
    let mut random = Random(7);
    let mut checked = 0;
    for round in 0..200 {
        let odd = ODD.get(round).map(|odd| (*odd).to_owned());
        let route = odd.unwrap_or_else(|| random.text(40));
        let action = random.text(12);
        client.query_one(&set, &[&route, &action]).await.unwrap();
        let sql = random.pick(STATEMENTS);
        let said = client.simple_query(sql).await.unwrap();
        let row = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.unwrap();
        assert_eq!((row.get(0), row.len()), (Some("7;/*'"), 2), "{route:?}");
        // What the server was sent.
        let sent = row.get(1).unwrap();
        let comment = comment_in(sql, sent).unwrap_or_else(|| panic!("{sent:?} for {route:?}"));
        let mut expected: Vec<String> = [("action", &action), ("route", &route)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}='{}'", encoded(value)))
            .collect();
        expected.sort();
        assert_eq!(comment, expected.join(","), "{route:?}, {action:?}");
        checked += 1;
    }
    println!("{checked} statements");
}

/// What stands between `/*` and `*/`, where the rest is the statement.
fn comment_in<'a>(sql: &str, sent: &'a str) -> Option<&'a str> {
    if sent == sql {
        return Some("");
    }
    let statement = sql.trim_end().trim_end_matches([';', ' ']);
    let behind = &sql[statement.len()..];
    sent.strip_prefix(statement)?
        .strip_suffix(behind)?
        .strip_prefix(" /*")?
        .strip_suffix("*/")
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

const STATEMENTS: &[&str] = &[
    "SELECT '7;/*''', current_query()",
    "SELECT '7;/*''', current_query() ;",
    "WITH a AS (SELECT $$7;/*'$$) SELECT *, current_query() FROM a;",
    "(SELECT E'7;/*\\'', current_query())",
];

const ODD: &[&str] = &[
    "*/; SELECT 'pwned' --",
    "/*",
    "*/",
    "/* */ /* */",
    "'",
    "\\'",
    "%2A%2F",
    "\n--",
    "a,b='c'",
    "$$;$$",
    "",
    " ",
    "ö€𝄞\u{202e}",
    "\u{1}\u{7f}\t",
    "%",
    "+",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len())]
    }

    fn text(&mut self, longest: usize) -> String {
        const OF: &[char] = &[
            'a', 'Z', '0', '*', '/', '\'', '"', ';', '-', '\\', '%', ',', '=', '$', ' ', '\n', 'é',
            '€', '𝄞', '\u{1}',
        ];
        (0..self.below(longest))
            .map(|_| OF[self.below(OF.len())])
            .collect()
    }
}
