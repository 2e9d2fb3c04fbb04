import { bandChart, number } from './alerts_chart.js';
import { api, sentence } from './api.js';
import { parseExact } from './charts/values.js';
import { announce, el } from './dom.js';

/** @typedef {{ id: string, rule_id: string, rule_name: string, series: Record<string, unknown>, point: string, last_point: string, value: number | null, expected: number | null, state: string, acknowledged_by: string | null }} Alert */
/** @typedef {{ id: string, name: string, metric_id: string, column: string, kind: string, problem: string | null }} Rule */

const BASE = '/api/v1/alerts';
const LOOK_MS = 5e3;
const OPEN = ['firing', 'nodata', 'stale', 'acknowledged', 'pending'];
const CLOSED = ['resolved', 'withdrawn'];
const COLOURS = /** @type {Record<string, string>} */ ({ firing: 'bad', nodata: 'warn', stale: 'warn', resolved: 'good' });
const WORDS = /** @type {Record<string, string>} */ ({ nodata: 'no data', stale: 'data are old' });

const place = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const mayWrite = (place('alerts-script').dataset.scopes ?? '').split(' ').includes('alerts:write');
let shown = '';

/** @param {string[]} states @param {number} limit @returns {Promise<Alert[]>} */
async function list(states, limit) {
	const query = new URLSearchParams([...states.map((each) => ['state', each]), ['limit', `${limit}`]]);
	return (await api(`${BASE}?${query}`, { read })).items;
}

/** Read everything again. What has not changed stays as it is, so that nothing moves under a pointer. */
async function load() {
	try {
		const [open, closed, rules] = await Promise.all([list(OPEN, 200), list(CLOSED, 50), api(`${BASE}/rules?limit=200`)]);
		place('notice').hidden = true;
		const state = JSON.stringify([open, closed, rules.items]);
		if (state === shown) return;
		shown = state;
		fill('open', open.length ? alertTable(open, true) : el('p', { class: 'muted' }, 'Nothing is unusual.'));
		fill('closed', closed.length ? alertTable(closed, false) : el('p', { class: 'muted' }, 'None yet.'));
		fill('rules', rules.items.length ? ruleTable(rules.items) : noRules());
	} catch (problem) {
		place('notice').textContent = sentence(problem);
		place('notice').hidden = false;
	}
	place('open').removeAttribute('aria-busy');
}

/** @param {string} id @param {Node} content */
function fill(id, content) {
	place(id).replaceChildren(content);
}

function noRules() {
	return el('p', { class: 'muted' }, 'There is no rule. ', el('a', { href: '/docs' }, 'POST /api/v1/alerts/rules'), ' makes one, ', el('code', {}, 'tally alert add'), ' too.');
}

/** @param {string[]} heads @param {Node[]} rows */
function table(heads, rows) {
	const head = el('tr', {}, ...heads.map((each) => el('th', { scope: 'col' }, each)));
	return el('div', { class: 'table-scroll', tabindex: 0, role: 'region', 'aria-label': 'Table' }, el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...rows)));
}

/** @param {Alert[]} alerts @param {boolean} open */
function alertTable(alerts, open) {
	return table(['State', 'Rule', 'Series', 'Point', 'Value', 'Expected', 'Actions'], alerts.map((each) => alertRow(each, open)));
}

/** @param {Alert} alert @param {boolean} open */
function alertRow(alert, open) {
	const span = alert.point === alert.last_point ? alert.point : `${alert.point} to ${alert.last_point}`;
	const say = open && mayWrite && alert.state !== 'acknowledged';
	return el(
		'tr',
		{ 'data-alert': alert.id },
		el('td', {}, el('span', { class: `badge ${COLOURS[alert.state] ?? ''}` }, WORDS[alert.state] ?? alert.state)),
		el('td', { dir: 'auto' }, alert.rule_name),
		el('td', { dir: 'auto' }, seriesText(alert.series)),
		el('td', {}, span),
		el('td', { class: 'number' }, alert.value === null ? '' : number(alert.value)),
		el('td', { class: 'number' }, alert.expected === null ? '' : number(alert.expected)),
		el(
			'td',
			{},
			el('button', { type: 'button', class: 'button tiny', onclick: () => void draw(alert.rule_id, alert.rule_name, alert.series) }, 'Chart'),
			say && el('button', { type: 'button', class: 'button tiny', onclick: () => void acknowledge(alert.id) }, 'Acknowledge'),
			alert.acknowledged_by && el('span', { class: 'muted small' }, ` by ${alert.acknowledged_by}`),
		),
	);
}

/** @param {Rule[]} rules */
function ruleTable(rules) {
	const rows = rules.map((rule) =>
		el(
			'tr',
			{},
			el('td', { dir: 'auto' }, rule.name),
			el('td', {}, rule.kind),
			el('td', { dir: 'auto' }, rule.column),
			el('td', { dir: 'auto' }, rule.problem ? el('span', { class: 'badge warn' }, rule.problem) : 'evaluated'),
			el('td', {}, el('button', { type: 'button', class: 'button tiny', onclick: () => void draw(rule.id, rule.name, null) }, 'Chart')),
		),
	);
	return table(['Name', 'Kind', 'Column', 'State', 'Actions'], rows);
}

/** @param {string} id */
async function acknowledge(id) {
	try {
		await api(`${BASE}/${id}/acknowledge`, { method: 'POST' });
		announce('Acknowledged');
	} catch (problem) {
		announce(sentence(problem));
	}
	await load();
}

/**
 * Draw the points of a rule with their bands: of one series, or of the first ones.
 *
 * @param {string} rule
 * @param {string} name
 * @param {Record<string, unknown> | null} series
 */
async function draw(rule, name, series) {
	const chart = place('chart');
	chart.hidden = false;
	try {
		const bands = await api(`${BASE}/rules/${rule}/bands`, { read });
		const wanted = series && seriesText(series);
		const own = bands.series.filter((/** @type {any} */ each) => wanted === null || seriesText(each.series) === wanted).slice(0, 8);
		const charts = own.map((/** @type {any} */ each) => bandChart([name, seriesText(each.series)].filter(Boolean).join(': '), each.points));
		chart.replaceChildren(el('h2', {}, 'Chart'), ...(charts.length ? charts : [el('p', { class: 'muted' }, 'The result has no such series now.')]));
	} catch (problem) {
		chart.replaceChildren(el('h2', {}, 'Chart'), el('p', {}, sentence(problem)));
	}
	chart.scrollIntoView({ block: 'nearest' });
}

/** JSON in which only the numbers that tell series apart keep all their digits. @param {string} text */
function read(text) {
	const [found, exact] = [JSON.parse(text), parseExact(text)];
	for (const name of ['items', 'series']) found[name]?.forEach((/** @type {any} */ each, /** @type {number} */ at) => (each.series = exact[name][at].series));
	return found;
}

/** @param {Record<string, unknown>} series */
function seriesText(series) {
	return Object.entries(series).map(([name, value]) => `${name} ${value}`).join(', ');
}

void load();
setInterval(() => document.visibilityState === 'visible' && load(), LOOK_MS);
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && void load());
