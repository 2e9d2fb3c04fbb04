"""The documented way to a new dataset, followed to the letter."""

import re
from pathlib import Path

from service.audit import Actor
from service.database.gateway import Transaction
from service.imports import datasets
from service.imports.readers import Upload
from service.imports.run.imports import Options, import_file

PAGE = (Path(__file__).parents[2] / "docs" / "imports.md").read_text()
SECTION = PAGE[PAGE.index("## A dataset in code") :]
OPTIONS = Options(validate_sql=lambda sql: sql, bytes_limit=1 << 20, actor=Actor("test", None))
FILE = """Supplier;Supplier Name;Country;Since Date
7;Ball & Sons;France;04/10/2019
8;Weiß;FRANCE;2020-01-01
9;;Italy;
8;Weiß;France;31/02/2020
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found
    return found[1]


async def test_a_struct_and_a_migration_make_a_dataset(tx: Transaction, tmp_path: Path):
    scope = dict(vars(datasets))
    exec(block("python"), scope)  # noqa: S102 (it is our own documentation)
    await tx._connection.execute(block("sql"))
    path = tmp_path / "suppliers.csv"
    path.write_text(FILE)
    suppliers = datasets.describe(scope["Suppliers"])
    report = await import_file(tx, Upload(path, path.name), suppliers, OPTIONS)
    assert (report.rows_read, report.inserted) == (4, 2)
    assert report.reasons == {"missing-value": 1, "wrong-type": 1}
    rows = await tx._connection.fetch("SELECT supplier_id, name, country FROM data.suppliers ORDER BY 1")
    assert [tuple(row) for row in rows] == [(7, "Ball & Sons", "France"), (8, "Weiß", "France")]
