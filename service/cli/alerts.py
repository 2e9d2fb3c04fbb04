"""Alerts: what is unusual, the rules that say so, and the messages about it."""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import click

from service.cli.group import Group, SeveralValues, pairs
from service.cli.output import csv_option

STATES: Final = ("pending", "firing", "resolved", "nodata", "stale", "withdrawn", "acknowledged")
OPEN: Final = ("firing", "nodata", "stale", "acknowledged", "pending")
_OPTIONS: Final = (
    click.option("--column", required=True, help="The column that is evaluated."),
    click.option("--by", cls=SeveralValues, help="Columns that tell the series apart. [default: all texts]"),
    click.option(
        "--kind",
        type=click.Choice(["threshold", "change", "anomaly"]),
        default="anomaly",
        show_default=True,
        help="How it is evaluated.",
    ),
    click.option("--above", type=float, help="Upper bound, or fraction of a change."),
    click.option("--below", type=float, help="Lower bound, or fraction of a change."),
    click.option("--sensitivity", type=float, help="Of an anomaly: 4 is a probability below 1e-4."),
    click.option("--param", "parameters", cls=SeveralValues, metavar="NAME=VALUE", help="Of the metric."),
)


@click.group(cls=Group)
def alert() -> None:
    """Alerts and their rules."""


@alert.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--open", "only_open", is_flag=True, help="Only those that are not over.")
@csv_option
def list_alerts(state: str | None, *, only_open: bool, as_csv: bool) -> None:
    """List alerts, newest first."""
    from msgspec import Raw

    from service.cli.output import show
    from service.cli.routes import Api, with_api

    if state and only_open:
        raise click.UsageError("--open names its states: leave --state out", click.get_current_context())

    async def read(api: Api) -> list[Raw]:
        wanted = OPEN if only_open else (state,)
        return [each for one in wanted for each in await api.items("/alerts", state=one)]

    columns = ("id", "state", "rule_name", "series", "point", "value", "expected", "opened_at")
    show(with_api(read), *columns, as_csv=as_csv)


@alert.command("acknowledge")
@click.argument("alert_id", metavar="ID", type=click.UUID)
def acknowledge(alert_id: UUID) -> None:
    """Say that somebody looks after an alert."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    show_object(with_api(lambda api: api.call("POST", f"/alerts/{alert_id}/acknowledge")))


@alert.command("rules")
@csv_option
def list_rules(*, as_csv: bool) -> None:
    """List all rules."""
    from service.cli.output import show
    from service.cli.routes import with_api

    found = with_api(lambda api: api.items("/alerts/rules"))
    show(found, "id", "name", "metric_id", "column", "kind", "problem", as_csv=as_csv)


def _rule_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a rule evaluates."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def _body(metric_id: UUID, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a rule that were given."""
    fields = {name: value for name, value in given.items() if value not in {None, ()}}
    parameters = pairs(fields.pop("parameters", ()))
    return {"metric_id": str(metric_id), **fields} | ({"parameters": parameters} if parameters else {})


@alert.command("add")
@click.argument("name")
@click.argument("metric_id", metavar="METRIC", type=click.UUID)
@_rule_options
@click.option("--webhook", "webhook_url", help="Address that is told; its secret is printed once.")
def add_rule(metric_id: UUID, **given: Any) -> None:
    """Create a rule NAME that evaluates a METRIC."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    body = _body(metric_id, given)
    show_object(with_api(lambda api: api.call("POST", "/alerts/rules", body=body)))


@alert.command("preview")
@click.argument("metric_id", metavar="METRIC", type=click.UUID)
@_rule_options
@csv_option
def preview(metric_id: UUID, *, as_csv: bool, **given: Any) -> None:
    """List what a rule would have found in a METRIC's present result."""
    import msgspec
    from msgspec import Raw

    from service.cli.output import show
    from service.cli.routes import with_api

    body = _body(metric_id, given)
    answer = with_api(lambda api: api.call("POST", "/alerts/rules/preview", body=body))
    found = msgspec.json.decode(answer, type=dict[str, Raw])["alerts"]
    show(msgspec.json.decode(found, type=list[Raw]), "series", "point", "value", "expected", as_csv=as_csv)


@alert.command("delete")
@click.argument("rule_id", metavar="RULE", type=click.UUID)
def delete_rule(rule_id: UUID) -> None:
    """Delete a rule with its alerts."""
    from service.cli.routes import with_api

    with_api(lambda api: api.call("DELETE", f"/alerts/rules/{rule_id}"))
    print(f"{rule_id} is deleted")


@alert.command("deliveries")
@click.option("--status", type=click.Choice(["waiting", "delivered", "dead"]), help="Only in this state.")
@csv_option
def list_deliveries(status: str | None, *, as_csv: bool) -> None:
    """List messages about alerts, newest first."""
    from service.cli.output import show
    from service.cli.routes import with_api

    found = with_api(lambda api: api.items("/alerts/deliveries", status=status))
    show(found, "id", "status", "event", "target", "tries", "last_error", as_csv=as_csv)


@alert.command("replay")
@click.argument("delivery_id", metavar="DELIVERY")
def replay(delivery_id: str) -> None:
    """Try a dead message again, with the same body and id. The service sends it."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    show_object(with_api(lambda api: api.call("POST", f"/alerts/deliveries/{delivery_id}/replay")))
