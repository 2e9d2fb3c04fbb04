"""The outside may do what it likes: a call ends in time with an answer or the right error."""

import asyncio
import socket
import tracemalloc
from typing import Any

import msgspec
import pytest

from service.errors import Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from service.outbound import BODY_LIMIT, CALLS_PER_HOST, FAILURES_TO_OPEN, TRIES, Outbound
from tests.adversity.fake_clock import on_fake_clock
from tests.adversity.misbehaving import (
    Misbehaving,
    answer,
    busy_until,
    drip,
    gzipped,
    hang,
    hang_up,
    hundred_megabytes,
    prattle,
    reset,
)

JsonObject = dict[str, Any]

FIRST_WAIT = (0.2, 0.5)
ALL_WAITS = (3.0, 4.2)
AT_ONCE = (0.0, 0.0)


def client(*, timeout_s: float = 10.0, cooldown_s: float = 30.0) -> Outbound:
    return Outbound(timeout_s=timeout_s, cooldown_s=cooldown_s)


class Told(msgspec.Struct):
    """What a call came to: an answer or a problem, the requests it took and its seconds on the fake clock."""

    result: object
    tries: int
    seconds: float


def call(*acts, timeout_s: float = 10.0, path: str = "/posts/1") -> Told:
    async def main() -> Told:
        async with Misbehaving(*acts) as server, client(timeout_s=timeout_s) as outbound:
            began = asyncio.get_running_loop().time()
            result: object
            try:
                result = await outbound.get_json(server.url + path, JsonObject)
            except Problem as problem:
                result = problem
            return Told(result, len(server.requests), asyncio.get_running_loop().time() - began)

    return on_fake_clock(main())


@pytest.mark.parametrize(
    ("acts", "tries", "seconds"),
    [
        pytest.param([], 1, AT_ONCE, id="all is well"),
        pytest.param([answer(429)], 2, FIRST_WAIT, id="429"),
        pytest.param([answer(429, retry_after="3")], 2, (3.0, 3.0), id="429 with Retry-After"),
        pytest.param(
            [answer(503, retry_after="0")], 2, FIRST_WAIT, id="Retry-After 0 is no invitation to hammer"
        ),
        pytest.param([busy_until(6)], 2, (4.0, 6.0), id="Retry-After as a date"),
        pytest.param([busy_until(-60)], 2, FIRST_WAIT, id="Retry-After in the past"),
        pytest.param([answer(503, retry_after="soon")], 2, FIRST_WAIT, id="Retry-After nonsense"),
        pytest.param([answer(502)], 2, FIRST_WAIT, id="502"),
        pytest.param([answer(503)], 2, FIRST_WAIT, id="503"),
        pytest.param([answer(504)], 2, FIRST_WAIT, id="504"),
        pytest.param([answer(503)] * (TRIES - 1), TRIES, ALL_WAITS, id="well at the last try"),
        pytest.param([hang_up], 2, FIRST_WAIT, id="hangs up"),
        pytest.param([prattle], 2, FIRST_WAIT, id="speaks no HTTP"),
        pytest.param([reset], 2, FIRST_WAIT, id="reset in the body"),
        pytest.param([hang], 2, (5.2, 5.5), id="silent once"),
    ],
)
def test_a_passing_trouble_is_overcome(acts, tries, seconds):
    told = call(*acts, answer(body=b'{"id": 1}'))
    assert told.result == {"id": 1}
    assert told.tries == tries
    assert seconds[0] - 1e-6 <= told.seconds <= seconds[1] + 1e-6


@pytest.mark.parametrize(
    ("act", "problem", "tries", "seconds"),
    [
        pytest.param(answer(500), UpstreamFailed, 1, AT_ONCE, id="500"),
        pytest.param(answer(404), UpstreamFailed, 1, AT_ONCE, id="404"),
        pytest.param(answer(302, location="/elsewhere"), UpstreamFailed, 1, AT_ONCE, id="redirect"),
        pytest.param(answer(304), UpstreamFailed, 1, AT_ONCE, id="304"),
        pytest.param(answer(429), UpstreamFailed, TRIES, ALL_WAITS, id="429 for ever"),
        pytest.param(answer(503), UpstreamFailed, TRIES, ALL_WAITS, id="503 for ever"),
        pytest.param(
            answer(429, retry_after="10"), UpstreamFailed, 1, AT_ONCE, id="Retry-After at the deadline"
        ),
        pytest.param(
            answer(503, retry_after="9" * 400), UpstreamFailed, 1, AT_ONCE, id="Retry-After without end"
        ),
        pytest.param(
            answer(503, retry_after="4"), UpstreamFailed, 3, (8.0, 8.0), id="Retry-After until too late"
        ),
        pytest.param(reset, UpstreamFailed, TRIES, ALL_WAITS, id="reset for ever"),
        pytest.param(hang, UpstreamTimeout, 2, (10.0, 10.0), id="silent for ever"),
        pytest.param(drip, UpstreamTimeout, 1, (10.0, 10.0), id="slow drip"),
        pytest.param(hundred_megabytes, UpstreamFailed, 1, AT_ONCE, id="100 MB"),
        pytest.param(gzipped(b" " * 50_000_000), UpstreamFailed, 1, AT_ONCE, id="50 MB in 50 kB"),
        pytest.param(gzipped(b"{}", cut=4), UpstreamFailed, 1, AT_ONCE, id="gzip cut short"),
        pytest.param(answer(content_encoding="gzip"), UpstreamFailed, 1, AT_ONCE, id="no gzip at all"),
        pytest.param(answer(content_encoding="br"), UpstreamFailed, 1, AT_ONCE, id="coding not asked for"),
        pytest.param(answer(body=b"<html>"), UpstreamFailed, 1, AT_ONCE, id="no JSON"),
        pytest.param(answer(body=b""), UpstreamFailed, 1, AT_ONCE, id="nothing"),
        pytest.param(answer(204, body=b""), UpstreamFailed, 1, AT_ONCE, id="204"),
        pytest.param(answer(body=b'{"id": '), UpstreamFailed, 1, AT_ONCE, id="half a document"),
        pytest.param(answer(body=b"[]"), UpstreamFailed, 1, AT_ONCE, id="wrong type"),
        pytest.param(answer(body=b'{"a": "\xff"}'), UpstreamFailed, 1, AT_ONCE, id="no UTF-8"),
        pytest.param(answer(body=b"[" * 500_000), UpstreamFailed, 1, AT_ONCE, id="nested too deep"),
    ],
)
def test_a_lasting_trouble_ends_in_time_with_its_error(act, problem, tries, seconds):
    told = call(act)
    assert type(told.result) is problem
    assert told.tries == tries
    assert seconds[0] - 1e-6 <= told.seconds <= seconds[1] + 1e-6


def test_a_refused_connection_is_tried_again_until_the_tries_are_used_up():
    async def main() -> float:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with client() as outbound:
                with pytest.raises(UpstreamFailed):
                    await outbound.get_json(f"http://127.0.0.1:{unused.getsockname()[1]}/", JsonObject)
        return asyncio.get_running_loop().time()

    assert ALL_WAITS[0] <= on_fake_clock(main()) <= ALL_WAITS[1]


def test_when_the_time_runs_out_between_tries_the_last_failure_is_told():
    told = call(answer(503), timeout_s=1.0)
    assert str(told.result) == "127.0.0.1 answered 503"
    assert told.seconds == pytest.approx(1.0)


def test_a_shorter_deadline_is_kept_and_a_longer_one_is_not_given():
    async def main() -> list[float]:
        clock = asyncio.get_running_loop().time
        took: list[float] = []
        async with Misbehaving(drip) as server, client(timeout_s=10.0) as outbound:
            for deadline_s in (2.0, 99.0):
                began = clock()
                with pytest.raises(UpstreamTimeout):
                    await outbound.get_json(server.url, JsonObject, deadline_s=deadline_s)
                took.append(clock() - began)
        return took

    assert on_fake_clock(main()) == pytest.approx([2.0, 10.0])


def test_a_compressed_answer_is_read():
    assert call(gzipped(b'{"id": 1}')).result == {"id": 1}


def test_the_body_limit_is_met_exactly():
    def padded(size: int) -> bytes:
        return b"{}" + b" " * (size - 2)

    for pack in (lambda body: answer(body=body), gzipped):
        assert call(pack(padded(BODY_LIMIT))).result == {}
        assert type(call(pack(padded(BODY_LIMIT + 1))).result) is UpstreamFailed


def test_a_gzip_bomb_is_not_unpacked():
    bomb = gzipped(b" " * 50_000_000)
    tracemalloc.start()
    try:
        call(bomb)
        assert tracemalloc.get_traced_memory()[1] < 8 * BODY_LIMIT
    finally:
        tracemalloc.stop()


def test_when_the_caller_leaves_the_connection_is_closed_at_once():
    async def main() -> float:
        async with Misbehaving(hang) as server, client() as outbound:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await outbound.get_json(server.url, JsonObject)
            await server.deserted()
        return asyncio.get_running_loop().time()

    assert on_fake_clock(main()) == pytest.approx(1.0)


def test_cookies_are_not_kept():
    async def main() -> str:
        async with Misbehaving(answer(set_cookie="who=you; Path=/")) as server, client() as outbound:
            for _ in range(2):
                await outbound.get_json(server.url, JsonObject)
            return server.requests[1]

    assert "cookie" not in on_fake_clock(main()).lower()


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "127.0.0.1", "http:///x", "http://[::1", "http://127.0.0.1:99999/", "http://\0/"],
)
def test_what_is_no_address_is_a_failure_of_the_outside(url: str):
    async def main() -> None:
        async with client() as outbound:
            with pytest.raises(UpstreamFailed, match="address"):
                await outbound.get_json(url, JsonObject)

    on_fake_clock(main())


def test_the_shared_client_keeps_the_caps():
    async def main() -> None:
        async with Misbehaving(hundred_megabytes) as server, client() as outbound:
            with pytest.raises(Exception, match="larger than"):
                await outbound.client.get(server.url)

    on_fake_clock(main())


async def fail(outbound: Outbound, url: str, times: int) -> None:
    for _ in range(times):
        with pytest.raises(UpstreamFailed):
            await outbound.get_json(url, JsonObject)


async def left_alone_for(outbound: Outbound, url: str) -> str:
    with pytest.raises(UpstreamUnavailable) as refusal:
        await outbound.get_json(url, JsonObject)
    return refusal.value.headers["Retry-After"]


def test_a_host_that_keeps_failing_is_left_alone_then_tried_once():
    async def main() -> None:
        acts = [answer(500)] * (FAILURES_TO_OPEN + 1) + [answer()]
        async with Misbehaving(*acts) as server, client(cooldown_s=30) as outbound:
            await fail(outbound, server.url, FAILURES_TO_OPEN)
            assert await left_alone_for(outbound, server.url) == "30"
            await asyncio.sleep(10.5)
            assert await left_alone_for(outbound, server.url) == "20"
            await asyncio.sleep(20)
            await fail(outbound, server.url, 1)
            assert await left_alone_for(outbound, server.url) == "30"
            await asyncio.sleep(30.5)
            for _ in range(2):
                assert await outbound.get_json(server.url, JsonObject) == {}
            assert len(server.requests) == FAILURES_TO_OPEN + 3

    on_fake_clock(main())


def test_while_one_call_tries_a_host_the_others_are_refused():
    async def main() -> None:
        acts = [*[answer(500)] * FAILURES_TO_OPEN, hang, answer()]
        async with Misbehaving(*acts) as server, client(cooldown_s=30) as outbound:
            await fail(outbound, server.url, FAILURES_TO_OPEN)
            await asyncio.sleep(31)
            trial = asyncio.create_task(outbound.get_json(server.url, JsonObject))
            await asyncio.sleep(1)
            assert await left_alone_for(outbound, server.url) == "1"
            trial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await trial
            assert await outbound.get_json(server.url, JsonObject) == {}, "a trial whose caller left is over"

    on_fake_clock(main())


def test_one_good_answer_clears_the_record():
    async def main() -> None:
        nearly = [answer(500)] * (FAILURES_TO_OPEN - 1)
        async with Misbehaving(*nearly, answer(), *nearly, answer()) as server, client() as outbound:
            for _ in range(2):
                await fail(outbound, server.url, FAILURES_TO_OPEN - 1)
                await outbound.get_json(server.url, JsonObject)

    on_fake_clock(main())


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(answer(404), id="404"),
        pytest.param(answer(302, location="/"), id="redirect"),
        pytest.param(answer(body=b"[]"), id="wrong type"),
    ],
)
def test_a_host_that_answers_is_well_even_if_its_answer_is_of_no_use(act):
    async def main() -> None:
        async with Misbehaving(act) as server, client() as outbound:
            await fail(outbound, server.url, FAILURES_TO_OPEN * 2)

    on_fake_clock(main())


@pytest.mark.parametrize(
    "act",
    [pytest.param(hang, id="silent"), pytest.param(answer(429), id="429"), pytest.param(reset, id="reset")],
)
def test_silence_overload_and_broken_connections_count_as_failures(act):
    async def main() -> None:
        async with Misbehaving(act) as server, client() as outbound:
            for _ in range(FAILURES_TO_OPEN):
                with pytest.raises((UpstreamFailed, UpstreamTimeout)):
                    await outbound.get_json(server.url, JsonObject)
            await left_alone_for(outbound, server.url)

    on_fake_clock(main())


def test_a_host_left_alone_does_not_hinder_another():
    async def main() -> None:
        async with Misbehaving(answer(500)) as bad, Misbehaving(answer()) as good, client() as outbound:
            await fail(outbound, bad.url, FAILURES_TO_OPEN)
            assert await outbound.get_json(good.url, JsonObject) == {}

    on_fake_clock(main())


def test_a_slow_host_gets_a_bounded_share_of_the_connections():
    async def main() -> None:
        async with Misbehaving(hang) as slow, Misbehaving(answer()) as good, client() as outbound:
            calls = [
                asyncio.create_task(outbound.get_json(slow.url, JsonObject))
                for _ in range(CALLS_PER_HOST * 3)
            ]
            await asyncio.sleep(1)
            assert slow.most_connections == CALLS_PER_HOST
            assert await outbound.get_json(good.url, JsonObject) == {}
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {UpstreamTimeout}
            assert asyncio.get_running_loop().time() == pytest.approx(10.0)

    on_fake_clock(main())
