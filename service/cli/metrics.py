"""Metrics, their queries and dashboards, and questions in plain words."""

from pathlib import Path
from uuid import UUID

import click

from service.cli.files import text_of
from service.cli.group import Command, Group, pairs
from service.cli.output import csv_option
from service.errors import Stop


@click.group(cls=Group)
def metric() -> None:
    """Metrics of the catalogue."""


@metric.command("list")
@csv_option
def list_metrics(*, as_csv: bool) -> None:
    """List all metrics."""
    from service.cli.output import show
    from service.cli.routes import with_api

    found = with_api(lambda api: api.items("/metrics"))
    show(found, "id", "title", "query_id", "is_editable", as_csv=as_csv)


@metric.command("show")
@click.argument("metric_id", metavar="ID", type=click.UUID)
def show_metric(metric_id: UUID) -> None:
    """Show a metric's SQL, parameters, columns and tables."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    show_object(with_api(lambda api: api.call("GET", f"/metrics/{metric_id}/definition")))


@metric.command("run")
@click.argument("metric_id", metavar="ID", type=click.UUID)
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@csv_option
def run_metric(metric_id: UUID, parameters: tuple[str, ...], *, as_csv: bool) -> None:
    """Run a metric, with values for its parameters such as start_date=2025-06-01."""
    from service.cli import output
    from service.cli.routes import with_api

    is_table = output.on_terminal() and not as_csv
    form = "text/csv" if as_csv else "application/json" if is_table else "application/x-ndjson"
    given = pairs(parameters)
    result = with_api(lambda api: api.call("GET", f"/metrics/{metric_id}", query=given, accept=form))
    if is_table:
        output.results_table(result)
    else:
        output.write(result)


@metric.command("history")
@click.argument("metric_id", metavar="ID", type=click.UUID)
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@csv_option
def list_history(metric_id: UUID, parameters: tuple[str, ...], *, as_csv: bool) -> None:
    """List a metric's last distinct results, newest first: what differs between them, and why."""
    from service.cli.output import show_history
    from service.cli.routes import with_api

    of_the_page = {"limit", "cursor"}
    given = {
        f"metric.{name}" if name in of_the_page else name: value for name, value in pairs(parameters).items()
    }
    show_history(with_api(lambda api: api.items(f"/metrics/{metric_id}/history", **given)), as_csv=as_csv)


@metric.command("add")
@click.option("--sql", help="The SQL of the metric.")
@click.option(
    "--file", "source", metavar="FILE", help="Read the SQL from a file, or from - (standard input)."
)
@click.option("--prompt", help="A question in plain words; the SQL is written for it.")
@click.option("--title", help="Its title. [default: that of the prompt]")
@click.option("--dashboard", "dashboards", multiple=True, metavar="ID", help="Put it on a dashboard.")
def add_metric(
    sql: str | None, source: str | None, prompt: str | None, title: str | None, dashboards: tuple[str, ...]
) -> None:
    """Create a metric from SQL or from a prompt."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    if sum(each is not None for each in (sql, source, prompt)) != 1:
        raise Stop("give one of --sql, --file and --prompt", exit_code=2)
    sql = sql if source is None else text_of(source)
    given = {"sql": sql, "prompt": prompt, "title": title}
    body: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if dashboards:
        body["dashboards"] = [{"id": each} for each in dashboards]
    show_object(with_api(lambda api: api.call("POST", "/metrics", body=body)))


@metric.command("resume")
@click.argument("metric_id", metavar="ID", type=click.UUID)
def resume_metric(metric_id: UUID) -> None:
    """Resume a metric that was suspended because Postgres could not stop its SQL."""
    from service.cli.opened import with_database
    from service.metrics import suspensions

    resumed = with_database(lambda db: suspensions.resume(db, metric_id))
    print(f"{metric_id} runs again" if resumed else f"{metric_id} was not suspended")


@click.group(cls=Group)
def dashboard() -> None:
    """Dashboards."""


@dashboard.command("list")
@csv_option
def list_dashboards(*, as_csv: bool) -> None:
    """List all dashboards."""
    from service.cli.output import show
    from service.cli.routes import with_api

    show(with_api(lambda api: api.items("/dashboards")), "id", "title", "metrics", as_csv=as_csv)


@dashboard.command("add")
@click.argument("title")
@click.option("--id", "dashboard_id", help="Its id in addresses. [default: made from the title]")
def add_dashboard(title: str, dashboard_id: str | None) -> None:
    """Create an empty dashboard."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    body = {"title": title} | ({} if dashboard_id is None else {"id": dashboard_id})
    show_object(with_api(lambda api: api.call("POST", "/dashboards", body=body)))


@click.command(cls=Command)
@click.argument("prompt")
@csv_option
def ask(prompt: str, *, as_csv: bool) -> None:
    """Answer a question in plain words: the SQL that is written for it, and its first rows."""
    from service.cli import output
    from service.cli.routes import with_api

    answer = with_api(lambda api: api.call("POST", "/metrics/ask", body={"prompt": prompt}))
    output.show_answer(answer, as_csv=as_csv)


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

    sql = None if file is None else text_of(str(file))
    with_database(lambda db: store.trust(db, query_id, sql))
    print(f"{query_id} runs without validation from now on")


@query.command("distrust")
@click.argument("query_id", metavar="ID")
def distrust_query(query_id: str) -> None:
    """Validate a query again."""
    from service.cli.opened import with_database
    from service.metrics import store

    with_database(lambda db: store.distrust(db, query_id))
    print(f"{query_id} is validated again")
