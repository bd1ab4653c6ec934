// A request as code that does the same. In: messages with pictures by name. Out: text for a shell, and for Python.
import { kindOf } from "./pictures.js";

const contentOf = (message, image) =>
	message.pictures?.length ? [...message.pictures.map(image), { type: "text", text: message.text }] : message.text;

/** For a shell: pictures are read from their files. */
export function curl({ messages, ...more }, address, key) {
	const holes = [], hole = `~${Math.random()}~`; // stands where a file's bytes go
	const image = (picture) => {
		holes.push(`$(base64 < '${picture.name.replaceAll("'", "'\\''")}' | tr -d '\\n')`);
		return { type: "image_url", image_url: { url: `data:${kindOf(picture)};base64,${hole}` } };
	};
	const body = { ...more, messages: messages.map((one) => ({ role: one.role, content: contentOf(one, image) })) };
	const text = JSON.stringify(body, null, 2).replaceAll(/[\\$`]/g, "\\$&").replaceAll(hole, () => holes.shift());
	const header = key ? '  -H "Authorization: Bearer $FLASHSLOTH_API_KEY" \\\n' : "";
	return `curl ${address}v1/chat/completions \\
  -H 'Content-Type: application/json' \\
${header}  --data-binary @- <<JSON
${text}
JSON`;
}

/** For Python, with OpenAI's client. */
export function python({ model, messages, ...more }, address, key) {
	const calls = [];
	const image = (picture) => `picture(${JSON.stringify(picture.name)}, ${JSON.stringify(kindOf(picture))})`;
	for (const one of messages) {
		const content = contentOf(one, image), text = JSON.stringify(one.text);
		const parts = Array.isArray(content) ? `[${content.slice(0, -1).join(", ")}, {"type": "text", "text": ${text}}]` : text;
		calls.push(`        {"role": "${one.role}", "content": ${parts}},\n`);
	}
	const extra = more.flashsloth ? `    extra_body=${JSON.stringify(more)},\n` : "";
	return `# pip install openai
import base64
${key ? "import os\n" : ""}from pathlib import Path

from openai import OpenAI


def picture(path, kind):
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


client = OpenAI(base_url="${address}v1", api_key=${key ? 'os.environ["FLASHSLOTH_API_KEY"]' : '"none"'})
reply = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[
${calls.join("")}    ],
${extra})
print(reply.choices[0].message.content)`;
}
