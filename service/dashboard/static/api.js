/**
 * Call the API. The session's cookie goes with it. Answers the body; throws a problem document otherwise.
 *
 * @param {string} path
 * @param {{ method?: string, body?: any, signal?: AbortSignal, headers?: Record<string, string> }} [options]
 * @returns {Promise<any>}
 */
export async function api(path, { method = 'GET', body, signal, headers = {} } = {}) {
	const json = body !== undefined && !(body instanceof Blob) && !(body instanceof FormData);
	const answer = await fetch(path, {
		method,
		signal,
		cache: 'no-store',
		headers: json ? { 'Content-Type': 'application/json', ...headers } : headers,
		body: json ? JSON.stringify(body) : body,
	}).catch((error) => {
		if (signal?.aborted) throw error;
		throw { status: 0, title: 'No answer', detail: 'The service cannot be reached. Check the network, then try again.' };
	});
	if (answer.status === 204) return null;
	const text = await answer.text();
	const read = parsed(text);
	if (answer.ok) return read ?? text;
	throw { status: answer.status, title: answer.statusText, detail: text.slice(0, 200), ...read };
}

/** @param {string} text */
function parsed(text) {
	try {
		return JSON.parse(text);
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
	const fields = (problem.errors ?? []).map((/** @type {any} */ each) => `${each.field}: ${each.message}`);
	return [problem.detail ?? problem.title ?? `${problem}`, ...fields].join(' ');
}
