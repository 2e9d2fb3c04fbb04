/** How wide a text is, and what of it fits. */

/** @param {number} value */
export const px = (value) => Math.round(value * 10) / 10;

/**
 * About how wide a text is, in pixels at this size; measuring it would lay the page out.
 * @param {string} text
 * @param {number} [size]
 */
export function widthOf(text, size = 12) {
	let width = 0;
	for (const char of text) {
		const code = char.codePointAt(0) ?? 0;
		width += code > 0x2e80 ? 1 : NARROW.test(char) ? 0.34 : WIDE.test(char) ? 0.9 : 0.61;
	}
	return width * size;
}

const NARROW = /[ .,:;'|!iljtfI()[\]]/;
const WIDE = /[mwMW@%—]/;

/**
 * The text, or as much of it as fits, with an ellipsis.
 * @param {string} text
 * @param {number} width
 * @param {number} [size]
 */
export function fitted(text, width, size = 12) {
	if (widthOf(text, size) <= width) return text;
	const chars = [...text];
	while (chars.length > 1 && widthOf(`${chars.join('')}…`, size) > width) chars.pop();
	return `${chars.join('').trimEnd()}…`;
}
