/**
 * Live results. One visible tab of a browser leads (Web Locks): it holds a stream for each set of parameters, polls
 * what is not live, and tells the other tabs. Hidden tabs hold nothing. See README.md.
 *
 * @type {import('./tally-live.d.ts').tallyLive}
 */
export function tallyLive({ url = '/api/v1', token, user, poll = 5e3, silence = 3e4, retry = [1e3, 3e4] } = {}) {
  const self = `${Math.random()}`;
  const name = `tally-live ${url} ${user ?? (token?.call ? self : token)}`;
  const { locks } = navigator; // none in insecure pages: there each tab leads itself
  const end = new AbortController();
  const watches = {}; // by key; the leader has those of all tabs
  const streams = new Map(); // the leader's: keys -> AbortController
  let channel = locks && new BroadcastChannel(name);
  let tabs = null; // the leader's: tab -> keys
  let term = 0; // of the newest leader: what an older one said late counts no more
  let shown, timer;

  const post = (message) => channel?.postMessage(message);
  const watchOf = (key) => (watches[key] ??= { key, id: key.split('?')[0], listeners: new Set(), entry: {} });

  function say() {
    const keys = Object.keys(watches).filter((key) => shown && watches[key].listeners.size);
    if (tabs) want(self, keys);
    else post({ tab: self, keys });
  }

  function hear({ data: { entry, tab, keys } }) {
    if (entry) shown && take(entry);
    else if (!tab) say();
    else if (tabs) {
      if (!tabs[tab]) locks.request(name + tab, () => tabs && want(tab, [])); // when that tab is gone
      want(tab, keys);
    }
  }

  function take(entry) {
    const watch = watches[entry.key];
    if (!watch || entry.term < term) return;
    term = entry.term;
    const before = facts(watch);
    if (entry.text !== watch.entry.text) watch.result = JSON.parse(entry.text);
    watch.entry = entry;
    if (facts(watch) === before) return;
    watch.listeners.forEach(queueMicrotask);
    return true;
  }

  function look() {
    const visible = !document.hidden && !end.signal.aborted;
    if (visible === !!shown) return;
    shown?.abort();
    shown = visible ? new AbortController() : null;
    if (!visible) Object.values(watches).forEach((watch) => publish(watch, { state: 'stale' }));
    else if (locks) locks.request(name, shown, lead).catch(() => {});
    else lead();
    say();
  }

  function lead() {
    tabs = {};
    term = Math.max(term + 1, Date.now());
    post({});
    say();
    return new Promise((resolve) => {
      shown.signal.onabort = () => {
        tabs = null;
        resolve(arrange(true));
      };
    });
  }

  function want(tab, keys) {
    tabs[tab] = keys;
    for (const { entry } of keys.map(watchOf)) if (entry.key) post({ entry: { ...entry, term } });
    timer ??= setTimeout(arrange, 20); // what all tabs want becomes one request
  }

  function arrange(anew) {
    timer = clearTimeout(timer);
    const groups = {};
    for (const key of new Set(Object.values(tabs ?? {}).flat())) (groups[key.split('?')[1]] ??= []).push(key);
    const wanted = Object.values(groups).map((keys) => `${keys.sort()}`);
    for (const [keys, stream] of streams) if (anew || !wanted.includes(keys)) stream.abort(streams.delete(keys));
    for (const keys of wanted) {
      if (streams.has(keys)) continue;
      streams.set(keys, new AbortController());
      follow(keys.split(',').map(watchOf), streams.get(keys).signal);
    }
  }

  function publish({ key, entry: old }, change) {
    const since = change.state === old.state ? old.since : change.since || Date.now();
    const entry = { text: null, etag: null, ...old, error: null, ...change, key, since, term };
    if (take(entry) && tabs) post({ entry });
  }

  async function ask(path, signal, headers) {
    const bearer = token?.call ? await token() : token;
    if (bearer) headers = { ...headers, Authorization: `Bearer ${bearer}` };
    return fetch(`${url}/${path}`, { headers, cache: 'no-store', signal });
  }

  async function follow(all, signal) {
    let reader, round, heard, wait;

    async function pollOne(watch) {
      const { key, entry } = watch;
      const { etag } = entry;
      const headers = etag ? { 'If-None-Match': `"${etag}", "${etag}-gzip", "${etag}-zstd"` } : {};
      let change;
      try {
        const answer = await ask(`metrics/${key}`, AbortSignal.timeout(silence), headers);
        const { status, headers: got } = answer;
        const late = /ttl=-(\d+)/.exec(got.get('cache-status'));
        // What is fresh while a stream is open stays so until the stream says otherwise.
        change = late ? { state: 'stale', since: Date.now() - late[1] * 1e3 } : { state: reader ? 'live' : 'polling' };
        if (status === 200) {
          change.text = await answer.text();
          change.etag = got.get('etag').match(/[^"-]+/)[0];
        } else if (status !== 304) change = { error: { ...(await answer.json().catch(() => {})), status } };
      } catch (error) {
        change = { error: { status: 0, detail: `${error}` } };
      }
      if (signal.aborted || watch.entry !== entry) return;
      publish(watch, { state: 'offline', ...change });
      if (isRefused({ entry }) && !isRefused(watch)) arrange(true);
    }

    const pollAll = (some) => some.filter((watch) => !isLive(watch)).forEach(pollOne);
    const ticker = setInterval(() => {
      if (Date.now() - heard > silence) round.abort();
      pollAll(all);
    }, poll);
    signal.onabort = () => round.abort(clearInterval(ticker));

    function hearEvent(block) {
      const field = (name) => block.match(RegExp(`(?<=^${name}: ).*`, 'gm'))?.join('\n');
      const [event, text] = [field('event'), field('data') ?? '{}'];
      wait = field('retry') ?? wait;
      const { id, since } = JSON.parse(text);
      const watch = all.find((each) => each.id === id);
      if (!watch) return;
      if (event === 'result') publish(watch, { state: 'live', text, etag: field('id').split(`${id}:`)[1].slice(0, 16) });
      else if (event === 'fresh') publish(watch, { state: 'live' });
      else if (event === 'stale') publish(watch, { state: 'stale', since: Date.parse(since) });
      else pollOne(watch); // it tells the whole problem
    }

    for (let tries = 1; ; tries++) {
      const began = (heard = Date.now());
      const asked = all.filter((watch) => !isRefused(watch));
      const held = asked.filter(({ entry }) => entry.etag);
      const last = held.map((watch) => `${watch.id}:${short(watch)}`);
      const path = `events?ids=${asked.map(({ id }) => id)}&${all[0].key.split('?')[1]}`;
      round = new AbortController();
      try {
        const answer = asked[0] && (await ask(last[0] ? `${path}&last_event_id=${last}` : path, round.signal));
        wait = answer.headers.get('retry-after') * 1e3;
        if (/^text.event-stream/.test(answer.headers.get('content-type')))
          reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        if (reader) pollAll(held);
        for (let rest = '', part; !(part = await reader.read()).done; ) {
          heard = Date.now();
          const blocks = (rest + part.value).split('\n\n');
          rest = blocks.pop();
          blocks.forEach(hearEvent);
        }
      } catch {} // There is no stream, or no longer.
      if (signal.aborted) return;
      for (const watch of all.filter(isLive)) publish(watch, { state: 'polling' });
      if (!reader) pollAll(all);
      reader = null;
      if (Date.now() - began > retry[1]) tries = 1;
      const backoff = Math.min(retry[1], retry[0] * 2 ** tries) * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, wait || backoff));
    }
  }

  addEventListener('online', arrange, end);
  addEventListener('offline', arrange, end);
  document.addEventListener('visibilitychange', look, end);
  if (channel) channel.onmessage = hear;
  locks?.request(name + self, () => new Promise((free) => (end.signal.onabort = free)));
  look();

  return {
    watch(id, parameters, listener) {
      const watch = watchOf(`${id}?${new URLSearchParams(Object.entries(parameters ?? {}).sort())}`);
      const tell = () => watch.listeners.has(tell) && listener({ ...watch.entry, result: watch.result });
      watch.listeners.add(tell);
      if (watch.entry.key) queueMicrotask(tell);
      say();
      return () => say(watch.listeners.delete(tell));
    },
    close() {
      end.abort();
      look();
      channel = channel?.close();
    },
  };
}

const isRefused = ({ entry }) => /^4/.test(entry.error?.status);
const isLive = ({ entry }) => entry.state === 'live';
const short = ({ entry }) => entry.etag?.slice(0, 16); // a stream's vector has no more of it
const facts = ({ entry: { etag, state, since, error } }) => `${[etag?.slice(0, 16), state, since, error?.code, error?.status]}`;
