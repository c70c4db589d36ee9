// What the scripts share: where the server is, what they ask of it, and what they note of its answers.

import { WebSocket } from 'ws';

// As in a browser; Node has one of its own from version 22 on.
globalThis.WebSocket ??= WebSocket;

export const { JOBSTREAM_URL: url, JOBSTREAM_TOKEN: token, JOBSTREAM_PIPELINE: pipelineId } = process.env;
export const webSocketUrl = url.replace(/^http/, 'ws');
export const authorization = (token) => ({ Authorization: `Bearer ${token}` });

/** What no server admits, and what no job is called. */
export const [wrongToken, unknownId] = ['not-the-token-of-anybody', '00000000-0000-4000-8000-000000000000'];

export const operations = {
  pipeline: `
    query Pipeline($id: ID!) {
      pipeline(id: $id) { name status }
      jobs(pipelineId: $id) { cursor }
    }`,
  createJob: `
    mutation CreateJob($input: CreateJobInput!) {
      createJob(input: $input) { job { id status } }
    }`,
  jobLogs: `
    subscription JobLogs($jobId: ID!, $sequence: Int!) {
      jobLogs(jobId: $jobId, sequence: $sequence) { lines { sequence text } nextSequence complete }
    }`,
  jobStatusChanged: `
    subscription JobStatusChanged($jobId: ID!, $after: String) {
      jobStatusChanged(jobId: $jobId, after: $after) { cursor status attempt }
    }`,
};

export const isFinal = ({ status }) => !['QUEUED', 'RUNNING'].includes(status);
export const pause = () => new Promise((resolve) => setTimeout(resolve, 100));

/** What was seen of a job, and where to go on after a lost connection: at `nextSequence` of its log, after `cursor`. */
export class Notes {
  lines = [];
  changes = [];
  nextSequence = 0;
  complete = false;

  constructor(cursor) {
    this.cursor = cursor;
  }

  /** Notes what `jobLogs` says, and tells the test how far it is. */
  log({ lines, nextSequence, complete }) {
    this.lines.push(...lines.map(({ sequence, text }) => [sequence, text]));
    this.nextSequence = nextSequence;
    this.complete = complete;
    console.log(`following ${nextSequence}`);
  }

  /** Notes what `jobStatusChanged` says. */
  change({ cursor, status, attempt }) {
    this.changes.push([status, attempt]);
    this.cursor = cursor;
  }

  /** Tells the test all of it. */
  tell() {
    const { lines, changes, complete } = this;
    console.log(JSON.stringify({ lines, changes, complete }));
  }
}
