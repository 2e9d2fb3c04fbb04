import { api, sentence } from './api.js';
import { parseExact } from './charts/values.js';
import { announce, el } from './dom.js';
import { columnOf, keptRow } from './data-rows.js';
import { page } from './page.js';
import { clock } from './times.js';
import { sums, upload } from './data-upload.js';

/** @typedef {import('./data-rows.js').Row} Row */

const PAGE = 100;
const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const [form, choice, drop, file, report, filters, tools, list, runs] = ['upload', 'dataset', 'drop', 'file', 'report', 'filters', 'rows-tools', 'rows', 'runs'].map($);

/** What is shown of the quarantine. */
const filter = { dataset: '', reason: '', column: '' };
/** @type {Row[]} */
let rows = [];
/** @type {string | null} */
let cursor = null;
/** @type {Map<string, Promise<any>>} */
const contracts = new Map();
let asked = 0;
let drawn = 0;
let wanted = /^#run-([\w-]+)$/.exec(location.hash)?.[1]; // the run that a link names

/** A part of the page that cannot be had says so in its place. @param {HTMLElement} host @param {() => Promise<void>} deed */
const part = (host, deed) => deed().catch((problem) => host.replaceChildren(el('p', { class: 'error', role: 'alert' }, sentence(problem))));

/** @param {string} dataset */
function contractOf(dataset) {
	if (!contracts.has(dataset)) {
		const found = api(`${page.api}/datasets/${encodeURIComponent(dataset)}`).then((schema) => (schema.$ref ? schema.$defs[schema.$ref.split('/').pop()] : schema));
		contracts.set(dataset, found.catch(() => null));
	}
	return /** @type {Promise<any>} */ (contracts.get(dataset));
}

async function showDatasets() {
	const { items } = await api(`${page.api}/datasets`);
	choice.replaceChildren(...items.map((/** @type {any} */ { name, description }) => el('option', { value: name, title: description }, name)));
	const option = (/** @type {string} */ text, /** @type {string} */ value) => el('option', { value }, text);
	const which = el('select', { class: 'select inline', 'aria-label': 'Dataset' }, option('All datasets', ''), ...items.map((/** @type {any} */ { name }) => option(name, name)));
	which.addEventListener('change', () => {
		Object.assign(filter, { dataset: which.value, reason: '', column: '' });
		void part(list, loadRows);
	});
	const retry = el('button', { type: 'button', class: 'button' }, 'Try all again');
	retry.addEventListener('click', () => part(list, () => again(retry)));
	const out = el('a', { class: 'button', hidden: true, download: '' }, 'Export as CSV');
	tools.replaceChildren(which, retry, out);
}

/** @param {HTMLButtonElement} button */
async function again(button) {
	button.disabled = true;
	try {
		const done = await api(`${page.api}/quarantine/retry${filter.dataset && `?dataset=${encodeURIComponent(filter.dataset)}`}`, { method: 'POST' });
		const loaded = done.inserted + done.updated + done.unchanged;
		announce(`${done.rows_read} tried, ${loaded} loaded, ${done.quarantined} still broken.`);
		list.before(el('p', { class: 'notice good', role: 'status', 'data-retried': '' }, `${done.rows_read.toLocaleString('en')} tried: ${loaded.toLocaleString('en')} loaded, ${done.quarantined.toLocaleString('en')} still broken.`));
		for (const old of [...list.parentElement.querySelectorAll('[data-retried]')].slice(0, -1)) old.remove();
	} finally {
		button.disabled = false;
	}
	await loadRows();
}

/** The first page of the open rows, or the next one. */
async function loadRows(more = false) {
	const turn = ++asked;
	const query = new URLSearchParams({ status: 'open', limit: `${PAGE}` });
	if (filter.dataset) query.set('dataset', filter.dataset);
	if (filter.reason) query.set('reason', filter.reason);
	if (more && cursor) query.set('cursor', cursor);
	const found = await api(`${page.api}/quarantine?${query}`, { read: parseExact });
	if (turn !== asked) return; // another filter was chosen meanwhile
	rows = more ? [...rows, ...found.items] : found.items;
	cursor = found.next_cursor;
	await showRows();
}

async function showRows() {
	const out = tools.querySelector('a');
	out.hidden = !filter.dataset || !rows.length;
	out.href = `${page.api}/quarantine/export?dataset=${encodeURIComponent(filter.dataset)}`;
	showFilters();
	const shown = rows.filter(({ message }) => !filter.column || columnOf(message) === filter.column);
	const turn = ++drawn;
	const known = await Promise.all(shown.map(({ dataset }) => contractOf(dataset)));
	if (turn !== drawn) return; // rows of another filter came meanwhile
	const gone = (/** @type {Row} */ row) => () => {
		rows = rows.filter(({ id }) => id !== row.id);
		showFilters();
		if (!rows.length) void part(list, loadRows);
		void part(runs, showRuns);
	};
	const made = shown.map((row, index) => keptRow(row, known[index], gone(row)));
	const next = cursor && el('button', { type: 'button', class: 'button', onclick: () => part(list, () => loadRows(true)) }, 'Show more');
	const none = !rows.length && el('div', { class: 'empty' }, el('h3', {}, 'Nothing waits here'), el('p', {}, 'Every row of every file is loaded.'));
	list.replaceChildren(...[...made, none, next].filter(Boolean));
}

/** Counts by reason and column, of the rows that are loaded; each is a filter. */
function showFilters() {
	const chips = (/** @type {'reason' | 'column'} */ kind, /** @type {string[]} */ values) => {
		const counts = new Map();
		for (const value of values.filter(Boolean)) counts.set(value, (counts.get(value) ?? 0) + 1);
		if (filter[kind] && !counts.has(filter[kind])) counts.set(filter[kind], 0);
		return [...counts].sort(([, a], [, b]) => b - a).map(([value, number]) => {
			const chip = el('button', { type: 'button', class: 'button tiny', 'aria-pressed': `${filter[kind] === value}` }, `${value} `, el('span', { class: 'columns' }, `${number}${cursor ? '+' : ''}`));
			chip.addEventListener('click', () => {
				filter[kind] = filter[kind] === value ? '' : value;
				void part(list, kind === 'reason' ? loadRows : showRows);
			});
			return chip;
		});
	};
	const group = (/** @type {string} */ text, /** @type {Node[]} */ made) => made.length > 0 && el('div', { class: 'filter', role: 'group', 'aria-label': text }, el('span', { class: 'hint' }, text), ...made);
	const reasons = chips('reason', rows.map(({ reason }) => reason));
	const columns = chips('column', rows.map(({ message }) => columnOf(message)));
	filters.replaceChildren(...[group('Reason', reasons), group('Column', columns)].filter(Boolean));
}

async function showRuns() {
	const { items } = await api(`${page.api}/imports?limit=20`);
	if (wanted && items.every((/** @type {any} */ { id }) => id !== wanted)) items.push(...(await api(`${page.api}/imports/${wanted}`).then((run) => [run], () => [])));
	if (!items.length) return runs.replaceChildren(el('div', { class: 'empty' }, el('h3', {}, 'No file was imported yet')));
	const head = ['When', 'File', 'Dataset', 'Rows'].map((text) => el('th', { scope: 'col' }, text));
	const body = items.map((/** @type {any} */ each) => el('tr', { id: `run-${each.id}` }, el('td', {}, el('time', { datetime: each.finished_at }, clock(Date.parse(each.finished_at)))), el('td', { dir: 'auto' }, each.source), el('td', { dir: 'auto' }, each.dataset), el('td', {}, sums(each))));
	runs.replaceChildren(el('div', { class: 'table-scroll', tabindex: 0, role: 'region', 'aria-labelledby': 'runs-title' }, el('table', { class: 'table runs' }, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...body))));
	const row = wanted && document.getElementById(`run-${wanted}`);
	wanted = '';
	if (!row) return;
	row.classList.add('wanted');
	row.scrollIntoView({ block: 'center' });
}

const changed = () => {
	void part(list, loadRows);
	void part(runs, showRuns);
};

/** @param {File | undefined} given */
const take = (given) => given && choice.value && void upload(choice.value, given, report, changed);

file.addEventListener('change', () => {
	take(file.files[0]);
	file.value = ''; // the same file can be chosen again
});
form.addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault());
for (const name of ['dragover', 'dragenter', 'dragleave', 'drop']) {
	drop.addEventListener(name, (/** @type {DragEvent} */ event) => {
		event.preventDefault();
		drop.classList.toggle('over', name.startsWith('drago') || name === 'dragenter');
		if (name === 'drop') take(event.dataTransfer?.files[0]);
	});
}
void part(list, async () => {
	await showDatasets();
	await loadRows();
});
void part(runs, showRuns);
