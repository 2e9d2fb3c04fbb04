"""A server that misbehaves as the first part of the path says, the same for both clients."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JSON = "application/json"
HEALTH = json.dumps({"status": "ok", "checks": {}})
RESULT = {
    "id": "c797b618-df12-45f7-bbb2-cc6695a48e46",
    "title": None,
    "query_id": "q",
    "is_editable": True,
    "layouts": [],
    "parameters": {},
    "columns": [{"name": "n", "type": "numeric"}],
    "records": [{"n": 1}],
    "row_count": 1,
    "truncated": False,
    "as_of": "2025-08-02T09:00:00Z",
}
EVENT = f'event: result\nid: "one"\ndata: {json.dumps(RESULT)}\n\n'
BUSY = json.dumps({"code": "busy", "detail": "Not now.", "title": "Busy", "status": 503})

Answer = tuple[int, dict[str, str], str]

PROBLEM = {"Content-Type": "application/problem+json"}
HTML = {"Content-Type": "text/html"}
HELD = {"Content-Type": JSON, "ETag": '"one"', "Cache-Control": "private"}
STREAM = {"Content-Type": "text/event-stream"}
FINE = (200, {"Content-Type": JSON}, HEALTH)

SCENARIOS: dict[str, list[Answer | None]] = {
    "busy": [(503, PROBLEM | {"Retry-After": "0"}, BUSY), FINE],
    "dated": [(429, PROBLEM | {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, BUSY), FINE],
    "long": [(503, PROBLEM | {"Retry-After": "3600"}, BUSY)],
    "always": [(503, PROBLEM | {"Retry-After": "0"}, BUSY)],
    "proxy": [(502, HTML, "<h1>Bad gateway</h1>")],
    "html": [(200, HTML, "<h1>Welcome</h1>")],
    "moved": [(302, {"Location": "https://elsewhere.example/"}, "")],
    "cut": [None, FINE],
    "broken": [(200, {"Content-Type": JSON}, HEALTH[:9])],
    "other": [(200, {"Content-Type": JSON}, "{}")],
    "held": [(200, HELD, HEALTH)],  # 304 to who holds it
    "private": [(200, HELD | {"Cache-Control": "no-store"}, HEALTH)],
    "forgetful": [(304, HELD, "")],  # even to who holds nothing
    "live": [
        (200, STREAM, f":\n\n{EVENT}event: reconnect\nretry: 1\ndata: {{}}\n\n"),
        (503, {"Content-Type": JSON, "Retry-After": "0"}, BUSY),
        (200, STREAM, 'retry: 1\nevent: stale\ndata: {"since":"2025-08-02T09:00:00Z"}\n\nevent: res'),
        (200, STREAM, 'event: alert\r\ndata: {"open":\r\ndata: 2}\r\n\r\nevent: gone\ndata: {}\n\n'),
    ],
    "gone": [(204, {}, "")],
    "denied": [(200, STREAM, 'event: denied\ndata: {"code":"invalid-token","message":"It ended."}\n\n')],
    "renewed": [
        (200, STREAM, EVENT + 'event: denied\ndata: {"code":"invalid-token","message":"It ended."}\n\n'),
        (200, STREAM, "event: gone\ndata: {}\n\n"),
    ],
    "garbled": [(200, STREAM, "event: result\ndata: {nonsense\n\n")],
}
"""The answers of each in turn; the last goes on. None cuts the connection."""


def answer_of(scenario: str, turn: int, held: str | None) -> Answer | None:
    if scenario == "held" and held == '"one"':
        return 304, HELD, ""
    answers = SCENARIOS.get(scenario, [(404, {"Content-Type": JSON}, "{}")])
    return answers[min(turn, len(answers) - 1)]


class Troubled(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        scenario = self.path.split("/")[1]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((scenario, self.command, dict(self.headers)))
        turn = self.server.turns[scenario]
        self.server.turns[scenario] += 1
        answer = answer_of(scenario, turn, self.headers.get("If-None-Match"))
        self.close_connection = True
        if answer is None:
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        if "event-stream" not in headers.get("Content-Type", ""):
            self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815 (as the library calls them)

    def log_message(self, *arguments):
        pass


@contextmanager
def troubled():
    """A server; `asked` is what it was asked, `url` where it is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Troubled)
    server.asked, server.turns = [], Counter()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
