// The ids that were seen last, so that nobody has to copy one: variables of these names get them if they have no value.

import type { OperationDefinitionNode } from "graphql";

/** Fields that hold an object with an id → the variable that gets it, and what to do if there is none yet. */
const KINDS: Record<string, { variable: string; advice: string }> = {
  workspace: { variable: "workspaceId", advice: "No workspace is known yet: create one in the first tab" },
  pipeline: { variable: "pipelineId", advice: "No pipeline is known yet: create one in the second tab" },
  job: { variable: "jobId", advice: "No job is known yet: start one in the third tab" },
};

const key = (variable: string) => `jobstream:${variable}`;

/** Remembers the ids in an answer. What is in a list is one of many, and not remembered. */
export function remember(answer: unknown): void {
  if (typeof answer !== "object" || answer === null || Array.isArray(answer)) return;
  for (const [field, value] of Object.entries(answer)) {
    const kind = KINDS[field];
    if (kind && typeof value?.id === "string") sessionStorage.setItem(key(kind.variable), value.id);
    remember(value);
  }
}

/** The variables of an operation, with the ids that are known. Throws if one is needed that is not. */
export function fillIn(operation: OperationDefinitionNode, variables: Record<string, unknown> = {}) {
  const filled = { ...variables };
  for (const { variable, type, defaultValue } of operation.variableDefinitions ?? []) {
    const name = variable.name.value;
    const kind = Object.values(KINDS).find((kind) => kind.variable === name);
    if (!kind || defaultValue || filled[name] !== undefined) continue;
    const known = sessionStorage.getItem(key(name));
    if (known) filled[name] = known;
    else if (type.kind === "NonNullType") throw new Error(`${kind.advice}, or give $${name} a value under Variables.`);
  }
  return filled;
}
