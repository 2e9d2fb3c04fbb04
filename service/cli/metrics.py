"""Metrics and their queries."""

from pathlib import Path
from uuid import UUID

import click

from service.cli.group import Group
from service.errors import Stop


@click.group(cls=Group)
def metric() -> None:
    """Metrics of the catalogue."""


@metric.command("resume")
@click.argument("metric_id", metavar="ID", type=click.UUID)
def resume_metric(metric_id: UUID) -> None:
    """Resume a metric that was suspended because Postgres could not stop its SQL."""
    from service.cli.opened import with_database
    from service.metrics import suspensions

    resumed = with_database(lambda db: suspensions.resume(db, metric_id))
    print(f"{metric_id} runs again" if resumed else f"{metric_id} was not suspended")


@click.group(cls=Group)
def query() -> None:
    """Queries that our parser cannot read."""


@query.command("trust")
@click.argument("query_id", metavar="ID")
@click.option("--file", type=click.Path(path_type=Path), help="Store this SQL as the query, new or changed.")
def trust_query(query_id: str, file: Path | None) -> None:
    """Run a query without validation; role, READ ONLY and limits still apply."""
    from service.cli.opened import with_database
    from service.metrics import store

    try:
        sql = None if file is None else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"{file} cannot be read: {error}", exit_code=2) from None
    with_database(lambda db: store.trust(db, query_id, sql))
    print(f"{query_id} runs unjudged from now on")


@query.command("distrust")
@click.argument("query_id", metavar="ID")
def distrust_query(query_id: str) -> None:
    """Validate a query again."""
    from service.cli.opened import with_database
    from service.metrics import store

    with_database(lambda db: store.distrust(db, query_id))
    print(f"{query_id} is judged again")
