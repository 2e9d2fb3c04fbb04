"""The Python client against a running service: every operation, and what a network does to it."""

import asyncio
import inspect
import re

import httpx

from tests.clients.conftest import SECRET
from tests.clients.tour import whole_tour


class Recorder(httpx.HTTPTransport):
    """Remembers what was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = set()

    def handle_request(self, request):
        self.asked.add((request.method, request.url.path))
        return super().handle_request(request)


class AsyncRecorder(httpx.AsyncHTTPTransport):
    def __init__(self):
        super().__init__()
        self.asked = set()

    async def handle_async_request(self, request):
        self.asked.add((request.method, request.url.path))
        return await super().handle_async_request(request)


class Awaited:
    """An asynchronous client that a tour without an event loop can call."""

    def __init__(self, client, runner):
        self._client, self._runner = client, runner

    def __getattr__(self, name):
        def call(*arguments, **named):
            outcome = getattr(self._client, name)(*arguments, **named)
            if inspect.isasyncgen(outcome):
                return Items(outcome, self._runner)
            return self._runner.run(outcome)

        return call


class Items:
    def __init__(self, source, runner):
        self._source, self._runner = source, runner

    def __iter__(self):
        return self

    def __next__(self):
        async def following():
            return await anext(self._source, self)

        item = self._runner.run(following())
        if item is self:
            raise StopIteration
        return item

    def close(self):
        self._runner.run(self._source.aclose())


def not_asked(sdk, asked):
    """Operations that nobody called."""
    lines = (sdk / "operations.txt").read_text().splitlines()
    known = [line.split("  ")[0].split(" ") for line in lines if re.match("[A-Z]+ /", line)]
    assert len(known) > 60
    forms = [(method, path, re.sub(r"\{[^}]*\}", "[^/]+", path)) for method, path in known]
    return [
        (method, path)
        for method, path, form in forms
        if not any(method == each and re.fullmatch(form, where) for each, where in asked)
    ]


def test_every_operation_answers(sdk, tally_client, address):
    recorder = Recorder()
    token = tally_client.ClientCredentials(address, "sdk", SECRET)
    with tally_client.Client(address, token=token, transport=recorder) as api:
        whole_tour(api, tally_client, SECRET)
    assert not_asked(sdk, recorder.asked) == []


def test_every_operation_answers_in_an_event_loop(sdk, tally_client, address):
    recorder = AsyncRecorder()
    token = tally_client.ClientCredentials(address, "sdk", SECRET)
    with asyncio.Runner() as runner:
        client = tally_client.AsyncClient(address, token=token, transport=recorder)
        try:
            whole_tour(Awaited(client, runner), tally_client, SECRET)
        finally:
            runner.run(client.aclose())
    assert not_asked(sdk, recorder.asked) == []
