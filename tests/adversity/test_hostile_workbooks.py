"""Workbooks that would freeze, crash or fill the service are refused, and nobody else notices."""

import signal
from collections.abc import Iterator

import httpx
import pytest

from service.errors import TooLarge
from service.imports.xlsx import sheet
from service.imports.xlsx.parts import Strings
from tests.adversity.watcher import watched
from tests.adversity.workbooks import HOSTILE, Makers
from tests.processes import PATIENCE_S, free_port, open_folder, start, tally, until_ready

LIMIT_S = 120


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[int, int]]:
    """Port and process of a service of its own."""
    port = free_port()
    with open_folder() as folder:
        assert tally("migrate", DATA_DIR=folder).returncode == 0
        running = start(DATA_DIR=folder, PORT=port)
        try:
            until_ready(port)
            yield port, running.pid
        finally:
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("makers", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_workbook_is_refused_and_nobody_else_notices(service: tuple[int, int], makers: Makers):
    port, process = service
    address = f"http://127.0.0.1:{port}/api/v1/imports/customers"
    answers: dict[str, tuple[int, str]] = {}
    with watched(port, process) as reports:
        for name, make in makers.items():
            answer = httpx.post(address, content=make(), timeout=LIMIT_S)
            answers[name] = answer.status_code, answer.json()["detail"]
    assert {name: answer for name, answer in answers.items() if answer[0] not in {413, 422}} == {}
    assert all("Traceback" not in detail for _, detail in answers.values())
    reports[0].assert_unharmed()


def test_cells_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sheet, "CELLS", 5)
    reader = sheet.SheetReader(sheet.Source(Strings(), [], from_1904=False, use=lambda _: "other"))
    content = b"<worksheet><sheetData><row>" + b"<c/>" * 6 + b"</row></sheetData></worksheet>"
    with pytest.raises(TooLarge, match="more than 5 cells"):
        list(sheet.read_sheet(iter([content]), reader))
