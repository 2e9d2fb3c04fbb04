import { el, icon } from './dom.js';
import { menuItem, popup } from './popup.js';
import { daysOf, isOpen, nameOf, parametersOf, presets, shifted } from './window.js';

/** @typedef {import('./board.js').Board} Board */
/** @typedef {import('./window.js').Period} Period */

/**
 * The period of the page: presets, two dates, steps, and whether it is compared with the one before.
 *
 * @param {HTMLElement} host
 * @param {Board} board
 */
export function showWindow(host, board) {
	const label = el('span', {});
	const opener = el('button', { type: 'button', class: 'button' }, icon('calendar'), label, icon('down'));
	const back = step('left', 'The period before', -1);
	const forth = step('right', 'The next period', 1);
	const compare = el('button', { type: 'button', class: 'button', onclick: () => board.go(board.period, !board.compare) }, icon('compare'), el('span', {}, 'Compare'));
	host.append(el('div', { class: 'segments' }, back, opener, forth), compare);
	host.append(popup(opener, () => choices(board), { 'aria-label': 'Period' }));

	/** @param {string} name @param {string} title @param {1 | -1} by */
	function step(name, title, by) {
		const go = () => {
			const next = shifted(board.period, by, board.today);
			if (next) board.go(next);
		};
		return el('button', { type: 'button', class: 'button icon-only', 'aria-label': title, title, onclick: go }, icon(name));
	}

	function show() {
		label.textContent = nameOf(board.period, board.today);
		const fixed = !daysOf(board.period, board.today);
		const why = fixed ? 'Choose a period with two ends first' : '';
		for (const each of [back, forth, compare]) each.disabled = fixed;
		back.title = why || 'The period before';
		forth.title = why || 'The next period';
		compare.title = why || 'Compare with the period before';
		compare.setAttribute('aria-pressed', `${board.compare && !fixed}`);
	}

	board.onchange = show;
	show();
}

/** @param {Board} board */
function choices(board) {
	const now = JSON.stringify(parametersOf(board.period));
	const list = presets(board.today).map(({ name, period }) =>
		menuItem(name, () => board.go(period), { role: null, 'aria-pressed': `${JSON.stringify(parametersOf(period)) === now}` })
	);
	return [el('div', { class: 'presets', role: 'group', 'aria-label': 'Presets' }, ...list), dates(board)];
}

/** @param {Board} board */
function dates(board) {
	const days = isOpen(board.period) ? null : daysOf(board.period, board.today);
	const [from, to] = [dayInput('From', board.period.start_date ?? days?.start), dayInput('To', board.period.end_date ?? days?.end)];
	const wrong = el('p', { class: 'error small', role: 'alert', hidden: true });
	const form = el('form', { class: 'dates' }, from.field, to.field, wrong, el('button', { class: 'button primary', type: 'submit' }, 'Apply'));
	form.addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
		event.preventDefault();
		const [start, end] = [from.input.value, to.input.value];
		wrong.hidden = !!(start || end) && !(start && end && start > end);
		wrong.textContent = start || end ? 'The first day is after the last day.' : 'Give a first day, a last day, or both.';
		if (!wrong.hidden) return;
		form.closest('[popover]').hidePopover();
		board.go({ ...(start && { start_date: start }), ...(end && { end_date: end }) });
	});
	return form;
}

/** @param {string} name @param {string | undefined} value */
function dayInput(name, value) {
	const input = el('input', { type: 'date', class: 'input', value, max: '9999-12-31' });
	return { input, field: el('label', { class: 'field' }, el('span', { class: 'label' }, name), input) };
}
