//! Documents as rows: the values of all columns, in their order.

use chrono::{DateTime, Utc};
use xtrace_model::text::cut_chars;
use xtrace_model::{ProjectId, Register, json, time};

use super::changes::{Change, ChangedObservation};
use super::insert::Rows;
use crate::filter::PREFIX_CHARS;
use crate::stored::MergeState;

/// The columns of `traces` that [`trace`] gives.
pub(super) const TRACE_COLUMNS: &[&str] = &[
    "project_id",
    "id",
    "ts",
    "sent_timestamp",
    "first_start",
    "last_start",
    "last_end",
    "name",
    "user_id",
    "session_id",
    "release",
    "version",
    "environment",
    "external_id",
    "public",
    "bookmarked",
    "tags",
    "metadata",
    "metadata_decoded",
    "input",
    "output",
    "sent_latency",
    "sent_total_cost",
    "merge_state",
    "created_at",
    "updated_at",
    "latency",
    "debug_count",
    "default_count",
    "warning_count",
    "error_count",
    "input_usage",
    "output_usage",
    "total_usage",
    "input_cost",
    "output_cost",
    "total_cost",
    "usage",
    "user_key",
    "session_key",
    "name_key",
    "version_key",
    "release_key",
    "environment_key",
    "sums",
];

pub(super) fn trace(rows: &mut Rows, change: &Change<'_>, now: DateTime<Utc>) {
    let (trace, rollup) = (&change.trace, &change.rollup);
    let metadata = trace
        .shown_metadata()
        .map(json::storable)
        .map(|value| value.to_string());
    let time_of = |at: Option<DateTime<Utc>>| at.map(time::from_utc);
    rows.row()
        .text(Some(change.project.as_str()))
        .text(Some(trace.id.as_str()))
        .time(Some(change.begins()))
        .time(trace.timestamp.copied())
        .time(time_of(rollup.first_start))
        .time(time_of(rollup.last_start))
        .time(time_of(rollup.last_end))
        .text(trace.name.text())
        .text(trace.user_id.text())
        .text(trace.session_id.text())
        .text(trace.release.text())
        .text(trace.version.text())
        .text(Some(trace.environment()))
        .text(trace.external_id.text())
        .bool(trace.public.copied())
        .bool(trace.bookmarked.copied())
        .text_array(trace.tags.iter().map(String::as_str))
        .jsonb(metadata)
        .bool(Some(trace.metadata_decoded))
        .text(trace.input.text())
        .text(trace.output.text())
        .float8(trace.sent_latency.copied())
        .float8(trace.sent_total_cost.copied())
        .text(Some(&MergeState::of_trace(trace).to_text()))
        .time(Some(time::from_utc(change.created_at)))
        .time(Some(time::from_utc(now)))
        .float8(rollup.latency());
    rollup.levels.iter().for_each(|count| {
        rows.int4(Some(*count));
    });
    rollup.tokens().into_iter().for_each(|sum| {
        rows.int8(Some(sum));
    });
    let (input_cost, output_cost, total_cost) = rollup.costs();
    rows.float8(Some(input_cost))
        .float8(Some(output_cost))
        .float8(total_cost)
        .jsonb(Some(rollup.usage.to_text()));
    let filtered_by = [
        trace.user_id.text(),
        trace.session_id.text(),
        trace.name.text(),
        trace.version.text(),
        trace.release.text(),
        Some(trace.environment()),
    ];
    for value in filtered_by {
        rows.text(value.map(|value| cut_chars(value, PREFIX_CHARS)));
    }
    rows.text(rollup.sums(now).as_deref());
}

/// About how many bytes the rows of all observations have.
pub(super) fn observations_bytes(changes: &[Change<'_>]) -> usize {
    const BESIDE_TEXTS: usize = 1200;
    let observations = changes.iter().flat_map(|change| &change.observations);
    let bytes = observations.map(|changed| {
        let document = &changed.document;
        let texts = [&document.input, &document.output, &document.otel];
        let texts = texts.into_iter().filter_map(Register::text);
        BESIDE_TEXTS + texts.map(str::len).sum::<usize>()
    });
    bytes.sum()
}

/// The columns of `observations` that [`observation`] gives.
pub(super) const OBSERVATION_COLUMNS: &[&str] = &[
    "project_id",
    "trace_id",
    "id",
    "start_time",
    "end_time",
    "completion_start_time",
    "parent_id",
    "type",
    "name",
    "level",
    "status_message",
    "version",
    "environment",
    "model",
    "model_parameters",
    "prompt_name",
    "prompt_version",
    "usage_details",
    "input_usage",
    "output_usage",
    "total_usage",
    "sent_costs",
    "cost_details",
    "input_cost",
    "output_cost",
    "total_cost",
    "model_id",
    "tier_id",
    "tier_name",
    "input",
    "output",
    "metadata",
    "metadata_decoded",
    "tool_definitions",
    "otel",
    "root_rank",
    "experiment",
    "sent",
    "merge_state",
    "created_at",
    "updated_at",
];

pub(super) fn observation(
    rows: &mut Rows,
    project: &ProjectId,
    changed: &ChangedObservation<'_>,
    now: DateTime<Utc>,
) {
    let observation = &changed.document;
    rows.row()
        .text(Some(project.as_str()))
        .text(Some(observation.trace_id.as_str()))
        .text(Some(observation.id.as_str()))
        .time(Some(observation.begins()))
        .time(observation.ends())
        .time(observation.completion_start.copied())
        .text(observation.parent_id.text())
        .text(Some(observation.kind().name()))
        .text(observation.name.text())
        .text(Some(observation.level().name()))
        .text(observation.status_message.text())
        .text(observation.version.text())
        .text(Some(observation.environment()))
        .text(observation.model.text())
        .text(observation.model_parameters.text())
        .text(observation.prompt_name.text())
        .int4(observation.prompt_version.copied());
    usage_and_costs(rows, changed);
    let metadata = observation.metadata.value().map(json::storable);
    let sent = observation.sent.value().map(|value| value.to_string());
    rows.text(observation.input.text())
        .text(observation.output.text())
        .jsonb(metadata.map(|value| value.to_string()))
        .bool(Some(observation.metadata_decoded))
        .text(observation.tool_definitions.text())
        .text(observation.otel.text())
        .int4(observation.root_rank.copied())
        .jsonb(observation.experiment.text().map(str::to_owned))
        .text(sent.as_deref())
        .text(Some(&MergeState::of_observation(observation).to_text()))
        .time(Some(time::from_utc(changed.created_at)))
        .time(Some(time::from_utc(now)));
}

/// What usage and the price list say; recomputed whenever the observation changes.
fn usage_and_costs(rows: &mut Rows, changed: &ChangedObservation<'_>) {
    let (part, priced) = (&changed.part, &changed.priced);
    let costs = Some(&priced.costs).filter(|costs| !costs.is_empty());
    let (tier_id, tier_name) = priced.tier.as_ref().map(|(id, name)| (id, name)).unzip();
    rows.jsonb(changed.document.usage.get().map(json_text))
        .int8(part.input_usage)
        .int8(part.output_usage)
        .int8(part.total_usage)
        .jsonb(changed.document.sent_costs.get().map(json_text))
        .jsonb(costs.map(json_text))
        .float8(part.input_cost)
        .float8(part.output_cost)
        .float8(part.total_cost)
        .text(priced.model_id.as_deref())
        .text(tier_id.map(String::as_str))
        .text(tier_name.map(String::as_str));
}

fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("maps of numbers and texts serialise")
}
