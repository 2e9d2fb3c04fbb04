import { sentence } from './api.js';
import { announce, el } from './dom.js';
import { page } from './page.js';

/**
 * The report of an import, as the API gives it.
 *
 * @typedef {object} Report
 * @property {string | null} id
 * @property {string} dataset
 * @property {string} source
 * @property {'done' | 'dry-run'} status
 * @property {number} rows_read
 * @property {number} inserted
 * @property {number} updated
 * @property {number} unchanged
 * @property {number} quarantined
 * @property {Record<string, number>} reasons
 * @property {Record<string, number>} released
 * @property {string} format
 * @property {string} encoding
 * @property {string[]} notes
 * @property {string | null} finished_at
 */

/**
 * Send a file. Answers the report; throws a problem document. `progress` is told of bytes sent, then of rows read.
 *
 * @param {string} dataset
 * @param {File} file
 * @param {boolean} dry whether nothing is to change
 * @param {(text: string, share: number | null) => void} progress
 * @param {AbortSignal} signal
 * @returns {Promise<Report>}
 */
export function send(dataset, file, dry, progress, signal) {
	const { promise, resolve, reject } = Promise.withResolvers();
	const request = new XMLHttpRequest(); // fetch does not tell how much of a body is sent
	const body = new FormData();
	body.append('file', file);
	let read = 0;
	const listen = () => {
		const blocks = request.responseText.slice(read).split(/\r?\n\r?\n/); // the last one is not complete yet
		const unread = blocks.pop() ?? '';
		read = request.responseText.length - unread.length;
		blocks.forEach(tell);
	};
	const tell = (/** @type {string} */ block) => {
		const kind = /^event: (\w+)/m.exec(block)?.[1];
		const data = JSON.parse(/^data: (.*)/m.exec(block)?.[1] ?? 'null');
		if (kind === 'progress') progress(`${data.rows_read.toLocaleString('en')} rows read`, null);
		else if (kind === 'report') resolve(data);
		else if (kind === 'problem') reject(data);
	};
	request.upload.onprogress = ({ loaded, total }) => progress(loaded < total ? `${Math.round((100 * loaded) / total)} % sent` : 'Reading…', loaded / total);
	request.onprogress = () => request.status === 201 && listen();
	request.onload = () => {
		if (request.status === 201) listen();
		reject(request.status === 201 ? { detail: 'The service ended before the report. Look at the list of imports, then try again.' } : problem(request));
	};
	request.onerror = () => reject({ detail: 'The service cannot be reached. Nothing was changed.' });
	request.onabort = () => reject({ detail: 'Stopped. Nothing was changed.' });
	signal.addEventListener('abort', () => request.abort());
	request.open('POST', `${page.api}/imports/${encodeURIComponent(dataset)}?dry_run=${dry}`);
	request.setRequestHeader('Accept', 'text/event-stream');
	request.responseType = 'text';
	request.send(body);
	return promise;
}

/** @param {XMLHttpRequest} request */
function problem({ status, responseText }) {
	try {
		return JSON.parse(responseText);
	} catch {
		return { status, detail: `The service answered ${status}.` };
	}
}

/**
 * Try a file, show what its import would do, and import it when told so.
 *
 * @param {string} dataset
 * @param {File} file
 * @param {HTMLElement} host
 * @param {() => void} changed
 */
export async function upload(dataset, file, host, changed) {
	const state = el('span', {}, 'Sending…');
	const bar = el('progress', { class: 'progress', 'aria-label': file.name });
	const stop = new AbortController();
	const cancel = el('button', { type: 'button', class: 'button tiny', onclick: () => stop.abort() }, 'Stop');
	const waiting = el('div', { class: 'report' }, el('h3', { dir: 'auto' }, file.name), bar, el('div', { class: 'toolbar' }, state, cancel));
	const progress = (/** @type {string} */ text, /** @type {number | null} */ share) => {
		state.textContent = text;
		if (share === null || share === 1) bar.removeAttribute('value');
		else bar.value = share;
	};
	const run = async (/** @type {boolean} */ dry) => {
		host.replaceChildren(waiting);
		try {
			return await send(dataset, file, dry, progress, stop.signal);
		} catch (refused) {
			const told = sentence(refused);
			const text = told.startsWith(file.name) ? told : `${file.name}: ${told}`;
			host.replaceChildren(el('div', { class: 'report' }, el('div', { class: 'notice bad', role: 'alert', dir: 'auto' }, text)));
			return null;
		}
	};
	const trial = await run(true);
	if (!trial) return;
	const go = el('button', { type: 'button', class: 'button primary' }, 'Import');
	const no = el('button', { type: 'button', class: 'button', onclick: () => host.replaceChildren() }, 'Cancel');
	host.replaceChildren(shown(trial, file.name, el('div', { class: 'toolbar' }, go, no)));
	go.focus();
	go.addEventListener('click', async () => {
		const done = await run(false);
		if (!done) return;
		host.replaceChildren(shown(done, file.name));
		announce(`${file.name} is imported.`);
		changed();
	});
}

/** @param {Report} report @param {string} name @param {Node} [actions] */
function shown(report, name, actions) {
	const trial = report.status === 'dry-run';
	const reasons = Object.entries(report.reasons).map(([reason, number]) => el('li', { class: 'badge plain bad' }, `${reason}: ${number.toLocaleString('en')}`));
	const released = Object.entries(report.released).map(([dataset, number]) => `${number} waiting ${number === 1 ? 'row' : 'rows'} of ${dataset} ${trial ? 'would be' : 'were'} loaded with it.`);
	return el(
		'div',
		{ class: 'report' },
		el('h3', { dir: 'auto' }, trial ? `${name} would be imported into ${report.dataset}` : `${name} is imported into ${report.dataset}`),
		sums(report),
		reasons.length > 0 && el('ul', { class: 'words', 'aria-label': 'Reasons' }, ...reasons),
		...[...report.notes, ...released].map((note) => el('p', { class: 'hint', dir: 'auto' }, note)),
		el('p', { class: 'hint' }, `Read as ${report.format.toUpperCase()}, ${report.encoding}.`),
		actions
	);
}

/** Rows read are inserted, updated, unchanged or quarantined: nothing is lost. @param {Report} report */
export function sums({ rows_read, inserted, updated, unchanged, quarantined }) {
	const holds = rows_read === inserted + updated + unchanged + quarantined;
	const part = (/** @type {string} */ label, /** @type {number} */ number) => el('span', { class: label === 'quarantined' && number ? 'part bad' : 'part' }, el('b', {}, number.toLocaleString('en')), ` ${label}`);
	const sign = (/** @type {string} */ text) => el('span', { class: 'sign' }, text);
	const parts = { inserted, updated, unchanged, quarantined };
	const added = Object.entries(parts).flatMap(([label, number], index) => (index ? [sign('+'), part(label, number)] : [part(label, number)]));
	return el('p', { class: 'sum' }, part('read', rows_read), sign(holds ? '=' : '≠'), ...added);
}
