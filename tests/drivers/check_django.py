"""Django over psycopg 3: client-side parameters, its transactions, savepoints and server-side cursors."""

import django
from common import CREDENTIALS, HOST, OPTIONS, PORT, TRACE_ID, check
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "app",
            "USER": CREDENTIALS["user"],
            "PASSWORD": CREDENTIALS["password"],
            "HOST": HOST,
            "PORT": PORT,
            "OPTIONS": {"options": OPTIONS},
        }
    },
    INSTALLED_APPS=[],
    USE_TZ=True,
)
django.setup()

from django.db import DatabaseError, connection, models, transaction  # noqa: E402


class Thing(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        app_label = "drivers"
        db_table = "django_things"


def value(sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


check("a query with parameters is simple, and carries the trace", TRACE_ID in value("SELECT current_query() || %s", [""]), True)

other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
with transaction.atomic():
    check("the trace of a transaction", value("SELECT set_config('pgspan.traceparent', %s, true)", [other]), other)
    check("its queries carry it", other.split("-")[1] in value("SELECT current_query()"), True)
check("those behind it do not", TRACE_ID in value("SELECT current_query()"), True)

with connection.cursor() as cursor:
    cursor.execute("DROP TABLE IF EXISTS django_things")
with connection.schema_editor() as editor:
    editor.create_model(Thing)
Thing.objects.bulk_create(Thing(name=f"thing {number}") for number in range(100))
check("rows", list(Thing.objects.filter(name__endswith="9").order_by("id").values_list("name", flat=True))[:2], ["thing 9", "thing 19"])
try:
    with transaction.atomic():
        Thing.objects.all().delete()
        try:
            with transaction.atomic():
                value("SELECT 1 / %s", [0])
        except DatabaseError:
            check("a savepoint rolled back", Thing.objects.count(), 0)
        raise RuntimeError
except RuntimeError:
    check("a transaction rolled back", Thing.objects.count(), 100)
with transaction.atomic():
    check("a cursor of the server's", sum(1 for _ in Thing.objects.iterator(chunk_size=7)), 100)
with connection.schema_editor() as editor:
    editor.delete_model(Thing)
connection.close()
