"""Write everything that people made in Tally into one file, as it is at one moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from service.backup.format import Writer
from service.backup.tables import EXPORTED, SECRET
from service.database.gateway import Database
from service.database.migrate import pending
from service.database.queries import SqlFile
from service.database.rows import TIMEOUT_S, rows_as_json, stored_columns
from service.errors import Stop


class _Moment(Struct, frozen=True):
    at: str


SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_READ_MOMENT: Final = SQL.rows("read_moment", _Moment)


async def export(
    database: Database, write: Callable[[bytes], object], *, with_secrets: bool = False
) -> dict[str, int]:
    """Write the file in pieces; the number of rows of each table. Memory holds a few rows at a time.

    `with_secrets` adds the tables of `SECRET`. Raises `Stop`.
    """
    await refuse_unmigrated(database)
    tables = (*EXPORTED, *(SECRET if with_secrets else ()))
    async with database.snapshot(timeout_s=TIMEOUT_S) as tx:
        moment = await tx.read_one(_READ_MOMENT)
        columns = await stored_columns(tx, tables)
        names = {table: [each.name for each in columns[table]] for table in tables}
        file = Writer(write, moment.at if moment else "", names)
        for table in tables:
            async for found in rows_as_json(tx, table, columns[table]):
                file.row(table, found.row)
        file.end()
    return file.rows


async def refuse_unmigrated(database: Database) -> None:
    if missing := await pending(database):
        raise Stop(f"the database lacks migrations ({', '.join(missing)}): run `tally migrate` first")
