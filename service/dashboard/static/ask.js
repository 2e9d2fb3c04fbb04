import { api, sentence } from './api.js';
import { Chart } from './charts/chart.js';
import { parseExact } from './charts/values.js';
import { announce, el } from './dom.js';
import { page } from './page.js';

const form = /** @type {HTMLFormElement} */ (document.getElementById('ask'));
const input = /** @type {HTMLInputElement} */ (document.getElementById('prompt'));
const answer = /** @type {HTMLElement} */ (document.getElementById('answer'));

/** @type {Chart | undefined} */
let chart;
/** @type {AbortController | undefined} */
let running;

form.addEventListener('submit', (event) => {
	event.preventDefault();
	void ask(input.value);
});
window.addEventListener('popstate', () => {
	input.value = asked();
	if (input.value) void ask(input.value, false);
});
if (input.value) void ask(input.value, false);

/** The question in the address. */
function asked() {
	return new URLSearchParams(location.search).get('q') ?? '';
}

/**
 * Show what a question would become.
 *
 * @param {string} prompt
 * @param {boolean} [remember] whether the address gets the question
 */
async function ask(prompt, remember = true) {
	if (!prompt.trim()) return;
	if (remember && prompt !== asked()) history.pushState(null, '', `?q=${encodeURIComponent(prompt)}`);
	running?.abort();
	const { signal } = (running = new AbortController());
	answer.setAttribute('aria-busy', 'true');
	try {
		const draft = await api(`${page.api}/metrics/ask`, { method: 'POST', body: { prompt, fallback: true }, signal, read: parseExact });
		if (!signal.aborted) showDraft(prompt, draft);
	} catch (problem) {
		if (!signal.aborted) showRefusal(/** @type {any} */ (problem));
	}
	if (signal.aborted) return; // another question has taken the place
	answer.setAttribute('aria-busy', 'false');
}

/** @param {Node[]} parts */
function show(...parts) {
	chart?.destroy();
	chart = undefined;
	answer.replaceChildren(...parts);
}

/** @param {any} problem */
function showRefusal(problem) {
	const prompts = /** @type {string[]} */ (problem.prompts ?? []);
	const wrong = el('div', { class: 'notice bad', role: 'alert' }, problem.code === 'not-understood' ? reason(problem) : sentence(problem));
	if (!prompts.length) return show(wrong);
	const tries = prompts.map((prompt) => el('li', {}, el('button', { type: 'button', class: 'button', dir: 'auto', onclick: () => again(prompt) }, prompt)));
	const known = (problem.known ?? []).map((/** @type {string} */ line) => el('li', { dir: 'auto' }, line));
	show(
		wrong,
		el('div', { class: 'panel' }, el('h2', {}, 'These work'), el('ul', { class: 'suggestions' }, ...tries), known.length > 0 && el('details', {}, el('summary', {}, 'What can be asked about'), el('ul', { class: 'hint' }, ...known)))
	);
}

/** Its first sentence; the suggestions follow as buttons. @param {any} problem */
function reason(problem) {
	const words = (problem.unknown_words ?? []).map((/** @type {string} */ word) => `“${word}”`).join(', ');
	return words ? `This was not understood: ${words} ${problem.unknown_words.length === 1 ? 'is' : 'are'} not known here.` : sentence(problem).split('. ')[0] + '.';
}

/** @param {string} prompt */
function again(prompt) {
	input.value = prompt;
	input.focus();
	void ask(prompt);
}

/** @param {string} prompt @param {any} draft */
function showDraft(prompt, draft) {
	const host = el('div', { class: 'answer-chart' });
	const rows = draft.records.length;
	const count = rows ? `${draft.truncated ? 'The first ' : ''}${rows} row${rows === 1 ? '' : 's'}` : 'It runs, and finds no rows now.';
	const readings = /** @type {[string, string, string[]][]} */ ([
		['Understood as', 'good', draft.understood],
		['Corrected', 'warn', draft.corrected_words],
		['Not used', 'warn', draft.ignored_words]
	]).filter(([, , texts]) => texts?.length);
	const words = readings.map(([label, tone, texts]) =>
		el('div', { class: 'reading' }, el('span', { class: 'hint' }, label), el('ul', { class: 'words', 'aria-label': label }, ...texts.map((text) => el('li', { class: `badge plain ${tone}`, dir: 'auto' }, text))))
	);
	const by = draft.generator.startsWith('model:') ? `Written by the model ${draft.generator.slice(6)}: read the SQL before you rely on it.` : 'Written by rules over the schema.';
	show(
		el(
			'section',
			{ class: 'panel', 'aria-label': 'Answer' },
			el('h2', { dir: 'auto' }, draft.title),
			...words,
			rows > 0 && host,
			el('p', { class: 'hint' }, `${count}${rows ? '.' : ''} ${by}`),
			el('details', { open: draft.generator.startsWith('model:') }, el('summary', {}, 'SQL'), el('pre', { class: 'sql', tabindex: 0 }, draft.sql)),
			adding(prompt, draft)
		)
	);
	if (!rows) return;
	chart = new Chart(host, draft.title);
	chart.show({ id: '', title: draft.title, columns: draft.columns, records: draft.records, row_count: rows, truncated: draft.truncated, as_of: '' });
}

/** Put the metric on a dashboard: exactly the SQL that is shown. @param {string} prompt @param {any} draft */
function adding(prompt, draft) {
	const title = el('input', { class: 'input', id: 'answer-title', value: draft.title, maxlength: 255, required: true, dir: 'auto' });
	const where = el('select', { class: 'select', id: 'answer-dashboard' }, ...page.dashboards.map(({ id, title: name }) => el('option', { value: id }, name)));
	const wrong = el('p', { class: 'error', role: 'alert', hidden: true });
	const add = el('button', { type: 'submit', class: 'button primary' }, 'Add to the dashboard');
	const made = el(
		'form',
		{ class: 'cells' },
		el('div', { class: 'field' }, el('label', { for: 'answer-title' }, 'Title'), title),
		el('div', { class: 'field' }, el('label', { for: 'answer-dashboard' }, 'Dashboard'), where),
		add,
		wrong
	);
	made.addEventListener('submit', async (/** @type {SubmitEvent} */ event) => {
		event.preventDefault();
		add.disabled = true;
		wrong.hidden = true;
		const board = page.dashboards.find(({ id }) => id === where.value);
		const place = { id: where.value, w: draft.records.length === 1 && draft.columns.length === 1 ? 3 : 6, h: 8 };
		try {
			await api(`${page.api}/metrics`, { method: 'POST', body: { sql: draft.sql, title: title.value.trim() || prompt, dashboards: [place] } });
			announce('Added.');
			made.replaceWith(el('p', { class: 'notice good', role: 'status' }, 'Added to ', el('a', { href: board?.address ?? '/', dir: 'auto' }, board?.title ?? where.value), '.'));
		} catch (problem) {
			wrong.textContent = sentence(problem);
			wrong.hidden = false;
			add.disabled = false;
		}
	});
	return made;
}
