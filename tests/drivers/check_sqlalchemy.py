"""SQLAlchemy over psycopg 3: its own pool, resets and savepoints."""

from common import URL, check
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select, text

engine = create_engine(URL.replace("postgresql://", "postgresql+psycopg://"), pool_size=4)
metadata = MetaData()
things = Table("driver_things", metadata, Column("id", Integer, primary_key=True), Column("name", String))
metadata.drop_all(engine)
metadata.create_all(engine)
with engine.begin() as connection:
    connection.execute(insert(things), [{"id": number, "name": f"thing {number}"} for number in range(100)])
with engine.connect() as connection:
    rows = connection.execute(select(things.c.name).where(things.c.id == 42)).all()
    check("rows", rows, [("thing 42",)])
    with connection.begin_nested() as savepoint:
        connection.execute(text("DELETE FROM driver_things"))
        savepoint.rollback()
    check("a savepoint rolled back", connection.execute(text("SELECT count(*) FROM driver_things")).scalar(), 100)
for _ in range(20):
    with engine.connect() as connection:
        assert connection.execute(select(things).where(things.c.id < 3).order_by(things.c.id)).scalars().all() == [0, 1, 2]
check("the pool, again and again", True, True)
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# Often enough for the driver to prepare everything behind names.
annotated = []
for _ in range(8):
    with engine.begin() as connection:
        told = connection.execute(select(func.set_config("pgspan.traceparent", OTHER, True))).scalar()
        assert told == OTHER, told
        annotated.append(OTHER in connection.execute(text("SELECT current_query()")).scalar())
        told = connection.execute(select(func.current_setting("pgspan.traceparent"))).scalar()
        assert told == OTHER, told
        # The server's own go to the server in the same words.
        connection.execute(select(func.set_config("work_mem", "5MB", True)))
        assert connection.execute(select(func.current_setting("work_mem"))).scalar() == "5MB"
check("set_config() and current_setting(), whose names are parameters", True, True)
check("a text without parameters is annotated until it is prepared", (annotated[0], annotated[-1]), (True, False))
metadata.drop_all(engine)
engine.dispose()
