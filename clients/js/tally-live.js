/**
 * Live results. One visible tab leads: it holds the streams, polls what is not live, and tells the others.
 *
 * @type {import('./tally-live.d.ts').tallyLive}
 */
export function tallyLive({ url = '/api/v1', token, user, poll = 5e3, silence = 3e4, retry = [1e3, 3e4] } = {}) {
	const self = `${Math.random()}`;
	const name = `tally-live ${url} ${user ?? (token?.call ? self : token)}`;
	const { locks } = navigator; // insecure pages have none: each tab leads
	const end = new AbortController();
	const watches = {}; // by key; the leader has those of all tabs
	const streams = new Map(); // the leader's
	let channel = locks && new BroadcastChannel(name);
	let tabs = null; // the leader's: tab -> keys
	let term = 0; // of the newest leader: older ones count no more
	let shown, timer;

	const post = (message) => channel?.postMessage(message);
	const watchOf = (key) => (watches[key] ??= { key, id: key.split('?')[0], listeners: new Set(), entry: {} });

	function say() {
		if (shown === undefined) return;
		const keys = Object.keys(watches).filter((key) => shown && watches[key].listeners.size);
		if (tabs) want(self, keys);
		else post({ tab: self, keys });
	}

	function hear({ data: { entry, tab, keys } }) {
		if (entry) shown && take(entry);
		else if (!tab) say();
		else if (tabs) {
			if (!tabs[tab]) locks.request(name + tab, () => tabs && want(tab, [])); // when it is gone
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
		const news = facts(watch) !== before;
		if (news) watch.listeners.forEach(queueMicrotask);
		return news;
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
		if (!shown) return;
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
		timer ??= setTimeout(arrange, 20); // one request for all tabs
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
				// Beside an open stream fresh is live.
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
			if (!isFine({ entry }) && isFine(watch)) arrange(true);
		}

		const pollAll = (some) => some.forEach((watch) => isLive(watch) || pollOne(watch));
		const ticker = setInterval(() => {
			if (Date.now() - heard > silence) round.abort();
			pollAll(all);
		}, poll);
		signal.onabort = () => round.abort(clearInterval(ticker));

		function hearEvent(block) {
			const field = (name) => block.match(RegExp(`(?<=^${name}: ).*`, 'gm'))?.join('\n');
			const event = field('event');
			const text = field('data') ?? '{}';
			wait = field('retry') ?? wait;
			const { id, since } = JSON.parse(text);
			const watch = all.find((each) => each.id === id);
			if (!watch) return;
			if (event === 'result') publish(watch, { state: 'live', text, etag: field('id').split(`${id}:`)[1].slice(0, SHORT) });
			else if (event === 'fresh') publish(watch, { state: 'live' });
			else if (event === 'stale') publish(watch, { state: 'stale', since: Date.parse(since) });
			else pollOne(watch); // a problem
		}

		for (let tries = 1; ; tries++) {
			heard = Date.now();
			round = new AbortController();
			const asked = all.filter(isFine);
			const held = asked.filter(({ entry }) => entry.etag);
			const last = held.map(({ id, entry }) => `${id}:${entry.etag.slice(0, SHORT)}`);
			const path = `events?ids=${asked.map(({ id }) => id)}&${all[0].key.split('?')[1]}`;
			const answer = await ask(last[0] ? `${path}&last_event_id=${last}` : path, round.signal).catch(() => {});
			wait = answer?.headers.get('retry-after') * 1e3;
			if (/event-stream/.test(answer?.headers.get('content-type')))
				reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
			if (!signal.aborted) pollAll(reader ? held : all);
			try {
				for (let rest = '', part; !(part = await reader.read()).done; ) {
					heard = Date.now();
					const blocks = (rest + part.value).split('\n\n');
					rest = blocks.pop();
					blocks.forEach(hearEvent);
				}
			} catch {} // lost
			round.abort();
			if (signal.aborted) return;
			for (const watch of all.filter(isLive)) publish(watch, { state: 'polling' });
			if (reader) tries = 1;
			reader = null;
			const backoff = Math.min(retry[1], retry[0] * 2 ** tries) * (0.5 + Math.random() / 2);
			await new Promise((resolve) => setTimeout(resolve, wait || backoff));
		}
	}

	for (const change of ['online', 'offline']) addEventListener(change, arrange, end);
	document.addEventListener('visibilitychange', look, end);
	if (channel) channel.onmessage = hear;
	const hold = (free) => look((end.signal.onabort = free));
	if (locks) locks.request(name + self, end, () => new Promise(hold)).catch(() => {});
	else look();

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

const SHORT = 16; // of an ETag, in a stream's vector
const isFine = ({ entry }) => !/^4/.test(entry.error?.status);
const isLive = ({ entry }) => entry.state === 'live';
const facts = ({ entry: { etag, state, since, error } }) =>
	`${[etag?.slice(0, SHORT), state, since, error?.code, error?.status]}`;
