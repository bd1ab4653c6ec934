// Ask a server about a picture with OpenAI's JavaScript client: as a stream, and by the Responses interface.
//
// flashsloth serve &
// npm install openai
// node ask.mjs photo.jpg "What color is the circle?"
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const { OpenAI } = createRequire(import.meta.url)("openai");

const [picture = new URL("../shapes.png", import.meta.url), question = "What color is the circle?"] = process.argv.slice(2);
const address = process.env.FLASHSLOTH_URL ?? "http://127.0.0.1:8000";
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: process.env.FLASHSLOTH_KEY ?? "none" });
const model = (await client.models.list()).data[0].id;
const url = `data:image/*;base64,${(await readFile(picture)).toString("base64")}`;

const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: question }] }];
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
console.log();

const input = [{ role: "user", content: [{ type: "input_image", image_url: url, detail: "auto" }, { type: "input_text", text: question }] }];
console.log((await client.responses.create({ model, input })).output_text);
