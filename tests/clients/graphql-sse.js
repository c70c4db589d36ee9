// graphql-sse: everything over HTTP, each operation a stream of server-sent events.

import assert from 'node:assert/strict';
import { createClient } from 'graphql-sse';
import {
  Notes, authorization, isFinal, operations, pause, pipelineId, token, unknownId, url,
  wrongToken,
} from './jobstream.js';

/** It takes a refusal for a lost connection, so the number of retries has an end. */
const connect = (token, retryAttempts = 100) =>
  createClient({ url, headers: authorization(token), retryAttempts, retry: pause });

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

// It is refused.
const stranger = connect(wrongToken, 0).iterate({ query: '{ __typename }' });
await assert.rejects(stranger.next(), ({ response }) => response.status === 401);

// It queries and mutates. What goes wrong has a code.
const { data } = await execute(operations.pipeline, { id: pipelineId });
assert.equal(data.pipeline.status, 'READY');
const input = { pipelineId };
const { job } = (await execute(operations.createJob, { input })).data.createJob;
const { errors } = await execute(operations.createJob, { input });
assert.deepEqual(errors[0].extensions, { code: 'PIPELINE_BUSY', jobId: job.id });

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

// The same without a library: a GET, as EventSource sends it, though that could not show a token.
async function* events(query, variables) {
  const address = `${url}?${new URLSearchParams({ query, variables: JSON.stringify(variables) })}`;
  const { body } = await fetch(address, { headers: { Accept: 'text/event-stream', ...authorization(token) } });
  let text = '';
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (text + chunk).split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split('\n').map((line) => line.split(/: ?(.*)/s, 2)));
      if (fields.event) yield fields;
    }
  }
}

const lines = [];
let last;
for await (last of events(operations.jobLogs, { jobId: job.id, sequence: 0 })) {
  if (last.event === 'next') lines.push(...JSON.parse(last.data).data.jobLogs.lines);
}
assert.equal(last.event, 'complete');
assert.deepEqual(lines.map(({ sequence, text }) => [sequence, text]), notes.lines);
notes.tell();
