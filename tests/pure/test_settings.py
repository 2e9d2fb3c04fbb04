"""Settings come from the environment, and a bad one is named in one sentence."""

from pathlib import Path

import pytest

from service.errors import Stop
from service.settings import load, rows


def test_an_empty_environment_gives_the_documented_defaults():
    assert {row.env: row.default for row in rows()}["STATEMENT_TIMEOUT_MS"] == "5000"
    assert load({}).database.statement_timeout_ms == 5000


def test_values_are_converted_to_their_types():
    settings = load(
        {"PORT": "9000", "DATA_DIR": "x/y", "DATA_SCHEMAS": "public, sales", "LOG_FORMAT": "json"}
    )
    assert settings.server.port == 9000
    assert settings.database.data_dir == Path("x/y")
    assert settings.database.data_schemas == ("public", "sales")
    assert settings.logs.format == "json"


def test_an_empty_variable_counts_as_not_set():
    assert load({"DATABASE_URL": " ", "PORT": ""}) == load({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("LOG_LEVEL", "loud"),
        ("DATA_SCHEMAS", ","),
        ("ROW_LIMIT", "0"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("READER_DATABASE_URL", "postgresql://localhost:port/x"),
    ],
)
def test_a_bad_value_names_its_variable_in_one_sentence(variable: str, value: str):
    with pytest.raises(Stop) as stop:
        load({variable: value})
    assert stop.value.exit_code == 2
    assert str(stop.value).startswith(variable)
    assert "\n" not in str(stop.value)


def test_a_bad_database_url_does_not_print_its_password():
    with pytest.raises(Stop) as stop:
        load({"DATABASE_URL": "mysql://me:secret@localhost/x"})
    assert "secret" not in str(stop.value)
