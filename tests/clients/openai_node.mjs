// Calls of OpenAI's client for Node.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import OpenAI from "openai";

const { SERVICE, LIMITED, KEY, NARROW_KEY, IMAGE, SOUND } = process.env;
const report = (call, result) => process.stdout.write(JSON.stringify([call, result]) + "\n");
const client = new OpenAI({ baseURL: `${SERVICE}/v1`, apiKey: KEY, maxRetries: 0 });
const create = (fields) => client.embeddings.create({ model: "toy", ...fields });

async function refused(kind, call, ...words) {
  try {
    await call();
  } catch (error) {
    assert(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    for (const word of words) assert(error.message.includes(word), `${word} not in ${error.message}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

const packed = await create({ input: ["red", "green blue"] });
const plain = await create({ input: ["red", "green blue"], encoding_format: "float" });
assert.deepEqual(Array.from(packed.data[1].embedding), plain.data[1].embedding.map(Math.fround));
assert.equal(packed.usage.prompt_tokens, 3);
report("`embeddings.create({input: […]})`, by default base64", "the same float32 numbers as with `float`");

assert.equal((await create({ input: Array(2048).fill("red") })).data.length, 2048);
report("`embeddings.create({input: […]})`, 2,048 texts", "all vectors");

const image = await create({ input: [{ image: IMAGE }] });
assert.deepEqual(Array.from(image.data[0].embedding), [1, 0, 0]);
report("`embeddings.create({input: [{image: data URI}]})`", "the vector of the image");

const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert.deepEqual(names, ["toy", "plain", "speech"]);
assert.equal((await client.models.retrieve("toy")).object, "model");
report("`models.list()`, `models.retrieve(name)`", "all models");

const transcribe = (fields) =>
  client.audio.transcriptions.create({ model: "speech", file: createReadStream(SOUND), ...fields });
const transcript = await transcribe({});
assert.equal(transcript.text.split(" ").length, 2);
assert.equal(transcript.usage.seconds, 7);
report("`audio.transcriptions.create({file: stream})`", "`text`, `usage.seconds`");
const verbose = await transcribe({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"] });
assert.deepEqual(verbose.words.map((word) => word.start), [1, 6]);
report("`{response_format: \"verbose_json\", timestamp_granularities: [\"word\", \"segment\"]}`", "segments and words");
const types = [];
for await (const event of await transcribe({ stream: true })) types.push(event.type);
assert.deepEqual(types, ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]);
report("`{stream: true}`", "deltas, then the whole text");
await refused(OpenAI.BadRequestError, () => transcribe({ language: "xx" }), "allowed: de, en");
report("`{language: \"xx\"}`", "`BadRequestError`: allowed: de, en");

for (const [kind, fields, words] of [
  [OpenAI.BadRequestError, { input: ["red", ""] }, "input[1]: an empty string"],
  [OpenAI.BadRequestError, { input: [[1, 2]] }, "check_embedding_ctx_length=False"],
  [OpenAI.BadRequestError, { input: "red", dimensions: 512 }, "dimensions: 512; allowed: 3"],
  [OpenAI.NotFoundError, { input: "red", model: "x" }, "allowed: toy, plain"],
  [OpenAI.InternalServerError, { input: "red red red red red" }, "the log has it"],
]) {
  const error = await refused(kind, () => create(fields), words);
  assert(error.requestID);
  report(`\`create(${JSON.stringify(fields)})\``, `\`${kind.name}\`: ${words}`);
}
const narrow = new OpenAI({ baseURL: `${SERVICE}/v1`, apiKey: NARROW_KEY, maxRetries: 0 });
await refused(OpenAI.PermissionDeniedError, () => narrow.embeddings.create({ model: "toy", input: "red" }), "scope embed");
report("an `apiKey` without the scope `embed`", "`PermissionDeniedError`: a key with the scope embed");

const limited = new OpenAI({ baseURL: `${LIMITED}/v1`, apiKey: KEY, maxRetries: 0 });
const one = { model: "toy", input: "red" };
const many = () => Promise.all(Array.from({ length: 4 }, () => limited.embeddings.create(one)));
await refused(OpenAI.RateLimitError, many, "allowed: again in");
const patient = new OpenAI({ baseURL: `${LIMITED}/v1`, apiKey: KEY, maxRetries: 5 });
assert.equal((await patient.embeddings.create(one)).data.length, 1);
report("more requests than the rate limit", "`RateLimitError`; with retries waits as long as `Retry-After` says");
