// urql: queries and mutations over HTTP, subscriptions over a WebSocket, which is opened again beneath it.

import assert from 'node:assert/strict';
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import { toAsyncIterable } from 'wonka';
import {
  Notes, authorization, isFinal, operations, pause, pipelineId, token, unknownId, url,
  webSocketUrl, wrongToken,
} from './jobstream.js';

function connect(token) {
  const socket = createClient({
    url: webSocketUrl,
    connectionParams: authorization(token),
    retryAttempts: Infinity,
    retryWait: pause,
    shouldRetry: ({ code }) => code !== 4403,
  });
  const forwardSubscription = (request) => ({
    subscribe: (sink) => ({ unsubscribe: socket.subscribe(request, sink) }),
  });
  return new Client({
    url,
    fetchOptions: { headers: authorization(token) },
    exchanges: [fetchExchange, subscriptionExchange({ forwardSubscription })],
  });
}

/** What a subscription says, to its end. */
async function* follow(client, operation, variables) {
  for await (const { data, error } of toAsyncIterable(client.subscription(operation, variables))) {
    if (error) throw error;
    yield data;
  }
}

const codeOf = (error) => error.graphQLErrors[0]?.extensions.code;

// It is refused, over HTTP and over the WebSocket.
const stranger = connect(wrongToken);
const refused = await stranger.query(operations.pipeline, { id: pipelineId });
assert.deepEqual([codeOf(refused.error), refused.error.response.status], ['UNAUTHENTICATED', 401]);
const nothing = follow(stranger, operations.jobLogs, { jobId: unknownId, sequence: 0 });
await assert.rejects(nothing.next(), ({ networkError }) => networkError.code === 4403);

// It queries and mutates. What goes wrong has a code.
const client = connect(token);
const { data } = await client.query(operations.pipeline, { id: pipelineId });
assert.equal(data.pipeline.status, 'READY');
const input = { pipelineId };
const { job } = (await client.mutation(operations.createJob, { input })).data.createJob;
assert.equal(codeOf((await client.mutation(operations.createJob, { input })).error), 'PIPELINE_BUSY');
assert.equal(codeOf((await client.query('{ nothing }', {})).error), 'GRAPHQL_VALIDATION_FAILED');

// A subscription that is refused has its errors too.
const nowhere = follow(client, operations.jobLogs, { jobId: unknownId, sequence: 0 });
await assert.rejects(nowhere.next(), (error) => codeOf(error) === 'NOT_FOUND');

// It subscribes. After a lost connection everything comes again from where it began; what was seen is left out.
const notes = new Notes(data.jobs.cursor);

async function followLog() {
  for await (const { jobLogs } of follow(client, operations.jobLogs, { jobId: job.id, sequence: 0 })) {
    const lines = jobLogs.lines.filter(({ sequence }) => sequence >= notes.nextSequence);
    notes.log({ ...jobLogs, lines, nextSequence: Math.max(jobLogs.nextSequence, notes.nextSequence) });
  }
}

async function followStatus() {
  const seen = new Set();
  const variables = { jobId: job.id, after: notes.cursor };
  for await (const { jobStatusChanged } of follow(client, operations.jobStatusChanged, variables)) {
    if (!seen.has(jobStatusChanged.cursor)) notes.change(jobStatusChanged);
    seen.add(jobStatusChanged.cursor);
    if (isFinal(jobStatusChanged)) break;
  }
}

await Promise.all([followLog(), followStatus()]);
notes.tell();
