"""Run an import so that the log, the metrics, the traces and its caller see how it goes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.errors import Problem
from service.imports.contracts import Dataset
from service.imports.readers import Upload
from service.imports.run.imports import Options, Report, import_file
from service.imports.run.pipeline import ValidateSql
from service.imports.run.turns import Turns
from service.observe.events import ImportDone, Observe
from service.observe.trace import Traces


class Importing(Struct, frozen=True):
    """The dependencies of imports apart from the database. `reader` is the role that runs stored SQL."""

    validate_sql: ValidateSql
    bytes_limit: int
    turns: Turns
    observe: Observe
    traces: Traces
    reader: str


async def observed_import(
    importing: Importing, database: Database, upload: Upload, dataset: Dataset, options: Options
) -> Report:
    """Like `import_file`, with a span and an `ImportDone`."""
    started = time.perf_counter()
    with importing.traces.span("import") as span:
        span.note(tally_dataset=dataset.name)
        try:
            report = await import_file(database, upload, dataset, options)
        except Problem as problem:
            span.fail(problem.code)
            importing.observe(ImportDone(dataset.name, problem.code, 0, 0, time.perf_counter() - started))
            raise
        done = ImportDone(
            dataset.name, report.status, report.rows_read, report.quarantined, time.perf_counter() - started
        )
        span.note(tally_status=done.status, tally_rows=done.rows, tally_quarantined=done.quarantined)
        importing.observe(done)
        return report


async def with_progress(
    job: Callable[[Options], Awaitable[Report]], options: Options, instance: str
) -> AsyncGenerator[tuple[str, Any]]:
    """Yield `progress`, then `report` or `problem`, each with its data. Closing it rolls the import back."""
    queue: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()

    def report_progress(rows: int) -> None:
        queue.put_nowait(("progress", {"rows_read": rows}))

    async def run() -> None:
        try:
            queue.put_nowait(
                ("report", await job(msgspec.structs.replace(options, progress=report_progress)))
            )
        except Problem as problem:
            request_id = options.actor.request_id or ""
            queue.put_nowait(("problem", problem.document(instance=instance, request_id=request_id)))
        finally:
            queue.put_nowait(None)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run())
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            running.cancel()
