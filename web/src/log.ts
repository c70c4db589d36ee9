// Logs come in pieces. GraphiQL shows the latest event of a subscription only; here it gets all lines so far.

import type { ExecutionResult } from "graphql";

/** So many lines are shown at most: the last ones. */
const MOST = 1_000;

/** The event, with the lines that were shown before in front of its own. */
export function append(shown: ExecutionResult | undefined, event: ExecutionResult): ExecutionResult {
  if (!event.data) return { ...event, data: shown?.data };
  const fields = Object.entries(event.data).map(([name, value]) => {
    const lines = linesOf(value);
    if (!lines) return [name, value];
    const before = linesOf(shown?.data?.[name]) ?? [];
    return [name, { ...value!, lines: [...before, ...lines].slice(-MOST) }];
  });
  return { ...event, data: Object.fromEntries(fields) };
}

function linesOf(value: unknown): unknown[] | undefined {
  const lines = (value as { lines?: unknown } | null | undefined)?.lines;
  return Array.isArray(lines) ? lines : undefined;
}
