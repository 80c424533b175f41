//! Usage and costs that a span reports (rules U-0 to U-9 and 1.12).

use std::collections::BTreeMap;

use xtrace_model::usage::{self, Costs, Usage};

use super::attributes::{Attributes, as_object};
use super::conventions::{GOOGLE_ADK_SCOPE, genkit, vercel};
use super::{Source, model};

/// Names that emitters give to one kind of unit; the first that was sent counts.
struct Aliases {
    kind: &'static str,
    names: &'static [&'static str],
}

const INPUT: Aliases = Aliases {
    kind: "input",
    names: &["prompt_tokens", "input_tokens", "prompt"],
};
const OUTPUT: Aliases = Aliases {
    kind: "output",
    names: &["completion_tokens", "output_tokens", "completion"],
};
const TOTAL: Aliases = Aliases {
    kind: "total",
    names: &["total_tokens", "total"],
};
const CACHE_READ: Aliases = Aliases {
    kind: "input_cached_tokens",
    names: &[
        "cache_read.input_tokens",
        "cache_read_input_tokens",
        "cache_read_tokens",
        "details.cache_read_tokens",
        "details.cache_read_input_tokens",
        "prompt_details.cache_read",
        "input_cached_tokens",
        "prompt_details.cache_input",
        "prompt_tokens_details.cached_tokens",
    ],
};
const CACHE_WRITE: Aliases = Aliases {
    kind: "input_cache_creation",
    names: &[
        "cache_creation.input_tokens",
        "cache_creation_input_tokens",
        "cache_write_tokens",
        "details.cache_write_tokens",
        "details.cache_creation_input_tokens",
        "prompt_details.cache_write",
        "input_cache_creation",
        "cache_write.input_tokens",
        "cache_write_input_tokens",
        "cache_creation_tokens",
    ],
};
const REASONING: Aliases = Aliases {
    kind: "output_reasoning_tokens",
    names: &[
        "reasoning.output_tokens",
        "completion_details.reasoning",
        "reasoning_tokens",
        "details.reasoning_tokens",
        "thoughts_token_count",
    ],
};
/// Parts of input (true) and output (false) by modality; text is the rest, and no part of its own.
const MODALITIES: [(Aliases, bool); 6] = [
    (
        Aliases {
            kind: "input_audio_tokens",
            names: &["audio.input_tokens", "prompt_details.audio"],
        },
        true,
    ),
    (
        Aliases {
            kind: "input_image_tokens",
            names: &["image.input_tokens"],
        },
        true,
    ),
    (
        Aliases {
            kind: "input_video_tokens",
            names: &["video.input_tokens"],
        },
        true,
    ),
    (
        Aliases {
            kind: "output_audio_tokens",
            names: &["completion_details.audio", "audio.output_tokens"],
        },
        false,
    ),
    (
        Aliases {
            kind: "output_image_tokens",
            names: &["image.output_tokens"],
        },
        false,
    ),
    (
        Aliases {
            kind: "output_video_tokens",
            names: &["video.output_tokens"],
        },
        false,
    ),
];

impl Aliases {
    /// Takes all spellings out of the reported numbers; the first counts.
    fn take(&self, reported: &mut BTreeMap<String, i64>) -> Option<i64> {
        let found: Vec<i64> = self
            .names
            .iter()
            .filter_map(|name| reported.remove(*name))
            .collect();
        found.first().copied()
    }
}

/// The usage that a span reports; empty if none.
pub(super) fn of(attributes: &Attributes, source: &Source) -> Usage {
    if model::is_sum_of_children(attributes) {
        return Usage::new();
    }
    if let Some(explicit) = attributes.get("langfuse.observation.usage_details") {
        if let Some(members) = as_object(explicit) {
            return usage::with_total(usage::parse_usage(&members));
        }
        // Valid JSON that is no object says "none"; text that is no JSON says nothing.
        if explicit.as_str().is_none_or(xtrace_model::json::is_json) {
            return Usage::new();
        }
    }
    if source.scope_name() == Some(genkit::SCOPE)
        && let Some(units) = genkit::usage(attributes)
    {
        return usage::with_total(units);
    }
    let mut reported = reported(attributes);
    if source.scope_name() == Some(vercel::SCOPE) {
        vercel::add_usage(attributes, &mut reported);
    }
    if source.scope_name() == Some(GOOGLE_ADK_SCOPE) {
        google(attributes, &mut reported);
    }
    if reported.is_empty()
        && let Some(members) = attributes.get("mlflow.chat.tokenUsage").and_then(as_object)
    {
        return usage::with_total(usage::parse_usage(&members));
    }
    usage::with_total(canonical(reported))
}

/// U-4: Google ADK leaves the cached count in the response.
fn google(attributes: &Attributes, reported: &mut BTreeMap<String, i64>) {
    if CACHE_READ
        .names
        .iter()
        .any(|name| reported.contains_key(*name))
    {
        return;
    }
    let response = attributes
        .get("gcp.vertex.agent.llm_response")
        .and_then(as_object);
    let cached = response.as_ref().and_then(|response| {
        usage::count(
            response
                .get("usage_metadata")?
                .get("cached_content_token_count")?,
        )
    });
    reported.extend(cached.map(|count| (CACHE_READ.kind.to_owned(), count)));
}

/// Everything under the prefixes that is a count.
fn reported(attributes: &Attributes) -> BTreeMap<String, i64> {
    const PREFIXES: [&str; 3] = ["llm.usage.", "llm.token_count.", "gen_ai.usage."];
    const NO_COUNTS: [&str; 4] = ["cost", "input_cost", "output_cost", "token_type"];
    let all = PREFIXES.iter().flat_map(|prefix| attributes.under(prefix));
    all.filter(|(name, _)| !NO_COUNTS.contains(name))
        .filter_map(|(name, value)| Some((name.to_owned(), usage::count(value)?)))
        .collect()
}

/// U-5 to U-7: canonical kinds that add up.
fn canonical(mut reported: BTreeMap<String, i64>) -> Usage {
    let mut usage = Usage::new();
    let (input, output) = (INPUT.take(&mut reported), OUTPUT.take(&mut reported));
    let total = TOTAL.take(&mut reported);
    let read = CACHE_READ.take(&mut reported);
    let write = CACHE_WRITE.take(&mut reported);
    let reasoning = REASONING.take(&mut reported);
    let (mut of_input, mut of_output) = (0_i64, reasoning.unwrap_or(0));
    for (aliases, is_input) in &MODALITIES {
        if let Some(count) = aliases.take(&mut reported) {
            usage.insert(aliases.kind.to_owned(), count);
            let part = if *is_input {
                &mut of_input
            } else {
                &mut of_output
            };
            *part = part.saturating_add(count);
        }
    }
    let cached = read.unwrap_or(0).saturating_add(write.unwrap_or(0));
    // Some emitters count cached tokens beside the input, not within it; the total shows which.
    let sum = input.unwrap_or(0).saturating_add(output.unwrap_or(0));
    let beside = cached > 0 && total == Some(sum.saturating_add(cached));
    if !beside {
        of_input = of_input.saturating_add(cached);
    }
    let rest =
        |whole: Option<i64>, parts: i64| whole.map(|whole| whole.saturating_sub(parts).max(0));
    let kinds = [
        (INPUT.kind, rest(input, of_input)),
        (OUTPUT.kind, rest(output, of_output)),
        (TOTAL.kind, total),
        (CACHE_READ.kind, read),
        (CACHE_WRITE.kind, write),
        (REASONING.kind, reasoning),
    ];
    usage.extend(
        kinds
            .into_iter()
            .filter_map(|(kind, count)| Some((kind.to_owned(), count?))),
    );
    let others = reported
        .into_iter()
        .filter(|(name, _)| !name.starts_with("text."));
    for (name, count) in others {
        let name = name.strip_prefix("details.").unwrap_or(&name);
        usage.entry(name.to_owned()).or_insert(count);
    }
    usage
}

/// The costs that a span reports; empty if none.
pub(super) fn costs(attributes: &Attributes) -> Costs {
    const SOURCES: [(&str, &[&str]); 3] = [
        ("total", &["gen_ai.usage.cost", "llm.cost.total"]),
        ("input", &["gen_ai.usage.input_cost", "llm.cost.prompt"]),
        (
            "output",
            &["gen_ai.usage.output_cost", "llm.cost.completion"],
        ),
    ];
    if model::is_sum_of_children(attributes) {
        return Costs::new();
    }
    if let Some(members) = attributes
        .get("langfuse.observation.cost_details")
        .and_then(as_object)
    {
        return usage::with_total_cost(usage::parse_costs(&members));
    }
    let found = SOURCES.iter().filter_map(|(kind, keys)| {
        let (_, value) = attributes.first(keys)?;
        Some(((*kind).to_owned(), usage::cost(value)?))
    });
    usage::with_total_cost(found.collect())
}
