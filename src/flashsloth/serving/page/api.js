// The server's interface. In: a request's body. Out: the chunks of its answer, as they come.

/** Why there is no answer, or no more of it. `status` is 0 where the server said nothing; `wait` is in seconds. */
export class Failure extends Error {
	constructor(message, status = 0, wait = 0) {
		super(message);
		Object.assign(this, { status, wait });
	}
}

const NO_SERVER = "The server does not answer. Is it still running?";
const CUT = "The server went away in mid-answer. What had come by then is kept.";

let key = "";
export const hasKey = () => key !== "";
export const useKey = (given) => { key = given; };

async function call(path, options = {}) {
	const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
	const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch((error) => {
		throw error.name === "AbortError" ? error : new Failure(NO_SERVER);
	});
	if (response.ok) return response;
	const said = await response.json().catch(() => null); // or a proxy's page
	const message = said?.error?.message ?? `The server answered ${response.status} ${response.statusText}.`;
	throw new Failure(message, response.status, Number(response.headers.get("Retry-After")) || 0);
}

/** The model that answers: its name, and what it can do. */
export async function findModel() {
	const [first] = (await (await call("v1/models")).json()).data;
	return { id: first.id, ...first.flashsloth };
}

/** Each chunk of an answer. Throws a Failure where the stream breaks off before its end. */
export async function* answer(body, signal) {
	const response = await call("v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	try {
		for await (const data of events(reader)) {
			if (data === "[DONE]") return;
			const chunk = JSON.parse(data);
			if (chunk.error) throw new Failure(chunk.error.message, 500);
			yield chunk;
		}
	} catch (error) {
		throw error.name === "AbortError" || error instanceof Failure ? error : new Failure(CUT);
	}
	throw new Failure(CUT);
}

async function* events(reader) {
	for (let rest = ""; ;) {
		const { value, done } = await reader.read();
		if (done) return;
		const parts = (rest + value).split("\n\n");
		rest = parts.pop();
		yield* parts.filter((part) => part.startsWith("data: ")).map((part) => part.slice(6));
	}
}
