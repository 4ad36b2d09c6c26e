"""asyncpg: named statements for everything that returns rows, binary values."""

import asyncio

import asyncpg
from common import CREDENTIALS, HOST, PORT, TRACEPARENT, check


async def main():
    where = {"host": HOST, "port": PORT, "database": "app", **CREDENTIALS}
    connection = await asyncpg.connect(**where, server_settings={"pgspan.traceparent": TRACEPARENT})
    check("a value", await connection.fetchval("SELECT $1::int + 1", 41), 42)
    check("a prepared statement is untouched", await connection.fetchval("SELECT current_query()"), "SELECT current_query()")
    check("the trace context can be read", await connection.fetchval("SHOW pgspan.traceparent"), TRACEPARENT)

    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE t (a int, b text) ON COMMIT DROP")
        await connection.copy_records_to_table("t", records=[(1, "one"), (2, "two")])
        rows = await connection.fetch("SELECT * FROM t ORDER BY a")
        check("binary COPY in", [tuple(row) for row in rows], [(1, "one"), (2, "two")])
        async for row in connection.cursor("SELECT generate_series(1, 5)", prefetch=2):
            last = row[0]
        check("a portal, two rows at a time", last, 5)

    try:
        await connection.fetch("SELECT 1 / $1::int", 0)
        check("an error", "none", "one")
    except asyncpg.DivisionByZeroError:
        check("after an error", await connection.fetchval("SELECT 1"), 1)
    await connection.close()

    async with asyncpg.create_pool(**where, min_size=8, max_size=8) as pool:
        async def ask(number):
            return await pool.fetchval("SELECT $1::int * 2", number)

        answers = await asyncio.gather(*(ask(number) for number in range(200)))
        check("a pool of clients, larger than that of servers", answers, [number * 2 for number in range(200)])

    connection = await asyncpg.connect(**where)
    try:
        await asyncio.wait_for(connection.fetch("SELECT pg_sleep(60)"), timeout=0.3)
        check("a cancelled query", "it ended", "it was cancelled")
    except asyncio.TimeoutError:
        check("after cancelling", await connection.fetchval("SELECT 2"), 2)
    await connection.close()


asyncio.run(main())
