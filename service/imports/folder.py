"""Import a folder of files. File names, sheet names and JSON keys tell the dataset."""

import asyncio
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.errors import InvalidInput, Stop
from service.imports.contracts import Dataset, find_among
from service.imports.derived import read_datasets
from service.imports.readers import REFUSALS, Upload, inspect
from service.imports.readers.documents import has_part
from service.imports.readers.workbooks import sheet_names
from service.imports.run.imports import Options, Report, import_file

SUFFIXES: Final = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm", ".xls"}


class Refusal(Struct, frozen=True):
    source: str
    detail: str


class Imported(Struct, frozen=True):
    reports: list[Report]
    refusals: list[Refusal]


async def import_folder(database: Database, folder: Path, options: Options) -> Imported:
    """Import all files of a folder in the order of the datasets. A refused file does not stop the others.

    Files that were imported before are skipped, even if rows of the catalogue were edited since.
    """
    reports: list[Report] = []
    refusals: list[Refusal] = []
    jobs: list[tuple[Dataset, Upload]] = []
    datasets = await read_datasets(database)
    options = msgspec.structs.replace(options, keep_edits=True, datasets=datasets)
    for upload in await asyncio.to_thread(_uploads, folder):
        try:
            held = await _datasets_of(upload, options)
        except REFUSALS as refusal:
            refusals.append(Refusal(upload.source, refusal.detail))
        else:
            jobs += [(dataset, upload) for dataset in held]
    for dataset, upload in sorted(jobs, key=lambda job: datasets.index(job[0])):
        try:
            reports.append(await import_file(database, upload, dataset, options))
        except REFUSALS as refusal:
            refusals.append(Refusal(upload.source, refusal.detail))
    return Imported(reports, refusals)


def _uploads(folder: Path) -> list[Upload]:
    """List the files to import. Raises `Stop` if the folder does not exist."""
    if not folder.is_dir():
        raise Stop(f"{folder} is not a folder; set SEEDS_DIR", exit_code=2)
    paths = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return [Upload(path, path.name) for path in sorted(paths)]


async def _datasets_of(upload: Upload, options: Options) -> list[Dataset]:
    """Find the datasets that a file holds."""
    facts = await asyncio.to_thread(inspect, upload, bytes_limit=options.bytes_limit)
    datasets = options.datasets
    named = find_among(datasets, upload.path.stem)
    found = [named] if named else []
    if facts.format == "xlsx":
        sheets = await sheet_names(upload.path, upload.source, bytes_limit=options.bytes_limit)
        found = [dataset for dataset in (find_among(datasets, sheet) for sheet in sheets) if dataset] or found
    elif facts.format == "json" and named:
        others = (dataset for dataset in datasets if dataset.also_in == named.name)
        path, source = upload.path, upload.source
        found += [
            other for other in others if await asyncio.to_thread(has_part, path, source, other.json_part)
        ]
    if not found:
        known = ", ".join(dataset.name for dataset in datasets)
        raise InvalidInput(f"{upload.source}: no dataset is named so; there are {known}")
    return found
