//! A metric point and the identity of the series that it belongs to.

use std::collections::BTreeMap;

use crate::ids::ProjectId;
use crate::time::Micros;

/// One number of one series at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// The series that the point belongs to.
    pub series: Series,
    /// When it was measured.
    pub time: Micros,
    /// What was measured; always finite.
    pub value: f64,
}

/// A metric name and a set of labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Series {
    /// The metric's name, 1 to 255 characters.
    pub name: String,
    /// The environment, `default` on the native path.
    pub environment: String,
    /// Label keys and values, compared as text.
    pub labels: BTreeMap<String, String>,
}

impl Series {
    /// The number that names this series within its project. Native and OTLP series have distinct
    /// identities, so this one begins with its own word.
    pub fn id(&self, project: &ProjectId) -> i64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let mut feed = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        feed("native");
        feed(project.as_str());
        feed(&self.name);
        feed(&self.environment);
        for (key, value) in &self.labels {
            feed(key);
            feed(value);
        }
        hasher.digest().cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_its_project_name_and_labels() {
        let series = |name: &str, labels: &[(&str, &str)]| Series {
            name: name.into(),
            environment: "default".into(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        };
        let project = ProjectId::parse("p").unwrap();
        let id = series("gpu", &[("a", "1"), ("b", "2")]).id(&project);
        assert_eq!(id, series("gpu", &[("b", "2"), ("a", "1")]).id(&project));
        assert_ne!(id, series("gpu", &[("a", "12"), ("b", "")]).id(&project));
        assert_ne!(
            id,
            series("gpu", &[("a", "1"), ("b", "2")]).id(&ProjectId::parse("q").unwrap())
        );
    }
}
