"""Take over dashboards of other tools."""

import click

from service.cli.group import Group
from service.cli.output import csv_option

INCOMPLETE = 3

dashboard_option = click.option(
    "--dashboard", metavar="ID", help="The dashboard's id. [default: made from its title]"
)
replace_option = click.option(
    "--replace", is_flag=True, help="Overwrite metrics of an earlier run that differ."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything, store nothing.")


@click.group(cls=Group)
def add() -> None:
    """Metrics and dashboards of other tools.

    FILE is an export, or - for standard input. Exit status 3 if something of it was refused.
    """


@add.command("redash")
@click.argument("file")
@dashboard_option
@replace_option
@dry_run_option
@csv_option
def add_redash(file: str, dashboard: str | None, *, replace: bool, dry_run: bool, as_csv: bool) -> int:
    """A dashboard of Redash, as GET /api/dashboards/ID gives it, or its queries."""
    return _add("redash", file, dashboard=dashboard, replace=replace, dry_run=dry_run, as_csv=as_csv)


@add.command("grafana")
@click.argument("file")
@dashboard_option
@replace_option
@dry_run_option
@csv_option
def add_grafana(file: str, dashboard: str | None, *, replace: bool, dry_run: bool, as_csv: bool) -> int:
    """A dashboard of Grafana whose panels ask Postgres: its JSON model."""
    return _add("grafana", file, dashboard=dashboard, replace=replace, dry_run=dry_run, as_csv=as_csv)


@add.command("metabase")
@click.argument("file")
@dashboard_option
@replace_option
@dry_run_option
@csv_option
def add_metabase(file: str, dashboard: str | None, *, replace: bool, dry_run: bool, as_csv: bool) -> int:
    """A dashboard of Metabase, as GET /api/dashboard/ID gives it, or its questions in SQL."""
    return _add("metabase", file, dashboard=dashboard, replace=replace, dry_run=dry_run, as_csv=as_csv)


def _add(tool: str, file: str, *, dashboard: str | None, replace: bool, dry_run: bool, as_csv: bool) -> int:
    import sys

    from service.audit import CLI
    from service.cli import output
    from service.cli.routes import with_services
    from service.metrics.exchange import READERS, files
    from service.metrics.exchange.take import REFUSED, Options, Taker

    plan = READERS[tool](files.read(file, lambda: sys.stdin.buffer))
    options = Options(dashboard, replace, dry_run)
    board, outcomes = with_services(
        lambda on: Taker(on.database, on.catalog, on.executor, on.editor, CLI).take(plan, options)
    )
    output.show(output.lines(outcomes), "state", "title", "id", "why", "notes", as_csv=as_csv)
    refused = sum(each.state in REFUSED for each in outcomes)
    where = f" on the dashboard {board}" if board else ""
    sys.stderr.write(f"tally: {len(outcomes) - refused} of {len(outcomes)} taken{where}\n")
    return INCOMPLETE if refused else 0
