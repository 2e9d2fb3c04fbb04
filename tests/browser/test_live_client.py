"""The JavaScript client: one stream for all tabs, and an honest state whatever happens to it."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import Tabs
from tests.browser.stub import CLIENT, Stub, tag
from tests.waiting import until

A, B = "aaaaaaaa-0000-0000-0000-000000000001", "bbbbbbbb-0000-0000-0000-000000000002"
QUICK = {"poll": 50, "retry": [20, 200]}
"""Times of the client, in ms: short ones, for the tests wait for what they bring about."""
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""
"""A headless tab is never hidden by another, so it is told that it is."""


@pytest.fixture
async def stub() -> AsyncGenerator[Stub]:
    server = Stub(metrics={A: 1, B: 1})
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def tab(tabs: Tabs, stub: Stub):
    """Open a tab that watches metrics."""

    async def opened(*metrics: str, parameters: dict[str, Any] | None = None, **options: Any) -> Page:
        page = await tabs.open()
        await page.goto(stub.url)
        await page.evaluate("options => { begin(options) }", {**QUICK, **options})
        for metric in metrics:
            await page.evaluate("([id, parameters]) => watch(id, parameters)", [metric, parameters or {}])
        return page

    return opened


async def shows(page: Page, metric: str, state: str, value: int | None = None) -> dict[str, Any]:
    """Wait until the last state that a tab was told is this one."""

    async def found() -> dict[str, Any] | None:
        last = await page.evaluate("id => last(id)", metric)
        right = last and last["state"] == state
        shown = last["result"]["records"][0]["n"] if right and last["result"] else None
        return last if right and value in {None, shown} else None

    return await until(found)


async def told(page: Page, metric: str) -> list[tuple[str, int | None]]:
    """All that a tab was told of a metric: states and numbers."""
    states = await page.evaluate("id => seen[id]", metric)
    return [(each["state"], each["result"] and each["result"]["records"][0]["n"]) for each in states]


def test_the_client_is_small():
    assert CLIENT.stat().st_size < 8 << 10


async def test_the_example_of_its_readme_shows_rows(stub, tabs):
    example = re.search(r"```js\n(.*?)```", CLIENT.with_name("README.md").read_text(), re.DOTALL)
    assert example
    metric = re.search(r"[0-9a-f-]{36}", example[1])
    assert metric
    stub.metrics[metric[0]] = 7
    page = await tabs.open()
    await page.goto(stub.url)
    script = example[1].replace("./tally-live.js", "/tally-live.js")
    await page.set_content(f'<p id="state"></p><p id="rows"></p><script type="module">{script}</script>')
    await until(lambda: page.locator("#rows").inner_text())
    assert await page.locator("#rows").inner_text() == '[{"n":7}]'
    assert (await page.locator("#state").inner_text()).startswith("live since ")
    assert stub.streams[0].request.query["day_range"] == "30"


async def test_a_change_is_pushed_once(stub, tab):
    page = await tab(A)
    await shows(page, A, "live", 1)
    stub.change(A, 2)
    await shows(page, A, "live", 2)
    assert await told(page, A) == [("live", 1), ("live", 2)]


def sent(stub):
    """The requests that get a result. One that shows what its page holds gets 304."""
    return [each for each in stub.asked("metrics/") if each.headers.get("if-none-match") != f'"{tag(1)}"']


HOLD = """([id, etag]) => {
  const seen = (window.seen[id] = []);
  window.stop = live.watch(id, {}, (state) => seen.push(state), etag);
}"""


async def test_what_a_page_holds_is_not_sent_again(stub, tab):
    page = await tab()
    for metric in (A, B):
        await page.evaluate(HOLD, [metric, f'"{tag(1)}"'])
    for metric in (A, B):
        await shows(page, metric, "live")
    assert stub.streams[0].request.held == {A: tag(1)[:16], B: tag(1)[:16]}
    assert sent(stub) == []
    stub.change(A, 2)
    await shows(page, A, "live", 2)
    assert await told(page, A) == [("live", None), ("live", 2)]
    assert await told(page, B) == [("live", None)]


async def test_what_a_page_holds_of_an_older_result_is_sent(stub, tab):
    page = await tab()
    await page.evaluate(HOLD, [A, f'"{tag(7)}"'])
    await shows(page, A, "live", 1)


async def test_what_one_tab_holds_is_asked_for_by_another_that_lacks_it(stub, tab):
    first = await tab()
    await first.evaluate(HOLD, [A, f'"{tag(1)}"'])
    await shows(first, A, "live")
    same = await tab()
    await same.evaluate(HOLD, [A, f'"{tag(1)}"'])
    await shows(same, A, "live")
    assert sent(stub) == []
    second = await tab(A)
    await shows(second, A, "live", 1)
    assert len(stub.asked("events")) == 1
    assert len(sent(stub)) == 1


async def test_what_a_page_holds_is_confirmed_by_polls_without_a_stream(stub, tab):
    stub.refuse["/api/v1/events"] = 502
    page = await tab()
    await page.evaluate(HOLD, [A, f'"{tag(1)}"'])
    await shows(page, A, "polling")
    assert stub.asked("metrics/")[0].headers["if-none-match"].strip('"') == tag(1)
    stub.metrics[A] = 2
    await shows(page, A, "polling", 2)


async def test_two_tabs_share_one_stream_of_what_both_want(stub, tab):
    first, second = await tab(A), await tab(A, B)
    for page in (first, second):
        await shows(page, A, "live", 1)
    await shows(second, B, "live", 1)
    assert len(stub.streams) == 1
    assert sorted(stub.streams[0].request.ids) == [A, B]
    stub.change(A, 2)
    for page in (first, second):
        await shows(page, A, "live", 2)
        assert await told(page, A) == [("live", 1), ("live", 2)]


async def test_a_second_watch_of_a_metric_is_told_at_once(stub, tab):
    page = await tab(A)
    await shows(page, A, "live", 1)
    await page.evaluate("id => watch(id)", A)
    await shows(page, A, "live", 1)
    assert len(stub.asked("events")) == 1


async def test_a_stopped_watch_is_told_nothing_and_costs_nothing(stub, tab):
    page = await tab(A, B)
    await shows(page, B, "live", 1)
    await page.evaluate("stop()")
    await until(lambda: [stream.request.ids for stream in stub.streams] == [[A]])
    stub.change(A, 2)
    await shows(page, A, "live", 2)
    assert await told(page, A) == [("live", 1), ("live", 2)]


async def test_other_parameters_have_a_stream_of_their_own(stub, tab):
    page = await tab(A, B)
    other = await tab(A, parameters={"start_date": "2025-06-01", "day_range": 7})
    await shows(page, A, "live", 1)
    await shows(other, A, "live", 1)
    queries = sorted(stream.request.query.get("start_date", "") for stream in stub.streams)
    assert queries == ["", "2025-06-01"]


async def test_another_tab_takes_over_when_the_leader_closes(stub, tab):
    first, second = await tab(A), await tab(A)
    await shows(second, A, "live", 1)
    await first.close()
    await until(lambda: len(stub.asked("events")) > 1 and len(stub.streams) == 1)
    assert stub.streams[0].request.held == {A: tag(1)[:16]}
    stub.change(A, 2)
    await shows(second, A, "live", 2)
    assert await told(second, A) == [("live", 1), ("live", 2)]


async def test_what_a_tab_wanted_that_died_without_a_word_is_dropped(stub, tab):
    leader, other = await tab(A), await tab(B)
    await shows(other, B, "live", 1)
    await other.evaluate("() => { BroadcastChannel.prototype.postMessage = () => {} }")
    await other.close()
    await until(lambda: [stream.request.ids for stream in stub.streams] == [[A]])
    await shows(leader, A, "live", 1)


async def test_hidden_tabs_hold_no_stream(stub, tab):
    first, second = await tab(A), await tab(A)
    await shows(second, A, "live", 1)
    await first.evaluate(HIDE, True)
    await shows(first, A, "stale", 1)
    await until(lambda: len(stub.asked("events")) > 1 and len(stub.streams) == 1)
    await second.evaluate(HIDE, True)
    await until(lambda: not stub.streams)
    polls = len(stub.asked("metrics"))
    stub.change(A, 2)
    await first.evaluate(HIDE, False)
    await shows(first, A, "live", 2)
    assert await told(second, A) == [("live", 1), ("stale", 1)]
    # It may ask once more with the new ETag, if the stream tells of it only then.
    new = [
        each for each in stub.asked("metrics")[polls:] if tag(2) not in each.headers.get("if-none-match", "")
    ]
    assert len(new) <= 1


async def test_a_restart_is_survived_with_what_is_held(stub, tab):
    page = await tab(A, B)
    await shows(page, A, "live", 1)
    await shows(page, B, "live", 1)
    await stub.stop()
    lost = await shows(page, A, "offline", 1)
    assert lost["error"]["status"] == 0
    stub.metrics[B] = 2
    await stub.start()
    await shows(page, A, "live", 1)
    await shows(page, B, "live", 2)
    assert [value for _, value in await told(page, A)] == [1] * len(await told(page, A))


async def test_results_are_polled_while_a_proxy_refuses_streams(stub, tab):
    stub.refuse["/api/v1/events"] = 502
    page = await tab(A)
    await shows(page, A, "polling", 1)
    stub.metrics[A] = 2
    await shows(page, A, "polling", 2)
    await until(
        lambda: any(tag(2) in poll.headers.get("if-none-match", "") for poll in stub.asked("metrics"))
    )
    assert {poll.headers["cache-control"] for poll in stub.asked("metrics")} == {"max-stale"}  # no run anew
    assert await told(page, A) == [("polling", 1), ("polling", 2)]
    stub.refuse.clear()
    await shows(page, A, "live", 2)


async def test_a_proxy_without_server_is_told(stub, tab):
    stub.refuse["/api"] = 502
    page = await tab(A)
    state = await shows(page, A, "offline")
    assert (state["result"], state["error"]) == (None, {"status": 502})
    stub.refuse.clear()
    state = await shows(page, A, "live", 1)
    assert state["error"] is None


async def test_a_page_instead_of_a_stream_is_no_stream(stub, tab):
    stub.refuse["/api/v1/events"] = 200
    page = await tab(A)
    await shows(page, A, "polling", 1)


async def test_a_page_instead_of_everything_is_told(stub, tab):
    stub.refuse["/api"] = 200
    page = await tab(A)
    state = await shows(page, A, "offline")
    assert (state["result"], state["error"]) == (None, {"status": 200})
    stub.refuse.clear()
    await shows(page, A, "live", 1)


async def test_a_stream_that_waits_when_others_are_wanted_is_not_opened_beside_them(stub, tab):
    stub.refuse["/api/v1/events"] = 502
    page = await tab(A, retry=[200, 200])
    await shows(page, A, "polling", 1)
    stub.refuse.clear()
    await page.evaluate("id => watch(id)", B)
    await shows(page, B, "live", 1)
    for value in range(2, 40):  # the first stream would have come back meanwhile
        stub.change(A, value)
        await shows(page, A, "live", value)
    assert [sorted(stream.request.ids) for stream in stub.streams] == [[A, B]]


async def test_metrics_without_a_place_in_a_stream_are_polled_until_there_is_one(stub, tab):
    page = await tab()
    for number in range(6):
        await page.evaluate("([id, k]) => watch(id, { k })", [A, number])
    await until(lambda: len(stub.streams) == 4)
    streamed = {stream.request.query["k"] for stream in stub.streams}
    await until(lambda: {request.query["k"] for request in stub.asked("metrics")} >= set("012345") - streamed)
    assert {stream.request.query["k"] for stream in stub.streams} == streamed


async def test_a_stream_that_falls_silent_is_opened_again(stub, tab):
    stub.silent = True
    page = await tab(A, silence=100)
    await shows(page, A, "polling", 1)
    await until(lambda: len(stub.asked("events")) > 1)
    stub.silent = False
    await shows(page, A, "live", 1)


async def test_a_late_poll_does_not_undo_what_was_pushed(stub, tab):
    stub.refuse["/api/v1/events"] = 502
    stub.hold = asyncio.Event()
    page = await tab(A)
    await until(lambda: stub.asked("metrics"))
    stub.refuse.clear()
    stub.metrics[A] = 2
    await shows(page, A, "live", 2)
    stub.hold.set()
    stub.change(A, 3)
    await shows(page, A, "live", 3)
    assert await told(page, A) == [("live", 2), ("live", 3)]


async def test_what_an_older_leader_says_late_counts_no_more(stub, tab):
    page, other = await tab(A), await tab(B)
    await shows(page, A, "live", 1)
    late = {"key": f"{A}?", "text": "{}", "etag": "late", "state": "live", "since": 1, "term": 1}
    await other.evaluate(
        "entry => new BroadcastChannel('tally-live /api/v1 undefined').postMessage({ entry })", late
    )
    stub.change(A, 2)
    await shows(page, A, "live", 2)
    assert await told(page, A) == [("live", 1), ("live", 2)]


async def test_offline_and_back(stub, tab, online):
    page = await tab(A)
    await shows(page, A, "live", 1)
    await online(False)
    await shows(page, A, "offline", 1)
    stub.metrics[A] = 2
    await online(True)
    await shows(page, A, "live", 2)


async def test_a_deleted_metric_leaves_the_others_live(stub, tab):
    page = await tab(A, B)
    await shows(page, A, "live", 1)
    stub.change(B, None)
    gone = await shows(page, B, "offline")
    assert gone["error"]["status"] == 404
    stub.cut()
    await until(lambda: [stream.request.ids for stream in stub.streams] == [[A]])
    await shows(page, A, "live", 1)
    stub.metrics[B] = 2
    await shows(page, B, "live", 2)


async def test_the_server_says_what_is_stale_and_fresh_again(stub, tab):
    page = await tab(A, poll=60_000)
    await shows(page, A, "live", 1)
    stub.tell("stale", {"id": A, "since": "2025-06-01T00:00:00Z"})
    state = await shows(page, A, "stale", 1)
    assert state["since"] == 1748736000000
    stub.tell("fresh", {"id": A})
    await shows(page, A, "live", 1)


async def test_an_alert_is_an_event_of_the_page_and_asks_for_nothing(stub, tab):
    page = await tab(A, poll=60_000)
    await page.evaluate("addEventListener('tally-alert', ({ detail }) => (window.alerted = detail))")
    await shows(page, A, "live", 1)
    stub.tell("alert", {"id": A, "open": 1})
    stub.change(A, 2)
    await shows(page, A, "live", 2)
    assert await page.evaluate("alerted") == {"id": A, "open": 1}
    assert not stub.asked("metrics")


async def test_a_server_that_goes_away_says_when_to_come_back(stub, tab):
    page = await tab(A, retry=[60_000, 60_000])
    await shows(page, A, "live", 1)
    stub.tell("reconnect", {}, "retry: 50")
    stub.cut()
    await until(lambda: len(stub.asked("events")) > 1)
    stub.change(A, 2)
    await shows(page, A, "live", 2)


async def test_a_token_is_asked_for_anew(stub, tab):
    page = await tab()
    await page.evaluate(
        "([options, id]) => { let n = 0; begin({ ...options, token: async () => `t${++n}` }); watch(id) }",
        [QUICK, A],
    )
    await shows(page, A, "live", 1)
    stub.tell("denied", {"id": A})
    stub.cut()
    await until(lambda: len(stub.asked("events")) > 1)
    assert [request.headers["authorization"] for request in stub.asked("")][:2] == ["bearer t1", "bearer t2"]


async def test_callers_with_other_tokens_share_nothing(stub, tab):
    pages = await tab(A, token="one"), await tab(A, token="two"), await tab(A, token="three", user="me")
    for page in pages:
        await shows(page, A, "live", 1)
    assert len(stub.streams) == 3


async def test_tabs_of_an_insecure_page_lead_themselves(stub, tab, context):
    await context.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    first, second = await tab(A), await tab(A)
    for page in (first, second):
        await shows(page, A, "live", 1)
    assert len(stub.streams) == 2
    await first.evaluate(HIDE, True)
    await until(lambda: len(stub.streams) == 1)


async def test_a_closed_client_leaves_nothing_behind(stub, tab):
    page = await tab(A)
    await shows(page, A, "live", 1)
    await page.evaluate("live.close()")
    await until(lambda: not stub.streams)
    assert (await page.evaluate("navigator.locks.query()"))["held"] == []
