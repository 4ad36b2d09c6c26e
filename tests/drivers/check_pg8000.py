"""pg8000: unnamed statements with a Sync between Parse and Bind."""

import pg8000.native
from common import CREDENTIALS, HOST, PORT, TRACE_ID, TRACEPARENT, check

connection = pg8000.native.Connection(host=HOST, port=PORT, database="app", **CREDENTIALS)
connection.run(f"SET pgspan.traceparent = '{TRACEPARENT}'")
check("a simple query carries the trace", TRACE_ID in connection.run("SELECT current_query()")[0][0], True)
for number in range(20):
    assert connection.run("SELECT CAST(:n AS int) + 1", n=number) == [[number + 1]]
check("Parse, Sync, Bind", True, True)

others = [pg8000.native.Connection(host=HOST, port=PORT, database="app", **CREDENTIALS) for _ in range(6)]
for turn in range(10):
    for number, other in enumerate(others):
        assert other.run(f"SELECT CAST(:n AS int) + {number}", n=turn) == [[turn + number]]
check("the same of many clients on few servers", True, True)

prepared = connection.prepare("SELECT CAST(:n AS int) * 3")
check("a prepared statement", [prepared.run(n=number) for number in range(3)], [[[0]], [[3]], [[6]]])
prepared.close()

connection.run("BEGIN")
try:
    connection.run("SELECT 1 / CAST(:n AS int)", n=0)
    check("an error", "none", "one")
except pg8000.native.DatabaseError as error:
    check("an error's code", error.args[0]["C"], "22012")
connection.run("ROLLBACK")
check("after an error", connection.run("SELECT 1"), [[1]])
for each in [connection, *others]:
    each.close()
