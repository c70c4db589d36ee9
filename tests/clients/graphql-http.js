// graphql-http: the audits of the GraphQL-over-HTTP specification, also those of what a server only should or may do.

import { serverAudits } from 'graphql-http';
import { authorization, token, url } from './jobstream.js';

const fetchFn = (url, init) => fetch(url, { ...init, headers: { ...init?.headers, ...authorization(token) } });
const audits = serverAudits({ url, fetchFn });

let passed = 0;
for (const { id, name, fn } of audits) {
  const { status, reason } = await fn();
  if (status === 'ok') passed += 1;
  else console.log(`${status}: ${id} ${name}: ${reason}`);
}
console.log(`${passed} of ${audits.length}`);
