//! Random SQL: queries with nested parts, odd tokens and mistakes, the same for the same seed.

/// So many messages; the first make what the others are about.
pub(crate) fn queries(seed: u64, count: u64) -> Vec<Vec<u8>> {
    let mut generator = Generator(seed | 1);
    let mut queries: Vec<Vec<u8>> = SETUP.iter().map(|sql| sql.as_bytes().to_vec()).collect();
    queries.extend((0..count).map(|_| generator.message()));
    queries
}

/// Rows lie where their tables' own statements put them: a mistake may take an ORDER BY away.
const SETUP: &[&str] = &[
    "CREATE TABLE one (id int PRIMARY KEY, name text, price numeric(10, 2), made date, \"Odd;Name\" text) \
     WITH (autovacuum_enabled = false)",
    "CREATE TABLE two (id int, one_id int, note text, flags int[], doc jsonb) WITH (autovacuum_enabled = false)",
    "INSERT INTO one SELECT n, 'name ' || n, n * 1.25, date '2020-01-01' + n, CASE WHEN n % 3 = 0 THEN 'ö€𝄞' END FROM generate_series(1, 40) n",
    "INSERT INTO two SELECT n, n % 40, repeat('é', n % 7), ARRAY[n, n * 2], jsonb_build_object('n', n) FROM generate_series(1, 80) n",
    "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / $1; END $$",
];

/// A xorshift generator.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// One to three statements, perhaps spoilt.
    fn message(&mut self) -> Vec<u8> {
        let statements = if self.one_in(5) { 2 + self.below(2) } else { 1 };
        let mut text = String::new();
        for at in 0..statements {
            if at > 0 {
                text += self.pick(&[";", "; ", ";;\n", " ; -- next\n", "; /* next; */ "]);
            }
            text += &self.statement();
        }
        text += self.pick(&[
            "",
            "",
            "",
            ";",
            " ; ",
            ";\n",
            " -- end",
            " -- end\n",
            " /* end */",
            "; /* end */",
            "\t\n",
        ]);
        let mut bytes = text.into_bytes();
        if self.one_in(6) {
            self.spoil(&mut bytes);
        }
        bytes
    }

    /// Takes something away, or puts something in: most of it is a mistake somewhere.
    fn spoil(&mut self, text: &mut Vec<u8>) {
        let shown = String::from_utf8(std::mem::take(text)).unwrap();
        let mut characters: Vec<char> = shown.chars().collect();
        let at = self.below(characters.len().max(1)).min(characters.len());
        if self.one_in(2) {
            let length = (1 + self.below(3)).min(characters.len() - at);
            characters.drain(at..at + length);
        } else {
            let odd = self.pick(&[
                "'", "\"", "$$", "$q$", "/*", "*/", "--", ";", "(", ")", "\\", "E'", "€", "::",
                "nosuch", "+", "$1", "U&'", "B'2'", "\u{a0}", "''", "1a",
            ]);
            characters.splice(at..at, odd.chars());
        }
        *text = characters.into_iter().collect::<String>().into_bytes();
    }

    fn statement(&mut self) -> String {
        let lead = self.pick(&["", "", "", "", " ", "/* lead */ ", "-- lead\n", "\n\t"]);
        let statement = match self.below(20) {
            0 => format!(
                "INSERT INTO two VALUES ({}, {}, {}, ARRAY[1], '{{}}') RETURNING *",
                self.number(),
                self.number(),
                self.string()
            ),
            1 => format!(
                "UPDATE one SET name = {} WHERE {}",
                self.text(2),
                self.condition(2)
            ),
            2 => format!("DELETE FROM two WHERE id > 70 AND {}", self.condition(2)),
            3 => format!("EXPLAIN (COSTS OFF) {}", self.select(1)),
            4 => format!("WITH w AS ({}) SELECT * FROM w ORDER BY 1", self.select(1)),
            5 => format!(
                "VALUES ({}, {}), ({}, {})",
                self.number(),
                self.string(),
                self.number(),
                self.string()
            ),
            6 => format!("({}) UNION ALL ({})", self.single(), self.single()),
            7 => self
                .pick(&[
                    "BEGIN",
                    "COMMIT",
                    "ROLLBACK",
                    "SAVEPOINT a",
                    "ROLLBACK TO a",
                    "RELEASE a",
                    "SHOW DateStyle",
                    "TABLE one ORDER BY id",
                ])
                .to_owned(),
            8 => format!("SELECT fails({})", self.below(3)),
            9 => format!(
                "DO $do$ BEGIN RAISE NOTICE 'n: %', {}; END $do$",
                self.string()
            ),
            10 => format!("SET LOCAL work_mem = '{}MB'", 1 + self.below(9)),
            11 => format!("PREPARE p{} AS SELECT {}", self.below(1000), self.number()),
            _ => self.select(2),
        };
        format!("{lead}{statement}")
    }

    fn single(&mut self) -> String {
        format!("SELECT {} AS x", self.text(1))
    }

    fn select(&mut self, depth: usize) -> String {
        let columns: Vec<String> = (0..=self.below(3))
            .map(|_| match self.below(3) {
                0 => self.numeric(depth),
                1 => self.text(depth),
                _ => format!(
                    "{} AS {}",
                    self.numeric(depth),
                    self.pick(&["a", "\"a;b\"", "ü", "_x$y", "\"it's\""])
                ),
            })
            .collect();
        let from = match self.below(4) {
            0 if depth > 0 => format!(
                "(SELECT id, name, price FROM one WHERE {}) AS one",
                self.condition(depth - 1)
            ),
            1 => "one LEFT JOIN two ON one.id = two.one_id".to_owned(),
            _ => "one".to_owned(),
        };
        let mut select = format!(
            "SELECT {} FROM {from}",
            columns.join(self.pick(&[", ", ",", " /* c */ , "]))
        );
        if !self.one_in(3) {
            select += &format!(" WHERE {}", self.condition(depth));
        }
        select += " ORDER BY one.id";
        if from.contains("two") {
            select += ", two.id";
        }
        if self.one_in(3) {
            select += &format!(" LIMIT {}", self.below(20));
        }
        select
    }

    fn condition(&mut self, depth: usize) -> String {
        match self.below(6) {
            0 if depth > 0 => format!(
                "({} OR {})",
                self.condition(depth - 1),
                self.condition(depth - 1)
            ),
            1 if depth > 0 => format!(
                "EXISTS (SELECT 1 FROM two WHERE two.id < {})",
                self.number()
            ),
            2 => format!("name LIKE {}", self.string()),
            3 => format!("name IS NOT NULL AND price > {}", self.number()),
            _ => format!(
                "{} < {}",
                self.numeric(depth.saturating_sub(1)),
                self.number()
            ),
        }
    }

    fn numeric(&mut self, depth: usize) -> String {
        match self.below(8) {
            0 if depth > 0 => format!(
                "({} {} {})",
                self.numeric(depth - 1),
                self.pick(&["+", "-", "*", "/", "%", "@-"]),
                self.numeric(depth - 1)
            ),
            1 if depth > 0 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(depth - 1),
                self.number(),
                self.number()
            ),
            2 => "price".to_owned(),
            3 => format!("length({})", self.text(depth.saturating_sub(1))),
            4 => "one.id".to_owned(),
            5 => format!("({})::int", self.number()),
            _ => self.number(),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        match self.below(6) {
            0 if depth > 0 => format!("{} || {}", self.text(depth - 1), self.text(depth - 1)),
            1 if depth > 0 => format!(
                "coalesce(NULL, {}, {})",
                self.text(depth - 1),
                self.string()
            ),
            2 => format!("upper({})", self.string()),
            3 => format!("{}::text", self.number()),
            _ => self.string(),
        }
    }

    fn number(&mut self) -> String {
        match self.below(5) {
            0 => format!("{}.{}", self.below(100), self.below(100)),
            1 => format!("-{}", self.below(50)),
            2 => "1e2".to_owned(),
            _ => self.below(1000).to_string(),
        }
    }

    fn string(&mut self) -> String {
        self.pick(&[
            "'plain'",
            "'it''s'",
            "E'it\\'s; \\\\'",
            "$$a;b$$",
            "$tag$ $$ ; $tag$",
            "'ö€𝄞'",
            "'/* no */'",
            "'-- no'",
            "'a' \n 'b'",
            "U&'d\\0061t\\+000061'",
            "''",
            "'back\\slash'",
            "'%;%'",
            "N'n'",
            "'x;y'",
        ])
        .to_owned()
    }
}
