"""psycopg 3: unnamed statements, named ones from the fifth run on, pipelines."""

import psycopg
from common import TRACE_ID, URL, check

connection = psycopg.connect(URL)

check("a query without parameters is simple, and carries the trace", TRACE_ID in connection.execute("SELECT current_query()").fetchone()[0], True)
connection.commit()

for number in range(20):
    row = connection.execute("SELECT %s::int * 2, current_query()", (number,)).fetchone()
    connection.commit()
    check(f"run {number} of a statement that becomes prepared, untouched", row, (number * 2, "SELECT $1::int * 2, current_query()"))

others = [psycopg.connect(URL) for _ in range(6)]
for turn in range(10):
    for number, other in enumerate(others):
        row = other.execute(f"SELECT %s::int + {number}", (turn,)).fetchone()
        other.commit()
        assert row == (turn + number,), row
check("prepared statements of many clients on few servers", True, True)
for other in others:
    other.close()

with connection.pipeline():
    cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(50)]
    check("a pipeline", [cursor.fetchone()[0] for cursor in cursors], list(range(50)))
connection.commit()

try:
    with connection.pipeline():
        connection.execute("SELECT 1 / %s::int", (0,))
        connection.execute("SELECT 1")
    check("an error in a pipeline", "no error", "an error")
except psycopg.errors.DivisionByZero:
    connection.rollback()
    check("after an error in a pipeline", connection.execute("SELECT 1").fetchone(), (1,))
connection.commit()

with connection.cursor() as cursor:
    cursor.execute("CREATE TEMP TABLE t (a int) ON COMMIT DROP")
    with cursor.copy("COPY t FROM STDIN") as copy:
        for number in range(1000):
            copy.write_row((number,))
    check("COPY in", cursor.execute("SELECT sum(a) FROM t").fetchone(), (499500,))
connection.rollback()

connection.autocommit = True
connection.execute("LISTEN news")
connection.execute("NOTIFY news, 'hello'")
check("LISTEN and NOTIFY", next(connection.notifies(timeout=10, stop_after=1)).payload, "hello")
connection.execute("UNLISTEN news")
connection.close()
