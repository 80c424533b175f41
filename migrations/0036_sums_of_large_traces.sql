-- What the sums of a trace of many observations need so that a change can be added to them: reading all of its
-- observations with every request that says something of it costs the square of their number. JSON text; it
-- counts only if its `at` is the row's `updated_at`, since older programs write the row without it.
alter table traces add column sums text compression lz4;

-- Large traces whose first or last observation has moved: which is the first now, only a look at all of
-- them tells, which is done in the background.
create table trace_doubts (
    project_id text collate "C" not null,
    trace_id   text collate "C" not null,
    marked_at  timestamptz not null,
    primary key (project_id, trace_id)
);
