"""A signed link that nginx keeps, against hits that the service answers: python -m tests.bench.nginx

The configuration is the deployed one without TLS, which the load of these measurements does not speak.
"""

import json
import tempfile
import urllib.request
from pathlib import Path

from tests.bench.hits import store_metrics
from tests.bench.load import TALLY, Case, best, database, get, served, show_figures
from tests.nginx import Nginx

SQL = "SELECT n, 'row ' || n AS label FROM generate_series(1, 25) AS n"


def main() -> None:
    with database() as server, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with served(server, TALLY, AUTH="off", DATA_DIR=f"{folder}/data", LINK_RATE_LIMIT="0") as tally:
            (metric,) = store_metrics(server, SQL, 1)
            link = _linked(tally, metric)
            nginx = Nginx(Path(folder), [tally])
            config = nginx.folder / "nginx.conf"
            config.write_text(config.read_text().replace(f":{nginx.port} ssl http2;", f":{nginx.port};"))
            with nginx:
                figures = best(
                    {
                        "Tally, a hit": Case(tally, [get(f"/api/v1/metrics/{metric}", port=tally)]),
                        "Tally, a hit of a link": Case(tally, [get(link, port=tally)]),
                        "nginx before Tally, a hit": Case(
                            nginx.port, [get(f"/api/v1/metrics/{metric}", port=tally)]
                        ),
                        "nginx, a link that it keeps": Case(nginx.port, [get(link, port=tally)]),
                    }
                )
    show_figures(figures, "Tally, a hit")


def _linked(port: int, metric: str) -> str:
    """The path of the metric's result below a new link."""
    api = f"http://127.0.0.1:{port}/api/v1"
    _sent("PUT", f"{api}/dashboards/default/layouts", {"lg": [{"i": metric, "x": 0, "y": 0, "w": 4, "h": 3}]})
    url = _sent("POST", f"{api}/dashboards/default/links", {})["url"]
    return f"/s/{url.split('/s/')[1]}/metrics/{metric}"


def _sent(method: str, url: str, body: object) -> dict[str, str]:
    request = urllib.request.Request(url, json.dumps(body).encode(), method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
