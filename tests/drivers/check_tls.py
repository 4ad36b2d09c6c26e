"""psycopg 3 (libpq 18) and asyncpg, encrypted and not: each way to begin, each version of the protocol, SCRAM bound and not,
for users that the proxy logs in at the server by each method."""

import asyncio
import itertools
import os
import ssl

import asyncpg
import psycopg
from common import HOST, PORT, check

CA = os.environ["CA_FILE"]
METHOD = os.environ["METHOD"]
KNOWN = {"host": "localhost", "hostaddr": HOST, "port": PORT, "dbname": "app"}
# As their names say, at the server.
USERS = ("password_user", "md5_user", "scram_user")

WAYS = {
    "in clear": {"sslmode": "disable"},
    "encrypted": {"sslmode": "require"},
    "known by its name": {"sslmode": "verify-full", "sslrootcert": CA},
    "at once": {"sslmode": "verify-full", "sslrootcert": CA, "sslnegotiation": "direct"},
    "by TLS 1.2": {"sslmode": "verify-ca", "sslrootcert": CA, "ssl_max_protocol_version": "TLSv1.2"},
}
for user, (way, settings), version, binding in itertools.product(
    USERS, WAYS.items(), ("3.0", "3.2"), ("disable", "require")
):
    is_encrypted = settings["sslmode"] != "disable"
    if binding == "require" and not (is_encrypted and METHOD == "scram-sha-256"):
        continue
    settings = settings | {"user": user, "max_protocol_version": version, "channel_binding": binding}
    with psycopg.connect(**KNOWN, **settings, password="sesame") as connection:
        told = connection.execute("SELECT current_user").fetchone()[0]
        spoken = connection.pgconn.full_protocol_version
        check(
            f"{METHOD} {user} {way}, protocol {version}, binding {binding}",
            (told, bool(connection.pgconn.ssl_in_use), spoken),
            (user, is_encrypted, int(version.replace(".", "0" * 3))),
        )
    try:
        psycopg.connect(**KNOWN, **settings, password="wrong").close()
        refused = None
    except psycopg.OperationalError as error:
        refused = "password authentication failed" in str(error)
    check("a wrong password", refused, None if METHOD == "trust" else True)

try:
    psycopg.connect(**KNOWN | {"host": "elsewhere", "user": "scram_user"}, sslmode="verify-full", sslrootcert=CA, password="sesame")
    refused = False
except psycopg.OperationalError as error:
    refused = "elsewhere" in str(error)
check("another name than the certificate's", refused, True)


async def with_asyncpg():
    context = ssl.create_default_context(cafile=CA)
    # Who begins at once must say for what, as PostgreSQL has it.
    context.set_alpn_protocols(["postgresql"])
    for direct in (False, True):
        connection = await asyncpg.connect(
            host="localhost", port=PORT, user="scram_user", database="app", password="sesame", ssl=context, direct_tls=direct
        )
        check(f"asyncpg, at once: {direct}", await connection.fetchval("SELECT current_user"), "scram_user")
        await connection.close()


asyncio.run(with_asyncpg())
