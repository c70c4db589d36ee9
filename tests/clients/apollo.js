// @apollo/client: queries and mutations over HTTP, by the hash of the document wherever the server knows it; subscriptions over a
// WebSocket.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  ApolloClient, ApolloLink, CombinedGraphQLErrors, HttpLink, InMemoryCache, ServerError, gql,
} from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { createClient } from 'graphql-ws';
import { defer, lastValueFrom, map, retry, takeWhile, tap, throwError, timer } from 'rxjs';
import {
  Notes, authorization, isFinal, operations, pipelineId, token, unknownId, url,
  webSocketUrl, wrongToken,
} from './jobstream.js';

function connect(token) {
  // No retries: it would subscribe again with the old variables. `follow` does so with new ones.
  const socket = createClient({ url: webSocketUrl, connectionParams: authorization(token), retryAttempts: 0 });
  const persisted = new PersistedQueryLink({
    sha256: (document) => createHash('sha256').update(document).digest('hex'),
    useGETForHashedQueries: true,
  });
  const link = ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    persisted.concat(new HttpLink({ uri: url, headers: authorization(token) })),
  );
  return new ApolloClient({ link, cache: new InMemoryCache() });
}

/** Subscribes, and does so again when the connection was lost: with the variables of then. */
const follow = (client, operation, variables) =>
  defer(() => client.subscribe({ query: gql(operation), variables: variables(), fetchPolicy: 'no-cache' })).pipe(
    map(({ data, error }) => {
      if (error) throw error;
      return data;
    }),
    retry({ delay: (error) => (isLost(error) ? timer(100) : throwError(() => error)) }),
  );

const isLost = (error) => !CombinedGraphQLErrors.is(error) && !error.message.includes('4403');
const hasCode = (code) => (error) => CombinedGraphQLErrors.is(error) && error.errors[0].extensions.code === code;

// It is refused, over HTTP and over the WebSocket.
const stranger = connect(wrongToken);
const question = { query: gql(operations.pipeline), variables: { id: pipelineId } };
await assert.rejects(stranger.query(question), (error) => ServerError.is(error) && error.statusCode === 401);
const nothing = follow(stranger, operations.jobLogs, () => ({ jobId: unknownId, sequence: 0 }));
await assert.rejects(lastValueFrom(nothing), { message: 'Socket closed with event 4403 Forbidden' });

// It queries and mutates. What goes wrong has a code.
const client = connect(token);
const { data } = await client.query(question);
assert.equal(data.pipeline.status, 'READY');
const order = { mutation: gql(operations.createJob), variables: { input: { pipelineId } } };
const { job } = (await client.mutate(order)).data.createJob;
await assert.rejects(client.mutate(order), hasCode('PIPELINE_BUSY'));
await assert.rejects(client.query({ query: gql`{ nothing }` }), hasCode('GRAPHQL_VALIDATION_FAILED'));

// A subscription that is refused has its errors too.
const nowhere = follow(client, operations.jobLogs, () => ({ jobId: unknownId, sequence: 0 }));
await assert.rejects(lastValueFrom(nowhere), hasCode('NOT_FOUND'));

// It subscribes.
const notes = new Notes(data.jobs.cursor);
const log = follow(client, operations.jobLogs, () => ({ jobId: job.id, sequence: notes.nextSequence }));
const status = follow(client, operations.jobStatusChanged, () => ({ jobId: job.id, after: notes.cursor }));
await Promise.all([
  lastValueFrom(log.pipe(tap(({ jobLogs }) => notes.log(jobLogs)))),
  lastValueFrom(
    status.pipe(
      tap(({ jobStatusChanged }) => notes.change(jobStatusChanged)),
      takeWhile(({ jobStatusChanged }) => !isFinal(jobStatusChanged)),
    ),
  ),
]);
notes.tell();
