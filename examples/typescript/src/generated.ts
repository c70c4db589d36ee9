/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
import type { DocumentTypeDecoration } from '@graphql-typed-document-node/core';
/** How far a job is. */
export type JobStatus =
  /** The job finished with no errors. */
  | 'COMPLETE'
  /** The job finished with errors. */
  | 'ERROR'
  /** The job is queued: it waits for a runner, or, a user task, for a person. */
  | 'QUEUED'
  /** The job is running. */
  | 'RUNNING'
  /** The job timed out or was stopped. */
  | 'STOPPED';

/** Where a log line comes from. */
export type LogStream =
  /** The job's standard error. */
  | 'STDERR'
  /** The job's standard output. */
  | 'STDOUT'
  /** The server, saying what it did with the job. */
  | 'SYSTEM';

export type JobFieldsFragment = { id: string, status: JobStatus, attempt: number, maxAttempts: number, exitCode: number | null, created: string, startTime: string | null, endTime: string | null };

export type JobsQueryVariables = Exact<{
  pipelineId: string;
  first?: number | null | undefined;
  after?: string | null | undefined;
}>;


export type JobsQuery = { jobs: { cursor: string, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ id: string, status: JobStatus, attempt: number, maxAttempts: number, exitCode: number | null, created: string, startTime: string | null, endTime: string | null }> } };

export type CreateJobMutationVariables = Exact<{
  pipelineId: string;
}>;


export type CreateJobMutation = { createJob: { job: { id: string, status: JobStatus, attempt: number, maxAttempts: number, exitCode: number | null, created: string, startTime: string | null, endTime: string | null } } };

export type JobStatusChangedSubscriptionVariables = Exact<{
  jobId: string;
  after?: string | null | undefined;
}>;


export type JobStatusChangedSubscription = { jobStatusChanged: { cursor: string, status: JobStatus, attempt: number, at: string } };

export type JobLogsSubscriptionVariables = Exact<{
  jobId: string;
  sequence: number;
}>;


export type JobLogsSubscription = { jobLogs: { nextSequence: number, complete: boolean, lines: Array<{ sequence: number, timestamp: string, stream: LogStream, text: string }> } };

export class TypedDocumentString<TResult, TVariables>
  extends String
  implements DocumentTypeDecoration<TResult, TVariables>
{
  __apiType?: NonNullable<DocumentTypeDecoration<TResult, TVariables>['__apiType']>;
  private value: string;
  public __meta__?: Record<string, any> | undefined;

  constructor(value: string, __meta__?: Record<string, any> | undefined) {
    super(value);
    this.value = value;
    this.__meta__ = __meta__;
  }

  override toString(): string & DocumentTypeDecoration<TResult, TVariables> {
    return this.value;
  }
}
export const JobFieldsFragmentDoc = new TypedDocumentString(`
    fragment JobFields on Job {
  id
  status
  attempt
  maxAttempts
  exitCode
  created
  startTime
  endTime
}
    `, {"fragmentName":"JobFields"}) as unknown as TypedDocumentString<JobFieldsFragment, unknown>;
export const JobsDocument = new TypedDocumentString(`
    query Jobs($pipelineId: ID!, $first: Int, $after: String) {
  jobs(
    pipelineId: $pipelineId
    type: [PIPELINE_RUN]
    first: $first
    after: $after
  ) {
    cursor
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      ...JobFields
    }
  }
}
    fragment JobFields on Job {
  id
  status
  attempt
  maxAttempts
  exitCode
  created
  startTime
  endTime
}`) as unknown as TypedDocumentString<JobsQuery, JobsQueryVariables>;
export const CreateJobDocument = new TypedDocumentString(`
    mutation CreateJob($pipelineId: ID!) {
  createJob(input: {pipelineId: $pipelineId}) {
    job {
      ...JobFields
    }
  }
}
    fragment JobFields on Job {
  id
  status
  attempt
  maxAttempts
  exitCode
  created
  startTime
  endTime
}`) as unknown as TypedDocumentString<CreateJobMutation, CreateJobMutationVariables>;
export const JobStatusChangedDocument = new TypedDocumentString(`
    subscription JobStatusChanged($jobId: ID!, $after: String) {
  jobStatusChanged(jobId: $jobId, after: $after) {
    cursor
    status
    attempt
    at
  }
}
    `) as unknown as TypedDocumentString<JobStatusChangedSubscription, JobStatusChangedSubscriptionVariables>;
export const JobLogsDocument = new TypedDocumentString(`
    subscription JobLogs($jobId: ID!, $sequence: Int!) {
  jobLogs(jobId: $jobId, sequence: $sequence) {
    lines {
      sequence
      timestamp
      stream
      text
    }
    nextSequence
    complete
  }
}
    `) as unknown as TypedDocumentString<JobLogsSubscription, JobLogsSubscriptionVariables>;