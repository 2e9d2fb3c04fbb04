"""Settings come from the environment, and a bad one is named in one sentence."""

from pathlib import Path

import pytest

from service.environment import load, rows, with_env_file
from service.errors import Stop


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
        ("EXTERNAL_TIMEOUT_S", "0"),
        ("EXTERNAL_TIMEOUT_S", "nan"),
        ("OUTBOUND_COOLDOWN_S", "inf"),
        ("EXTERNAL_API_URL", "jsonplaceholder.typicode.com"),
        ("EXTERNAL_API_URL", "ftp://example.org"),
        ("EXTERNAL_API_URL", "https://example.org/api?key=1"),
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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_everyone_may_be_let_in_on_a_loopback_address(host: str):
    assert load({"AUTH": "off", "HOST": host}).auth.mode == "off"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", "localhost.example.org"])  # noqa: S104 (refused)
def test_everyone_is_not_let_in_anywhere_else(host: str):
    with pytest.raises(Stop, match="AUTH=off") as stop:
        load({"AUTH": "off", "HOST": host})
    assert stop.value.exit_code == 2
    assert load({"HOST": host}).auth.mode == "on"


@pytest.mark.parametrize(
    "environ",
    [
        {"OIDC_ISSUER": "https://issuer.example"},
        {"OIDC_AUDIENCE": "tally"},
        {"OIDC_ISSUER": "http://issuer.example", "OIDC_AUDIENCE": "tally"},
        {"OIDC_ISSUER": "issuer.example", "OIDC_AUDIENCE": "tally"},
        {"OIDC_ISSUER": "https://u:p@issuer.example", "OIDC_AUDIENCE": "tally"},
        {"OIDC_ISSUER": "https://a.example", "OIDC_AUDIENCE": "a", "OIDC_JWKS_URL": "http://b.example"},
        {"PUBLIC_URL": "tally.example"},
        {"PUBLIC_URL": "https://tally.example:port"},
        {"CORS_ORIGINS": "https://a.example/path"},
        {"CORS_ORIGINS": "https://a.example, *"},
        {"AUTH": "maybe"},
        {"RATE_LIMIT": "-1"},
        {"RATE_LIMIT": "1e3"},
        {"ROW_LIMIT": "1e3"},
        {"ROW_LIMIT": "1000.0"},
        {"READER_POOL_SIZE": "+8"},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_together_are_refused(environ: dict[str, str]):
    with pytest.raises(Stop) as stop:
        load(environ)
    assert any(variable in str(stop.value) for variable in environ)


def test_an_issuer_on_loopback_may_speak_plain_http():
    settings = load({"OIDC_ISSUER": "http://127.0.0.1:5000/pool", "OIDC_AUDIENCE": "a, b"})
    assert settings.auth.oidc_audience == ("a", "b")


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"HOST": "0.0.0.0", "PORT": "9"}, "http://127.0.0.1:9"),  # noqa: S104 (a value)
        ({"HOST": "::1"}, "http://[::1]:8000"),
        ({"HOST": "::"}, "http://[::1]:8000"),
        ({"PUBLIC_URL": "https://tally.example/"}, "https://tally.example"),
    ],
    ids=str,
)
def test_the_public_address_follows_host_and_port_unless_given(environ: dict[str, str], address: str):
    assert load(environ).public_url == address


def test_rates_are_not_limited_on_loopback_unless_asked_for():
    assert load({}).rate_limits == (0, 0)
    assert load({"RATE_LIMIT": "5"}).rate_limits == (5, 0)
    assert load({"HOST": "192.0.2.7", "METRIC_RATE_LIMIT": "0"}).rate_limits == (60_000, 0)


@pytest.mark.parametrize("name", ["Europe/Berlin", "Pacific/Tongatapu", "Asia/Kolkata", "UTC", "Etc/GMT+3"])
def test_a_time_zone_is_an_iana_name(name: str):
    assert load({"TIME_ZONE": name}).database.time_zone == name


@pytest.mark.parametrize(
    "name",
    [
        "Europe/Berlim",
        "europe/berlin",
        "UTC+3",
        "+02:00",
        "CEST",
        "Europe",
        "localtime",
        "../etc/passwd",
        "a\0b",
        "/",
    ],
)
def test_what_is_no_iana_name_is_refused_in_one_sentence(name: str):
    with pytest.raises(Stop, match="TIME_ZONE") as caught:
        load({"TIME_ZONE": name})
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_name_that_is_nearly_a_time_zone_is_told():
    with pytest.raises(Stop, match="did you mean Europe/Berlin"):
        load({"TIME_ZONE": "Europe/Berlim"})


def test_settings_of_the_file_count_where_the_environment_has_none(tmp_path: Path):
    file = tmp_path / ".env"
    file.write_text("# mine\nPORT=8123\nexport GRACE_S='7'\nPATH=/nowhere\nDATA_SCHEMAS=\"a,b\" # two\n")
    environ = with_env_file({"ENV_FILE": str(file), "GRACE_S": "9"})
    settings = load(environ)
    assert (settings.server.port, settings.server.grace_s) == (8123, 9)
    assert settings.database.data_schemas == ("a", "b")
    assert "PATH" not in environ


def test_a_setting_may_have_a_file_of_its_own(tmp_path: Path):
    """As container engines mount secrets. The variable itself wins, and the environment over `.env`."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"postgresql://{name}\n")
    (tmp_path / ".env").write_text(f"DATABASE_URL_FILE={tmp_path}/one\nREDIS_URL_FILE={tmp_path}/one\n")

    def loaded(**more: str) -> dict[str, str]:
        return with_env_file({"ENV_FILE": str(tmp_path / ".env"), **more})

    assert loaded()["DATABASE_URL"] == "postgresql://one"
    assert loaded(DATABASE_URL_FILE=f"{tmp_path}/two")["DATABASE_URL"] == "postgresql://two"
    assert loaded(DATABASE_URL="postgresql://own")["DATABASE_URL"] == "postgresql://own"
    with pytest.raises(Stop, match="DATABASE_URL_FILE=/nowhere cannot be read"):
        loaded(DATABASE_URL_FILE="/nowhere")


def test_a_line_of_the_file_that_is_no_setting_is_named(tmp_path: Path):
    file = tmp_path / ".env"
    file.write_text("PORT=8123\n= 5\n")
    with pytest.raises(Stop, match=r"\.env, line 2"):
        with_env_file({"ENV_FILE": str(file)})


@pytest.mark.parametrize(
    ("variables", "brought"),
    [
        ({}, True),
        ({"DATABASE_URL": "postgresql://a:b@127.0.0.1/x"}, False),
        ({"DATABASE_URL": "postgresql://a:b@127.0.0.1/x", "SAMPLE": "on"}, True),
        ({"DATABASE_URL": "postgresql://a:b@127.0.0.1/x", "SEEDS_DIR": "mine"}, True),
        ({"SAMPLE": "off"}, False),
    ],
    ids=["embedded", "a database of one's own", "asked for", "seeds of one's own", "refused"],
)
def test_the_sample_is_brought_where_it_belongs(variables: dict[str, str], brought: bool):
    assert load(variables).brings_sample is brought
