"""The commands. Each calls the functions that the HTTP routes call.

A new command is one function with click's decorators, and a place in `SECTIONS`. Its docstring is its help.
It imports what it needs when it runs, so that `--help` and completion are quick.
"""

import os
import sys
from typing import Final

import click

from service import __version__
from service.cli import (
    access,
    adding,
    alerts,
    backup,
    completion,
    databases,
    demo,
    files,
    metrics,
    serve,
    setup,
)
from service.cli.group import Root
from service.errors import DatabaseUnavailable, Problem, Stop

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
SECTIONS: Final = {
    "Start": (demo.demo, setup.connect_database, setup.doctor, setup.settings, setup.uninstall),
    "Service": (
        serve.serve,
        databases.migrate_database,
        databases.watch_tables,
        databases.unwatch_tables,
        databases.psql,
    ),
    "Data": (files.seed_database, files.import_files, files.dataset, files.quarantine),
    "Metrics": (metrics.metric, metrics.dashboard, metrics.ask, metrics.query, adding.add),
    "Alerts": (alerts.alert,),
    "Backup": (backup.export_all, backup.restore_all),
    "Access": (access.token, access.client, access.key),
    "Shell": (completion.completion,),
}

tally: Final = Root(
    name="tally",
    sections=SECTIONS,
    help="Stored SQL as live, cached, safe JSON metrics over Postgres.",
    epilog="Settings come from the environment; `tally settings` lists them.",
)
click.version_option(__version__, prog_name="tally", message="%(prog)s %(version)s")(tally)


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0, 1 (environment), 2 (wrong input), 3 (missing grants) or 130 (Ctrl-C)."""
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)  # and not `sys.stdout.flush`: a closed one is None
    except click.exceptions.Exit as done:
        status = done.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 (a command never ends with a traceback)
        sentence, status = _sentence(error)
        sys.stderr.write(f"{sentence}\n")
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    completion.answer(tally)
    with tally.make_context("tally", arguments) as context:
        status: int | None = tally.invoke(context)
    return status or 0


def _sentence(error: Exception) -> tuple[str, int]:  # noqa: PLR0911 (one for each kind)
    """The sentence and the exit status of an error."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), 2
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "tally"
            return f"tally: {error.format_message().rstrip('.')} (see {path} --help)", 2
        case Stop():
            return f"tally: {error}", error.exit_code
        case DatabaseUnavailable():
            from service.database.gateway import reason
            from service.postgres_url import where

            url = os.environ.get("DATABASE_URL")
            place = f"the database at {where(url)}" if url else "the embedded database"
            return f"tally: {place}: {reason(error)}", 1
        case Problem():
            return f"tally: {_detail(error)}", 2 if error.status < 500 else 1  # noqa: PLR2004 (a server's error)
        case OSError():
            return f"tally: {error.filename or 'output'}: {error.strerror}", 1
        case _:
            import structlog

            structlog.get_logger("command").debug("unexpected error", exc_info=error)
            kind = type(error).__name__
            return f"tally: unexpected {kind}: {error} (LOG_LEVEL=debug shows where)", 1


def _detail(problem: Problem) -> str:
    """The detail of a problem, or its wrong values if the detail only says that there are some."""
    wrong = [f"{each.field}: {each.message}" for each in problem.errors]
    return "; ".join(wrong) if wrong and problem.detail == type(problem).__doc__ else problem.detail
