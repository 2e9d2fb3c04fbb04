"""The command line as people and scripts use it: lists, answers, mistakes, pipes and interruptions."""

import csv
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from service.cli import main
from service.database.connect import cause
from service.errors import Stop
from service.server.address import held_address
from service.settings import Server as ServerSettings
from tests.conftest import Server, _admin, _cloned
from tests.processes import ROOT, environment, free_port

Run = Callable[..., tuple[int, str, str]]
BAD = "customer_id,occupation,type\n1,cook,Distributor\nx,cook,Distributor\n"


@pytest.fixture(scope="module")
async def database(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory):
    """The environment of commands on a migrated database of this module's own."""
    async with _cloned(server, template) as addresses:
        yield {
            "DATABASE_URL": addresses.url,
            "READER_DATABASE_URL": addresses.reader_url,
            "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        }


@pytest.fixture
def run(database: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> Run:
    """Run a command in this process: exit status, standard output, standard error."""
    for name, value in database.items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsysbinary.readouterr()
        return int(ended.value.code or 0), said.out.decode(), said.err.decode()

    return command


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    variables = options.pop("variables", {})
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment(**variables), **options)


def test_help_imports_nothing_heavy():
    script = "import sys, service.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "Answer HTTP until stopped" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert loaded.isdisjoint({"asyncpg", "litestar", "httpx", "psycopg", "rich", "sqlglot", "structlog"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["metrc"], "there is no command 'metrc'; did you mean metric?"),
        (["xyz"], "serve, migrate, watch, unwatch, psql"),
        (["metric", "rnu"], "there is no command 'rnu'; did you mean run?"),
        (["import", "customers", "a.csv", "--dry-rnu"], "--dry-run"),
        (["import", "custmers", "a.csv"], "there is no dataset 'custmers'; there are "),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
        (["quarantine", "list", "--status", "gone"], "'open', 'loaded', 'discarded'"),
        (["quarantine", "list", "--reason", "gone"], "there are field-count, "),
        (["quarantine", "retry", "gone"], "dataset: no dataset is named so; there are "),
        (["metric", "show", "7"], "'7' is not a valid UUID"),
        (["metric", "show", str(UUID(int=7))], "There is no metric"),
        (["metric", "run", str(UUID(int=7)), "start_date"], "'start_date' is not NAME=VALUE"),
        (["metric", "add"], "give one of --sql, --file and --prompt"),
        (["metric", "add", "--sql", "SELECT * FROM pg_authid"], "pg_authid"),
        (["metric", "add", "--file", "/nowhere.sql"], "/nowhere.sql cannot be read"),
        (["import", "customers", "-", "-"], "- (standard input) can be read once"),
        (["serve", "--port", "70000"], "70000 is not in the range"),
        (["client", "renew", "nobody"], "There is no client 'nobody' to renew"),
    ],
    ids=lambda each: " ".join(each)[:40] if isinstance(each, list) else "",
)
def test_a_mistake_is_one_sentence_that_names_what_is_right(run: Run, arguments: list[str], said: str):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("tally: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_metric_is_added_listed_shown_and_run(run: Run):
    sql = "SELECT n, 'a,b' AS word, 0.10::numeric AS share FROM generate_series(1, :up::integer) AS n"
    status, out, err = run("metric", "add", "--file", "-", "--title", "Numbers", stdin=sql)
    assert (status, err) == (0, "")
    metric_id = json.loads(out)["id"]
    assert [each["title"] for each in _lines(run("metric", "list")[1])] == ["Numbers"]
    (listed,) = csv.DictReader(io.StringIO(run("metric", "list", "--csv")[1]))
    assert (listed["id"], listed["is_editable"]) == (metric_id, "true")
    assert json.loads(run("metric", "show", metric_id)[1])["sql"] == sql
    assert run("metric", "run", metric_id, "up=2")[1].splitlines() == [
        '{"n":1,"word":"a,b","share":0.10}',
        '{"n":2,"word":"a,b","share":0.10}',
    ]
    assert run("metric", "run", metric_id, "up=1", "--csv")[1].splitlines() == [
        "n,word,share",
        '1,"a,b",0.10',
    ]
    status, _, err = run("metric", "run", metric_id, "down=2")
    assert status == 2
    assert "down is no parameter of this metric: it takes up" in err


CAUSES = [
    (
        {"kind": "import", "source": "a.csv", "dataset": "customers", "actor": "ann"},
        "import of a.csv into customers by ann",
    ),
    (
        {"kind": "commit", "tables": ["data.a", "data.b"], "transaction": 7, "actor": None},
        "data.a, data.b changed (transaction 7)",
    ),
    (
        {"kind": "commit", "tables": ["data.a"], "transaction": 7, "actor": "ann", "action": "items.create"},
        "data.a changed (items.create by ann)",
    ),
    (
        {"kind": "commit", "tables": ["data.a"], "transaction": None, "actor": None},
        "data.a changed (unannounced)",
    ),
    ({"kind": "definition", "version": 3, "actor": None}, "metric changed to version 3 by nobody known"),
    ({"kind": "migration", "id": "0140.history"}, "migration 0140.history"),
    ({"kind": "redefinition", "names": ["data.v"]}, "data.v redefined"),
    ({"kind": "time"}, "time passed"),
    ({"kind": "unwatched", "tables": ["data.a"]}, "unknown: data.a not watched"),
    ({"kind": "unknown", "why": "nothing was noticed"}, "unknown: nothing was noticed"),
]


def test_a_history_is_told_in_words(capfdbinary):
    from service.cli.output import lines, show_history

    totals = {"added": 1, "removed": 0, "changed": 2, "unchanged": 3}
    items = [
        {"as_of": "2025-06-01T00:00:00Z", "row_count": 4, "causes": [cause], "difference": {"totals": totals}}
        for cause, _ in CAUSES
    ]
    items.append({"as_of": "2025-05-01T00:00:00Z", "row_count": 4, "causes": [], "difference": None})
    show_history(lines(items), as_csv=True)
    *changes, first = csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode()))
    assert [each["causes"] for each in changes] == [words for _, words in CAUSES]
    assert {(each["rows"], each["added"], each["removed"], each["changed"]) for each in changes} == {
        ("4", "1", "0", "2")
    }
    assert (first["added"], first["causes"]) == ("", "")


def test_numbers_are_shown_as_they_were_written(capfdbinary):
    from service.cli.output import show

    row = b'{"a":[1.50,-0.0],"b":{"n":1e+400},"c":%s,"d":0.10}' % (b"1" * 5000)
    show([msgspec.Raw(row)], "a", "b", "c", "d", as_csv=True)
    _, shown = csv.reader(io.StringIO(capfdbinary.readouterr().out.decode()))
    assert shown == ["[1.50,-0.0]", '{"n":1e+400}', "1" * 5000, "0.10"]


def test_a_metric_without_a_history_lists_none(run: Run):
    added = run("metric", "add", "--sql", "SELECT :n::integer AS n", "--title", "One")[1]
    metric_id = json.loads(added)["id"]
    assert run("metric", "history", metric_id, "n=1") == (0, "", "")
    status, _, err = run("metric", "history", metric_id, "m=1")
    assert (status, "m is no parameter of this metric" in err) == (2, True)
    sql = "SELECT :limit::integer AS n, :path::text AS path, :cursor::text AS c"
    metric_id = json.loads(run("metric", "add", "--sql", sql, "--title", "Two")[1])["id"]
    assert run("metric", "history", metric_id, "limit=70", "path=a", "cursor=b") == (0, "", "")


def test_a_dashboard_is_added_and_listed(run: Run):
    assert json.loads(run("dashboard", "add", "Sales of today")[1])["id"] == "sales-of-today"
    assert run("dashboard", "add", "Other", "--id", "sales-of-today")[0] == 2
    assert "sales-of-today" in [each["id"] for each in _lines(run("dashboard", "list")[1])]


def test_a_question_is_answered_and_nothing_stored(run: Run):
    answer = json.loads(run("ask", "how many customers are there")[1])
    assert "customers" in answer["sql"]
    assert len(answer["records"]) == 1
    assert run("ask", "how many customers are there", "--csv")[1].count("\n") == 2


def test_rows_of_standard_input_are_imported_fixed_and_exported(run: Run):
    status, out, _ = run("import", "customers", "-", stdin=BAD)
    report = json.loads(out)
    assert (status, report["source"], report["inserted"], report["quarantined"]) == (0, "stdin", 1, 1)
    assert run("import", "customers", "-", "--strict", stdin=BAD)[0] == 1
    (row,) = _lines(run("quarantine", "list", "--dataset", "customers")[1])
    assert (row["reason"], row["line"]) == ("wrong-type", 3)
    heading, exported = csv.reader(io.StringIO(run("quarantine", "export", "customers")[1]))
    assert heading[-3:] == ["quarantine_id", "reason", "message"]
    assert exported[-3] == row["id"]
    assert json.loads(run("quarantine", "retry", "customers")[1])["quarantined"] == 1
    status, _, err = run("quarantine", "fix", row["id"], "customer_id=y")
    assert status == 2
    assert "customer_id" in err
    assert json.loads(run("quarantine", "fix", row["id"], "customer_id=2")[1])["status"] == "loaded"
    assert run("quarantine", "list", "--dataset", "customers")[1] == ""


def test_a_table_is_watched_and_unwatched(run: Run, database: dict[str, str]):
    with psycopg.connect(database["DATABASE_URL"], autocommit=True) as owner:
        owner.execute("CREATE TABLE data.own (n integer)")
        count = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'data.own'::regclass"
        assert run("watch", "data.own") == (0, "data.own announces its changes\n", "")
        assert owner.execute(count).fetchone() == (4,)
        assert run("unwatch", "data.own") == (0, "data.own announces its changes no more\n", "")
        assert owner.execute(count).fetchone() == (0,)
    assert run("unwatch", "data.nothing")[0] == 2


def test_datasets_are_listed(run: Run):
    assert "customers" in [each["name"] for each in _lines(run("dataset", "list")[1])]


def test_too_much_standard_input_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMPORT_BYTES_LIMIT", "2000")
    status, out, err = run("import", "customers", "-", stdin=BAD + "3,cook,Distributor\n" * 1000)
    assert (status, out) == (2, "")
    assert "2000" in err


async def test_migrations_can_be_looked_at_first(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch):
    name = f"tally_{uuid4().hex[:16]}"
    await _admin(server, f'CREATE DATABASE "{name}"')
    try:
        monkeypatch.setenv("DATABASE_URL", server.url(name))
        await _looked_at(run)
    finally:
        await _admin(server, f'DROP DATABASE "{name}"')


async def _looked_at(run: Run) -> None:
    import asyncio

    def look(option: str) -> str:
        return run("migrate", option)[1]

    states = _lines(await asyncio.to_thread(look, "--status"))
    assert states[0] == {"migration": "0001.schemas", "status": "pending"}
    assert {each["status"] for each in states} == {"pending"}
    assert (await asyncio.to_thread(look, "--dry-run")).startswith("would apply 0001.schemas, 0002.catalog")
    assert "CREATE TABLE catalog.metric" in await asyncio.to_thread(look, "--print-sql")
    for command in (["metric", "list"], ["client", "list"]):
        status, out, err = await asyncio.to_thread(run, *command)
        assert (status, out) == (1, "")
        assert "run `tally migrate`" in err
    assert {each["status"] for each in _lines(await asyncio.to_thread(look, "--status"))} == {"pending"}


def test_a_terminal_gets_a_table(database: dict[str, str]):
    ours, theirs = pty.openpty()
    process = _process("migrate", "--status", variables=database, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while part := _read(ours):
        shown += part
    assert process.wait(60) == 0
    assert "│ 0001.schemas" in shown.decode()
    assert "{" not in shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's word for the end of a terminal
        return b""


def test_a_reader_that_leaves_and_a_full_disk_are_no_tracebacks():
    source, sink = os.pipe()
    os.close(source)
    left = _process("completion", "bash", stdout=sink, stderr=subprocess.PIPE)
    os.close(sink)
    with Path("/dev/full").open("w") as full:
        filled = _process("completion", "bash", stdout=full, stderr=subprocess.PIPE)
    assert (left.communicate()[1], left.returncode) == (b"", 141)
    assert (filled.communicate()[1], filled.returncode) == (b"tally: output: No space left on device\n", 1)


def test_ctrl_c_ends_a_command_quietly(database: dict[str, str]):
    process = _process(
        *("import", "customers", "-"),
        variables=database,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"a" * (1 << 20))  # more than a pipe holds: the command reads
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert process.returncode == 130


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_and_completes(run: Run, shell: str):
    status, out, _ = run("completion", shell)
    assert status == 0
    assert f"_TALLY_COMPLETE={shell}_complete" in out


def test_completion_knows_the_commands():
    asked = {"_TALLY_COMPLETE": "bash_complete", "COMP_WORDS": "tally metric r", "COMP_CWORD": "2"}
    done = _process(variables=asked, stdout=subprocess.PIPE)
    assert done.communicate()[0].decode().split() == ["plain,run", "plain,resume"]


def test_a_port_is_tried_before_anything_else_and_then_held(run: Run, tmp_path: Path):
    server = ServerSettings(port=free_port())
    with held_address(server) as address:
        assert address == "127.0.0.1"
        with pytest.raises(Stop, match="Address already in use; stop what listens there, or set PORT"):
            held_address(server).__enter__()
    status, out, err = run("serve", "--check", "--port", str(server.port))
    assert (status, out, err) == (0, "", "")
    with socket.create_server(("127.0.0.1", server.port)):
        taken = _process(
            *("serve", "--port", str(server.port)),
            variables={"DATA_DIR": tmp_path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = taken.communicate()
    assert taken.returncode == 1
    assert err.decode().startswith(f"tally: cannot listen on 127.0.0.1:{server.port}")
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time (connect_timeout)"),
        (socket.gaierror(-2, "Name or service not known"), "unknown host (Name or service not known)"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] again"),
            "Connection refused",
        ),
        (ConnectionError('PostgreSQL server at "h:1" rejected SSL upgrade'), "rejected SSL upgrade"),
        (ValueError("a\nb"), "a"),
    ],
)
def test_the_cause_of_a_failed_connection_is_told(error: BaseException, said: str):
    assert said in cause(error)
