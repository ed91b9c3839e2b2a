// Makes every call with the clients for Node that the arguments name, and prints one line of JSON for each.
import { File } from 'node:buffer';
import OpenAI from 'openai';
import { fetch as undiciFetch, request } from 'undici';
import { CALLS, MESSAGES, MODELS, STREAMS, equal, events, options, speech, whole, withFetch } from './fetching.mjs';

globalThis.File ??= File; // Node 18 has it there alone
const [base, text, ...clients] = process.argv.slice(2);

async function withOpenAI(call, name) {
  const client = new OpenAI({
    baseURL: `${base}/v1`, apiKey: 'key', maxRetries: 0, defaultHeaders: { 'x-case': name },
  });
  const model = MODELS[call] ?? 'demo';
  try {
    if (STREAMS.includes(call)) {
      const stream = await client.chat.completions.create({ model, messages: MESSAGES, stream: true });
      let all = '';
      for await (const chunk of stream) {
        all += chunk.choices[0].delta.content ?? '';
        if (call === 'cancel') {
          stream.controller.abort();
          break;
        }
      }
      equal(all, call === 'cancel' ? text.slice(0, 4) : text);
    } else if (call === 'embeddings') {
      equal((await client.embeddings.create({ model, input: ['a', 'b'] })).data.length, 2);
    } else if (call === 'transcription') {
      equal((await client.audio.transcriptions.create({ model, file: speech() })).text, text);
    } else if (call === 'list') {
      const ids = [];
      for await (const one of client.models.list()) ids.push(one.id);
      equal(ids.includes('demo'), true);
    } else if (call === 'retrieve' || call === 'namespaced') {
      const id = call === 'retrieve' ? 'demo' : 'default/demo';
      equal((await client.models.retrieve(id)).id, id);
    } else {
      const response = await client.chat.completions.create({ model, messages: MESSAGES });
      equal(response.choices[0].message.content, text);
    }
  } catch (error) {
    // That of an event has no status.
    if (!(error instanceof OpenAI.APIError) || (error.status === undefined && call !== 'late')) throw error;
    return `${error.constructor.name} ${error.code}`;
  }
  return 'works';
}

async function withUndici(call, name) {
  const cancel = new AbortController();
  const { statusCode, body } = await request(...options(base, call, name, cancel));
  body.on('error', () => {});
  if (STREAMS.includes(call)) return events(call, body, cancel);
  return whole(call, statusCode, await body.json());
}

const run = {
  'openai-node': withOpenAI,
  undici: withUndici,
  'fetch-undici': withFetch(undiciFetch, base),
  'fetch-node': withFetch(fetch, base),
};
for (const client of clients) {
  for (const call of CALLS) {
    let outcome;
    try {
      outcome = await run[client](call, `${client}/${call}`);
    } catch (error) {
      outcome = `${error?.stack ?? error} ${error?.cause ?? ''}`;
    }
    console.log(JSON.stringify({ client, call, outcome }));
  }
}
process.exit(0);
