import { api, sentence } from './api.js';
import { el } from './dom.js';
import { rotate } from './kiosk.js';
import { page } from './page.js';
import { showTable } from './plain.js';
import { tallyLive } from './tally-live.js';

/** @type {Map<string, HTMLElement>} */
const tiles = new Map(page.items.map(({ id }) => [id, /** @type {HTMLElement} */ (document.querySelector(`[data-metric="${id}"]`))]));
const badge = document.getElementById('live');
/** @type {Map<string, string>} */
const states = new Map();

/** @param {any} tile an entry of the dashboard's data */
function show({ id, result, problem }) {
	const tile = tiles.get(id);
	if (!tile) return;
	tile.removeAttribute('aria-busy');
	const body = /** @type {HTMLElement} */ (tile.querySelector('.tile-body'));
	const foot = /** @type {HTMLElement} */ (tile.querySelector('.tile-foot'));
	if (result) {
		showTable(body, result);
		foot.replaceChildren(el('time', { datetime: result.as_of, title: result.as_of }, new Date(result.as_of).toLocaleTimeString()));
	} else body.replaceChildren(el('p', { class: 'error' }, sentence(problem)));
}

/** @param {string} state */
function tell(state) {
	if (!badge) return;
	badge.hidden = false;
	badge.className = `badge ${state}`;
	badge.textContent = state;
}

async function start() {
	/** @type {Map<string, Record<string, string>>} */
	const taken = new Map();
	try {
		const { results } = await api(page.data);
		for (const each of results) {
			show(each);
			const ignored = each.ignored_parameters ?? [];
			taken.set(each.id, Object.fromEntries(Object.entries(page.parameters).filter(([name]) => !ignored.includes(name))));
		}
	} catch (problem) {
		for (const { id } of page.items) show({ id, problem });
	}
	const live = tallyLive({ url: page.api, user: page.user });
	for (const { id } of page.items) {
		live.watch(id, taken.get(id) ?? page.parameters, ({ result, state, error }) => {
			states.set(id, state);
			if (result) show({ id, result });
			else if (error) show({ id, problem: error });
			tell(['offline', 'stale', 'polling', 'live'].find((each) => [...states.values()].includes(each)) ?? 'live');
		});
	}
}

rotate();
start();
