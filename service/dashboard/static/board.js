import { api } from './api.js';
import { parseExact } from './charts/values.js';
import { announce, el } from './dom.js';
import { page } from './page.js';
import { tallyLive } from './tally-live.js';
import { Tile } from './tile.js';
import { clock } from './times.js';
import { distance, nameOf, parametersOf, readAddress, shifted, writeAddress } from './window.js';

/** @typedef {import('./window.js').Period} Period */

const WORST = /** @type {const} */ (['offline', 'stale', 'polling', 'live']);
const AGES_MS = 5e3;
const RETRY_MS = [1e3, 3e4];

/** All tiles of the page, their period, and the one stream that they share. */
export class Board {
	/** @type {Map<string, Tile>} */
	tiles = new Map();
	/** @type {(() => void)[]} */
	stops = [];
	turn = 0;
	tries = 0;
	begun = Date.now();

	/** @param {((tile: Tile) => void) | null} explain */
	constructor(explain) {
		const deeds = { explain, again: () => void this.load() };
		for (const item of page.items) {
			const article = /** @type {HTMLElement | null} */ (document.querySelector(`[data-metric="${item.id}"]`));
			if (article) this.tiles.set(item.id, new Tile(article, item, deeds));
		}
		Object.assign(this, { period: {}, compare: false, others: {} }, readAddress(location.search));
		if (page.link) [this.period, this.others] = [{}, page.parameters];
		this.live = tallyLive({ url: page.api, user: page.user });
		this.badge = document.getElementById('live');
		setInterval(() => this.tiles.forEach((tile) => tile.grow()), AGES_MS);
		addEventListener('popstate', () => {
			Object.assign(this, readAddress(location.search));
			this.changed();
		});
		addEventListener('online', () => this.tries && this.load());
	}

	/** @type {Period} */
	period = {};
	compare = false;
	/** @type {Record<string, string>} */
	others = {};
	/** Called when the period is another. */
	onchange = () => {};

	/** The day by the service's clock, which goes on while the page is open. */
	get today() {
		const then = page.now ? Date.parse(`${page.now}Z`) : this.begun;
		return new Date(then + Date.now() - this.begun).toISOString().slice(0, 10);
	}

	/** What the page asks of each metric. @param {Period} [period] @returns {Record<string, string>} */
	parameters(period = this.period) {
		return { ...this.others, ...parametersOf(period) };
	}

	/** What a tile takes of it. @param {Tile} tile */
	parametersOf(tile) {
		return Object.fromEntries(Object.entries(this.parameters()).filter(([name]) => !tile.ignored.includes(name)));
	}

	/** @param {Period} period @param {boolean} [compare] */
	go(period, compare = this.compare) {
		this.period = period;
		this.compare = compare;
		announce(`Period: ${nameOf(period, this.today)}${this.compare ? ', compared with the period before' : ''}`);
		history.pushState(null, '', `${location.pathname}${writeAddress(location.search, period, compare)}`);
		this.changed();
	}

	changed() {
		this.onchange();
		void this.load();
	}

	/** All numbers in one request, then their changes as they come. */
	async load() {
		const turn = ++this.turn;
		this.unfollow();
		this.tiles.forEach((tile) => tile.wait());
		try {
			const { results } = await this.ask(this.period);
			if (turn !== this.turn) return;
			this.tries = 0;
			for (const entry of results) this.tiles.get(entry.id)?.take(entry);
			for (const tile of this.tiles.values()) tile.chart.measure(); // all before the first is drawn
			for (const tile of this.tiles.values()) tile.show();
			this.follow();
			await this.loadBefore(turn);
		} catch (problem) {
			if (turn !== this.turn) return;
			this.tiles.forEach((tile) => tile.fail(problem));
			if (isSignedOut(problem)) return;
			this.tell('offline', Date.now());
			const wait = Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** this.tries++);
			setTimeout(() => turn === this.turn && this.load(), wait);
		}
	}

	/** @param {Period} period @returns {Promise<any>} */
	ask(period) {
		const [base] = page.data.split('?');
		const query = new URLSearchParams(page.link ? {} : this.parameters(period));
		const url = query.size ? `${base}?${query}` : base;
		const first = /** @type {any} */ (globalThis).tallyFirst; // early.js has asked
		/** @type {any} */ (globalThis).tallyFirst = null;
		return api(url, { read: parseExact, begun: first && sorted(first.url) === sorted(url) ? first.answer : undefined });
	}

	/** @param {number} turn */
	async loadBefore(turn) {
		const before = this.compare ? shifted(this.period, -1, this.today) : null;
		const found = before ? await this.ask(before).catch(() => null) : null;
		if (turn !== this.turn) return;
		const results = new Map((found?.results ?? []).map((/** @type {any} */ each) => [each.id, each.result ?? null]));
		for (const tile of this.tiles.values()) if (tile.before || results.has(tile.id)) tile.compare(results.get(tile.id) ?? null, distance(this.period, this.today));
	}

	follow() {
		this.unfollow();
		for (const tile of this.tiles.values()) {
			const told = (/** @type {any} */ state) => {
				tile.hear(state);
				if (!isSignedOut(state.error)) this.sum();
			};
			this.stops.push(this.live.watch(tile.id, this.parametersOf(tile), told, tile.etag));
		}
	}

	unfollow() {
		for (const stop of this.stops.splice(0)) stop();
	}

	/** The badge tells the worst of all tiles. */
	sum() {
		// A metric that fails says so itself: the others come all the same.
		const states = [...this.tiles.values()].flatMap(({ live }) => (live && !/^4/.test(live.error?.status) ? live : []));
		const worst = WORST.find((each) => states.some(({ state }) => state === each));
		if (worst) this.tell(worst, Math.min(...states.filter(({ state }) => state === worst).map(({ since }) => since)));
	}

	/** @param {'live' | 'polling' | 'stale' | 'offline'} state @param {number} since */
	tell(state, since) {
		if (!this.badge) return;
		const quiet = state === 'live' || state === 'polling';
		const text = quiet ? NAMES[state] : `${NAMES[state]} since ${clock(since)}`;
		this.badge.hidden = false;
		if (this.badge.textContent === text) return;
		this.badge.className = `badge ${state}`;
		this.badge.textContent = text;
		this.badge.title = MEANINGS[state];
	}
}

/**
 * Whether the session is over: then the page offers to sign in again, and comes back.
 * @param {any} problem
 */
function isSignedOut(problem) {
	if (problem?.status !== 401 || page.link) return false;
	const notice = document.getElementById('notice');
	const next = encodeURIComponent(location.pathname + location.search);
	notice?.replaceChildren('Your session is over. ', el('a', { href: `/sign-in?next=${next}` }, 'Sign in again'));
	if (notice) notice.hidden = false;
	return true;
}

/** An address whose parameters stand in order. @param {string} url */
function sorted(url) {
	const { pathname, searchParams } = new URL(url, location.href);
	searchParams.sort();
	return `${pathname}?${searchParams}`;
}

const NAMES = { live: 'Live', polling: 'Polling', stale: 'Stale', offline: 'Offline' };
const MEANINGS = {
	live: 'Changes of the data come as they happen.',
	polling: 'Changes are asked for every few seconds, until the stream is back.',
	stale: 'Some numbers are older than their data.',
	offline: 'The service cannot be reached; the last numbers stay.'
};
