/** Fewer points where a screen cannot show them: what stays is the lowest and the highest of each pixel. */

/**
 * The indexes to draw. Above two points a pixel each pixel keeps its lowest and highest; gaps stay gaps.
 * @param {Float64Array} xs sorted positions in pixels
 * @param {Float64Array} ys NaN is a gap
 * @returns {number[]}
 */
export function thinned(xs, ys) {
	const { length } = xs;
	const width = length ? xs[length - 1] - xs[0] : 0;
	if (length <= 2 * Math.max(1, width)) return [...xs.keys()];
	/** @type {number[]} */
	const kept = [];
	let [low, high, gap] = [-1, -1, -1];
	let pixel = Math.floor(xs[0]);
	const flush = () => {
		if (low >= 0) kept.push(...(low === high ? [low] : low < high ? [low, high] : [high, low]));
		else if (gap >= 0) kept.push(gap); // nothing but gaps in this pixel
		low = high = gap = -1;
	};
	for (let index = 0; index < length; index++) {
		const at = Math.floor(xs[index]);
		if (at !== pixel) {
			flush();
			pixel = at;
		}
		const y = ys[index];
		if (Number.isNaN(y)) gap = index;
		else {
			if (low < 0 || y < ys[low]) low = index;
			if (high < 0 || y > ys[high]) high = index;
		}
	}
	flush();
	return kept;
}
