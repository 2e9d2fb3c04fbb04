import { sentence } from './api.js';
import { Chart } from './charts/chart.js';
import { parseExact } from './charts/values.js';
import { el } from './dom.js';
import { ago, clock } from './times.js';

/** @typedef {import('./charts/values.js').Result} Result */
/** @typedef {import('./charts/shape.js').Kind} Kind */
/** @typedef {import('./page.js').Item} Item */
/** @typedef {{ id: string, status: number, etag?: string, result?: Result, problem?: any, ignored_parameters?: string[] }} Entry */
/** @typedef {{ state: 'live' | 'polling' | 'stale' | 'offline', since: number, error: any, etag: string | null, text: string | null }} LiveState */
/** @typedef {{ again: () => void, explain: ((tile: Tile) => void) | null }} Deeds `explain` is null where nobody may see definitions */

const WINDOW = ['start_date', 'end_date', 'day_range'];
const SHORT = 16; // the characters of an ETag that a stream tells

/** A metric on the page: its numbers, how old they are, and what is wrong with them. */
export class Tile {
	/** @type {Result | null} */
	result = null;
	/** @type {any} */
	problem = null;
	/** @type {LiveState | null} */
	live = null;
	/** @type {string[]} */
	ignored = [];
	/** @type {Result | null} */
	before = null;
	/** @type {Kind | null} */
	kind = null;
	loading = true;
	etag = '';
	shift = 0;

	/**
	 * @param {HTMLElement} article
	 * @param {Item} item
	 * @param {Deeds} deeds
	 */
	constructor(article, item, deeds) {
		this.article = article;
		this.item = item;
		this.id = item.id;
		this.deeds = deeds;
		this.kind = /** @type {Kind | null} */ (item.chart ?? null);
		this.heading = /** @type {HTMLElement} */ (article.querySelector('.tile-title'));
		this.tools = /** @type {HTMLElement} */ (article.querySelector('.tile-tools'));
		this.body = /** @type {HTMLElement} */ (article.querySelector('.tile-body'));
		this.foot = /** @type {HTMLElement} */ (article.querySelector('.tile-foot'));
		this.note = el('div', { class: 'tile-note', hidden: true });
		this.host = el('div', { class: 'tile-chart' });
		this.chart = new Chart(this.host, this.title);
		this.age = el('time', {});
		this.mark = el('span', { class: 'dot', 'aria-hidden': 'true' });
		this.rows = el('span', { class: 'tile-rows' });
		const explain = deeds.explain && { type: 'button', onclick: () => deeds.explain?.(this) };
		this.own = el(explain ? 'button' : 'span', { class: 'chip', hidden: true, ...explain }, 'Own period');
	}

	get title() {
		return this.heading.textContent ?? '';
	}

	set title(text) {
		this.heading.textContent = text;
		this.chart.title = text;
	}

	/** New numbers are on their way; the old ones stay. */
	wait() {
		this.loading = true;
		this.article.setAttribute('aria-busy', 'true');
	}

	/** `show` draws it. @param {Entry} entry of the dashboard's data */
	take({ result, problem, etag, ignored_parameters: ignored }) {
		this.loading = false;
		this.live = null;
		this.ignored = ignored ?? [];
		this.problem = result ? null : problem;
		this.etag = (etag ?? '').replace(/"/g, '').slice(0, SHORT);
		if (result) this.accept(result);
		else if (problem?.status === 404) this.result = null;
		this.render();
	}

	/** @param {Result} result its title may have been changed by others */
	accept(result) {
		this.result = result;
		if (result.title && result.title !== this.title) this.title = result.title;
	}

	/** @param {any} problem why no data came at all */
	fail(problem) {
		this.loading = false;
		this.problem = problem;
		this.render();
	}

	/** @param {LiveState} live */
	hear(live) {
		this.live = live;
		const etag = live.etag?.slice(0, SHORT);
		const news = !!live.text && !!etag && etag !== this.etag;
		if (live.text && etag && news) {
			this.accept(parseExact(live.text));
			this.etag = etag;
		}
		this.problem = live.error && live.state !== 'live' ? live.error : null;
		if (this.problem?.status === 404 || this.problem?.status === 403) this.result = null;
		this.render(news);
	}

	/**
	 * @param {Result | null} before the same for the period before
	 * @param {number} shift milliseconds between the periods
	 */
	compare(before, shift) {
		this.before = before;
		this.shift = shift;
		this.render(true);
	}

	/** @param {Kind | null} kind */
	draw(kind) {
		this.kind = kind;
		this.render(true);
	}

	/** Whether the period of the page is not this tile's. */
	get foreign() {
		return this.ignored.some((name) => WINDOW.includes(name));
	}

	get state() {
		if (this.problem && !this.result) return 'error';
		if (this.loading && !this.result) return 'loading';
		if (this.live?.state === 'offline' || this.live?.state === 'stale' || this.problem) return 'stale';
		return this.result && !this.result.records.length ? 'empty' : 'ready';
	}

	/** @param {boolean} [news] whether there is something to draw */
	render(news = false) {
		const { state, result } = this;
		if (this.host.parentElement !== this.body) this.body.replaceChildren(this.note, this.host);
		if (this.foot.firstChild !== this.mark) this.foot.replaceChildren(this.mark, this.age, this.own, this.rows);
		this.article.dataset.state = state;
		if (!this.loading) this.article.removeAttribute('aria-busy');
		const empty = !!result && !result.records.length;
		this.host.hidden = !result || empty;
		if (news) this.show();
		this.tell(noteOf(this, empty));
		this.own.hidden = !this.foreign || !result;
		this.own.title = `This metric does not take the chosen period${this.deeds.explain ? ': press to see why' : ''}.`;
		this.rows.textContent = result?.truncated ? `cut off at ${result.records.length} rows` : '';
		this.mark.className = `dot ${this.live?.state ?? ''}`;
		this.grow();
	}

	/** Draw the numbers. */
	show() {
		const { result, kind, shift } = this;
		if (result?.records.length) this.chart.show(result, { kind, before: this.foreign ? null : this.before, shift });
	}

	/** @param {Node[]} note */
	tell(note) {
		const text = note.map((each) => each.textContent).join('');
		if (this.note.textContent !== text) this.note.replaceChildren(...note);
		this.note.hidden = !note.length;
		this.note.classList.toggle('whole', this.host.hidden);
		// In a low tile it scrolls, for which the keyboard needs something that takes the focus.
		if (this.host.hidden && !this.note.querySelector('button, a')) this.note.tabIndex = 0;
		else this.note.removeAttribute('tabindex');
	}

	/** Its age grows while nothing happens. */
	grow() {
		const time = this.result ? Date.parse(this.result.as_of) : NaN;
		const text = Number.isNaN(time) ? '' : ago(time);
		if (this.age.textContent === text) return;
		this.age.textContent = text;
		this.age.dateTime = this.result?.as_of ?? '';
		this.age.title = text && `Computed at ${clock(time)}`;
	}
}

/**
 * What is to be said above the numbers, or in their place.
 *
 * @param {Tile} tile
 * @param {boolean} empty
 * @returns {Node[]}
 */
function noteOf(tile, empty) {
	const { problem, live, result, deeds, state } = tile;
	const again = () => el('button', { type: 'button', class: 'button tiny', onclick: deeds.again }, 'Try again');
	if (problem && !result) {
		const about = problem.type && el('a', { class: 'button tiny', href: problem.type }, 'What to do');
		const how = problem.code && deeds.explain && el('button', { type: 'button', class: 'button tiny', onclick: () => deeds.explain?.(tile) }, 'How it is computed');
		return [el('strong', {}, problem.title ?? 'No numbers'), el('p', { dir: 'auto' }, sentence(problem)), el('div', { class: 'row' }, again(), about, how)];
	}
	if (state === 'stale') return [el('span', {}, staleText(live, problem)), ...(problem ? [again()] : [])];
	if (!empty) return [];
	const period = periodOf(result);
	return [el('strong', {}, 'No rows'), el('p', {}, period ? `Nothing was found ${period}.` : 'The query found nothing.')];
}

/** @param {LiveState | null} live @param {any} problem */
function staleText(live, problem) {
	const since = live ? ` since ${clock(live.since)}` : '';
	if (problem?.status === 0 || (live?.state === 'offline' && !problem)) return `Offline${since}: the service cannot be reached. These are the last numbers.`;
	if (problem) return `Not updated${since}: ${sentence(problem)}`;
	return `Stale${since}: the data have changed, and the new numbers are being computed.`;
}

/** @param {Result | null} result */
function periodOf(result) {
	const { start_date: start, end_date: end, day_range: range } = /** @type {Record<string, any>} */ (result?.parameters ?? {});
	if (start && end) return `from ${start} to ${end}`;
	return range ? `in the last ${range} days` : '';
}
