"""How many prompts the rules answer with the rows of SQL written by hand, per class.

`.venv/bin/python -m tests.bench.ask`
"""

import asyncio
import json
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from service.ask.knowledge import SchemaCache
from service.ask.question.sql import render
from service.ask.rules import NotUnderstood, answer
from service.audit import Actor
from service.database.gateway import open_database
from service.database.stored_sql.reader import Reader, open_reader
from service.imports.folder import import_folder
from service.imports.run.imports import Options
from service.settings import Database
from tests.bench.load import database

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "tests" / "ask" / "cases.json").read_text())
TODAY = date(2026, 1, 15)


async def measure(settings: Database) -> None:
    """Print a line per class: right of all, and the prompts that went wrong."""
    right: Counter[str] = Counter()
    asked = Counter(case["class"] for case in CASES)
    options = Options(validate_sql=lambda sql: None, bytes_limit=1 << 24, actor=Actor("bench", None))
    async with open_database(settings.url or "") as owner:
        await import_folder(owner, ROOT / "seeds", options)
    async with open_reader(settings.reader_url or "", settings) as reader:
        known = await SchemaCache(reader, ("data",)).now()
        for case in CASES:
            try:
                found = answer(case["prompt"], known.schema, known.lexicon, TODAY)
            except NotUnderstood as refusal:
                print(f"  not understood: {case['prompt']} ({refusal})")  # noqa: T201
                continue
            sql = render(found.tree)
            for parameter in found.parameters:
                sql = sql.replace(f":{parameter.name}", f"'{parameter.default}'")
            if await rows(reader, sql) == await rows(reader, case["sql"]):
                right[case["class"]] += 1
            else:
                print(f"  other rows: {case['prompt']}")  # noqa: T201
    for name, count in asked.items():
        print(f"{name:<10} {right[name]:>3} of {count:<3} {right[name] / count:.2f}")  # noqa: T201
    print(f"{'all':<10} {right.total():>3} of {asked.total():<3} {right.total() / asked.total():.2f}")  # noqa: T201


async def rows(reader: Reader, sql: str) -> list[str]:
    return sorted(str(tuple(map(_exact, record))) for record in (await reader.run(sql)).records)


def _exact(value: Any) -> Any:
    return round(Decimal(bytes(value).decode()), 6) if isinstance(value, msgspec.Raw) else value


def main() -> None:
    with database() as server:
        asyncio.run(measure(Database(url=server.owner_url, reader_url=server.reader_url)))


if __name__ == "__main__":
    main()
