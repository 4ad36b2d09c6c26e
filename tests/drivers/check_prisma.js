// Prisma with its driver adapter for node-postgres.

const { check, main, traceparent, url } = require('./common.js');

const { PrismaClient } = require('@prisma/client');
const { PrismaPg } = require('@prisma/adapter-pg');

main(async () => {
  const pool = { connectionString: url, options: `-c pgspan.traceparent=${traceparent}`, max: 6 };
  const adapter = new PrismaPg(pool, { schema: 'app' });
  const prisma = new PrismaClient({ adapter });
  await prisma.$executeRawUnsafe('DROP TABLE IF EXISTS driver_prisma');
  await prisma.$executeRawUnsafe('CREATE TABLE driver_prisma (id int PRIMARY KEY, name text NOT NULL)');
  await prisma.thing.createMany({ data: Array.from({ length: 50 }, (_, id) => ({ id, name: `thing ${id}` })) });
  check('a model', await prisma.thing.findUnique({ where: { id: 42 } }), { id: 42, name: 'thing 42' });
  const told = async (client, ...query) => (await client.$queryRawUnsafe(...query))[0].told;
  const query = 'SELECT current_query() AS told WHERE $1::int = 1';
  check('a text with values is untouched', await told(prisma, query, 1), query);
  check('a text without values', (await told(prisma, 'SELECT current_query() AS told')).includes(traceparent), true);
  const shown = "SELECT current_setting('pgspan.traceparent', true) AS told";
  check('the trace of the connection', await told(prisma, shown), traceparent);

  const other = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  for (let run = 0; run < 5; run++) {
    await prisma.$transaction(async (tx) => {
      await tx.$executeRaw`SELECT set_config('pgspan.traceparent', ${other}, true)`;
      check('a trace for a transaction', await told(tx, shown), other);
    });
  }
  check('and no longer', await told(prisma, shown), traceparent);
  const error = await prisma.$queryRaw`SELECT nosuch`.catch((error) => error);
  check('an error has its code', error.message.includes('42703'), true);
  const names = await Promise.all(Array.from({ length: 50 }, (_, id) => prisma.thing.findUnique({ where: { id } })));
  check('more clients than servers', names.map(({ name }) => name), Array.from({ length: 50 }, (_, id) => `thing ${id}`));
  await prisma.$executeRawUnsafe('DROP TABLE driver_prisma');
  await prisma.$disconnect();
});
