"""What logs hold of an unexpected error: where it was, not what was in it."""

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from service.observe import set_up_logs
from service.settings import Logs

def handle(headers):
    raise RuntimeError("something broke")

set_up_logs(Logs(format={form!r}))
try:
    handle({{"authorization": "Bearer " + "top-" + "secret"}})
except RuntimeError as error:
    structlog.get_logger("error").error("unexpected error", exc_info=error)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)], capture_output=True, text=True, check=True
    )
    assert "something broke" in done.stderr
    assert "handle" in done.stderr
    assert "top-secret" not in done.stderr
