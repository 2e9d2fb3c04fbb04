/** Tally's API for browsers and Node: a method for each operation, typed by `tally-client.d.ts`. */

import { parse, stringify } from './exact.js';
import { operations, remedies } from './generated/table.js';
import { tallyLive } from './tally-live.js';

export { parse, stringify };

const NOT_NOW = [429, 503];
const COME_BACK = [429, 502, 503, 504];
const REPEATABLE = ['GET', 'HEAD', 'PUT', 'DELETE']; // whose repetition changes nothing more (RFC 9110, 9.2.2)
const TOKEN_PATH = '/oauth2/token'; // its caller says who it is in the form
const SILENCE_MS = 3e4;
const TYPES = {
	csv: 'text/csv',
	json: 'application/json',
	xlsx: 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
};

export class TallyError extends Error {
	get name() {
		return this.constructor.name;
	}
}

/** Nobody answered. */
export class UnreachableError extends TallyError {}

/** Somebody answered something that Tally does not. */
export class UnexpectedAnswerError extends TallyError {}

/** The service refused, and says why. */
export class ProblemError extends TallyError {
	constructor(answer, document) {
		const fields = (document.errors ?? []).map(({ field, message }) => `\n  ${field}: ${message}`).join('');
		const remedy = remedies[document.code] ?? '';
		super(`${answer.status} ${document.code}: ${document.detail}${fields}${remedy && `\n${remedy}`}`);
		const { code, title = '', detail = '', errors = [], request_id: requestId = '' } = document;
		const { status, url, retryAfter } = answer;
		Object.assign(this, { status, url, code, title, detail, errors, requestId, remedy, retryAfter, document });
	}
}

export class Answer {
	constructor(status, headers, text, url, numbers, held = false) {
		this.status = status;
		this.headers = headers;
		this.text = text;
		this.url = url;
		this.held = held;
		this.etag = headers.get('etag');
		this.json = () => (numbers === 'plain' ? JSON.parse(text) : parse(text));
	}

	/** Seconds, from a number or a date. */
	get retryAfter() {
		const told = this.headers.get('retry-after') ?? '';
		const seconds = /^\d+$/.test(told) ? Number(told) : (Date.parse(told) - Date.now()) / 1e3;
		return Number.isNaN(seconds) ? null : Math.max(0, seconds);
	}
}

export class Tally {
	#settings;
	#held = new Map(); // address and whose token -> answer, the longest unused first
	#bytes = 0;

	/** @param {any} settings */
	constructor(settings = {}) {
		const { url = globalThis.location?.origin, numbers = 'exact', ...rest } = settings;
		const address = URL.canParse(url) ? new URL(url) : null;
		if (!address || !/^https?:$/.test(address.protocol))
			throw new TypeError(`${url} is no address of a service: give one like http://127.0.0.1:8000`);
		if (address.username || address.password)
			throw new TypeError('an address with a password in it is refused: give the token as `token`');
		if (!['exact', 'plain'].includes(numbers)) throw new TypeError(`numbers is 'exact' or 'plain', not ${numbers}`);
		this.url = address.origin + address.pathname.replace(/\/$/, '').replace(/\/api\/v1$/, '');
		const defaults = { retries: 3, longestWait: 30, timeout: 30, cacheBytes: 1 << 24, fetch: globalThis.fetch };
		const given = Object.entries(rest).filter(([, value]) => value !== undefined);
		this.#settings = { ...defaults, numbers, ...Object.fromEntries(given) };
	}

	/** Any request, with this client's token, memory and errors. */
	async request(method, path, { params, json, body, headers = {}, signal, repeatable, accepted = [], timeout } = /** @type {any} */ ({})) {
		if (!/^\/(?!\/)/.test(path)) throw new TypeError(`${path} is no path: it begins with one slash`);
		method = method.toUpperCase();
		const sent = { accept: 'application/json, */*;q=0.5', ...Object.fromEntries(new Headers(headers)) };
		if (json !== undefined) [body, sent['content-type']] = [stringify(json), 'application/json'];
		const query = queryOf(params);
		const address = `${this.url}${path}${query && `?${query}`}`;
		const { retries, longestWait } = this.#settings;
		const again = repeatable || REPEATABLE.includes(method) ? retries : 0;
		for (let attempt = 0; ; attempt++) {
			const token = path === TOKEN_PATH ? {} : await this.#bearer();
			const key = method === 'GET' && `${address} ${sent.accept} ${token.authorization}`;
			const held = sent['if-none-match'] ? undefined : this.#held.get(key);
			// Else fetch asks for a fresh run wherever it sends an ETag: with `max-age=0`.
			const condition = held && { 'if-none-match': held.etag, 'cache-control': 'max-stale' };
			let answer;
			try {
				answer = await this.#ask(address, { method, body, headers: { ...condition, ...sent, ...token }, signal }, timeout);
			} catch (error) {
				signal?.throwIfAborted();
				if (attempt >= again) throw unreachable(address, error);
				await pause(waitBefore(attempt), signal);
				continue;
			}
			if (held && answer.status === 304) {
				this.#keep(key, held); // now the last to go
				const fresh = new Headers([...held.headers, ...answer.headers]);
				for (const [name, value] of answer.headers) fresh.set(name, value);
				return new Answer(200, fresh, held.text, held.url, this.#settings.numbers, true);
			}
			const isProblem = answer.headers.get('content-type')?.includes('problem');
			if (answer.status < 300 || (accepted.includes(answer.status) && !isProblem)) {
				if (key && answer.status === 200) this.#keep(key, answer);
				return answer;
			}
			const wait = answer.retryAfter ?? waitBefore(attempt);
			if (attempt >= again || !NOT_NOW.includes(answer.status) || wait > longestWait) throw errorOf(answer);
			await pause(wait, signal);
		}
	}

	/** Import a Blob or File, bytes, text or rows. */
	async importFile(dataset, source, { name, dry_run, mirror, signal } = /** @type {any} */ ({})) {
		const rows = Array.isArray(source);
		const named = name ?? source.name ?? (rows ? 'rows.json' : undefined);
		const type = TYPES[`${named}`.split('.').at(-1)?.toLowerCase() ?? ''];
		if (!type) throw new TypeError(`name must end with .csv, .json or .xlsx, not be ${named}`);
		const form = new FormData();
		form.append('file', rows ? new Blob([stringify(source)], { type }) : asBlob(source, type), named);
		const options = { params: { dry_run, mirror }, body: form, signal, timeout: Infinity };
		return read(await this.request('POST', pathOf('imports', dataset), options));
	}

	/** A metric's result as a file. */
	async exportMetric(id, { format = 'csv', parameters, signal, ...rest } = /** @type {any} */ ({})) {
		const options = { params: { format, ...rest, ...parameters }, signal };
		return (await this.request('GET', pathOf('metrics', id), options)).text;
	}

	/** */
	watchMetric(id, { last_event_id, signal, parameters, ...window } = /** @type {any} */ ({})) {
		return this.#watch(pathOf('metrics', id, 'events'), { ...window, ...parameters }, last_event_id, signal);
	}

	/** */
	watchMetrics(ids, { last_event_id, signal, parameters, ...window } = /** @type {any} */ ({})) {
		const params = { ids: ids.join(), ...window, ...parameters };
		return this.#watch(pathOf('events'), params, last_event_id, signal);
	}

	/** */
	watchDashboard(id, { last_event_id, signal, parameters, ...window } = /** @type {any} */ ({})) {
		return this.#watch(pathOf('dashboards', id, 'events'), { ...window, ...parameters }, last_event_id, signal);
	}

	/** Live results for all tabs of a browser over one stream. */
	live(options = {}) {
		return tallyLive({ url: `${this.url}/api/v1`, token: this.#settings.token, ...options });
	}

	async #bearer() {
		const { token } = this.#settings;
		const given = typeof token === 'function' ? await token() : token;
		if (given == null || given === '') return {};
		if (typeof given !== 'string' || !/^[!-~]+$/.test(given.trim()))
			throw new TypeError('the token must be text of visible ASCII characters: was it cut or pasted wrongly?');
		return { authorization: `Bearer ${given.trim()}` };
	}

	async #ask(address, request, timeout = this.#settings.timeout) {
		const ends = [request.signal, Number.isFinite(timeout) && AbortSignal.timeout(timeout * 1e3)];
		const signal = AbortSignal.any(ends.filter(Boolean));
		const { fetch, numbers } = this.#settings;
		const response = await fetch(address, { ...request, signal, redirect: 'manual' });
		return new Answer(response.status, response.headers, await response.text(), address, numbers);
	}

	#keep(key, answer) {
		const size = (each) => each.text.length * 2;
		const forget = (each) => {
			this.#bytes -= this.#held.has(each) ? size(this.#held.get(each)) : 0;
			this.#held.delete(each);
		};
		forget(key);
		const limit = this.#settings.cacheBytes;
		if (!answer.etag || /no-store/.test(answer.headers.get('cache-control')) || size(answer) > limit) return;
		this.#held.set(key, answer);
		this.#bytes += size(answer);
		while (this.#bytes > limit) forget(this.#held.keys().next().value);
	}

	/** Events of a stream that is opened again when it is lost, until the metric is gone or the rights end. */
	async *#watch(path, params, last, signal) {
		const query = queryOf(params);
		const address = `${this.url}${path}${query && `?${query}`}`;
		for (let [failures, first] = [1, true]; ; failures++) {
			let wait = waitBefore(failures + 1);
			const round = new AbortController();
			const ends = AbortSignal.any([round.signal, signal].filter(Boolean));
			let timer;
			const hear = () => {
				clearTimeout(timer);
				timer = setTimeout(() => round.abort(new Error('silence')), SILENCE_MS);
			};
			const headers = { Accept: 'text/event-stream', ...(await this.#bearer()), ...(last && { 'Last-Event-ID': last }) };
			try {
				hear();
				const { fetch } = this.#settings; // it must be no method here
				const response = await fetch(address, { headers, signal: ends });
				if (response.status === 204) return;
				if (response.status !== 200 || !/event-stream/.test(response.headers.get('content-type') ?? '')) {
					const answer = new Answer(response.status, response.headers, await response.text(), address, this.#settings.numbers);
					if (first || !COME_BACK.includes(answer.status)) throw errorOf(answer);
					wait = Math.min(30, answer.retryAfter ?? wait);
				} else {
					for await (const { event, id, text, retry } of eventsOf(response.body, hear)) {
						[first, failures] = [false, 1];
						if (retry) wait = retry;
						if (event === 'reconnect') break;
						last = id || last;
						const data = this.#settings.numbers === 'plain' ? JSON.parse(text) : parse(text);
						if (event === 'denied') {
							const { authorization: other } = await this.#bearer();
							if (other === headers.authorization) throw denied(address, data);
							wait = 0; // come back with the new token
							break;
						}
						yield { event, id, data, result: event === 'result' ? data : undefined };
						if (event === 'gone' && !data.id) return;
					}
				}
			} catch (error) {
				if (error instanceof TallyError) throw error;
				signal?.throwIfAborted();
				if (error instanceof SyntaxError) throw new UnexpectedAnswerError(`${address}: an event is no JSON`, { cause: error });
				if (first) throw unreachable(address, error);
			} finally {
				clearTimeout(timer);
				round.abort();
			}
			await pause(wait, signal);
		}
	}
}

/** A metric whose parameters and rows have types of their own. */
export const metric = (id, title) => ({
	id,
	title,
	get: (tally, parameters, options) => tally.getMetricResult(id, { ...options, parameters }),
	watch: (tally, parameters, options) => tally.watchMetric(id, { ...options, parameters }),
});

for (const [name, operation] of Object.entries(operations)) {
	Tally.prototype[name] = function (...given) {
		return call(this, operation, given);
	};
	if (operation.query.includes('cursor'))
		Tally.prototype[name.replace(/^(list|get)/, 'iter')] = async function* (...given) {
			const at = operation.in.length;
			for (let cursor; ; ) {
				const options = { ...given[at], ...(cursor && { cursor }) };
				const page = await call(this, operation, [...given.slice(0, at), options]);
				yield* page.items;
				if (!page.next_cursor || page.next_cursor === cursor) return;
				cursor = page.next_cursor;
			}
		};
}

async function call(tally, operation, given) {
	const { method, in: places, headers, body: type, repeatable, accepted } = operation;
	const path = operation.path.replace(/\{(\w+)\}/g, (_, name) => segment(given[places.indexOf(name)], name));
	const { signal, parameters, ...rest } = given[places.length + (type ? 1 : 0)] ?? {};
	const named = Object.entries(rest);
	const unknown = named.find(([name]) => !operation.query.includes(name) && !(name in headers));
	if (unknown) throw new TypeError(`${operation.method} ${operation.path} takes no ${unknown[0]}`);
	const params = Object.fromEntries([...named.filter(([name]) => !(name in headers)), ...Object.entries(parameters ?? {})]);
	const sent = named.filter(([name, value]) => name in headers && value != null);
	const content = given[places.length];
	const answer = await tally.request(method, path, {
		params,
		signal,
		repeatable,
		accepted,
		headers: Object.fromEntries(sent.map(([name, value]) => [headers[name], value])),
		...(type === 'application/json' && { json: content }),
		...(type && type !== 'application/json' && { body: new URLSearchParams(content) }),
	});
	if (operation.answer === 'nothing') return undefined;
	return operation.answer === 'text' ? answer.text : read(answer);
}

function read(answer) {
	try {
		return answer.json();
	} catch (cause) {
		throw unexpected(answer, 'it is no JSON: is the address right?', cause);
	}
}

const pathOf = (...parts) => `/api/v1/${parts.map((part) => segment(part, 'id')).join('/')}`;

/** One part of a path. Nothing, or dots, would be the path of something else. */
function segment(value, name) {
	if (/^(undefined|null|\.{0,2})$/.test(`${value}`)) throw new TypeError(`${name} must name something, not be '${value}'`);
	return encodeURIComponent(value);
}

function queryOf(params = {}) {
	const pairs = Object.entries(params).flatMap(([name, value]) => [value].flat().map((each) => [name, each]));
	const text = (value) => (value instanceof Date ? value.toISOString() : String(value));
	return `${new URLSearchParams(pairs.filter(([, value]) => value != null).map(([name, value]) => [name, text(value)]))}`;
}

const asBlob = (source, type) => (source instanceof Blob ? source : new Blob([source], { type }));

/** Seconds, at random and twice as many each time, so that clients do not come back all at once. */
const waitBefore = (attempt) => Math.min(30, 0.25 * 2 ** Math.min(attempt, 16)) * (0.5 + Math.random() / 2);

function pause(seconds, signal) {
	return new Promise((resolve, reject) => {
		const stop = () => (clearTimeout(timer), reject(signal.reason));
		const timer = setTimeout(() => (signal?.removeEventListener('abort', stop), resolve(undefined)), seconds * 1e3);
		signal?.addEventListener('abort', stop, { once: true });
		if (signal?.aborted) stop();
	});
}

function unreachable(address, error) {
	const why = error?.name === 'TimeoutError' ? 'no answer in time' : (error?.cause?.code ?? error?.message);
	const asked = 'is the address right, does the service run, and is this page in CORS_ORIGINS?';
	return new UnreachableError(`nobody answers at ${address} (${why}): ${asked}`, { cause: error });
}

function unexpected(answer, why, cause) {
	const type = answer.headers.get('content-type') ?? 'no media type';
	const text = `${answer.url} answered ${answer.status} (${type}): ${why}\n${answer.text.slice(0, 200)}`;
	return new UnexpectedAnswerError(text, { cause });
}

function errorOf(answer) {
	let document;
	try {
		document = JSON.parse(answer.text);
	} catch {
		document = null;
	}
	if (document?.error) document = { code: document.error, detail: document.error_description }; // RFC 6749
	if (document?.code) return new ProblemError(answer, document);
	const moved = answer.status === 0 || (answer.status >= 300 && answer.status < 400);
	return unexpected(answer, moved ? 'a redirect: give the address it leads to' : "it is no answer of Tally's API");
}

function denied(url, { code = 'unauthorized', message = '' }) {
	return new ProblemError({ status: 401, url, retryAfter: null }, { code, detail: message });
}

/** Events of a stream (HTML, 9.2). `heard` is called for each piece, comments too. */
async function* eventsOf(body, heard) {
	let rest = '';
	const reader = body.pipeThrough(new TextDecoderStream()).getReader(); // Safari cannot iterate a stream
	for (;;) {
		const { value: piece, done } = await reader.read();
		if (done) return;
		heard();
		if (!piece.includes('\n')) {
			rest += piece;
			continue;
		}
		const blocks = (rest + piece).replaceAll('\r\n', '\n').split('\n\n');
		rest = blocks.pop() ?? '';
		for (const block of blocks) {
			const said = { event: 'message', id: '', text: '', retry: 0 };
			const data = [];
			for (const line of block.split('\n')) {
				const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
				if (name === 'data') data.push(value);
				else if (name === 'retry') said.retry = Math.min(30, Number(value) / 1e3 || 0);
				else if (name === 'event' || name === 'id') said[name] = value;
			}
			if (data.length) yield { ...said, text: data.join('\n') };
		}
	}
}
