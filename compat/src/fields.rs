//! Field groups of traces. Groups left out are answered with sentinels, never with missing keys.

/// Which groups are wanted; `core` always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) io: bool,
    pub(crate) scores: bool,
    pub(crate) observations: bool,
    pub(crate) metrics: bool,
}

impl Fields {
    const ALL: Self = Self {
        io: true,
        scores: true,
        observations: true,
        metrics: true,
    };

    /// A comma list; unknown names are dropped, and if none is left, all groups are wanted.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let names: Vec<&str> = text.unwrap_or_default().split(',').map(str::trim).collect();
        let has = |name: &str| names.contains(&name);
        let fields = Self {
            io: has("io"),
            scores: has("scores"),
            observations: has("observations"),
            metrics: has("metrics"),
        };
        let any =
            has("core") || fields.io || fields.scores || fields.observations || fields.metrics;
        if any { fields } else { Self::ALL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_groups_are_dropped() {
        let none = Fields {
            io: false,
            scores: false,
            observations: false,
            metrics: false,
        };
        assert_eq!(Fields::parse(Some("core")), none);
        assert_eq!(
            Fields::parse(Some("core, bogus ,scores")),
            Fields {
                scores: true,
                ..none
            }
        );
        for text in [None, Some(""), Some("bogus")] {
            assert_eq!(Fields::parse(text), Fields::ALL);
        }
    }
}
