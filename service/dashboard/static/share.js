import { api, sentence } from './api.js';
import { announce, dialog, el, icon } from './dom.js';
import { may, page } from './page.js';

const PAGE_PARAMETERS = ['kiosk', 'rotate', 'compare'];
const DAY = 86_400;
const LASTING = [[DAY, 'a day'], [7 * DAY, 'a week'], [30 * DAY, '30 days'], [365 * DAY, 'a year']];
const date = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });

/**
 * @typedef {object} Link
 * @property {number} id
 * @property {string} url
 * @property {Record<string, string>} parameters
 * @property {string[]} embed
 * @property {string} created_by
 * @property {string} created_at
 * @property {string} expires_at
 * @property {string | null} revoked_at
 */

/**
 * The button that opens the links of this dashboard.
 *
 * @param {HTMLElement} host
 */
export function showShare(host) {
	if (!may('metrics:write') || page.link || page.kiosk) return;
	host.prepend(el('button', { type: 'button', class: 'button', 'aria-haspopup': 'dialog', onclick: open }, icon('link'), el('span', {}, 'Share')));
}

const address = () => `${page.api}/dashboards/${page.dashboard.id}/links`;

/** The parameters that the page shows now: a link fixes them. */
function fixed() {
	const given = [...new URLSearchParams(location.search)];
	return Object.fromEntries(given.filter(([name]) => !PAGE_PARAMETERS.includes(name)));
}

function open() {
	const list = el('ul', { class: 'links' }, el('li', { class: 'muted' }, 'Looking for links …'));
	const made = el('div', { role: 'status' });
	const form = newLink(async (body) => {
		const link = await api(address(), { method: 'POST', body });
		made.replaceChildren(el('div', { class: 'notice good stack' }, el('p', {}, el('strong', {}, 'The link is ready. '), 'Whoever has it sees this dashboard.'), copied(link.url)));
		await show(list);
	});
	const shown = dialog(`Share “${page.dashboard.title}”`, form, made, el('h3', {}, 'Links of this dashboard'), list);
	shown.classList.add('share');
	void show(list);
}

/**
 * The form of a new link.
 *
 * @param {(body: any) => Promise<void>} create
 */
function newLink(create) {
	const parameters = fixed();
	const lasts = el('select', { class: 'select', id: 'link-lasts' }, ...LASTING.map(([seconds, name]) => el('option', { value: seconds, selected: seconds === 30 * DAY }, name)));
	const embed = el('textarea', { class: 'textarea code short', id: 'link-embed', rows: 2, spellcheck: 'false', placeholder: 'https://intranet.example.org', 'aria-describedby': 'link-embed-hint' });
	const wrong = el('p', { class: 'error', role: 'alert', hidden: true });
	const submit = el('button', { class: 'button primary', type: 'submit' }, 'Make a link');
	const form = el(
		'form',
		{ class: 'form' },
		el('p', { class: 'muted' }, 'A link shows this dashboard live to everybody who has its address, without signing in. ', says(parameters)),
		el('div', { class: 'field' }, el('label', { for: 'link-lasts' }, 'Lasts for'), lasts),
		el(
			'details',
			{},
			el('summary', {}, 'Show it within another page'),
			el('div', { class: 'field' }, el('label', { for: 'link-embed' }, 'Origins that may frame it, one a line'), embed, el('p', { class: 'hint', id: 'link-embed-hint' }, 'Scheme and host, without a path.')),
		),
		wrong,
		el('div', { class: 'form-end' }, submit),
	);
	form.addEventListener('submit', async (/** @type {SubmitEvent} */ event) => {
		event.preventDefault();
		submit.disabled = true;
		wrong.hidden = true;
		const origins = embed.value.split(/\s+/).filter(Boolean);
		try {
			await create({ parameters, expires_in: Number(lasts.value), embed: origins });
		} catch (problem) {
			wrong.textContent = sentence(problem);
			wrong.hidden = false;
		}
		submit.disabled = false;
	});
	return form;
}

/**
 * What a link fixes, in words.
 *
 * @param {Record<string, string>} parameters
 */
function says(parameters) {
	const pairs = Object.entries(parameters);
	if (!pairs.length) return 'It shows the period of each metric as its SQL says.';
	return `It always shows ${pairs.map(([name, value]) => `${name} = ${value}`).join(', ')}.`;
}

/** An address to be copied. @param {string} url */
export function copied(url) {
	const input = el('input', { class: 'input code', readonly: true, value: url, 'aria-label': 'Address of the link', onfocus: () => input.select() });
	const button = el('button', { class: 'button', type: 'button' }, icon('copy'), 'Copy');
	button.addEventListener('click', async () => {
		input.select();
		const done = await navigator.clipboard?.writeText(url).then(() => true, () => false);
		button.lastChild.textContent = done ? 'Copied' : 'Press Ctrl+C';
		announce(done ? 'The address is copied.' : 'The address is selected.');
	});
	return el('div', { class: 'copy' }, input, button, el('a', { class: 'button', href: url, target: '_blank', rel: 'noopener' }, 'Open'));
}

/** @param {HTMLElement} list */
async function show(list) {
	try {
		const { items, next_cursor: more } = await api(`${address()}?limit=100`);
		list.replaceChildren(...items.map((/** @type {Link} */ link) => row(link, list)));
		if (more) list.append(el('li', { class: 'muted' }, 'Older links are in the API.'));
		if (!items.length) list.append(el('li', { class: 'muted' }, 'There are none yet.'));
	} catch (problem) {
		list.replaceChildren(el('li', { class: 'error' }, sentence(problem)));
	}
}

/**
 * @param {Link} link
 * @param {HTMLElement} list
 */
function row(link, list) {
	const over = Date.parse(link.expires_at) <= Date.now();
	const [state, kind] = link.revoked_at ? ['revoked', 'plain'] : over ? ['expired', 'plain'] : [`until ${date.format(new Date(link.expires_at))}`, 'good'];
	const pairs = Object.entries(link.parameters).map(([name, value]) => `${name} = ${value}`);
	const facts = [`by ${link.created_by}, ${date.format(new Date(link.created_at))}`, ...pairs, ...link.embed.map((origin) => `framed by ${origin}`)];
	const revoke = el('button', { class: 'button danger tiny', type: 'button', 'aria-label': `Revoke link ${link.id}` }, 'Revoke');
	const item = el(
		'li',
		{ class: link.revoked_at || over ? 'link over' : 'link' },
		el('div', { class: 'link-head' }, el('strong', {}, `Link ${link.id}`), el('span', { class: `badge ${kind}` }, state), !(link.revoked_at || over) && revoke),
		el('p', { class: 'muted small', dir: 'auto' }, facts.join(' · ')),
		!(link.revoked_at || over) && copied(link.url),
	);
	revoke.addEventListener('click', async () => {
		if (!revoke.dataset.sure) {
			revoke.dataset.sure = 'yes';
			revoke.textContent = 'Really revoke';
			return;
		}
		revoke.disabled = true;
		try {
			await api(`${address()}/${link.id}`, { method: 'DELETE' });
			announce(`Link ${link.id} is revoked.`);
			await show(list);
		} catch (problem) {
			item.append(el('p', { class: 'error', role: 'alert' }, sentence(problem)));
		}
	});
	return item;
}
