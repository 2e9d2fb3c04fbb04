"""Imports, quarantine and contracts over HTTP."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.exceptions import InternalServerException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from service.auth.guards import actor
from service.database.gateway import Database
from service.errors import (
    BadRequest,
    Busy,
    Conflict,
    DatabaseUnavailable,
    FieldError,
    InvalidInput,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from service.http.asgi import EVENT_STREAM, header_of, server_sent_event
from service.http.cursors import Cursor, Limit, page_of, read_cursor, write_cursor
from service.http.fields import weights
from service.http.ids import parse_uuid
from service.http.requests import Call
from service.imports import quarantine
from service.imports.contracts import Dataset, Reason, find_among
from service.imports.derived import read_datasets
from service.imports.models import DatasetPage, DatasetSummary, Fix, QuarantinePage, RunPage
from service.imports.quarantine import QuarantinedRow, RetryReport, Status
from service.imports.receive import Sent, received
from service.imports.registering import AddedDataset, NewDataset, add_dataset, remove_dataset
from service.imports.run.imports import Options, Position, Report, list_runs, one_run
from service.imports.run.observed import Importing, observed_import, with_progress

SCHEMA: Final = "application/schema+json"
PROBLEMS: Final = (NotFound, DatabaseUnavailable)
_BINARY: Final = {"type": "string", "format": "binary"}
_FORM: Final = {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
_FILE: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": {"schema": _BINARY},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}

_STREAM_HEADERS: Final = {name.decode(): value.decode() for name, value in EVENT_STREAM}

OfDataset = Annotated[str | None, QueryParameter(description="name of a dataset")]


class DatasetsController(Controller):
    path = "/datasets"
    tags = ("imports",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/",
        operation_id="listDatasets",
        summary="Datasets that files can be imported into",
        opt={"problems": (DatabaseUnavailable,)},
    )
    async def list_datasets(self, database: NamedDependency[Database]) -> DatasetPage:
        return DatasetPage([_summary(dataset) for dataset in await read_datasets(database)], None)

    @get(
        "/{name:str}",
        operation_id="getDataset",
        summary="A dataset's contract as JSON Schema",
        description="`x-aliases` are further headings. `x-key` marks the key. `x-refers-to` names the "
        "dataset that must hold the value. `x-vocabulary` names the list of words that keep one spelling. "
        "`x-type` and `x-default` are those of a table that was added.",
        media_type=SCHEMA,
        opt={"problems": PROBLEMS},
    )
    async def dataset(
        self, name: FromPath[str], database: NamedDependency[Database]
    ) -> Response[dict[str, Any]]:
        found = await _dataset(database, name)
        return Response(found.json_schema, media_type=SCHEMA)

    @post(
        "/",
        operation_id="addDataset",
        summary="Make a table importable",
        description="The contract is read from the table at each import. `added` tells all that was added.",
        opt={"scope": "admin", "problems": (*PROBLEMS, Busy, Conflict)},
    )
    async def add(
        self,
        data: JSONBody[NewDataset],
        request: Call,
        database: NamedDependency[Database],
        importing: NamedDependency[Importing],
    ) -> Response[AddedDataset]:
        made = await add_dataset(database, data, importing.reader, actor(request.scope))
        return Response(made, headers={"Location": f"/api/v1/datasets/{quote(made.name)}"})

    @delete(
        "/{name:str}",
        operation_id="removeDataset",
        summary="Make a table not importable any more",
        description="What was added with the dataset goes, its import history too; the table's rows stay.",
        opt={"scope": "admin", "problems": (*PROBLEMS, Busy, Conflict)},
    )
    async def remove(
        self,
        *,
        name: FromPath[str],
        request: Call,
        database: NamedDependency[Database],
        force: Annotated[bool, QueryParameter(description="also if rows wait in quarantine")] = False,
    ) -> None:
        await remove_dataset(database, name, actor(request.scope), force=force)


class ImportsController(Controller):
    path = "/imports"
    tags = ("imports",)
    opt = {"scope": "imports:write"}  # noqa: RUF012 (Litestar's way)

    # OpenAPI allows one name for this part of the path: a dataset's name for POST, an import's id for GET.

    @post(
        "/{target:str}",
        operation_id="importFile",
        summary="Import a file",
        description="`target` is the dataset's name. Send CSV, JSON or XLSX as the body, or as the multipart "
        "field `file`, plain or with `Content-Encoding: gzip`. Another coding, or a Content-Type that is not "
        "a table, is 415. Text is read in the charset that Content-Type states; without a charset it is "
        "detected. With `Accept: text/event-stream` a stream answers: `progress` events, then `report` or "
        "`problem`.",
        request_max_body_size=None,
        responses={
            201: ResponseSpec(Report, generate_examples=False, description="The report of the import")
        },
        opt={
            "problems": (*PROBLEMS, BadRequest, Busy, Conflict, TooLarge, UnsupportedMediaType),
            "operation": _FILE,
        },
    )
    async def import_file(
        self,
        *,
        target: FromPath[str],
        request: Call,
        database: NamedDependency[Database],
        importing: NamedDependency[Importing],
        dry_run: Annotated[
            bool, QueryParameter(description="report what the import would do, change nothing")
        ] = False,
        mirror: Annotated[
            bool, QueryParameter(description="mark stored rows that the file lacks as gone")
        ] = False,
    ) -> Response[Any]:
        found = await _dataset(database, target)
        options = Options(
            validate_sql=importing.validate_sql,
            bytes_limit=importing.bytes_limit,
            actor=actor(request.scope),
            dry_run=dry_run,
            mirror=mirror,
            turns=importing.turns,
        )
        async with AsyncExitStack() as resources:
            upload = await resources.enter_async_context(
                received(_sent(request), _body(request), importing.bytes_limit)
            )
            if weights(header_of(request.scope, b"accept")).get("text/event-stream"):
                job = partial(observed_import, importing, database, upload, found)
                events = _events(job, options, request.scope["path"], resources.pop_all())
                return Stream(events, status_code=201, headers=_STREAM_HEADERS)
            report = await observed_import(importing, database, upload, found, options)
        headers = {"Location": f"/api/v1/imports/{report.id}"} if report.id else {}
        return Response(report, status_code=201, headers=headers)

    @get(
        "/",
        operation_id="listImports",
        summary="Imports, newest first",
        opt={"problems": (DatabaseUnavailable,)},
    )
    async def list_imports(
        self,
        database: NamedDependency[Database],
        dataset: OfDataset = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> RunPage:
        name = await _dataset_name(database, dataset)
        found = await list_runs(database, dataset=name, before=_position(cursor), limit=limit)
        return RunPage(*page_of(found, limit, lambda run: (run.finished_at, run.id)))

    @get("/{target:str}", operation_id="getImport", summary="An import's report", opt={"problems": PROBLEMS})
    async def one_import(self, target: FromPath[str], database: NamedDependency[Database]) -> Report:
        return await one_run(database, parse_uuid(target))


class QuarantineController(Controller):
    path = "/quarantine"
    tags = ("imports",)
    opt = {"scope": "imports:write"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/",
        operation_id="listQuarantinedRows",
        summary="Quarantined rows",
        description="Quarantined rows broke their contract. A page of large rows holds fewer than `limit`; "
        "`next_cursor` tells whether more follow.",
        opt={"problems": (DatabaseUnavailable,)},
    )
    async def list_rows(
        self,
        *,
        database: NamedDependency[Database],
        dataset: OfDataset = None,
        reason: Annotated[Reason | None, QueryParameter(description="only rows with this reason")] = None,
        status: Annotated[Status | None, QueryParameter(description="open, loaded or discarded")] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> QuarantinePage:
        found = await quarantine.rows(
            database,
            dataset=await _dataset_name(database, dataset),
            reason=reason,
            status=status,
            after=_position(cursor),
            limit=limit,
        )
        last = found.last
        return QuarantinePage(found.rows, write_cursor((last.at, last.id)) if last else None)

    @get(
        "/export",
        operation_id="exportQuarantine",
        summary="Open rows as CSV, to be fixed and imported back",
        media_type="text/csv",
        opt={
            "problems": PROBLEMS,
            "operation": {"responses": {"200": {"content": {"text/csv": {"schema": {"type": "string"}}}}}},
        },
    )
    async def export(
        self,
        database: NamedDependency[Database],
        dataset: Annotated[str, QueryParameter(description="name of a dataset")],
    ) -> Stream:
        found = await _known(database, dataset)
        headers = {"Content-Disposition": f'attachment; filename="{found.name}-quarantine.csv"'}
        return Stream(quarantine.export(database, found), media_type="text/csv", headers=headers)

    @post(
        "/retry",
        operation_id="retryQuarantine",
        summary="Try open rows again",
        status_code=200,
        opt={"problems": (DatabaseUnavailable, Conflict)},
    )
    async def retry(
        self,
        request: Call,
        database: NamedDependency[Database],
        importing: NamedDependency[Importing],
        dataset: OfDataset = None,
    ) -> RetryReport:
        found = None if dataset is None else await _known(database, dataset)
        return await quarantine.retry(
            database, found, importing.validate_sql, actor(request.scope), turns=importing.turns
        )

    @get(
        "/{row_id:str}",
        operation_id="getQuarantinedRow",
        summary="A quarantined row",
        opt={"problems": PROBLEMS},
    )
    async def one(self, row_id: FromPath[str], database: NamedDependency[Database]) -> QuarantinedRow:
        return await quarantine.one(database, parse_uuid(row_id))

    @patch(
        "/{row_id:str}",
        operation_id="fixQuarantinedRow",
        summary="Fix a row and load it",
        opt={"problems": (*PROBLEMS, Conflict)},
    )
    async def fix(
        self,
        row_id: FromPath[str],
        data: JSONBody[Fix],
        request: Call,
        database: NamedDependency[Database],
        importing: NamedDependency[Importing],
    ) -> QuarantinedRow:
        return await quarantine.fix(
            database,
            parse_uuid(row_id),
            data.raw,
            importing.validate_sql,
            actor(request.scope),
            turns=importing.turns,
        )

    @delete(
        "/{row_id:str}",
        operation_id="discardQuarantinedRow",
        summary="Discard a row",
        opt={"problems": (*PROBLEMS, Conflict)},
    )
    async def discard(
        self,
        row_id: FromPath[str],
        request: Call,
        database: NamedDependency[Database],
        importing: NamedDependency[Importing],
    ) -> None:
        await quarantine.discard(database, parse_uuid(row_id), actor(request.scope), turns=importing.turns)


async def _events(
    job: Callable[[Options], Awaitable[Report]], options: Options, path: str, resources: AsyncExitStack
) -> AsyncGenerator[bytes]:
    """Events of an import, which ends with its client. `resources` holds the received file."""
    async with resources, aclosing(with_progress(job, options, path)) as events:
        async for name, data in events:
            yield server_sent_event(name, msgspec.json.encode(data))


def _sent(request: Call) -> Sent:
    return Sent(
        content_type=request.headers.get("content-type", ""),
        content_encoding=", ".join(request.headers.getall("content-encoding", [])),
        content_length=request.content_length or 0,
    )


async def _body(request: Call) -> AsyncGenerator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except InternalServerException:  # Litestar raises this if the client disconnects within the body
        raise BadRequest("The connection ended within the body.") from None


def _summary(dataset: Dataset) -> DatasetSummary:
    table = f"{dataset.schema}.{dataset.table}"
    return DatasetSummary(dataset.name, table, dataset.description, dataset.key)


async def _dataset(database: Database, name: str) -> Dataset:
    """Find the dataset of a path. Raises `NotFound`, which lists the known names."""
    datasets = await read_datasets(database)
    if found := find_among(datasets, name):
        return found
    raise NotFound(f"There is no dataset {name[:60]!r}; there are {_names(datasets)}.")


async def _known(database: Database, name: str) -> Dataset:
    """Find the dataset of a parameter. Raises `InvalidInput`."""
    datasets = await read_datasets(database)
    if found := find_among(datasets, name):
        return found
    raise InvalidInput(
        errors=(FieldError("dataset", f"no dataset is named so; there are {_names(datasets)}"),)
    )


async def _dataset_name(database: Database, name: str | None) -> str | None:
    return None if name is None else (await _known(database, name)).name


def _names(datasets: tuple[Dataset, ...]) -> str:
    return ", ".join(dataset.name for dataset in datasets)


def _position(cursor: str | None) -> Position | None:
    found = read_cursor(cursor, tuple[datetime, UUID])
    return None if found is None else Position(*found)
