-- Log records. They never change; `id` is made of their content, so that a repeated one is the same.
create table logs (
    project_id    text collate "C" not null,
    ts            timestamptz not null,
    id            text collate "C" not null,
    observed_at   timestamptz,
    severity      int not null,          -- OpenTelemetry's numbers, 1 to 24; 0 is unknown
    severity_text text,
    event_name    text,
    body          jsonb compression lz4,
    trace_id      text collate "C",
    span_id       text collate "C",
    attributes    jsonb compression lz4 not null,
    rest          text compression lz4 not null,  -- JSON text: resource, scope, exact times, …
    created_at    timestamptz not null,
    primary key (project_id, ts, id)
) partition by range (ts);

create index logs_trace on logs (project_id, trace_id, ts) where trace_id is not null;

create table logs_default partition of logs default;
