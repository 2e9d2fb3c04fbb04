"""Every operation of the API once, as a user of the Python client calls it."""

from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from tests.waiting import eventually

ORDER = "SELECT id, price FROM orders WHERE id = 9007199254740993"
CUSTOMERS = b"customer_id,occupation,type\n1,Cook,B2B\n2,Clerk,B2C\nthree,Baker,B2B\nfour,Smith,B2C\n"
CONTACTS = b"date_start,interaction,customer_id\n2025-06-01 10:00,Email,1\n"
SQL = (
    "SELECT day, 9007199254740993 AS whole, 0.12345678901234567890 AS part, 0.5::float8 AS half,"
    " NULL::text AS nothing FROM days WHERE day BETWEEN '2025-06-01' AND '2025-06-30' ORDER BY day"
)


INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "tour", "version": "1"},
}


def whole_tour(api, tally_client, secret):
    metric_id = metrics(api, tally_client)
    dashboards(api, metric_id)
    imports(api)
    interactions(api)
    items(api)
    alerts(api, tally_client, metric_id)
    live(api, metric_id)
    around(api, secret)
    assert api.delete_metric(metric_id) is None


def metrics(api, tally_client):
    models = tally_client.models
    made = api.create_metric(models.NewMetric(sql=SQL, title="Tour"))
    assert isinstance(made.id, UUID)
    eventually(lambda: str(made.id) in {str(each.id) for each in api.iter_metrics(limit=1)})
    assert made.id in {each.id for each in api.list_metrics(limit=500).items}
    result = api.get_metric_result(made.id, parameters={"start_date": "2025-06-29"})
    assert result.row_count == 2
    assert [column.name for column in result.columns] == ["day", "whole", "part", "half", "nothing"]
    first = result.records[0]
    assert first == {
        "day": "2025-06-29",
        "whole": 9007199254740993,
        "part": Decimal("0.12345678901234567890"),
        "half": 0.5,
        "nothing": None,
    }
    assert [type(value) for value in first.values()] == [str, int, Decimal, float, type(None)]
    assert api.export_metric(str(made.id), "ndjson", start_date="2025-06-30").count(b"\n") == 1
    assert b"0.12345678901234567890" in api.export_metric(made.id, start_date="2025-06-29")
    definition = api.get_metric_definition(made.id)
    assert definition.window.mode == "auto"
    shown = api.preview_metric({"sql": "SELECT 1e400::numeric AS huge"})
    assert shown.records == [{"huge": Decimal("1e400")}]
    batch = api.get_metric_results(
        {"metrics": [{"id": str(made.id), "parameters": {"start_date": "2025-06-30"}}, {"id": str(uuid4())}]}
    )
    found, missing = batch.results
    assert (found.status, found.result.records[-1]["part"]) == (200, Decimal("0.12345678901234567890"))
    assert (missing.status, missing.problem.code) == (404, "not-found")
    draft = api.draft_metric({"prompt": "number of customers by type"})
    assert draft.sql.lower().startswith(("select", "with"))
    etag = api.request("GET", f"/api/v1/metrics/{made.id}/definition").etag
    changed = api.change_metric(made.id, {"title": "Toured"}, if_match=etag or "*")
    assert (changed.title, changed.version) == ("Toured", 2)
    assert [each.version for each in api.list_metric_versions(made.id).items] == [2, 1]
    assert api.restore_metric_version(made.id, 1).title == "Tour"
    history = api.get_metric_history(made.id, limit=1)
    assert history.title == "Tour"
    assert [each.id for each in api.iter_metric_history(made.id)][:1] == [each.id for each in history.items]
    return made.id


def dashboards(api, metric_id):
    made = api.create_dashboard({"title": "A tour", "id": f"tour-{metric_id.hex[:8]}"})
    place = {"i": str(metric_id), "x": 0, "y": 0, "w": 4, "h": 4}
    view = api.put_dashboard_layouts(made.id, {"lg": [place]})
    assert [each.id for each in view.items] == [metric_id]
    assert view.layouts["lg"][0].w == 4
    assert api.change_tile(made.id, metric_id, {"chart": "bar"}).items[0].chart == "bar"
    assert api.rename_dashboard(made.id, {"title": "The tour"}).title == "The tour"
    assert api.get_dashboard(made.id).title == "The tour"
    assert made.id in {each.id for each in api.list_dashboards().items}
    assert made.id in {each.id for each in api.iter_dashboards(limit=1)}
    [tile] = api.get_dashboard_data(made.id, parameters={"start_date": "2025-06-29"}).results
    assert tile.result.records[0]["whole"] == 9007199254740993
    link = api.create_link(made.id, {"parameters": {"day_range": 3}, "expires_in": 60})
    assert [each.id for each in api.list_links(made.id).items] == [link.id]
    assert [each.parameters for each in api.iter_links(made.id)] == [{"day_range": "3"}]
    assert api.revoke_link(made.id, link.id) is None
    assert api.get_dashboard_openmetrics(made.id).startswith("# HELP tally_result_info")
    event = next(iter(api.watch_dashboard(made.id)))
    assert (event.event, event.result.id) == ("result", metric_id)
    assert api.delete_dashboard(made.id) is None


def imports(api):
    assert "customers" in {each.name for each in api.list_datasets().items}
    assert api.get_dataset("customers")["$defs"]["Customers"]["properties"]["customer_id"]["x-key"] is True
    name = f"crm-{uuid4().hex[:6]}.csv"  # a row of a file is quarantined once
    tried = api.import_file("customers", CUSTOMERS, name=name, dry_run=True)
    assert (tried.status, tried.rows_read) == ("dry-run", 4)
    report = api.import_file("customers", CUSTOMERS, name=name)
    assert (report.source, report.rows_read, report.quarantined) == (name, 4, 2)
    assert report.reasons == {"wrong-type": 2}
    assert api.get_import(report.id).rows_read == 4
    assert report.id in {each.id for each in api.list_imports(dataset="customers").items}
    assert report.id in {each.id for each in api.iter_imports(limit=1)}
    rows = api.list_quarantined_rows(dataset="customers", status="open", reason="wrong-type").items
    assert {row.raw["customer_id"] for row in rows} == {"three", "four"}
    assert len(list(api.iter_quarantined_rows(limit=1, status="open"))) == len(rows)
    first, second = sorted(rows, key=lambda row: row.line)
    assert api.get_quarantined_row(first.id).message == first.message
    assert api.export_quarantine(dataset="customers").splitlines()[0].startswith("customer_id,")
    assert api.fix_quarantined_row(first.id, {"raw": {"customer_id": 3}}).status == "loaded"
    assert api.retry_quarantine(dataset="customers").quarantined == 1
    assert api.discard_quarantined_row(second.id) is None
    added = api.add_dataset({"table": "data.orders"})
    exact = Decimal("12345678901234567890.0123456789")
    rows = api.import_file(added.name, [{"id": 9007199254740993, "price": exact}])
    assert rows.inserted + rows.unchanged == 1
    assert api.preview_metric({"sql": ORDER}).records == [{"id": 9007199254740993, "price": exact}]
    assert api.remove_dataset(added.name, force=True) is None


def interactions(api):
    api.import_file("external_interactions", CONTACTS, name="contacts.csv")
    assert api.get_customer_interactions(1).data.interactions["Email"] == 1
    page = api.list_customer_interactions(channel="Email", limit=1)
    assert page.items[0].customer_id == 1
    assert {each.customer_id for each in api.iter_customer_interactions(limit=1)} >= {1, 2}
    assert api.get_interaction_totals("channel").data["Email"] == 1
    assert api.get_statistics().data["customers"].rows >= 2


def items(api):
    made = api.create_item({"title": "First", "description": "One. Two. Three."})
    etag = api.request("GET", f"/api/v1/items/{made.id}").etag
    assert api.change_item(made.id, {"title": "Second"}, if_match=etag).title == "Second"
    assert api.replace_item(made.id, {"title": "Third"}).description in (None, "")
    assert api.get_item(made.id).title == "Third"
    assert made.id in {each.id for each in api.list_items(q="third").items}
    assert made.id in {each.id for each in api.iter_items(limit=1)}
    assert api.enrich_item(made.id).external_data is not None
    assert api.fetch_item_data(made.id).external_data["title"] == "One"
    assert api.summarise_item(made.id).generator
    assert api.list_posts(limit=1)[0].title == "One"
    assert api.delete_item(made.id) is None


def alerts(api, tally_client, metric_id):
    rule = {"metric_id": str(metric_id), "column": "half", "at": "day", "kind": "threshold", "above": 0.25}
    found = api.preview_alert_rule(rule)
    assert found.points == 30
    made = api.create_alert_rule(rule | {"name": "High"})
    assert made.above == 0.25
    assert api.get_alert_rule(made.id).name == "High"
    assert api.change_alert_rule(made.id, {"name": "Higher"}).name == "Higher"
    assert [each.id for each in api.list_alert_rules(metric_id=str(metric_id)).items] == [made.id]
    assert [each.id for each in api.iter_alert_rules(metric_id=str(metric_id), limit=1)] == [made.id]
    assert api.get_alert_bands(made.id).column == "half"

    def told():
        return list(api.iter_alerts(rule_id=str(made.id), limit=1))

    alert = eventually(told)[0]
    assert alert.id in {each.id for each in api.list_alerts(state=[alert.state]).items}
    assert api.get_alert(alert.id).value == 0.5
    assert api.acknowledge_alert(alert.id).acknowledged_by
    assert list(api.iter_alert_deliveries(status="dead")) == api.list_alert_deliveries().items == []
    with pytest.raises(tally_client.NotFoundError, match="not-found"):
        api.replay_alert_delivery(uuid4())
    assert api.delete_alert_rule(made.id) is None


def live(api, metric_id):
    assert api.create_ticket().expires_in == 60
    watched = iter(api.watch_metric(metric_id, start_date="2025-06-30"))
    first = next(watched)
    assert (first.event, first.result.records[0]["whole"]) == ("result", 9007199254740993)
    watched.close()
    several = iter(api.watch_metrics([metric_id], parameters={"start_date": "2025-06-29"}))
    assert next(several).result.row_count == 2
    several.close()


def around(api, secret):
    said = api.call_mcp({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE})
    assert said["result"]["serverInfo"]["name"]
    assert api.get_liveness().status == "ok"
    assert api.get_readiness().checks["database"] == "ok"
    assert set(api.get_health().checks) >= {"database", "migrations"}
    token = api.create_token(
        {
            "grant_type": "client_credentials",
            "client_id": "sdk",
            "client_secret": secret,
            "scope": "items:read",
        }
    )
    assert token.scope == "items:read"
    assert api.get_jwks()["keys"]
    assert api.get_openid_configuration()["token_endpoint"].endswith("/oauth2/token")
    assert "metrics.create" in {each.action for each in api.iter_audit(limit=50)}
    assert api.list_audit(limit=1).items[0].actor == "sdk"
