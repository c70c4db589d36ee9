// graphql-ws: everything over one WebSocket, which it opens again by itself.

import assert from 'node:assert/strict';
import { createClient } from 'graphql-ws';
import {
  Notes, authorization, isFinal, operations, pause, pipelineId, token, unknownId,
  webSocketUrl, wrongToken,
} from './jobstream.js';

const connect = (token) =>
  createClient({
    url: webSocketUrl,
    connectionParams: authorization(token),
    retryAttempts: Infinity,
    retryWait: pause,
    // A lost connection is worth a retry, a token that was refused is not.
    shouldRetry: ({ code }) => code !== 4403,
  });

const client = connect(token);

/** Carries out a query or mutation. */
async function execute(query, variables) {
  for await (const result of client.iterate({ query, variables })) return result;
}

/** Subscribes, until it is over or `take` answers true. */
const follow = (query, variables, take) =>
  new Promise((resolve, reject) => {
    const next = ({ data }) => take(data) && unsubscribe();
    const unsubscribe = client.subscribe({ query, variables }, { next, error: reject, complete: resolve });
  });

// It is refused: the connection is closed with a code of its own.
const stranger = connect(wrongToken).iterate({ query: '{ __typename }' });
await assert.rejects(stranger.next(), { code: 4403, reason: 'Forbidden' });

// It queries and mutates. What goes wrong has a code.
const { data } = await execute(operations.pipeline, { id: pipelineId });
assert.equal(data.pipeline.status, 'READY');
const input = { pipelineId };
const { job } = (await execute(operations.createJob, { input })).data.createJob;
const { errors } = await execute(operations.createJob, { input });
assert.deepEqual(errors[0].extensions, { code: 'PIPELINE_BUSY', jobId: job.id });

// A subscription that is refused throws its errors.
const nowhere = client.iterate({ query: operations.jobLogs, variables: { jobId: unknownId, sequence: 0 } });
await assert.rejects(nowhere.next(), ([error]) => error.extensions.code === 'NOT_FOUND');

// It subscribes. After a lost connection the client sends the variables again as they are then, so they say where to
// go on.
const notes = new Notes(data.jobs.cursor);

const logVariables = { jobId: job.id, sequence: notes.nextSequence };
const log = follow(operations.jobLogs, logVariables, ({ jobLogs }) => {
  notes.log(jobLogs);
  logVariables.sequence = notes.nextSequence;
});
const statusVariables = { jobId: job.id, after: notes.cursor };
const status = follow(operations.jobStatusChanged, statusVariables, ({ jobStatusChanged }) => {
  notes.change(jobStatusChanged);
  statusVariables.after = notes.cursor;
  return isFinal(jobStatusChanged);
});
await Promise.all([log, status]);
notes.tell();
