import { el } from './dom.js';

let count = 0;

/**
 * Let a button open a pop-up beside itself. Escape and a click elsewhere close it.
 *
 * @param {HTMLButtonElement} opener
 * @param {() => Node[]} fill its content, each time it opens
 * @param {Record<string, any>} [attributes] with `role: 'menu'` the arrows go through its items
 * @returns {HTMLElement}
 */
export function popup(opener, fill, attributes = {}) {
	const panel = el('div', { popover: 'auto', id: `popup-${++count}`, ...attributes, class: `menu popup ${attributes.class ?? ''}`.trim() });
	opener.setAttribute('aria-expanded', 'false');
	opener.setAttribute('aria-haspopup', attributes.role === 'menu' ? 'menu' : 'dialog');
	opener.popoverTargetElement = panel;
	panel.addEventListener('beforetoggle', (/** @type {ToggleEvent} */ event) => {
		if (event.newState !== 'open') return;
		panel.replaceChildren(...fill());
		// The browser moves the focus there while it opens: a key that follows at once finds it.
		(panel.querySelector('[aria-checked="true"], [aria-pressed="true"]') ?? panel.querySelector('button, input, a'))?.setAttribute('autofocus', '');
	});
	panel.addEventListener('toggle', (/** @type {ToggleEvent} */ event) => {
		const open = event.newState === 'open';
		opener.setAttribute('aria-expanded', `${open}`);
		if (open) place(panel, opener);
	});
	if (attributes.role === 'menu') panel.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => rove(panel, event));
	opener.after(panel);
	return panel;
}

/** @param {HTMLElement} panel @param {HTMLElement} opener */
function place(panel, opener) {
	const { left, right, bottom, top } = opener.getBoundingClientRect();
	const { innerWidth, innerHeight } = window;
	const [width, height] = [panel.offsetWidth, panel.offsetHeight];
	const x = left + width > innerWidth - 8 ? right - width : left;
	const below = bottom + 4 + height <= innerHeight || top < innerHeight / 2;
	panel.style.left = `${Math.max(8, Math.min(x, innerWidth - width - 8))}px`;
	panel.style.top = `${below ? bottom + 4 : Math.max(8, top - 4 - height)}px`;
	panel.style.maxHeight = `${below ? innerHeight - bottom - 12 : top - 12}px`;
}

/** @param {HTMLElement} menu @param {KeyboardEvent} event */
function rove(menu, event) {
	const items = /** @type {HTMLElement[]} */ ([...menu.querySelectorAll('[role^="menuitem"]')]);
	const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
	const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
	if (to === undefined) return;
	event.preventDefault();
	items[(to + items.length) % items.length]?.focus();
}

/**
 * An item of a menu, which it closes.
 *
 * @param {string} text
 * @param {() => void} chosen
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLElement}
 */
export function menuItem(text, chosen, attributes = {}) {
	const item = el('button', { type: 'button', role: 'menuitem', ...attributes }, text);
	item.addEventListener('click', () => {
		item.closest('[popover]')?.hidePopover();
		chosen();
	});
	return item;
}
