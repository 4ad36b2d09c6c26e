// node-postgres: simple queries, unnamed and named statements, a pool.

const { Client, Pool } = require('pg');
const { check, main, traceId, traceparent, url } = require('./common.js');

main(async () => {
  const options = `-c pgspan.traceparent=${traceparent}`;
  const client = new Client({ connectionString: url, options });
  await client.connect();
  const value = async (...query) => Object.values((await client.query(...query)).rows[0])[0];

  check('a simple query carries the trace', (await value('SELECT current_query()')).includes(traceId), true);
  check('an unnamed statement is untouched', await value('SELECT current_query() || $1', ['']), 'SELECT current_query() || $1');
  for (let n = 0; n < 5; n++) {
    check(`a named statement, run ${n}`, await value({ name: 'double', text: 'SELECT $1::int * 2', values: [n] }), n * 2);
  }
  check('several statements', (await client.query('SELECT 1 AS a; SELECT 2 AS a')).map((result) => result.rows[0].a), [1, 2]);

  const error = await client.query('SELECT nosuch').catch((error) => error);
  check('an error points at the own text', [error.code, error.position], ['42703', '8']);

  // What OpenTelemetry's instrumentation sends before a query.
  const other = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  await client.query(`SET application_name = '${other}'`);
  check('a traceparent by application_name', (await value('SELECT current_query()')).includes('0af7651916cd43dd8448eb211c80319c'), true);
  await client.end();

  const pool = new Pool({ connectionString: url, max: 10 });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => pool.query({ name: 'triple', text: 'SELECT $1::int * 3 AS a', values: [n] })));
  check('more clients than servers', answers.map((result) => result.rows[0].a), Array.from({ length: 200 }, (_, n) => n * 3));
  await pool.end();
});
