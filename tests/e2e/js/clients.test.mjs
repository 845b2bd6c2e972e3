// The official JavaScript clients (npm `ollama` and `openai`) against a running server: MINKA_URL names it. The models
// are "smollm2:135m" (chat) and, if MINKA_EMBED names one, an embedding model.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import test from "node:test";

// The packages lie in a cache outside of the repository, MINKA_NODE_MODULES.
const require = createRequire(process.env.MINKA_NODE_MODULES + "/");
const { Ollama } = require("ollama");
const OpenAI = require("openai").default;

const url = process.env.MINKA_URL;
const ollama = new Ollama({ host: url });
const openai = new OpenAI({ baseURL: url + "/v1", apiKey: "unused", maxRetries: 0 });
const model = "smollm2:135m";
const messages = [{ role: "user", content: "Name one colour." }];
const options = { seed: 3, num_predict: 24, temperature: 0.5 };
const person = {
  type: "object",
  properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer", minimum: 0, maximum: 150 } },
  required: ["name", "age"],
  additionalProperties: false,
};
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"] },
  },
};

// A template that shows tools and calls, so that the model is one that can use tools.
const template = `{{ range .Tools }}{{ . }}
{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls }}<tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
`;

async function gather(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

function checkPerson(text) {
  const value = JSON.parse(text);
  assert.deepEqual(Object.keys(value), ["name", "age"]);
  assert.equal(typeof value.name, "string");
  assert.ok(Number.isInteger(value.age) && value.age >= 0 && value.age <= 150);
}

test("ollama: chat, whole and streamed", async () => {
  const whole = await ollama.chat({ model, messages, options });
  const parts = await gather(await ollama.chat({ model, messages, options, stream: true }));
  assert.ok(whole.message.content.length > 0 && parts.length > 3);
  assert.equal(parts.map((p) => p.message.content).join(""), whole.message.content);
  assert.equal(parts.at(-1).done, true);
  assert.equal(parts.at(-1).eval_count, whole.eval_count);
});

test("ollama: generate, whole and streamed", async () => {
  const ask = { model, prompt: "Count: one two three", options };
  const whole = await ollama.generate(ask);
  const parts = await gather(await ollama.generate({ ...ask, stream: true }));
  assert.equal(parts.map((p) => p.response).join(""), whole.response);
  assert.deepEqual(parts.at(-1).context, whole.context);
});

test("ollama: abort ends a stream, and the server goes on", async () => {
  const own = new Ollama({ host: url });
  const stream = await own.generate({ model, prompt: "Once", stream: true, options: { num_predict: 4000, temperature: 1 } });
  await assert.rejects(async () => {
    for await (const part of stream) if (part.response) own.abort();
  }, { name: "AbortError" });
  const after = await ollama.generate({ model, prompt: "One", options: { num_predict: 1 } });
  assert.equal(after.done, true);
});

test("ollama: list, show, ps, version", async () => {
  assert.ok((await ollama.list()).models.some((m) => m.model === model));
  const shown = await ollama.show({ model });
  assert.equal(shown.details.family, "llama");
  assert.ok(shown.capabilities.includes("completion"));
  assert.ok((await ollama.ps()).models.some((m) => m.model === model));
  assert.match((await ollama.version()).version, /^\d+\.\d+\.\d+/);
});

test("ollama: errors have the server's text and code", async () => {
  await assert.rejects(ollama.chat({ model: "nope", messages }), { name: "ResponseError", status_code: 404, error: "model 'nope' not found" });
  await assert.rejects(ollama.chat({ model, messages, think: true }), { name: "ResponseError", status_code: 400, error: `"${model}" does not support thinking` });
});

test("ollama: format json and schema", async () => {
  const ask = { model, messages: [{ role: "user", content: "Describe a person as JSON." }], options: { seed: 5, temperature: 1, num_predict: 200 } };
  checkPerson((await ollama.chat({ ...ask, format: person })).message.content);
  const parts = await gather(await ollama.chat({ ...ask, format: person, stream: true }));
  checkPerson(parts.map((p) => p.message.content).join(""));
});

test("ollama: create, copy, show, delete", async () => {
  const made = await gather(await ollama.create({ model: "poet", from: model, system: "Answer in verse.", parameters: { temperature: 0.1 }, stream: true }));
  assert.equal(made.at(-1).status, "success");
  assert.equal((await ollama.show({ model: "poet" })).system, "Answer in verse.");
  await ollama.copy({ source: "poet", destination: "bard" });
  assert.ok((await ollama.generate({ model: "bard", prompt: "Hello", options: { num_predict: 4 } })).response.length > 0);
  await ollama.delete({ model: "poet" });
  await ollama.delete({ model: "bard" });
  assert.ok(!(await ollama.list()).models.some((m) => m.model.startsWith("poet") || m.model.startsWith("bard")));
  await assert.rejects(ollama.delete({ model: "poet" }), { status_code: 404 });
});

test("ollama: a blob is uploaded and becomes a model", async () => {
  const bytes = await readFile(process.env.MINKA_TINY);
  const digest = "sha256:" + createHash("sha256").update(bytes).digest("hex");
  const put = await fetch(`${url}/api/blobs/${digest}`, { method: "POST", body: bytes });
  assert.equal(put.status, 201);
  assert.equal((await ollama.create({ model: "tiny", files: { "tiny.gguf": digest } })).status, "success");
  assert.ok((await ollama.generate({ model: "tiny", prompt: "a", raw: true, options: { num_predict: 4 } })).eval_count > 0);
  await ollama.delete({ model: "tiny" });
});

test("ollama: embed one and many", async () => {
  const embed = process.env.MINKA_EMBED || model;
  const inputs = ["the river", "a stone in the river", "clock"];
  const many = await ollama.embed({ model: embed, input: inputs });
  assert.equal(many.embeddings.length, 3);
  for (let i = 0; i < inputs.length; i++) {
    const one = await ollama.embed({ model: embed, input: inputs[i] });
    assert.deepEqual(one.embeddings[0], many.embeddings[i]);
    assert.ok(Math.abs(Math.hypot(...one.embeddings[0]) - 1) < 1e-4);
  }
  assert.equal((await ollama.embeddings({ model: embed, prompt: "clock" })).embedding.length, many.embeddings[2].length);
});

test("openai: chat, whole and streamed, usage, logprobs", async () => {
  const ask = { model, messages, seed: 3, max_tokens: 24, temperature: 0.5 };
  const whole = await openai.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 });
  const parts = await gather(await openai.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }));
  assert.equal(parts.map((p) => p.choices[0]?.delta.content ?? "").join(""), whole.choices[0].message.content);
  assert.deepEqual(parts.at(-1).usage.total_tokens, whole.usage.total_tokens);
  assert.equal(whole.choices[0].logprobs.content[0].top_logprobs.length, 2);
});

test("openai: completions, models", async () => {
  const ask = { model, prompt: "Count: one two three", max_tokens: 8, seed: 1 };
  const whole = await openai.completions.create(ask);
  const parts = await gather(await openai.completions.create({ ...ask, stream: true }));
  assert.equal(parts.map((p) => p.choices[0]?.text ?? "").join(""), whole.choices[0].text);
  assert.ok((await openai.models.list()).data.some((m) => m.id === model));
  assert.equal((await openai.models.retrieve(model)).id, model);
});

test("openai: abort ends a stream", async () => {
  const stream = await openai.chat.completions.create({ model, messages, max_tokens: 4000, stream: true });
  let seen = 0;
  for await (const part of stream) if (part.choices[0]?.delta.content && ++seen === 3) stream.controller.abort();
  assert.ok(seen >= 3 && seen < 4000);
});

test("openai: response_format", async () => {
  const ask = { model, messages: [{ role: "user", content: "Describe a person as JSON." }], seed: 5, max_tokens: 200 };
  const got = await openai.chat.completions.create({
    ...ask, response_format: { type: "json_schema", json_schema: { name: "person", schema: person, strict: true } } });
  checkPerson(got.choices[0].message.content);
});

test("openai: a tool call that is required, whole and streamed", async () => {
  await ollama.create({ model: "caller", from: model, template });
  const ask = { model: "caller", messages: [{ role: "user", content: "What is the weather in Lima?" }], tools: [weather], tool_choice: "required", seed: 5, max_tokens: 200 };
  const whole = await openai.chat.completions.create(ask);
  assert.equal(whole.choices[0].finish_reason, "tool_calls");
  const call = whole.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "get_weather");
  assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
  const parts = await gather(await openai.chat.completions.create({ ...ask, stream: true }));
  const streamed = parts.flatMap((p) => p.choices[0]?.delta.tool_calls ?? []);
  assert.equal(streamed.map((t) => t.function.arguments ?? "").join(""), call.function.arguments);
  const chat = await ollama.chat({ model: "caller", messages: ask.messages, tools: [weather], options });
  assert.equal(chat.done, true);
  await ollama.delete({ model: "caller" });
});

test("openai: embeddings, float and base64", async () => {
  const embed = process.env.MINKA_EMBED || model;
  const float = await openai.embeddings.create({ model: embed, input: ["the river", "clock"], encoding_format: "float" });
  const base64 = await openai.embeddings.create({ model: embed, input: ["the river", "clock"], encoding_format: "base64" });
  assert.equal(float.data.length, 2);
  const bytes = Buffer.from(base64.data[1].embedding, "base64");
  assert.deepEqual(Array.from(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)), float.data[1].embedding.map(Math.fround));
});

test("openai: errors", async () => {
  await assert.rejects(openai.chat.completions.create({ model: "nope", messages }), { status: 404 });
  await assert.rejects(openai.chat.completions.create({ model, messages, temperature: "hot" }), { status: 400 });
});
