"""Parts of the OpenAPI document that several routes share. A route adds them by `opt={"operation": ...}`."""

from typing import Any, Final

Object = dict[str, Any]


def query(name: str, description: str, **schema: Any) -> Object:
    """A query parameter. Without a schema it is text."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema or {"type": "string"},
    }


def _header(description: str, example: str) -> Object:
    return {"description": description, "schema": {"type": "string"}, "example": example}


WINDOW: Final = [
    query("start_date", "first day of the reporting period", type="string", format="date"),
    query("end_date", "last day of the reporting period; the whole day counts", type="string", format="date"),
    query("day_range", "the last N days instead of two dates", type="integer", minimum=0),
]
FREE: Final = {
    "name": "parameters",
    "in": "query",
    "required": False,
    "style": "form",
    "explode": True,
    "description": "the metric's own parameters by name (`?region=north`); its definition lists them",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
FORMATS: Final = [
    query(
        "format", "wins over `Accept`", type="string", enum=["json", "csv", "ndjson", "arrow"], default="json"
    ),
    query(
        "excel",
        "prefix CSV cells that a spreadsheet would run as formulas; by default if `bom=1`, and below links",
        type="boolean",
    ),
    query(
        "bom",
        "begin CSV with a byte order mark, by which spreadsheets know UTF-8",
        type="integer",
        enum=[0, 1],
        default=0,
    ),
]
IF_NONE_MATCH: Final[Object] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "the ETag that the client holds; 304 if the result is still the same",
    "schema": {"type": "string"},
}
HEADERS: Final = {
    "ETag": _header("strong; one for each format and coding", '"0f3c"'),
    "Cache-Control": _header("how long clients may reuse the result", "private, max-age=0, must-revalidate"),
    "Age": _header("seconds since the run began", "3"),
    "Cache-Status": _header("how the result was found (RFC 9211)", "tally; hit"),
    "Vary": _header("the request headers that choose the representation", "Accept, Accept-Encoding"),
    "Server-Timing": _header("where the time of the run went", "db;dur=3.1"),
    "X-Request-ID": _header("the same as in the log", "8a6e0804"),
    "Tally-Truncated": _header(
        "present if there are more rows than ROW_LIMIT, which the answer lacks", "true"
    ),
}
_FILE: Final = _header(
    "of CSV alone: a file name of title, parameters and the time of the result",
    'attachment; filename="Alerts-by-type_as-of-20250802T090000Z.csv"',
)
_ROWS: Final = {"type": "string"}


def scrape_operation(*parameters: Object, example: str) -> Object:
    """What a route adds that Prometheus reads: its parameters, formats and 304."""
    content = {"schema": {"type": "string"}}
    return {
        "parameters": [*parameters, IF_NONE_MATCH],
        "responses": {
            "200": {
                "headers": {name: HEADERS[name] for name in ("ETag", "Vary")},
                "content": {
                    "text/plain": content | {"example": example},
                    "application/openmetrics-text": content | {"example": f"{example}# EOF\n"},
                },
            },
            "304": {"description": "Not modified: the client holds these values"},
        },
    }


def result_operation(*parameters: Object, formats: bool) -> Object:
    """What a route of cached results adds: its parameters, formats, headers and 304."""
    rows: Object = {
        "text/csv": {"schema": _ROWS},
        "application/x-ndjson": {"schema": _ROWS},
        "application/vnd.apache.arrow.stream": {"schema": _ROWS},
    }
    return {
        "parameters": [*parameters, *(FORMATS if formats else ()), IF_NONE_MATCH],
        "responses": {
            "200": {
                "headers": HEADERS | ({"Content-Disposition": _FILE} if formats else {}),
                "content": rows if formats else {},
            },
            "304": {"description": "Not modified: the client holds this result", "headers": HEADERS},
        },
    }
