/**
 * Live results. One visible tab leads: it has the streams, polls the rest, tells all.
 * @type {typeof import('./tally-live.d.ts').tallyLive}
 */
export function tallyLive({ url = '/api/v1', token, user, poll = 5e3, silence = 3e4, retry = [1e3, 3e4] } = {}) {
	const self = `${Math.random()}`;
	const bearer = typeof token == 'function' ? token : () => token;
	const name = `tally-live ${url} ${user ?? (bearer == token ? self : token)}`;
	const { locks } = navigator;
	const end = new AbortController();
	const watches = {};
	const streams = new Map();
	let tabs, shown, timer, channel;
	let term = 0;

	const post = (said) => channel?.postMessage(said);
	const watchOf = (key) => (watches[key] ??= { key, id: key.split('?')[0], tells: new Set(), entry: {} });

	function say() {
		if (shown === undefined) return;
		const keys = Object.keys(watches).filter((key) => shown && watches[key].tells.size);
		if (tabs) want(self, keys);
		else post({ tab: self, keys });
	}

	function hear({ data: { entry, tab, keys, bare } }) {
		if (entry) shown && take(entry);
		else if (bare) watchOf(bare).entry = {};
		else if (!tab) say();
		else if (tabs) {
			if (!tabs[tab]) locks.request(name + tab, () => tabs && want(tab, []));
			want(tab, keys);
		}
	}

	function take(entry) {
		const watch = watches[entry.key];
		if (!watch || entry.term < term) return;
		if (entry.etag && !(entry.text || watch.entry.etag)) return post({ bare: entry.key });
		term = entry.term;
		const before = facts(watch);
		if (entry.text !== watch.entry.text) watch.result = JSON.parse(entry.text);
		watch.entry = entry;
		if (facts(watch) == before) return;
		watch.tells.forEach(queueMicrotask);
		return true;
	}

	function look() {
		const open = !document.hidden && !end.signal.aborted;
		if (open == !!shown) return;
		shown?.abort();
		shown = open ? new AbortController() : null;
		if (!open) for (const key in watches) publish(watches[key], 'stale');
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
		return new Promise((resolve) => (shown.signal.onabort = () => ((tabs = null), resolve(arrange(true)))));
	}

	function want(tab, keys) {
		tabs[tab] = keys;
		for (const { entry } of keys.map(watchOf)) if (entry.key) post({ entry: { ...entry, term } });
		timer ??= setTimeout(arrange, 20);
	}

	function arrange(anew) {
		timer = clearTimeout(timer);
		const groups = {};
		const lists = [];
		for (const key of new Set(Object.values(tabs ?? {}).flat())) (groups[key.split('?')[1]] ??= []).push(key);
		for (const keys of Object.values(groups)) while (keys[0]) lists.push(`${keys.sort().splice(0, 100)}`);
		for (const [keys, stream] of streams) if (anew || !lists.includes(keys)) stream.abort(streams.delete(keys));
		for (const keys of lists) if (!streams.has(keys)) follow(keys);
	}

	function publish({ key, entry: old }, state, more) {
		const since = state == old.state ? old.since : more?.since || Date.now();
		const entry = { text: null, etag: null, ...old, error: null, ...more, key, state, since, term };
		if (take(entry) && tabs) post({ entry });
	}

	async function ask(path, signal, header, tags) {
		const given = await bearer();
		return fetch(`${url}/${path}`, { headers: { 'Cache-Control': 'max-stale', [header]: `${tags}`, ...(given && { Authorization: `Bearer ${given}` }) }, signal });
	}

	async function follow(keys) {
		const { signal } = streams.set(keys, new AbortController()).get(keys);
		const all = keys.split(',').map(watchOf);
		let reader, round, heard, wait;

		async function pollOne(watch) {
			const { key, entry } = watch;
			if (reader && entry.etag && !entry.key) return publish(watch, 'live');
			let state = 'offline';
			let more;
			try {
				const answer = await ask(`metrics/${key}`, AbortSignal.timeout(silence), 'If-None-Match', entry.etag);
				const text = await answer.text();
				const late = /ttl=-(\d+)/.exec(got(answer, 'cache-status'));
				const body = await new Response(text).json().catch(() => null);
				if (answer.status == 304 || body?.records) {
					state = late ? 'stale' : reader ? 'live' : 'polling';
					more = { since: late && Date.now() - +late[1] * 1e3, ...(body && { text, etag: got(answer, 'etag') }) };
				} else more = { error: { ...body, status: answer.status } };
			} catch (error) {
				more = { error: { status: 0, detail: `${error}` } };
			}
			if (signal.aborted || watch.entry != entry) return;
			publish(watch, state, more);
			if (!fine({ entry }) && fine(watch)) arrange(true);
		}

		const pollAll = (some) => Promise.all(some.map((watch) => watch.entry.state == 'live' || pollOne(watch)));

		async function tick() {
			if (signal.aborted) return;
			if (Date.now() - heard > silence) round.abort();
			await pollAll(all);
			setTimeout(tick, poll);
		}

		function hearEvent(block) {
			const field = (name) => block.match(RegExp(`(?<=(^|\n)${name}: )[^\n]*`, 'g'))?.join('\n');
			const event = field('event');
			const text = field('data') ?? '{}';
			const { id, since } = JSON.parse(text);
			wait = field('retry') ?? wait;
			const watch = all.find((each) => each.id == id);
			if (!watch) return;
			if (event == 'result') publish(watch, 'live', { text, etag: short(field('id').split(`${id}:`)[1]) });
			else if (/fresh|stale/.test(event)) publish(watch, since ? 'stale' : 'live', { since: Date.parse(since) });
			else if (event == 'alert') dispatchEvent(new CustomEvent('tally-alert', { detail: JSON.parse(text) }));
			else pollOne(watch);
		}

		signal.onabort = () => round.abort();
		setTimeout(tick, poll);
		for (let tries = 1; !signal.aborted; tries++) {
			heard = Date.now();
			round = new AbortController();
			const asked = [...streams.keys()].indexOf(keys) < 4 ? all.filter(fine) : [];
			const held = asked.filter(({ entry }) => entry.etag);
			const tags = held.map(({ id, entry }) => `${id}:${short(entry.etag)}`);
			const answer = asked[0] && (await ask(`events?ids=${asked.map(({ id }) => id)}&${keys.split(/[?,]/)[1]}`, round.signal, 'Last-Event-ID', tags).catch(() => {}));
			wait = got(answer, 'retry-after') * 1e3;
			if (/event-stream/.test(got(answer, 'content-type')))
				reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
			if (!signal.aborted) pollAll(reader ? held : all);
			try {
				for (let rest = '', part; !(part = await reader.read()).done; ) {
					heard = Date.now();
					const blocks = (rest + part.value).split('\n\n');
					rest = blocks.pop() ?? '';
					blocks.forEach(hearEvent);
				}
			} catch {}
			round.abort();
			if (signal.aborted) return;
			for (const watch of all) if (watch.entry.state == 'live') publish(watch, 'polling');
			if (reader) tries = 1;
			reader = null;
			wait ||= Math.min(retry[1], retry[0] * 2 ** tries) * (1 + Math.random()) / 2;
			await new Promise((resolve) => setTimeout(resolve, wait));
		}
	}

	for (const change of ['online', 'offline']) addEventListener(change, arrange, end);
	document.addEventListener('visibilitychange', look, end);
	if (locks) {
		(channel = new BroadcastChannel(name)).onmessage = hear;
		const hold = () => (look(), new Promise((over) => (end.signal.onabort = over)));
		locks.request(name + self, end, hold).catch(() => {});
	} else look();

	return {
		watch(id, given, listener, etag) {
			const query = new URLSearchParams(Object.entries(given ?? {}).sort());
			const watch = watchOf(`${id.toLowerCase()}?${query}`);
			const tell = () => watch.tells.has(tell) && listener({ ...watch.entry, result: watch.result });
			if (etag && !watch.tells.size) watch.entry = { etag };
			watch.tells.add(tell);
			if (watch.entry.key) queueMicrotask(tell);
			say();
			return () => (watch.tells.delete(tell), say());
		},
		close() {
			end.abort();
			look();
			channel = channel?.close();
		},
	};
}

const short = (etag) => /\w{9,16}/.exec(etag)?.[0];
const fine = ({ entry }) => !/^4(?!29)/.test(entry.error?.status);
const got = (answer, name) => answer?.headers.get(name);
const facts = ({ entry: { etag, state, since, error } }) =>
	`${[short(etag), state, since, error?.code, error?.status]}`;
