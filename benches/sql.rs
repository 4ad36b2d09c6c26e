//! What reading a query costs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgspan::sql::encoding::ClientEncoding;
use pgspan::sql::fingerprint::{Fingerprint, mask, summary};
use pgspan::sql::lexer::{Lexer, StandardConformingStrings};
use pgspan::sql::script::Script;

const ON: StandardConformingStrings = StandardConformingStrings::On;
const UTF8: ClientEncoding = ClientEncoding::Utf8;

criterion_group!(benches, sql);
criterion_main!(benches);

fn sql(criterion: &mut Criterion) {
    for (name, sql) in texts() {
        let sql = sql.as_bytes();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function("lex", |bencher| {
            bencher.iter(|| {
                Lexer::new(black_box(sql), ON, UTF8)
                    .map(|token| token.end)
                    .max()
            });
        });
        group.bench_function("script", |bencher| {
            let mut script = Script::new();
            bencher.iter(|| {
                script.read(black_box(sql), ON, UTF8);
                script.statements().len()
            });
        });
        group.bench_function("fingerprint", |bencher| {
            bencher.iter(|| Fingerprint::of(black_box(sql), ON, UTF8));
        });
        group.bench_function("mask", |bencher| {
            bencher.iter(|| mask(black_box(sql), ON, UTF8, 100))
        });
        group.bench_function("summary", |bencher| {
            bencher.iter(|| summary(black_box(sql), ON, UTF8))
        });
        group.finish();
    }
}

fn texts() -> [(&'static str, String); 4] {
    [
        ("short", "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;".to_owned()),
        ("orm", ORM.to_owned()),
        (
            "multi",
            "BEGIN; UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 1; \
             INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 2, 3, 4, CURRENT_TIMESTAMP); COMMIT;"
                .to_owned(),
        ),
        (
            "long",
            format!("INSERT INTO t (a, b, c) VALUES {}", vec!["(1, 'some text', 2.5)"; 1000].join(", ")),
        ),
    ]
}

/// A query as an object-relational mapper writes it.
const ORM: &str = r#"SELECT "shop_order"."id", "shop_order"."number", "shop_order"."created_at", "shop_order"."customer_id",
 "shop_customer"."id", "shop_customer"."name", "shop_customer"."email" FROM "shop_order" INNER JOIN "shop_customer" ON
 ("shop_order"."customer_id" = "shop_customer"."id") WHERE ("shop_order"."state" IN ('open', 'paid') AND
 "shop_customer"."email" = 'ann@example.org' AND NOT ("shop_order"."deleted")) ORDER BY "shop_order"."created_at" DESC LIMIT 21"#;
