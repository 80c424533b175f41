//! Who produced a span, and what all spans of one scope share.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use xtrace_model::Micros;
use xtrace_model::text::without_nul;

use super::attributes::Attributes;
use super::metadata::{self, Domain};
use crate::receivers::otlp::wire;

/// What the request's headers say of its sender.
#[derive(Debug, Clone, Default)]
pub(in crate::receivers::otlp) struct Sender {
    /// `x-langfuse-sdk-name`, in lower case.
    pub(in crate::receivers::otlp) sdk_name: Option<String>,
    /// `x-langfuse-sdk-version`.
    pub(in crate::receivers::otlp) sdk_version: Option<String>,
}

/// Who produced a span.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    scope_name: String,
    scope_version: String,
    language: Option<String>,
    python_header_version: Option<String>,
}

impl Source {
    /// The name of the instrumentation scope.
    pub(super) fn scope_name(&self) -> Option<&str> {
        Some(self.scope_name.as_str()).filter(|name| !name.is_empty())
    }

    /// Whether the Langfuse SDK for Python made the span.
    pub(super) fn is_python_sdk(&self) -> bool {
        self.scope_name == "langfuse-sdk" && self.language.as_deref() == Some("python")
    }

    /// Major and minor version of the scope.
    pub(super) fn sdk_version(&self) -> Option<(u32, u32)> {
        version(&self.scope_version)
    }

    /// Rule M-10: the Python SDK from 5 on.
    pub(super) fn encodes_metadata(&self) -> bool {
        let header = self.python_header_version.as_deref().and_then(version);
        let scope = self.sdk_version().filter(|_| self.is_python_sdk());
        header.or(scope).is_some_and(|(major, _)| major >= 5)
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// What all scopes of one resource share.
pub(super) struct Resource {
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes_count: u32,
    pub(super) schema_url: String,
}

/// What all spans of one scope share.
#[derive(Debug)]
pub(super) struct ScopeContext {
    pub(super) source: Source,
    /// JSON text, as it is kept with every span.
    pub(super) scope: Box<RawValue>,
    pub(super) scope_dropped: u32,
    pub(super) scope_schema_url: String,
    /// JSON text, as it is kept with every span.
    pub(super) resource: Box<RawValue>,
    pub(super) resource_dropped: u32,
    pub(super) resource_schema_url: String,
    pub(super) resource_metadata: Map<String, Value>,
    pub(super) received: Micros,
}

impl ScopeContext {
    pub(super) fn new(
        resource: &Resource,
        scope: wire::Scope<'_>,
        scope_schema_url: String,
        sender: &Sender,
        received: Micros,
    ) -> Self {
        let name = without_nul(&scope.name).into_owned();
        let version = without_nul(&scope.version).into_owned();
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let attributes = Attributes::new(scope.attributes).to_object();
        let python = sender
            .sdk_name
            .as_deref()
            .is_some_and(|name| name.ends_with("python"));
        let source = Source {
            scope_name: name.clone(),
            scope_version: version.clone(),
            language: resource.attributes.text("telemetry.sdk.language"),
            python_header_version: sender.sdk_version.clone().filter(|_| python),
        };
        Self {
            scope: raw(
                &json!({"name": said(&name), "version": said(&version), "attributes": attributes}),
            ),
            scope_dropped: scope.dropped_attributes_count,
            scope_schema_url,
            resource: raw(&resource.attributes.to_object()),
            resource_dropped: resource.dropped_attributes_count,
            resource_schema_url: resource.schema_url.clone(),
            resource_metadata: metadata::of(&resource.attributes, Domain::Trace, &source),
            source,
            received,
        }
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("JSON serialises")
}
