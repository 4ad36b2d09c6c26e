"""psycopg2: all queries simple, parameters written in by the client."""

import io
import threading

import psycopg2
import psycopg2.errors
from common import TRACE_ID, TRACEPARENT, URL, check

connection = psycopg2.connect(URL)
cursor = connection.cursor()

cursor.execute("SELECT %s + 1", (41,))
check("a query with a parameter", cursor.fetchone(), (42,))
cursor.execute("SELECT current_query()")
check("the trace id is in the query", TRACE_ID in cursor.fetchone()[0], True)
cursor.execute("SHOW pgspan.traceparent")
check("the trace context can be read", cursor.fetchone(), (TRACEPARENT,))
connection.commit()

try:
    cursor.execute("SELECT nosuch")
    check("an unknown column is an error", "no error", "an error")
except psycopg2.errors.UndefinedColumn as error:
    check("an error points at the client's own text", error.diag.statement_position, "8")
connection.rollback()

cursor.execute("CREATE TEMP TABLE t (a int, b text) ON COMMIT DROP")
cursor.copy_expert("COPY t FROM STDIN", io.StringIO("1\tone\n2\ttwo\n"))
written = io.StringIO()
cursor.copy_expert("COPY (SELECT * FROM t ORDER BY a) TO STDOUT", written)
check("COPY in and out", written.getvalue(), "1\tone\n2\ttwo\n")
connection.rollback()

with connection.cursor("named") as server_side:
    server_side.itersize = 100
    server_side.execute("SELECT generate_series(1, 1000)")
    check("a cursor on the server", sum(row[0] for row in server_side), 500500)
connection.commit()


def ask(number, answers):
    with psycopg2.connect(URL) as own, own.cursor() as own_cursor:
        for _ in range(20):
            own_cursor.execute("SELECT %s", (number,))
            answers.append(own_cursor.fetchone()[0] == number)
            own.commit()
    own.close()


answers = []
threads = [threading.Thread(target=ask, args=(number, answers)) for number in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
check("more clients than servers, each gets its own answers", (len(answers), all(answers)), (200, True))
connection.close()
