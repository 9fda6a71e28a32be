// Use the generated clients of @hey-api/openapi-ts and openapi-typescript as their users do.
// Compiled with tsc --strict and run with node by tests.generated.run: client.js ADDRESS IMAGE.
import { readFileSync } from 'node:fs';
import { strict as assert } from 'node:assert';

import { client } from './hey/client.gen';
import { classify, classifyBatch, embed, getModel, listModels, readyz } from './hey/sdk.gen';
import type { components, paths } from './types';

const [address, imagePath] = process.argv.slice(2) as [string, string];
client.setConfig({ baseUrl: address });

async function main(): Promise<void> {
  const ready = await readyz({ throwOnError: true });
  assert.equal(ready.data.state, 'ready');
  const models = await listModels({ throwOnError: true });
  assert.equal(models.data.default, 'illustrations');
  const detail = await getModel({ path: { name: 'illustrations' }, throwOnError: true });
  assert.ok(detail.data.card.startsWith('# illustrations'));

  const image = readFileSync(imagePath).toString('base64'); // of the two body types, this generator uses JSON
  const both = await classify({ body: { image, text: 'a sailing dinghy', top_k: 1 }, throwOnError: true });
  assert.deepEqual(both.data.modalities, ['image', 'text']);
  const best: string | undefined = both.data.labels[0]?.label;
  assert.equal(best, 'transport');

  const vectors = await embed({ body: { text: 'a sailing dinghy' }, throwOnError: true });
  assert.equal(vectors.data.embeddings['text']?.length, detail.data.embeddings?.dimensions);

  const refused = await classify({ body: { text: 'a boat', top_k: 99 } });
  assert.equal(refused.data, undefined);
  assert.equal(refused.error?.code, 'invalid_parameter');

  const batch = await classifyBatch({
    body: { items: [{ id: 'a', text: 'a small boat' }, { id: 'b', image: 'bm90IGFuIGltYWdl' }], top_k: 1 },
    throwOnError: true,
  });
  assert.deepEqual(batch.data.items.map((item) => item.classification?.model ?? item.problem?.code), [
    'illustrations',
    'unsupported_format',
  ]);

  // Types only, with fetch: the purpose of openapi-typescript.
  type Answer = components['schemas']['Classification'];
  type Body = paths['/v1/classify']['post']['requestBody']['content']['application/json'];
  type Form = paths['/v1/classify']['post']['requestBody']['content']['multipart/form-data'];
  const form: Form = { text: 'a sailing dinghy', top_k: 1 };
  const fields = new FormData();
  for (const [name, value] of Object.entries(form)) fields.append(name, String(value));
  fields.append('image', new Blob([new Uint8Array(readFileSync(imagePath))]));
  const posted = await fetch(`${address}/v1/classify`, { method: 'POST', body: fields });
  assert.deepEqual(((await posted.json()) as Answer).modalities, ['image', 'text']);

  const body: Body = { text: 'a sailing dinghy', top_k: 1 };
  const response = await fetch(`${address}/v1/classify`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as Answer;
  const value: number | undefined = answer.value; // undefined and not null: an absent field is left out
  assert.equal(value, undefined);
  assert.equal(answer.labels[0]?.label, 'transport');
  console.log('@hey-api/openapi-ts, openapi-typescript: generated, compiled, classified');
}

void main();
