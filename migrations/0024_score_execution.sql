-- The trace of the evaluator that gave a score (`executionTraceId` on the wire): told, never joined by.
alter table scores add column execution_trace_id text collate "C";
