// OpenAI's own JavaScript client asks a server; what it got goes to stdout as one JSON object.
// Usage: node openai_client.cjs BASE_URL PICTURE MODEL, where NODE_PATH has the npm package `openai`.
"use strict";
const fs = require("node:fs");
const OpenAI = require("openai").default;

const [baseURL, picture, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60000 });
const url = "data:image/png;base64," + fs.readFileSync(picture).toString("base64");
const question = "What color is the circle?";
const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: question }] }];
const input = [{ role: "user", content: [{ type: "input_image", image_url: url, detail: "auto" }, { type: "input_text", text: question }] }];
const endless = { logit_bias: { 1: -100 } };
const schema = { type: "object", properties: { color: { enum: ["red", "blue"] } }, required: ["color"], additionalProperties: false };

async function streamed(body) {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) chunks.push(chunk);
  return chunks;
}

async function refused(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status ?? null, param: error.param ?? null, message: error.message };
  }
}

async function left() {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 900, stream: true, ...endless });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) break; // which aborts the request
  return chunks;
}

async function aborted() {
  const controller = new AbortController();
  const body = { model, messages, max_tokens: 900, stream: true, ...endless };
  const stream = await client.chat.completions.create(body, { signal: controller.signal });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) controller.abort();
  return chunks;
}

async function main() {
  const long = { model, messages, max_tokens: 12, ...endless };
  const events = [];
  for await (const event of await client.responses.create({ model, input, stream: true })) events.push(event);
  const form = { type: "json_schema", json_schema: { name: "seen", schema, strict: true } };
  const found = {
    models: (await client.models.list()).data.map((one) => one.id),
    chat: await client.chat.completions.create({ model, messages }),
    long: await client.chat.completions.create(long),
    chunks: await streamed({ ...long, stream_options: { include_usage: true } }),
    drawn: await client.chat.completions.create({ ...long, n: 2, temperature: 1.5, seed: 3, logprobs: true, top_logprobs: 2 }),
    form: await client.chat.completions.create({ model, messages, response_format: form }),
    response: await client.responses.create({ model, input }),
    events,
    mistake: await refused(() => client.chat.completions.create({ model, messages, temperature: 3 })),
    tools: await refused(() => client.responses.create({ model, input, tools: [{ type: "web_search_preview" }] })),
    other: await refused(() => streamed({ model: "gpt-4", messages })),
    left: await left(),
    aborted: await aborted(),
  };
  process.stdout.write(JSON.stringify(found));
}

main();
