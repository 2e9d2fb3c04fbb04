"""Files become rows; bad rows are kept with their reason; nothing is counted twice or lost."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.audit import Actor
from service.database.gateway import Database, Transaction
from service.errors import InvalidInput, SqlRefused
from service.imports.datasets import find
from service.imports.folder import import_folder
from service.imports.readers import Upload
from service.imports.run.imports import Options, Report, import_file

Put = Callable[..., Awaitable[Report]]


def validate_sql(sql: str) -> None:
    if "drop" in sql.lower():
        raise SqlRefused("only SELECT is allowed")


OPTIONS = Options(validate_sql=validate_sql, bytes_limit=1 << 20, actor=Actor("test", None))


@pytest.fixture
def put(tx: Transaction, tmp_path: Path) -> Put:
    """Import text as a file of a dataset."""

    async def put(dataset: str, text: str | bytes, source: str = "", **options: Any) -> Report:
        path = tmp_path / "upload"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        found = find(dataset)
        assert found
        upload = Upload(path, source or f"{dataset}.csv")
        return await import_file(tx, upload, found, msgspec.structs.replace(OPTIONS, **options))

    return put


@pytest.fixture
def ask(tx: Transaction):
    """Rows of a query as tuples."""

    async def ask(sql: str, *args: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await tx._connection.fetch(sql, *args)]

    return ask


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return report.rows_read, report.inserted, report.updated, report.unchanged, report.quarantined


CUSTOMERS = "Customer_Id,Occupation,Type\n1,Smith,B2B\n2,Baker,b2b\n"


async def test_new_rows_are_inserted_and_words_take_their_known_spelling(put, ask):
    assert counts(await put("customers", CUSTOMERS)) == (2, 2, 0, 0, 0)
    assert await ask("SELECT customer_id, occupation, type FROM data.customers ORDER BY 1") == [
        (1, "Smith", "B2B"),
        (2, "Baker", "B2B"),
    ]


async def test_the_same_file_again_changes_nothing(put):
    await put("customers", CUSTOMERS)
    assert counts(await put("customers", CUSTOMERS)) == (2, 0, 0, 2, 0)


async def test_a_known_file_is_read_again_when_rows_were_taken_away(put, tx):
    await put("customers", CUSTOMERS)
    await tx._connection.execute("DELETE FROM data.customers WHERE customer_id = 2")
    assert counts(await put("customers", CUSTOMERS)) == (2, 1, 0, 1, 0)


async def test_a_corrected_file_updates_in_place_and_keeps_rows_it_lacks(put, ask):
    await put("customers", CUSTOMERS)
    assert counts(await put("customers", "customer_id,occupation,type\n2,Miller,B2B\n")) == (1, 0, 1, 0, 0)
    assert await ask("SELECT customer_id, occupation FROM data.customers ORDER BY 1") == [
        (1, "Smith"),
        (2, "Miller"),
    ]


async def test_an_older_file_brings_its_content_back(put, ask):
    await put("customers", CUSTOMERS)
    await put("customers", "customer_id,occupation,type\n2,Miller,B2B\n")
    assert counts(await put("customers", CUSTOMERS)) == (2, 0, 1, 1, 0)
    assert (2, "Baker") in await ask("SELECT customer_id, occupation FROM data.customers")


async def test_the_first_row_of_a_key_wins_and_the_other_waits(put, ask):
    report = await put("customers", "customer_id,occupation,type\n1,Smith,B2B\n1,Smith,b2b\n1,Cook,B2B\n")
    assert counts(report) == (3, 1, 0, 1, 1)
    assert report.reasons == {"duplicate": 1}
    [(line, message)] = await ask("SELECT line, message FROM quarantine.row")
    assert (line, message) == (4, "customer_id 1 is taken by line 2 with other content; the first wins")


async def test_equal_facts_all_count_and_are_known_again(put, ask):
    fact = '{"id": "a", "date": "2025-06-10T00:00:00", "alert_category": "Need approval"}'
    assert counts(await put("metric_records", f"[{fact}, {fact}]", "f.json")) == (2, 2, 0, 0, 0)
    assert counts(await put("metric_records", f"[{fact}, {fact},\n{fact}]", "f.json")) == (3, 1, 0, 2, 0)
    assert await ask("SELECT count(*) FROM data.metrics") == [(3,)]


INTERACTIONS = "Date Start,Interaction,Customers\n04/10/2019 09:00,Email,1\n2019-10-05 10:00,Call,4\n"


async def test_orphans_load_by_themselves_when_what_they_need_arrives(put, ask):
    await put("customers", CUSTOMERS)
    report = await put("external_interactions", INTERACTIONS)
    assert (counts(report), report.reasons) == ((2, 1, 0, 0, 1), {"orphan": 1})
    report = await put("customers", "Customer_Id,Occupation,Type\n4,Cook,B2C\n")
    assert report.released == {"external_interactions": 1}
    assert await ask("SELECT count(*) FROM data.external_interactions") == [(2,)]
    assert await ask("SELECT status FROM quarantine.row") == [("loaded",)]
    assert counts(await put("external_interactions", INTERACTIONS)) == (2, 0, 0, 2, 0)


async def test_channels_of_waiting_rows_are_known_in_order_of_appearance(put, ask):
    await put("customers", CUSTOMERS)
    await put("external_interactions", INTERACTIONS + "2019-10-05 11:00,Bird,4\n2019-10-05 11:00,EMAIL,1\n")
    words = await ask("SELECT spelling FROM data.vocabulary WHERE list = 'channel' ORDER BY position")
    assert words == [("Email",), ("Call",), ("Bird",)]


async def test_orphans_of_orphans_load_with_the_query_they_all_need(put):
    metric = "7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e"
    await put(
        "layouts", f'{{"layouts": {{"lg": [{{"i": "{metric}", "x": 0, "y": 0, "w": 1, "h": 1}}]}}}}', "m.json"
    )
    await put("metrics", f'[{{"id": "{metric}", "queryId": "q"}}]', "m.json")
    report = await put("queries", "id,query\nq,SELECT 1\n")
    assert report.released == {"metrics": 1, "layouts": 1}


async def test_sql_that_validation_refuses_is_quarantined_with_its_words(put, ask):
    report = await put("queries", "id,query\ngood,SELECT 1\nbad,DROP TABLE x\n")
    assert (counts(report), report.reasons) == ((2, 1, 0, 0, 1), {"sql-refused": 1})
    assert await ask("SELECT message FROM quarantine.row") == [("only SELECT is allowed",)]


async def test_a_changed_query_is_trusted_no_more(put, tx, ask):
    await put("queries", "id,query\nq,SELECT 1\n")
    await tx._connection.execute("UPDATE catalog.query SET trusted = true")
    await put("queries", "id,query\nq,SELECT 2\n")
    assert await ask("SELECT sql, trusted FROM catalog.query") == [("SELECT 2", False)]


async def test_columns_that_a_file_lacks_keep_their_values(put, tx, ask):
    metric = "7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e"
    await put("queries", "id,query\nq,SELECT 1\nr,SELECT 2\n")
    await put("metrics", f'[{{"id": "{metric}", "query_id": "q", "title": "Mine"}}]', "m.json")
    await put("metrics", f'[{{"id": "{metric}", "query_id": "r"}}]', "m.json")
    assert await ask("SELECT query_id, title, version FROM catalog.metric") == [("r", "Mine", 2)]


async def test_a_bad_row_that_comes_again_adds_nothing(put, ask):
    await put("customers", CUSTOMERS + "x,,\nx,,\n")
    report = await put("customers", CUSTOMERS + "3,Cook,B2B\nx,,\nx,,\n")
    assert counts(report) == (5, 1, 0, 2, 2)
    assert await ask("SELECT count(*) FROM quarantine.row") == [(2,)]


async def test_a_dry_run_tells_all_and_changes_nothing(put, ask):
    report = await put("customers", CUSTOMERS + "x,,\n", dry_run=True)
    assert (report.id, report.status, counts(report)) == (None, "dry-run", (3, 2, 0, 0, 1))
    for table in ("data.customers", "data.vocabulary", "quarantine.row", "imports.run"):
        assert await ask(f"SELECT count(*) FROM {table}") == [(0,)]


async def test_mirroring_marks_rows_gone_and_their_return_unmarks_them(put, ask):
    await put("customers", CUSTOMERS)
    report = await put("customers", "Customer_Id,Occupation,Type\n1,Smith,B2B\n", mirror=True)
    assert (counts(report), report.gone) == ((1, 0, 0, 1, 0), 1)
    assert await ask("SELECT customer_id, gone_at IS NULL FROM data.customers ORDER BY 1") == [
        (1, True),
        (2, False),
    ]
    assert counts(await put("customers", CUSTOMERS)) == (2, 0, 1, 1, 0)
    assert await ask("SELECT count(*) FROM data.customers WHERE gone_at IS NULL") == [(2,)]


async def test_a_refused_file_changes_nothing(put, ask):
    with pytest.raises(InvalidInput, match="line 4: the quote opened here is never closed"):
        await put("customers", CUSTOMERS + '3,"Cook,B2B\n4,Smith,B2B\n')
    assert await ask("SELECT count(*) FROM data.customers") == [(0,)]


async def test_a_folder_is_imported_whole_and_a_broken_file_does_not_stop_the_others(
    clone: Database, tmp_path: Path
):
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "external_interactions.csv").write_text(INTERACTIONS)
    (tmp_path / "queries.csv").write_text("id,query\nq,SELECT 1\n")
    (tmp_path / "metrics.json").write_text('{"items": [{"id": 1}\n {"id": 2}]}')
    imported = await import_folder(clone, tmp_path, OPTIONS)
    assert [(r.dataset, counts(r)) for r in imported.reports] == [
        ("queries", (1, 1, 0, 0, 0)),
        ("customers", (2, 2, 0, 0, 0)),
        ("external_interactions", (2, 1, 0, 0, 1)),
    ]
    [refusal] = imported.refusals
    assert refusal.detail == "metrics.json: line 2: ',' is expected"
