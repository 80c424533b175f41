//! What is asked of metrics in the native dialect, and the way to an answer.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use xtrace_model::ProjectId;
use xtrace_model::metric::{Kind, SeriesId};

use super::evaluate::{Groups, Labels, View};
use super::series::{self, Found, Selector};
use super::turns::{self, Turn};
use super::{derived, exemplars, read};
use crate::{Store, StoreError};

/// Series of an answer at most; those with the newest data are chosen.
pub const SERIES_MAX: usize = 50;
/// Buckets of a series at most; the newest are chosen.
pub const BUCKETS_MAX: usize = 1000;
/// How far back the point before the range is looked for, to tell how much the first one grew.
const LOOK_BACK: TimeDelta = TimeDelta::minutes(5);

/// How the points of a bucket become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the query parameter")]
pub enum Aggregation {
    Avg,
    Max,
    Min,
    Sum,
    Last,
    Count,
    P50,
    P90,
    P95,
    P99,
    Rate,
    Increase,
}

impl Aggregation {
    /// All aggregations by their names.
    pub const NAMES: [(&'static str, Self); 12] = [
        ("avg", Self::Avg),
        ("max", Self::Max),
        ("min", Self::Min),
        ("sum", Self::Sum),
        ("last", Self::Last),
        ("count", Self::Count),
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p95", Self::P95),
        ("p99", Self::P99),
        ("rate", Self::Rate),
        ("increase", Self::Increase),
    ];

    /// The fraction of values that a percentile is not below.
    pub(super) fn fraction(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.5),
            Self::P90 => Some(0.9),
            Self::P95 => Some(0.95),
            Self::P99 => Some(0.99),
            _ => None,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct MetricsQuery {
    /// Which series.
    pub selector: Selector,
    /// First time, inclusive.
    pub from: DateTime<Utc>,
    /// Last time, inclusive.
    pub to: DateTime<Utc>,
    /// Seconds of a bucket; buckets begin at its multiples since the Unix epoch.
    pub step_s: i64,
    /// How the points of a bucket become one value.
    pub aggregation: Aggregation,
    /// Label keys that make a series of the answer; `None` means every label set is one.
    pub group_by: Option<Vec<String>>,
    /// Whether exemplars come along.
    pub exemplars: bool,
}

impl MetricsQuery {
    /// Labels that the answer tells a series apart by.
    fn group_of(&self, labels: &Labels, lookup: &Labels) -> Labels {
        let Some(keys) = &self.group_by else {
            return labels.clone();
        };
        let pair = |key: &String| Some((key.clone(), lookup.get(key)?.clone()));
        keys.iter().filter_map(pair).collect()
    }
}

/// One series of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerSeries {
    /// Its labels.
    pub labels: Labels,
    /// When each bucket begins, and its value.
    pub values: Vec<(DateTime<Utc>, f64)>,
    /// The newest point within the range.
    pub latest: DateTime<Utc>,
}

/// A measurement, and where it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerExemplar {
    /// Labels of its series.
    pub labels: Labels,
    /// When its point was measured.
    pub time: DateTime<Utc>,
    /// `value`, `traceId`, `spanId`, and more, as JSON.
    pub data: String,
}

/// Buckets by series.
#[derive(Debug, Default)]
pub struct Answer {
    /// Series with the newest data first, buckets in order of time.
    pub series: Vec<AnswerSeries>,
    /// Whether something was left out.
    pub truncated: bool,
    /// If they were asked for.
    pub exemplars: Vec<AnswerExemplar>,
}

/// Answers a question.
pub async fn query(
    store: &Store,
    project: &ProjectId,
    query: &MetricsQuery,
) -> Result<Answer, StoreError> {
    // Before any connection is taken: those that wait hold none.
    let deadline = Instant::now() + read::TIME_MAX;
    let _turn = turns::wait(project, Turn::Question, deadline).await?;
    if let Some(metric) = derived::Metric::parse(&query.selector.name) {
        return derived::query(store, project, query, metric).await;
    }
    let (found, view) = find(store, project, query).await?;
    let range = (query.from, query.to);
    let mut by_labels: BTreeMap<Labels, Vec<Found>> = BTreeMap::new();
    for series in found {
        let labels = query.group_of(&series.labels, &series.lookup);
        by_labels.entry(labels).or_default().push(series);
    }
    let all = by_labels.len();
    if all > SERIES_MAX {
        by_labels = freshest(store, project, by_labels, range).await?;
    }
    let is_cut = all > by_labels.len();
    let mut members: HashMap<SeriesId, (Labels, Found)> = HashMap::new();
    for (labels, series) in by_labels {
        members.extend(
            series
                .into_iter()
                .map(|series| (series.id, (labels.clone(), series))),
        );
    }
    let mut ids: Vec<SeriesId> = members.keys().copied().collect();
    ids.sort_unstable();
    let from = query
        .from
        .checked_sub_signed(LOOK_BACK)
        .unwrap_or(query.from);
    let groups = Groups::new(query.clone(), view, members);
    let groups = read::points(store, project, &ids, (from, query.to), groups).await?;
    let mut linked = Vec::new();
    if query.exemplars {
        for one in exemplars::of(store, project, &ids, range).await? {
            if let Some(series) = groups.member(one.series_id) {
                linked.push(AnswerExemplar {
                    labels: Labels::clone(&series.labels),
                    time: one.ts,
                    data: one.data,
                });
            }
        }
    }
    let mut answer = answer(groups).await?;
    answer.truncated |= is_cut;
    answer.exemplars = linked;
    Ok(answer)
}

/// Large ones are computed on a thread that serves nobody.
async fn answer(groups: Groups) -> Result<Answer, StoreError> {
    const INLINE_BYTES_MAX: usize = 256 << 10;
    if groups.bytes() <= INLINE_BYTES_MAX {
        return groups.answer();
    }
    let answer = tokio::task::spawn_blocking(|| groups.answer()).await;
    answer.map_err(|_| StoreError::Unavailable(Some(sqlx::Error::WorkerCrashed)))?
}

/// Series of that name; or of the name before its last dot, if what follows is a part of distributions.
async fn find(
    store: &Store,
    project: &ProjectId,
    query: &MetricsQuery,
) -> Result<(Vec<Found>, View), StoreError> {
    // Buckets and quantiles make labels of their own.
    let mut selector = query.selector.clone();
    let found = series::select(store, project, &selector, query.from).await?;
    let part = selector.name.rsplit_once('.');
    let part = part.and_then(|(name, part)| Some((name.to_owned(), View::parse(part)?)));
    let (true, Some((name, view))) = (found.is_empty(), part) else {
        return Ok((found, View::Value));
    };
    selector.name = name;
    if let Some(key) = view.label() {
        selector.labels.remove(key);
    }
    let mut found = series::select(store, project, &selector, query.from).await?;
    found.retain(|series| series.kind.is_distribution() && view.is_of(series.kind));
    Ok((found, view))
}

/// The groups with the newest points.
async fn freshest(
    store: &Store,
    project: &ProjectId,
    groups: BTreeMap<Labels, Vec<Found>>,
    range: read::Range,
) -> Result<BTreeMap<Labels, Vec<Found>>, StoreError> {
    let ids: Vec<SeriesId> = groups.values().flatten().map(|series| series.id).collect();
    let newest = read::newest(store, project, &ids, range).await?;
    let latest = |series: &[Found]| series.iter().filter_map(|one| newest.get(&one.id)).max();
    let mut fresh: Vec<_> = groups
        .into_iter()
        .filter_map(|(labels, series)| Some((*latest(&series)?, labels, series)))
        .collect();
    fresh.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    fresh.truncate(SERIES_MAX);
    Ok(fresh
        .into_iter()
        .map(|(_, labels, series)| (labels, series))
        .collect())
}

impl View {
    fn is_of(self, kind: Kind) -> bool {
        match self {
            Self::Min | Self::Max | Self::Bucket => kind != Kind::Summary,
            Self::Quantile => kind == Kind::Summary,
            Self::Value | Self::Count | Self::Sum => true,
        }
    }
}
