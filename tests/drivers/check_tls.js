// node-postgres and postgres.js over TLS.

const fs = require('node:fs');
const { Client } = require('pg');
const postgres = require('postgres');
const { check, main, port } = require('./common.js');

main(async () => {
  const ssl = { ca: fs.readFileSync(process.env.CA_FILE, 'utf8') };
  const known = { host: 'localhost', port, user: 'scram_user', password: 'sesame', database: 'app', ssl };
  const client = new Client({ ...known, enableChannelBinding: true });
  await client.connect();
  check('node-postgres', (await client.query('SELECT current_user')).rows, [{ current_user: 'scram_user' }]);
  await client.end();
  const sql = postgres({ ...known, username: known.user, max: 1 });
  check('postgres.js', [...(await sql`SELECT current_user`)], [{ current_user: 'scram_user' }]);
  await sql.end();
  const stranger = new Client({ ...known, ssl: {} });
  const error = await stranger.connect().catch((error) => error);
  check('an authority that is not trusted', /certificate/.test(error.message), true);
});
