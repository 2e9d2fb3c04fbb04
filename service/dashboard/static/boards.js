import { api, sentence } from './api.js';
import { dialog, el, icon } from './dom.js';
import { may, page } from './page.js';
import { menuItem, popup } from './popup.js';

/** @typedef {import('./arrange.js').Arrange} Arrange */

/**
 * What can be done with the dashboard: arrange it, add metrics, name it, make another.
 *
 * @param {HTMLElement} host
 * @param {Arrange} arrange
 */
export function showActions(host, arrange) {
	if (!may('metrics:write') || page.link || page.kiosk) return;
	const undo = el('button', { type: 'button', class: 'button', hidden: true, onclick: () => arrange.undo() }, 'Undo');
	const toggle = el('button', { type: 'button', class: 'button', 'aria-pressed': 'false' }, icon('arrange'), el('span', {}, 'Arrange'));
	toggle.addEventListener('click', () => {
		if (arrange.on) arrange.stop();
		else arrange.start();
		toggle.setAttribute('aria-pressed', `${arrange.on}`);
		toggle.lastChild.textContent = arrange.on ? 'Done' : 'Arrange';
		undo.hidden = !arrange.on;
	});
	const more = el('button', { type: 'button', class: 'button icon-only', 'aria-label': 'More of this dashboard', title: 'More' }, icon('more'));
	host.append(undo, toggle, more);
	popup(more, () => [
		menuItem('Add a metric', () => void addMetric()),
		menuItem('Rename this dashboard', rename),
		menuItem('New dashboard', create),
		...(page.dashboard.id === 'default' ? [] : [menuItem('Delete this dashboard', remove)])
	], { role: 'menu', 'aria-label': 'Dashboard' });
}

const here = () => `${page.api}/dashboards/${page.dashboard.id}`;

/**
 * A dialog with one form. Its deed may refuse, with a problem.
 *
 * @param {string} title
 * @param {Node[]} fields
 * @param {string} submit
 * @param {() => Promise<void>} deed
 */
function form(title, fields, submit, deed) {
	const wrong = el('p', { class: 'error', role: 'alert', hidden: true });
	const button = el('button', { type: 'submit', class: 'button primary' }, submit);
	const made = el('form', { class: 'form' }, ...fields, wrong, el('div', { class: 'form-end' }, button));
	made.addEventListener('submit', async (/** @type {SubmitEvent} */ event) => {
		event.preventDefault();
		button.disabled = true;
		wrong.hidden = true;
		await deed().catch((problem) => {
			wrong.textContent = sentence(problem);
			wrong.hidden = false;
		});
		button.disabled = false;
	});
	return dialog(title, made);
}

/** @param {string} [value] */
function titleField(value) {
	const input = el('input', { class: 'input', required: true, maxlength: 255, value, dir: 'auto', autofocus: true });
	return { input, field: el('label', { class: 'field' }, el('span', { class: 'label' }, 'Title'), input) };
}

function create() {
	const { input, field } = titleField();
	form('New dashboard', [field], 'Create', async () => {
		const made = await api(`${page.api}/dashboards`, { method: 'POST', body: { title: input.value } });
		location.assign(`/d/${made.id}`);
	});
}

function rename() {
	const { input, field } = titleField(page.dashboard.title);
	form('Rename this dashboard', [field], 'Rename', async () => {
		await api(here(), { method: 'PATCH', body: { title: input.value } });
		location.reload();
	});
}

function remove() {
	const text = el('p', {}, `“${page.dashboard.title}” and its arrangement are deleted. The metrics stay.`);
	form('Delete this dashboard?', [text], 'Delete', async () => {
		await api(here(), { method: 'DELETE' });
		location.assign('/');
	});
}

/** All metrics that the dashboard does not show. */
async function metricsElsewhere() {
	const shown = new Set(page.items.map(({ id }) => id));
	const found = [];
	for (let cursor = ''; cursor !== null; ) {
		const part = await api(`${page.api}/metrics?limit=500${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
		found.push(...part.items.filter((/** @type {any} */ each) => !shown.has(each.id)));
		cursor = part.next_cursor;
	}
	return found;
}

async function addMetric() {
	const list = el('select', { class: 'select', size: 10, required: true, 'aria-label': 'Metric' });
	const fields = [el('p', { class: 'muted' }, 'It finds a place below the others.'), list];
	form('Add a metric', fields, 'Add', async () => {
		const { layouts } = await api(here());
		for (const size of ['lg', ...Object.keys(layouts).filter((each) => each !== 'lg')]) {
			const places = layouts[size] ?? [];
			const below = Math.max(0, ...places.map((/** @type {any} */ { y, h }) => Math.min(y, 1e6) + h));
			layouts[size] = [...places, { i: list.value, x: 0, y: below, w: size === 'sm' ? 1 : 5, h: 8, static: false }];
		}
		await api(`${here()}/layouts`, { method: 'PUT', body: layouts });
		location.reload();
	});
	const found = await metricsElsewhere().catch(() => []);
	list.replaceChildren(...found.map(({ id, title }) => el('option', { value: id }, title ?? id)));
	if (!found.length) fields[0].textContent = 'All metrics are on this dashboard.';
}
