"""Whatever a language model's server sends, errors too, it is read up to a limit and in time."""

import asyncio
import gzip
import tracemalloc
import zlib

import pytest

from service.ask.model import Model, read_answer
from service.errors import UpstreamFailed, UpstreamTimeout
from service.outbound import BODY_LIMIT, Outbound
from service.settings import Model as ModelSettings
from tests.adversity.fake_clock import on_fake_clock
from tests.adversity.misbehaving import Misbehaving, answer, drip, flood, hang_up, prattle, reset

EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"  # a stored deflate block of no bytes
GZIP_HEAD = gzip.compress(b"")[:10]
ASKING = [{"role": "user", "content": "alerts"}]


def bomb(status: int):
    return answer(status, gzip.compress(b" " * 50_000_000), content_encoding="gzip")


ACTS = {
    **{f"{status} without end": flood(status) for status in (200, 302, 400, 401, 404, 422, 429, 500, 503)},
    **{f"{status} as a gzip bomb": bomb(status) for status in (200, 400, 500)},
    "gzip that goes on after its end": flood(400, first=gzip.compress(b"{}"), coding="gzip"),
    "gzip of empty blocks": flood(400, first=GZIP_HEAD, part=EMPTY_BLOCK * 13_000, coding="gzip"),
    "deflate": answer(400, zlib.compress(b" " * 50_000_000), content_encoding="deflate"),
    "twice gzip": answer(400, gzip.compress(gzip.compress(b"{}")), content_encoding="gzip, gzip"),
    "no gzip": answer(400, b"{}", content_encoding="gzip"),
    "a redirect": answer(307, location="http://127.0.0.1:1/v1"),
    "a cut body": reset,
    "no answer": hang_up,
    "no HTTP": prattle,
    "nested": answer(body=b"[" * 200_000),
    "nested where nobody looks": answer(body=b'{"choices": [], "x": ' + b"[" * 200_000),
}


def ask(act, work):
    async def main():
        outbound = Outbound(timeout_s=10, cooldown_s=30)
        async with Misbehaving(act) as server, outbound:
            model = Model(ModelSettings(base_url=f"{server.url}/v1", name="m", timeout_s=15), outbound.client)
            try:
                return await work(model)
            finally:
                assert not any("elsewhere" in request for request in server.requests)

    return on_fake_clock(main())


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_what_is_sent_is_read_up_to_a_limit(act):
    tracemalloc.start()
    try:
        for work in (lambda model: model.suggest(ASKING), lambda model: model.summarise("an item")):
            with pytest.raises(UpstreamFailed, match="language model"):
                ask(act, work)
        assert tracemalloc.get_traced_memory()[1] < 12 * BODY_LIMIT
    finally:
        tracemalloc.stop()


def test_a_slow_drip_ends_at_the_deadline():
    async def in_time(model):
        began = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamTimeout):
            await model.summarise("an item")
        return asyncio.get_running_loop().time() - began

    assert ask(drip, in_time) == pytest.approx(15.0)


def test_the_body_of_an_error_is_not_waited_for():
    async def dripping(reader, writer):
        class As:
            """The writer with another status line."""

            drain = staticmethod(writer.drain)

            @staticmethod
            def write(data):
                writer.write(data.replace(b"200 OK", b"400 Oops"))

        await drip(reader, As)

    async def in_time(model):
        with pytest.raises(UpstreamFailed, match="status 400"):
            await model.summarise("an item")

    ask(dripping, in_time)


@pytest.mark.parametrize(
    "said",
    [
        "```" + " " * 200_000,
        "```" + "\t \t" * 60_000 + "x",
        " " * 250_000,
        "\n" * 250_000 + "x",
        "(" * 250_000,
        ("```" + " " * 50) * 5_000,
        "```sql\n" * 30_000,
        "[" * 250_000,
        '{"sql": "SELECT 1", "x": ' + "[" * 200_000,
    ],
    ids=lambda said: said[:12],
)
def test_an_answer_without_sql_is_read_in_one_pass(said):
    """Tried in every way to share out its blanks, one of these would take hours."""
    assert read_answer(said).sql == ""
