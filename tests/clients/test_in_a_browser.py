"""The JavaScript client in a page of another origin, in a real Chromium."""

USE = """async ([url, token]) => {
  const { Tally } = await import('/tally-client.js');
  const api = new Tally({ url, token });
  const sql = 'SELECT 9007199254740993 AS big, count(*) AS n FROM customers';
  const { id } = await api.createMetric({ sql, title: 'In a browser' });
  const path = `/api/v1/metrics/${id}`;
  const [first, second] = [await api.request('GET', path), await api.request('GET', path)];
  const held = [first.held, second.held, second.headers.get('cache-status').split(';')[1].trim()];
  const big = `${(await api.getMetricResult(id)).records[0].big}`;
  let pushed;
  for await (const { event, result } of api.watchMetric(id)) {
    pushed = [event, typeof result.records[0].big];
    break;
  }
  const file = new File(['customer_id,occupation,type\\n55001,Cook,B2B\\n'], 'chosen.csv');
  const { source, inserted } = await api.importFile('customers', file, { dry_run: true });
  const live = api.live();
  const state = await new Promise((done) => {
    live.watch(id, null, ({ state }) => state === 'live' && done(state));
  });
  live.close();
  const problem = await api.getDashboard('nowhere').catch((error) => error);
  const away = await new Tally({ url: 'http://127.0.0.1:1', retries: 0 }).getHealth().catch((error) => error);
  await api.deleteMetric(id);
  const names = [problem.name, problem.code, away.name, /CORS_ORIGINS/.test(away.message)];
  return { held, big, pushed, source, inserted, state, names, own: new Tally().url };
}"""


async def test_a_page_uses_the_client(context, pages, address, token_of):
    page = await context.new_page()
    await page.goto(pages)
    assert await page.evaluate(USE, [address, token_of]) == {
        "held": [False, True, "hit"],
        "big": "9007199254740993",
        "pushed": ["result", "bigint"],
        "source": "chosen.csv",
        "inserted": 1,
        "state": "live",
        "names": ["ProblemError", "not-found", "UnreachableError", True],
        "own": pages,
    }
