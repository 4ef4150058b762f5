// The `ai` package from npm, by its OpenAI-compatible provider and by OpenAI's own (chat): texts, streams, tools, objects.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = process.env.QUIRE_URL;
const apiKey = process.env.QUIRE_KEY;
const compatible = createOpenAICompatible({
  name: "quire",
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const plain = createOpenAICompatible({ name: "quire", baseURL, apiKey });
const openai = createOpenAI({ baseURL, apiKey });
const models = { "openai-compatible": compatible("default"), "openai chat()": openai.chat("default") };

const Person = z.object({
  name: z.string().max(20),
  age: z.number().int().min(0).max(150),
  mood: z.enum(["glad", "sad"]),
});
const Weather = z.object({ city: z.string().max(20), unit: z.enum(["celsius", "fahrenheit"]) });
const ABOUT = "Ana is 31 years old and likes tea.";
const WHERE = "What is the weather in Oslo?";

function weather(asked) {
  return tool({
    description: "The weather at a place",
    inputSchema: Weather,
    execute: async (input) => {
      asked.push(input);
      return { temperature: 12, sky: "sunny" };
    },
  });
}

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

for (const [name, model] of Object.entries(models)) {
  const given = { model, temperature: 0, maxRetries: 0 };

  test(`${name}: generateText`, async () => {
    const answer = await generateText({ ...given, system: "Be brief.", prompt: "Hello!" });
    assert.ok(answer.text.length > 0);
    assert.equal(answer.finishReason, "stop");
    assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0);
    assert.deepEqual(answer.warnings ?? [], []);
    const cut = await generateText({ ...given, prompt: "Hello!", maxOutputTokens: 2 });
    assert.equal(cut.finishReason, "length");
  });

  test(`${name}: streamText gives the same text`, async () => {
    const whole = await generateText({ ...given, prompt: "Hello!" });
    const stream = streamText({ ...given, prompt: "Hello!" });
    const pieces = await all(stream.textStream);
    assert.ok(pieces.length > 1);
    assert.equal(pieces.join(""), whole.text);
    assert.equal(await stream.finishReason, "stop");
    assert.ok((await stream.usage).outputTokens > 1);
  });

  for (const toolChoice of ["required", { type: "tool", toolName: "weather" }]) {
    const said = typeof toolChoice === "string" ? toolChoice : "named";

    test(`${name}: a tool is called, ${said}`, async () => {
      const asked = [];
      const answer = await generateText({ ...given, prompt: WHERE, tools: { weather: weather(asked) }, toolChoice });
      assert.ok(answer.toolCalls.length >= 1);
      assert.equal(answer.toolResults.length, answer.toolCalls.length);
      for (const call of answer.toolCalls) {
        assert.equal(call.toolName, "weather");
        assert.ok(!call.invalid);
        Weather.parse(call.input);
      }
      assert.equal(asked.length, answer.toolCalls.length);
    });

    test(`${name}: a tool is called in a stream, ${said}`, async () => {
      const asked = [];
      const stream = streamText({ ...given, prompt: WHERE, tools: { weather: weather(asked) }, toolChoice });
      const kinds = (await all(stream.fullStream)).map((part) => part.type);
      for (const kind of ["tool-input-start", "tool-input-delta", "tool-call", "tool-result", "finish"])
        assert.ok(kinds.includes(kind), `${kind} is missing of ${kinds}`);
      assert.ok(!kinds.includes("error") && !kinds.includes("tool-error"));
      assert.ok(asked.length >= 1);
    });
  }

  test(`${name}: a tool's round trip`, async () => {
    const asked = [];
    const answer = await generateText({
      ...given,
      prompt: WHERE,
      tools: { weather: weather(asked) },
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
      stopWhen: stepCountIs(2),
    });
    assert.equal(answer.steps.length, 2);
    assert.ok(answer.text.length > 0);
    assert.equal(answer.steps[1].toolCalls.length, 0);
  });

  test(`${name}: generateObject`, async () => {
    const answer = await generateObject({ ...given, prompt: ABOUT, schema: Person });
    Person.parse(answer.object);
    const kind = await generateObject({ ...given, prompt: ABOUT, output: "enum", enum: ["glad", "sad"] });
    assert.ok(["glad", "sad"].includes(kind.object));
    const warm = await generateObject({ ...given, temperature: 2, seed: 3, prompt: ABOUT, schema: Person });
    Person.parse(warm.object);
  });

  test(`${name}: streamObject`, async () => {
    const stream = streamObject({ ...given, prompt: ABOUT, schema: Person });
    const parts = await all(stream.partialObjectStream);
    assert.ok(parts.length > 2);
    assert.deepEqual(Person.parse(await stream.object), parts.at(-1));
  });

  test(`${name}: Output.object`, async () => {
    const answer = await generateText({ ...given, prompt: ABOUT, output: Output.object({ schema: Person }) });
    Person.parse(answer.output);
    const stream = streamText({ ...given, prompt: ABOUT, output: Output.object({ schema: Person }) });
    const parts = await all(stream.partialOutputStream);
    Person.parse(parts.at(-1));
  });

  test(`${name}: a stream that is left`, async () => {
    const left = new AbortController();
    const stream = streamText({ ...given, prompt: "Tell me a story.", abortSignal: left.signal });
    for await (const piece of stream.textStream) {
      assert.ok(piece.length > 0);
      left.abort();
      break;
    }
  });
}

test("openai-compatible: JSON without a schema", async () => {
  const answer = await generateObject({
    model: plain("default"), temperature: 0, maxRetries: 0, maxOutputTokens: 400, output: "no-schema", prompt: ABOUT,
  });
  assert.equal(typeof answer.object, "object");
});

test("openai-compatible: completions", async () => {
  const answer = await generateText({
    model: compatible.completionModel("default"), temperature: 0, maxRetries: 0, maxOutputTokens: 8, prompt: "Once upon",
  });
  assert.ok(answer.text.length > 0);
});

test("errors carry status and message", async () => {
  await assert.rejects(generateText({ model: compatible("gpt-4o"), prompt: "Hi", maxRetries: 0 }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.match(error.message, /gpt-4o/);
    return true;
  });
  const stranger = createOpenAICompatible({ name: "quire", baseURL, apiKey: "sk-wrong" });
  await assert.rejects(generateText({ model: stranger("default"), prompt: "Hi", maxRetries: 0 }), (error) => {
    assert.equal(error.statusCode, 401);
    return true;
  });
});
