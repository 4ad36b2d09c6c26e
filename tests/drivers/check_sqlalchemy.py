"""SQLAlchemy over psycopg 3: its own pool, resets and savepoints."""

from common import URL, check
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select, text

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
metadata.drop_all(engine)
engine.dispose()
