"""Workbooks that would freeze, crash or fill the service are refused, and nobody else notices."""

import pytest

from service.errors import TooLarge
from service.imports.xlsx import sheet
from service.imports.xlsx.parts import Strings
from tests.adversity.conftest import Attacked
from tests.adversity.workbooks import HOSTILE, Makers

LIMIT_S = 120


@pytest.mark.parametrize("makers", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_workbook_is_refused_and_nobody_else_notices(attacked: Attacked, makers: Makers):
    answers: dict[str, tuple[int, str]] = {}
    for name, make in makers.items():
        answer = attacked.client.post("/imports/customers", content=make(), timeout=LIMIT_S)
        answers[name] = answer.status_code, answer.json()["detail"]
    assert {name: answer for name, answer in answers.items() if answer[0] not in {413, 422}} == {}
    assert all("Traceback" not in detail for _, detail in answers.values())


def test_cells_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sheet, "CELLS", 5)
    reader = sheet.SheetReader(sheet.Source(Strings(), [], from_1904=False, use=lambda _: "other"))
    content = b"<worksheet><sheetData><row>" + b"<c/>" * 6 + b"</row></sheetData></worksheet>"
    with pytest.raises(TooLarge, match="more than 5 cells"):
        list(sheet.read_sheet(iter([content]), reader))
