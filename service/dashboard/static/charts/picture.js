/** A chart as a file: the same SVG with its colours written into it. */

import { el, svg } from '../dom.js';

const WRITTEN = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linecap', 'stroke-linejoin', 'opacity', 'font-family', 'font-size', 'font-weight'];
const ROOM = { side: 16, top: 44, bottom: 30 };

/**
 * An SVG document of its own that looks as on the page.
 * @param {SVGSVGElement} drawn
 * @param {{ title: string, caption: string }} words
 */
export function documentOf(drawn, { title, caption }) {
	const { width, height } = drawn.viewBox.baseVal;
	const copy = /** @type {SVGElement} */ (drawn.cloneNode(true));
	const pairs = [...drawn.querySelectorAll('*')].map((element, index) => /** @type {const} */ ([element, copy.querySelectorAll('*')[index]]));
	for (const [element, copied] of pairs) {
		const seen = getComputedStyle(element);
		for (const name of WRITTEN) if (seen.getPropertyValue(name)) copied.setAttribute(name, seen.getPropertyValue(name));
		copied.removeAttribute('class');
	}
	copy.querySelectorAll('[data-readout]').forEach((each) => each.remove());
	const page = getComputedStyle(drawn);
	const [ink, paper, family] = [page.color, page.backgroundColor, page.fontFamily];
	const full = { width: width + 2 * ROOM.side, height: height + ROOM.top + ROOM.bottom };
	const text = { fill: ink, 'font-family': family };
	return {
		...full,
		node: svg(
			'svg',
			{ xmlns: 'http://www.w3.org/2000/svg', ...full, viewBox: `0 0 ${full.width} ${full.height}` },
			svg('rect', { width: full.width, height: full.height, fill: paper }),
			svg('text', { x: ROOM.side, y: 28, 'font-size': 16, 'font-weight': 600, ...text }, title),
			svg('g', { transform: `translate(${ROOM.side} ${ROOM.top})` }, ...copy.childNodes),
			svg('text', { x: ROOM.side, y: full.height - 10, 'font-size': 11, opacity: 0.75, ...text }, caption)
		)
	};
}

/**
 * @param {SVGSVGElement} drawn
 * @param {{ title: string, caption: string }} words
 * @returns {Promise<Blob>}
 */
export async function pngOf(drawn, words) {
	const { node, width, height } = documentOf(drawn, words);
	const image = new Image();
	image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(node))}`;
	await image.decode();
	const scale = Math.max(2, devicePixelRatio);
	const canvas = el('canvas', { width: Math.round(width * scale), height: Math.round(height * scale) });
	canvas.getContext('2d')?.drawImage(image, 0, 0, canvas.width, canvas.height);
	return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('the picture is empty'))), 'image/png'));
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
	const url = URL.createObjectURL(blob);
	el('a', { href: url, download: name }).click();
	URL.revokeObjectURL(url);
}

/** @param {string} title */
export const fileName = (title) => `${title.normalize('NFKD').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').toLowerCase().slice(0, 80) || 'chart'}`;
