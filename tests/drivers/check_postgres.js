// postgres.js: named statements for everything, pipelined.

const postgres = require('postgres');
const { check, main, traceId, traceparent, url } = require('./common.js');

main(async () => {
  const sql = postgres(url, { max: 8, connection: { 'pgspan.traceparent': traceparent }, onnotice: () => {} });
  check('a named statement is untouched', (await sql`SELECT current_query() AS q`)[0].q.trim(), 'SELECT current_query() AS q');
  check('a simple query carries the trace', (await sql.unsafe('SELECT current_query() AS q').simple())[0].q.includes(traceId), true);
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => sql`SELECT ${n}::int * 2 AS a`));
  check('pipelined', answers.map((rows) => rows[0].a), Array.from({ length: 200 }, (_, n) => n * 2));
  const error = await sql`SELECT 1 / ${0}::int`.catch((error) => error);
  check('an error', error.code, '22012');
  const sum = await sql.begin(async (own) => {
    await own`CREATE TEMP TABLE t (a int) ON COMMIT DROP`;
    await own`INSERT INTO t ${own([{ a: 1 }, { a: 2 }])}`;
    return (await own`SELECT sum(a)::int AS s FROM t`)[0].s;
  });
  check('a transaction', sum, 3);
  let seen = 0;
  await sql`SELECT generate_series(1, 50) AS n`.cursor(10, (rows) => { seen += rows.length; });
  check('a cursor', seen, 50);
  await sql.end();
});
