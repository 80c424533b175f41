//! The dictionary of series: who is in it, who may join it, and who is asked for.

mod known;
mod select;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use xtrace_model::metric::{Series, SeriesId};
use xtrace_model::{Batch, ProjectId};

pub(crate) use self::known::SeriesCache;
pub(super) use self::known::verify;
pub use self::known::{KnownSeries, SeriesKey};
pub use self::select::{Found, Selector, names, select};

use crate::{Store, StoreError};

/// How long it is good to know which series are active.
const ACTIVE_AGE_MAX: Duration = Duration::from_mins(1);
/// Refused series that are remembered; those above are looked up again each time.
const REFUSED_MAX: usize = 100_000;
/// A series counts as active for so many days after its last point.
const ACTIVE_DAYS: u64 = 1;

/// How many active series there may be.
#[derive(Debug, Clone, Copy)]
pub struct SeriesLimits {
    /// Of one project and metric.
    pub per_metric: usize,
    /// Of one project.
    pub per_project: usize,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self {
            per_metric: 10_000,
            per_project: 100_000,
        }
    }
}

/// Active series of a project.
struct Active {
    taken: Instant,
    by_metric: HashMap<String, HashSet<SeriesId>>,
    all: usize,
    /// Those let in since, which may not be stored yet: many may tell of one at once.
    admitted: Vec<(String, SeriesId)>,
    /// Those refused since: whoever has too many sends them all again.
    refused: HashSet<SeriesId>,
}

impl Active {
    fn is_fresh(&self) -> bool {
        self.taken.elapsed() < ACTIVE_AGE_MAX
    }

    fn insert(&mut self, metric: &str, id: SeriesId) {
        let is_new = self
            .by_metric
            .entry(metric.to_owned())
            .or_default()
            .insert(id);
        self.all += usize::from(is_new);
    }

    /// Whether one more is not too many.
    fn admit(&mut self, series: &Series, limits: SeriesLimits) -> bool {
        let of_metric = self.by_metric.get(&series.name);
        if of_metric.is_some_and(|known| known.contains(&series.id)) {
            return true;
        }
        let count = of_metric.map_or(0, HashSet::len);
        if count >= limits.per_metric || self.all >= limits.per_project {
            if self.refused.len() < REFUSED_MAX {
                self.refused.insert(series.id);
            }
            return false;
        }
        self.insert(&series.name, series.id);
        self.admitted.push((series.name.clone(), series.id));
        true
    }
}

/// Takes out of a batch the points of new series that are too many; answers how many points of which metric.
pub async fn admit(
    store: &Store,
    batch: &mut Batch,
    limits: SeriesLimits,
) -> Result<BTreeMap<String, usize>, StoreError> {
    let mut refused = BTreeMap::new();
    if batch.series.is_empty() {
        return Ok(refused);
    }
    let stored = stored(store, batch).await?;
    if stored.len() == batch.series.len() {
        return Ok(refused);
    }
    let fresh = active(store, &batch.project).await?;
    let mut excess: HashMap<SeriesId, String> = HashMap::new();
    {
        let mut all = store.series().active();
        // Another may have looked meanwhile, and let some in since.
        let is_known = all.get(&batch.project).is_some_and(Active::is_fresh);
        if let Some(mut fresh) = fresh.filter(|_| !is_known) {
            let before = all.remove(&batch.project);
            for (metric, id) in before.into_iter().flat_map(|before| before.admitted) {
                fresh.insert(&metric, id);
            }
            all.insert(batch.project.clone(), fresh);
        }
        let Some(active) = all.get_mut(&batch.project) else {
            return Ok(refused);
        };
        batch.series.retain(|series| {
            let is_in = stored.contains(&series.id) || active.admit(series, limits);
            if !is_in {
                excess.insert(series.id, series.name.clone());
            }
            is_in
        });
    }
    if !excess.is_empty() {
        batch.points.retain(|point| {
            let name = excess.get(&point.series);
            if let Some(name) = name {
                *refused.entry(name.clone()).or_default() += 1;
            }
            name.is_none()
        });
        batch
            .exemplars
            .retain(|exemplar| !excess.contains_key(&exemplar.series));
    }
    Ok(refused)
}

/// Which series of a batch are stored, but for those that were refused lately.
async fn stored(store: &Store, batch: &Batch) -> Result<HashSet<SeriesId>, StoreError> {
    let mut ids: Vec<SeriesId> = batch.series.iter().map(|series| series.id).collect();
    if let Some(active) = store.series().active().get(&batch.project)
        && active.is_fresh()
    {
        ids.retain(|id| !active.refused.contains(id));
    }
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let stored: Vec<SeriesId> = sqlx::query_scalar(
        "select series_id from metric_series where project_id = $1 and series_id = any($2)",
    )
    .bind(batch.project.as_str())
    .bind(&ids)
    .fetch_all(store.write())
    .await?;
    Ok(stored.into_iter().collect())
}

/// Looks for active series, unless that was done lately.
async fn active(store: &Store, project: &ProjectId) -> Result<Option<Active>, StoreError> {
    let is_known = store
        .series()
        .active()
        .get(project)
        .is_some_and(Active::is_fresh);
    if is_known {
        return Ok(None);
    }
    let since = Utc::now().date_naive() - chrono::Days::new(ACTIVE_DAYS);
    // Collects at most the active series of a project, which are limited.
    let rows: Vec<(String, Vec<SeriesId>)> = sqlx::query_as(
        "select name, array_agg(series_id) from metric_series where project_id = $1 and seen >= $2 group by name",
    )
    .bind(project.as_str())
    .bind(since)
    .fetch_all(store.write())
    .await?;
    Ok(Some(Active {
        taken: Instant::now(),
        all: rows.iter().map(|(_, series)| series.len()).sum(),
        by_metric: rows
            .into_iter()
            .map(|(name, series)| (name, series.into_iter().collect()))
            .collect(),
        admitted: Vec::new(),
        refused: HashSet::new(),
    }))
}

/// Writes series that may be new, and that they were seen today.
pub(crate) async fn write(
    connection: &mut PgConnection,
    batches: &[&Batch],
    now: DateTime<Utc>,
) -> Result<Vec<(ProjectId, SeriesId)>, StoreError> {
    let mut new: BTreeMap<(&ProjectId, SeriesId), &Series> = BTreeMap::new();
    for batch in batches {
        new.extend(
            batch
                .series
                .iter()
                .map(|series| ((&batch.project, series.id), series)),
        );
    }
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let json = |labels: &BTreeMap<String, String>| {
        serde_json::to_string(labels).expect("maps of texts serialise")
    };
    let lookup = |series: &Series| {
        let mut all = series.resource.clone();
        all.extend(series.labels.clone());
        json(&all)
    };
    let series = || new.values().copied();
    let texts =
        |of: &dyn Fn(&Series) -> &str| series().map(|one| of(one).to_owned()).collect::<Vec<_>>();
    sqlx::query(
        "insert into metric_series (project_id, series_id, name, environment, labels, lookup, kind, temporality,
                is_monotonic, unit, description, details, created_at, seen)
         select u.*, $13, $14 from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[],
                $7::smallint[], $8::smallint[], $9::bool[], $10::text[], $11::text[], $12::text[]) u
         on conflict (project_id, series_id) do update
            set seen = greatest(metric_series.seen, excluded.seen),
                description = case when length(excluded.description) > length(metric_series.description)
                                   then excluded.description else metric_series.description end
          where metric_series.seen < excluded.seen
             or length(excluded.description) > length(metric_series.description)",
    )
    .bind(new.keys().map(|(project, _)| project.as_str()).collect::<Vec<_>>())
    .bind(new.keys().map(|(_, id)| *id).collect::<Vec<_>>())
    .bind(texts(&|one| &one.name))
    .bind(texts(&|one| &one.environment))
    .bind(series().map(|one| json(&one.labels)).collect::<Vec<_>>())
    .bind(series().map(lookup).collect::<Vec<_>>())
    .bind(series().map(|one| one.kind as i16).collect::<Vec<_>>())
    .bind(series().map(|one| one.temporality as i16).collect::<Vec<_>>())
    .bind(series().map(|one| one.is_monotonic).collect::<Vec<_>>())
    .bind(texts(&|one| &one.unit))
    .bind(texts(&|one| &one.description))
    .bind(texts(&|one| &one.details))
    .bind(now)
    .bind(now.date_naive())
    .execute(connection)
    .await?;
    let written = new.into_keys();
    Ok(written.map(|(project, id)| (project.clone(), id)).collect())
}

/// Fails a batch that leaves out a series that the database has lost since the batch was read: it is described when
/// the sender tries again. Points of a series that nobody describes would be acknowledged and never found.
pub(crate) async fn check_left_out(
    connection: &mut PgConnection,
    cache: &SeriesCache,
    batches: &[&Batch],
) -> Result<(), StoreError> {
    for batch in batches {
        if !cache.is_outdated(batch) {
            continue;
        }
        let described: HashSet<SeriesId> = batch.series.iter().map(|one| one.id).collect();
        let points = batch.points.iter().map(|point| point.series);
        let left_out: HashSet<SeriesId> = points.filter(|id| !described.contains(id)).collect();
        if left_out.is_empty() {
            continue;
        }
        let is_lost: bool = sqlx::query_scalar(
            "select exists (
               select from unnest($2::bigint[]) k(id)
                where not exists (
                  select from metric_series s where s.project_id = $1 and s.series_id = k.id)
                limit 1)",
        )
        .bind(batch.project.as_str())
        .bind(left_out.into_iter().collect::<Vec<_>>())
        .fetch_one(&mut *connection)
        .await?;
        if is_lost {
            let cause = "the database has lost series that were known: they are described when points are sent again";
            return Err(StoreError::Unavailable(Some(sqlx::Error::Decode(
                cause.into(),
            ))));
        }
    }
    Ok(())
}
