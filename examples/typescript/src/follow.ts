// Runs a pipeline, and prints what becomes of it to the end: npm run follow -- PIPELINE_ID

import { CreateJobDocument, JobsDocument } from './generated.js';
import { Jobstream } from './jobstream.js';

const { JOBSTREAM_URL = 'http://127.0.0.1:8080/graphql', JOBSTREAM_TOKEN } = process.env;
const [pipelineId] = process.argv.slice(2);
if (pipelineId === undefined) throw new Error('Say which pipeline is to be run.');

const jobstream = new Jobstream(JOBSTREAM_URL, JOBSTREAM_TOKEN);

// Read the list, then follow what happens after it: that leaves no gap.
const { jobs } = await jobstream.execute(JobsDocument, { pipelineId, first: 3 });
for (const { created, status } of jobs.nodes) console.log(`  ${created} ${status}`);
const { createJob } = await jobstream.execute(CreateJobDocument, { pipelineId });

async function printLog(jobId: string): Promise<void> {
  for await (const { lines } of jobstream.jobLogs(jobId)) {
    for (const { stream, text } of lines) console.log(stream === 'STDOUT' ? `│ ${text}` : `┆ ${text}`);
  }
}

async function printStatus(jobId: string): Promise<string> {
  for await (const { status, attempt } of jobstream.jobStatusChanged(jobId, jobs.cursor)) {
    console.log(`● ${status}, attempt ${attempt}`);
    if (status !== 'QUEUED' && status !== 'RUNNING') return status;
  }
  return 'deleted';
}

const [status] = await Promise.all([printStatus(createJob.job.id), printLog(createJob.job.id)]);
await jobstream.close();
process.exitCode = status === 'COMPLETE' ? 0 : 1;
