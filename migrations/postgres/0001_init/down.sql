DROP TABLE deliveries, webhooks, log_chunks, changes, jobs, nodes, invitations, encryption_keys, data_components, triggers, definitions,
  pipelines, queues, workspaces;
DROP FUNCTION number_changes;
