"""Databases of users who know nothing of Tally: their own tables, odd names, an owner of few rights."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import asyncpg
from msgspec import Struct

from service.environment import load, with_env_file
from service.settings import Settings
from tests.conftest import Server, _admin

ORDERS = """
CREATE SCHEMA sales AUTHORIZATION {app};
CREATE SCHEMA "Größe" AUTHORIZATION {etl};
SET ROLE {app};
CREATE TABLE sales.orders (
    id bigint PRIMARY KEY, created_at timestamptz NOT NULL, updated_at timestamptz, amount numeric
);
INSERT INTO sales.orders SELECT n, now() - n * interval '1 hour', now(), n FROM generate_series(1, 2000) AS n;
CREATE VIEW sales.large AS SELECT * FROM sales.orders WHERE amount > 100;
CREATE TABLE sales.codes (code text);
SET ROLE {etl};
CREATE TABLE "Größe"."Ma""ße" ("Tag der Messung" date, n integer) PARTITION BY RANGE ("Tag der Messung");
CREATE TABLE "Größe".alle PARTITION OF "Größe"."Ma""ße" DEFAULT;
INSERT INTO "Größe"."Ma""ße" SELECT DATE '2024-01-01' + n, n FROM generate_series(1, 50) AS n;
RESET ROLE;
"""


class Shop(Struct, frozen=True):
    """`app` owns `sales` and is what Tally gets; `etl` owns another schema; neither may make roles.

    Both are written as SQL has them, since they need quotes.
    """

    app: str
    etl: str
    admin_url: str
    app_url: str
    etl_url: str
    env_file: Path

    def settings(self, **variables: str) -> tuple[Settings, dict[str, str]]:
        """What a command would read from this environment and the shop's .env."""
        data_dir = str(self.env_file.parent / "state")
        environ = with_env_file({"ENV_FILE": str(self.env_file), "DATA_DIR": data_dir, **variables})
        return load(environ), environ


@asynccontextmanager
async def open_shop(server: Server, folder: Path, tables: str = ORDERS) -> AsyncGenerator[Shop]:
    suffix = uuid4().hex[:8]
    name, app, etl = f'Shop "{suffix}" Größe', f'"App-{suffix}"', f'"Etl-{suffix}"'
    quoted = '"' + name.replace('"', '""') + '"'
    await _admin(server, f"CREATE ROLE {app} LOGIN PASSWORD 'p'; CREATE ROLE {etl} LOGIN PASSWORD 'p'")
    await _admin(server, f"CREATE DATABASE {quoted}")
    env_file = folder / f"{suffix}.env"
    env_file.touch()
    path = quote(name)
    app_url, etl_url = (server.url(path, role.strip('"'), "p") for role in (app, etl))
    shop = Shop(app, etl, server.url(path), app_url, etl_url, env_file)
    try:
        if tables:
            await run(shop.admin_url, tables.format(app=app, etl=etl))
        yield shop
    finally:
        readers = "SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname LIKE '%{}%'"
        await _admin(server, f"DROP DATABASE {quoted} WITH (FORCE)")
        made = await value(server.admin_url, readers.format(suffix))
        await _admin(server, f"DROP ROLE {made}")


async def run(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def value(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()
