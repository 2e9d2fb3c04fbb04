/**
 * Call the API. The session's cookie goes with it. Answers the body; throws a problem document otherwise.
 *
 * @param {string} path
 * @param {object} [options]
 * @param {string} [options.method]
 * @param {any} [options.body]
 * @param {AbortSignal} [options.signal]
 * @param {Record<string, string>} [options.headers]
 * @param {boolean} [options.keepalive] whether it goes on when the page is left
 * @param {Promise<Response>} [options.begun] the same request, if it was sent already
 * @param {(text: string) => any} [options.read] parses the body; as JSON by default
 * @param {(answer: Response) => void} [options.seen] is shown an answer that is fine
 * @returns {Promise<any>}
 */
export async function api(path, { method = 'GET', body, signal, headers = {}, keepalive, begun, read = JSON.parse, seen } = {}) {
	const json = body !== undefined && !(body instanceof Blob) && !(body instanceof FormData);
	// Else `no-store` says `no-cache`, and each result would be run anew.
	const held = { 'Cache-Control': 'max-stale', ...headers };
	const sent = begun ?? fetch(path, {
		method,
		signal,
		keepalive,
		cache: 'no-store',
		headers: json ? { 'Content-Type': 'application/json', ...held } : held,
		body: json ? JSON.stringify(body) : body,
	});
	const answer = await sent.catch((error) => {
		if (signal?.aborted) throw error;
		throw { status: 0, title: 'No answer', detail: 'The service cannot be reached. Check the network, then try again.' };
	});
	if (answer.status === 204) return null;
	const text = await answer.text();
	if (answer.ok) {
		seen?.(answer);
		return parsed(text, read) ?? text;
	}
	throw { status: answer.status, title: answer.statusText, detail: text.slice(0, 200), ...parsed(text, JSON.parse) };
}

/** @param {string} text @param {(text: string) => any} read */
function parsed(text, read) {
	try {
		return read(text);
	} catch {
		return null;
	}
}

/**
 * A problem as one sentence, with the fields that it names.
 *
 * @param {any} problem
 * @returns {string}
 */
export function sentence(problem) {
	const told = problem.detail ?? problem.title ?? `${problem}`;
	const fields = (problem.errors ?? [])
		.filter((/** @type {any} */ { message }) => !told.includes(message))
		.map((/** @type {any} */ { field, message }) => `${field}: ${message}`);
	return [told, ...fields].join(' ');
}
