// Ask a FlashSloth server about a picture with OpenAI's client, whole and as a stream.
//
//     npm install openai
//     node ask.mjs ../shapes.png "What color is the circle?"
//
// OPENAI_BASE_URL is the server's address, http://127.0.0.1:8000/v1 where it is not set; OPENAI_API_KEY its key, if any.

import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import OpenAI from "openai";

const [picture, question] = process.argv.slice(2);
const kind = { ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif" }[extname(picture).toLowerCase()] ?? "png";
const url = `data:image/${kind};base64,${(await readFile(picture)).toString("base64")}`;
const content = [
  { type: "image_url", image_url: { url } },
  { type: "text", text: question },
];
const messages = [{ role: "user", content }];

const client = new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "none", // the client wants one even where the server does not
});
const model = (await client.models.list()).data[0].id;

const reply = await client.chat.completions.create({ model, messages });
console.log(reply.choices[0].message.content);

const stream = await client.chat.completions.create({ model, messages, stream: true });
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
process.stdout.write("\n");
