const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element with attributes, listeners (`onclick`) and children. Text is always text, never markup.
 *
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {any} the element; `any`, because callers know its kind
 */
export function el(tag, attributes, ...children) {
	return fill(document.createElement(tag), attributes, children);
}

/**
 * The same for SVG.
 *
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {any}
 */
export function svg(tag, attributes, ...children) {
	return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @param {Element} node
 * @param {Record<string, any> | null | undefined} attributes
 * @param {(Node | string | number | null | undefined | false)[]} children
 */
function fill(node, attributes, children) {
	for (const [name, value] of Object.entries(attributes ?? {})) {
		if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
		else if (value === true) node.setAttribute(name, '');
		else if (value !== false && value != null) node.setAttribute(name, `${value}`);
	}
	for (const child of children) if (child != null && child !== false) node.append(child instanceof Node ? child : `${child}`);
	return node;
}

const PATHS = /** @type {Record<string, string>} */ ({
	arrange: 'M4 4h6.5v6.5H4zM13.5 4H20v6.5h-6.5zM4 13.5h6.5V20H4zM13.5 13.5H20V20h-6.5z',
	calendar: 'M4 6h16v14H4zM4 10.5h16M8.5 3.5v4M15.5 3.5v4',
	chart: 'M4 4v16h16M8.5 16v-4M13 16V8M17.5 16v-6',
	close: 'M6 6l12 12M18 6 6 18',
	compare: 'M3 17l6-7 4.5 3.5L21 5M3 20.5h2M8.5 20.5h2M14 20.5h2M19 20.5h2',
	copy: 'M9 9h10v11H9zM5 15V4h10',
	dark: 'M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z',
	contrast: 'M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18',
	light: 'M12 7.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M12 2v2.5M12 19.5V22M2 12h2.5M19.5 12H22M5 5l1.8 1.8M17.2 17.2 19 19M19 5l-1.8 1.8M6.8 17.2 5 19',
	down: 'M6 9.5l6 6 6-6',
	left: 'M14.5 6l-6 6 6 6',
	right: 'M9.5 6l6 6-6 6',
	table: 'M4 5h16v14H4zM4 9.7h16M4 14.3h16M10 9.7V19',
	link: 'M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7L12 7M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7L12 17',
	more: 'M5 12h.01M12 12h.01M19 12h.01',
	plus: 'M12 5v14M5 12h14',
	screen: 'M3 5h18v11H3zM9 20h6M12 16v4',
	auto: 'M3 5h18v11H3zM9 20h6M12 16v4',
});

/**
 * A line icon by name. It is hidden from screen readers: the button around it has the name.
 *
 * @param {string} name
 */
export function icon(name) {
	return svg('svg', { class: `icon icon-${name}`, viewBox: '0 0 24 24', 'aria-hidden': 'true' }, svg('path', { d: PATHS[name] }));
}

/**
 * Say something to screen readers.
 *
 * @param {string} text
 */
export function announce(text) {
	const region = document.getElementById('announce');
	if (region) region.textContent = text;
}

/**
 * A modal dialog with a title. It is removed when it closes; Escape and the button close it.
 *
 * @param {string} title
 * @param {...(Node | string)} children
 * @returns {HTMLDialogElement}
 */
export function dialog(title, ...children) {
	const close = el('button', { class: 'button quiet icon-only', type: 'button', 'aria-label': 'Close' }, icon('close'));
	const shown = el(
		'dialog',
		{ class: 'dialog', 'aria-label': title },
		el('header', { class: 'dialog-head' }, el('h2', { dir: 'auto' }, title), close),
		el('div', { class: 'dialog-body' }, ...children),
	);
	close.addEventListener('click', () => shown.close());
	shown.addEventListener('close', () => shown.remove());
	document.body.append(shown);
	shown.showModal();
	return shown;
}
