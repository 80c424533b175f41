//! Media that items refer to: `@@@langfuseMedia:type=…|id=…|source=…@@@` within their texts.

use std::collections::HashMap;

use axum::http::HeaderMap;
use serde_json::{Value, json};
use xtrace_model::{ProjectId, json as rules};
use xtrace_store::datasets::Item;
use xtrace_store::media;

use crate::Compat;
use crate::error::CompatError;
use crate::media::signed;

const OPENING: &str = "@@@langfuseMedia:";
const CLOSING: &str = "@@@";

/// References of an item at most.
pub(super) const REFERENCES_MAX: usize = 100;
/// What stands at a longer path is no reference: each carries its path.
const PATH_BYTES_MAX: usize = 1000;

/// A reference, and where it stands.
pub(super) struct Reference {
    field: &'static str,
    text: String,
    path: String,
    pub(super) media_id: String,
}

/// The references of an item, by field, then by path; no more than [`REFERENCES_MAX`] and one.
pub(super) fn of_item(item: &Item) -> Vec<Reference> {
    let parts = [
        ("input", &item.input),
        ("expectedOutput", &item.expected_output),
        ("metadata", &item.metadata),
    ];
    let mut found = Vec::new();
    for (field, text) in parts {
        let Some(text) = text.as_deref().filter(|text| text.contains(OPENING)) else {
            continue;
        };
        collect(
            &rules::parse(text).unwrap_or_default(),
            field,
            &mut "$".to_owned(),
            &mut found,
        );
    }
    found.sort_by(|a, b| (a.field, &a.path).cmp(&(b.field, &b.path)));
    found
}

fn collect(value: &Value, field: &'static str, path: &mut String, found: &mut Vec<Reference>) {
    if path.len() > PATH_BYTES_MAX || found.len() > REFERENCES_MAX {
        return;
    }
    let length = path.len();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                path.extend(["['", name, "']"]);
                collect(member, field, path, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.extend(["[", &index.to_string(), "]"]);
                collect(item, field, path, found);
                path.truncate(length);
            }
        }
        Value::String(text) => {
            let room = REFERENCES_MAX + 1 - found.len();
            for (text, media_id) in of_text(text).into_iter().take(room) {
                found.push(Reference {
                    field,
                    text: text.to_owned(),
                    path: path.clone(),
                    media_id: media_id.to_owned(),
                });
            }
        }
        _ => {}
    }
}

/// Whole references, each with the id that it names.
fn of_text(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(OPENING) {
        let begin = from + at;
        let inner = begin + OPENING.len();
        let Some(length) = text[inner..].find(CLOSING) else {
            break;
        };
        from = inner + length + CLOSING.len();
        let mut members = text[inner..inner + length].split('|');
        let id = members.find_map(|member| member.strip_prefix("id="));
        found.extend(id.map(|id| (&text[begin..from], id)));
    }
    found
}

/// The references of items as they are shown; those whose media are not here are left out.
pub(super) async fn views(
    compat: &Compat,
    project: &ProjectId,
    headers: &HeaderMap,
    items: &[&Item],
) -> Result<Vec<Vec<Value>>, CompatError> {
    let references: Vec<Vec<Reference>> = items.iter().map(|item| of_item(item)).collect();
    let mut ids: Vec<String> = references
        .iter()
        .flatten()
        .map(|one| one.media_id.clone())
        .collect();
    if ids.is_empty() {
        return Ok(items.iter().map(|_| Vec::new()).collect());
    }
    ids.sort_unstable();
    ids.dedup();
    let mut media_by_id = HashMap::new();
    for media in media::find(&compat.store, project, &ids).await? {
        if media.is_here() {
            let link = signed(compat, project, &media, headers).await?;
            let shown = json!({
                "mediaId": media.id,
                "contentType": media.content_type,
                "contentLength": media.content_length,
                "url": link.url,
                "urlExpiry": link.expiry,
            });
            media_by_id.insert(media.id, shown);
        }
    }
    let shown = |one: &Reference| {
        let media = media_by_id.get(&one.media_id)?;
        Some(json!({
            "field": one.field,
            "referenceString": one.text,
            "jsonPath": one.path,
            "media": media,
        }))
    };
    Ok(references
        .iter()
        .map(|all| {
            let all = all.iter().take(REFERENCES_MAX);
            all.filter_map(shown).collect()
        })
        .collect())
}
