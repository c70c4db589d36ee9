// A client of Jobstream: operations over HTTP, and streams over a WebSocket that outlive their connection.

import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import {
  JobLogsDocument,
  type JobLogsSubscription,
  JobStatusChangedDocument,
  type JobStatusChangedSubscription,
  type TypedDocumentString,
} from './generated.js';

export type JobLogs = JobLogsSubscription['jobLogs'];
export type JobStatusChange = JobStatusChangedSubscription['jobStatusChanged'];

/** What the server says is wrong. `extensions.code` is one of the codes in the README. */
export interface GraphQLError {
  readonly message: string;
  readonly extensions?: { readonly code?: string } & Record<string, unknown>;
}

/** An operation was refused, or has failed. */
export class OperationFailed extends Error {
  constructor(readonly errors: readonly GraphQLError[]) {
    super(errors.map(({ message }) => message).join(' '));
  }
}

export class Jobstream {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #socket;

  constructor(url: string, token?: string) {
    this.#url = url;
    this.#headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    this.#socket = createClient({
      url: url.replace(/^http/, 'ws'),
      connectionParams: this.#headers,
      webSocketImpl: WebSocket, // in a browser, leave it out
      retryAttempts: 0, // it would begin again where it began: `#follow` goes on
    });
  }

  /** Carries out a query or mutation. */
  async execute<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    variables: Variables,
  ): Promise<Result> {
    const response = await fetch(this.#url, {
      method: 'POST',
      headers: { ...this.#headers, 'Content-Type': 'application/json' },
      body: JSON.stringify({ query: document.toString(), variables }),
    });
    const { data, errors } = (await response.json()) as { data: Result; errors?: GraphQLError[] };
    if (errors) throw new OperationFailed(errors);
    return data;
  }

  /** The log of a job from a line on, until it is complete: every line once. */
  async *jobLogs(jobId: string, sequence = 0): AsyncGenerator<JobLogs> {
    const variables = { jobId, sequence };
    for await (const { jobLogs } of this.#follow(JobLogsDocument, variables)) {
      variables.sequence = jobLogs.nextSequence;
      yield jobLogs;
    }
  }

  /** The changes of a job's status after a cursor, until the job is deleted: every change once. */
  async *jobStatusChanged(jobId: string, after: string): AsyncGenerator<JobStatusChange> {
    const variables = { jobId, after };
    for await (const { jobStatusChanged } of this.#follow(JobStatusChangedDocument, variables)) {
      variables.after = jobStatusChanged.cursor;
      yield jobStatusChanged;
    }
  }

  /** Closes the WebSocket, which would keep a program of Node alive. */
  async close(): Promise<void> {
    await this.#socket.dispose();
  }

  /** Subscribes, and does so again when the connection was lost: with the variables as they are then. */
  async *#follow<Result, Variables extends Record<string, unknown>>(
    document: TypedDocumentString<Result, Variables>,
    variables: Variables,
  ): AsyncGenerator<Result> {
    const query = document.toString();
    for (;;) {
      try {
        for await (const { data, errors } of this.#socket.iterate<Result>({ query, variables })) {
          if (errors) throw new OperationFailed(errors);
          if (data) yield data;
        }
        return;
      } catch (error) {
        if (Array.isArray(error)) throw new OperationFailed(error);
        if (error instanceof Error || isRefusal(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
  }
}

/** Whether the server closed the connection because it does not take the client, or what it says. */
function isRefusal(event: unknown): boolean {
  const refusals = [4400, 4401, 4403, 4409, 4429];
  return typeof event === 'object' && event !== null && 'code' in event && refusals.includes(Number(event.code));
}
