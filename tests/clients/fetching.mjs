// Calls with fetch, for Node and for browsers.
export const CALLS = [
  'chat', 'stream', 'qualified', 'embeddings', 'transcription', 'list', 'retrieve', 'namespaced', 'cancel', 'unknown',
  'none', 'failover', 'silence', 'late',
];
export const STREAMS = ['stream', 'cancel', 'silence', 'late'];
export const MODELS = {
  qualified: 'default/demo', unknown: 'missing', none: 'empty', failover: 'fallen', silence: 'slow', late: 'late',
};
export const MESSAGES = [{ role: 'user', content: 'hello' }];
const SPEECH = new Uint8Array([...'RIFF\x00\xff\r\n--model'].map((one) => one.charCodeAt(0)));
const TEXT = 'You said: hello';

export function equal(actual, expected) {
  if (actual !== expected) throw new Error(`got ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
}

export function asked(call) {
  if (call === 'list') return ['GET', '/v1/models'];
  if (call === 'retrieve') return ['GET', '/v1/models/demo'];
  if (call === 'namespaced') return ['GET', `/v1/models/${encodeURIComponent('default/demo')}`];
  if (call === 'transcription') return ['POST', '/v1/audio/transcriptions', transcription()];
  if (call === 'embeddings') return ['POST', '/v1/embeddings', { model: 'demo', input: ['a', 'b'] }];
  const stream = STREAMS.includes(call);
  const whole = { model: MODELS[call] ?? 'demo', messages: MESSAGES };
  return ['POST', '/v1/chat/completions', stream ? { ...whole, stream } : whole];
}

export function speech() {
  return new File([SPEECH], 'a.wav', { type: 'audio/wav' });
}

function transcription() {
  const form = new FormData();
  form.append('model', 'demo');
  form.append('file', speech());
  return form;
}

export function whole(call, status, body) {
  if (status !== 200) return `${status} ${body.error.code}`;
  if (call === 'list') equal(body.data.some((one) => one.id === 'demo'), true);
  else if (call === 'retrieve' || call === 'namespaced') equal(body.id.replace('default/', ''), 'demo');
  else if (call === 'embeddings') equal(body.data.length, 2);
  else if (call === 'transcription') equal(body.text, TEXT);
  else equal(body.choices[0].message.content, TEXT);
  return 'works';
}

export async function events(call, body, cancel) {
  let all = '';
  let rest = '';
  const decoder = new TextDecoder();
  try {
    for await (const piece of body) {
      rest += decoder.decode(piece, { stream: true });
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines) {
        const event = line.startsWith('data: {') ? JSON.parse(line.slice(6)) : {};
        if (event.error) return `event ${event.error.code}`;
        all += event.choices?.[0].delta.content ?? '';
        if (call === 'cancel' && all) {
          equal(all, TEXT.slice(0, 4));
          cancel.abort();
          return 'works';
        }
      }
    }
  } catch (error) {
    if (!cancel.signal.aborted) throw error;
    return 'works';
  }
  equal(all, TEXT);
  return 'works';
}

export function options(base, call, name, cancel) {
  const [method, path, body] = asked(call);
  const form = body instanceof FormData;
  const headers = { 'x-case': name, ...(body && !form ? { 'content-type': 'application/json' } : {}) };
  return [base + path, { method, headers, body: body && !form ? JSON.stringify(body) : body, signal: cancel.signal }];
}

export function withFetch(fetch, base) {
  return async (call, name) => {
    const cancel = new AbortController();
    const response = await fetch(...options(base, call, name, cancel));
    if (STREAMS.includes(call)) return events(call, response.body, cancel);
    return whole(call, response.status, await response.json());
  };
}
