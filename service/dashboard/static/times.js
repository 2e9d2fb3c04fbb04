/**
 * How long ago, in words.
 *
 * @param {number} time
 * @param {number} [now]
 */
export function ago(time, now = Date.now()) {
	const seconds = Math.max(0, Math.round((now - time) / 1000));
	if (seconds < 10) return 'just now';
	if (seconds < 60) return `${Math.floor(seconds / 10) * 10} s ago`;
	if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
	if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
	const days = Math.floor(seconds / 86400);
	return `${days} day${days === 1 ? '' : 's'} ago`;
}

/**
 * The time of the reader's clock, with the day if it is not today's.
 *
 * @param {number} time
 */
export function clock(time) {
	const date = new Date(time);
	const today = date.toDateString() === new Date().toDateString();
	return date.toLocaleString('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit', ...(today ? {} : { day: 'numeric', month: 'short', year: 'numeric' }) });
}
