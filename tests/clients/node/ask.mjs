// The Vercel AI SDK: node ask.mjs PROVIDER JOBS. Jobs and reports are as in programs/report.py.
import { generateText, streamText } from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { foundExtractor } from './found.mjs';

const [provider, jobs] = process.argv.slice(2);

const nothing = () => ({
  text: '', text_deltas: 0, reasoning: '', reasoning_deltas: 0,
  searches: [], citations: [], sources: [], usage: {}, error: null,
});

function asked({ mode, url, model }) {
  if (provider === 'compatible') {
    const searchr1 = createOpenAICompatible({
      name: 'searchr1', baseURL: url, apiKey: 'none', includeUsage: true, metadataExtractor: foundExtractor,
    });
    return { model: searchr1(model) };
  }
  const openai = createOpenAI({ baseURL: url, apiKey: 'none' });
  if (provider === 'openai-chat') return { model: openai.chat(model) };
  return {
    model: openai(model),
    tools: { web_search: openai.tools.webSearch({}) },
    // The model's name is none of OpenAI's, so that it reasons has to be said. A summary is the whole of the reasoning.
    // A response that is not stored can't be taken up again, so leaving it ends it at once.
    providerOptions: { openai: { reasoningSummary: 'auto', forceReasoning: true, store: mode !== 'leave' } },
  };
}

function showResult(shown, { content, usage, providerMetadata }) {
  for (const part of content) {
    if (part.type === 'source') shown.sources.push({ title: part.title ?? '', url: part.url });
    if (part.type === 'tool-result') shown.searches.push(part.output.action.query);
    for (const one of part.citations ?? []) shown.citations.push({ title: one.source.title, url: one.source.url });
  }
  const extracted = providerMetadata?.searchr1 ?? {};
  shown.citations.push(...(extracted.annotations ?? []).map(({ url_citation: { title, url } }) => ({ title, url })));
  shown.sources.push(...(extracted.searchResults ?? []).map(({ title, url }) => ({ title, url })));
  if (provider === 'openai-chat') [shown.citations, shown.sources] = [shown.sources, []]; // its sources are what is cited
  shown.usage = {
    input: usage.inputTokens ?? null,
    output: usage.outputTokens ?? null,
    reasoning: usage.outputTokenDetails.reasoningTokens ?? null,
    searches: usage.raw?.num_searches ?? null,
  };
}

async function whole(job, shown) {
  const result = await generateText({ ...asked(job), prompt: job.question, maxRetries: 0 });
  shown.text = result.text;
  shown.reasoning = result.reasoning.map(({ text }) => text).join('');
  showResult(shown, result);
}

async function stream(job, shown) {
  const leaving = new AbortController();
  const result = streamText({
    ...asked(job), prompt: job.question, maxRetries: 0, abortSignal: leaving.signal, onError: () => {},
  });
  for await (const part of result.fullStream) {
    if (part.type === 'text-delta') { shown.text += part.text; shown.text_deltas += 1; }
    if (part.type === 'reasoning-delta') { shown.reasoning += part.text; shown.reasoning_deltas += 1; }
    if (part.type === 'error') {
      const { name, statusCode, message } = part.error;
      shown.error = { kind: name, status: statusCode ?? null, message };
    }
    if (job.mode === 'leave' && part.type === 'reasoning-delta') {
      leaving.abort();
      process.stdout.write('left\n');
      for await (const _ of process.stdin); // so that it is not the end of this process that closes the connection
      return;
    }
  }
  if (shown.error === null) {
    showResult(shown, {
      content: await result.content, usage: await result.usage, providerMetadata: await result.providerMetadata,
    });
  }
}

const reports = [];
for (const job of JSON.parse(jobs)) {
  const shown = nothing();
  try {
    await (job.mode === 'whole' ? whole : stream)(job, shown);
  } catch (error) {
    shown.error = { kind: error.name, status: error.statusCode ?? null, message: error.message };
  }
  reports.push(shown);
}
process.stdout.write(JSON.stringify(reports));
