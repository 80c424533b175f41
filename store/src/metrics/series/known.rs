//! What this process knows of the dictionary: a memory that must not outlive what it describes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chrono::{DateTime, NaiveDate, Utc};
use xtrace_model::metric::{SeriesHasher, SeriesId};
use xtrace_model::{Batch, ProjectId};

use super::Active;
use crate::{Store, StoreError};

/// Series in the cache at most; those above are written again, which changes nothing.
const KNOWN_MAX: usize = 2_000_000;

/// What this process knows of the dictionary.
#[derive(Default)]
pub(crate) struct SeriesCache {
    known: RwLock<Known>,
    pub(super) active: Mutex<HashMap<ProjectId, Active>>,
}

#[derive(Default)]
struct Known {
    /// What ids are hashed with, once it is read.
    key: Option<SeriesKey>,
    /// Which server and database that was.
    identity: Option<(DateTime<Utc>, i64)>,
    by_project: HashMap<ProjectId, OfProject>,
    count: usize,
    /// How many times something was forgotten because the database may have lost it.
    losses: u64,
}

/// The day that a series was last written on. Apart from [`Known`], so that requests look series up without
/// holding what writers wait for.
type WrittenOn = Arc<RwLock<HashMap<SeriesId, NaiveDate>>>;

#[derive(Default)]
struct OfProject {
    /// When the project was made, once that was looked at: another one may have its name later.
    created: Option<DateTime<Utc>>,
    series: WrittenOn,
}

/// What the ids of a database's series are hashed with. It is secret, so that nobody can make up labels whose
/// series has the id of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeriesKey(u64);

/// Series of one project that need not be described again today.
pub struct KnownSeries {
    series: Option<WrittenOn>,
    as_of: u64,
    project: ProjectId,
    key: SeriesKey,
    today: NaiveDate,
}

impl KnownSeries {
    /// Whether this is one of them. No lock is held in between: decoding a large request takes long.
    pub fn contains(&self, id: SeriesId) -> bool {
        let Some(series) = &self.series else {
            return false;
        };
        let series = series.read().unwrap_or_else(PoisonError::into_inner);
        series.get(&id) == Some(&self.today)
    }

    /// An empty batch of the project, which remembers by which memory its series were left out.
    pub fn batch(&self) -> Batch {
        Batch {
            series_known_as_of: self.as_of,
            ..Batch::new(self.project.clone())
        }
    }

    /// Hashes what identifies a series of the project.
    pub fn hasher(&self, dialect: &str) -> SeriesHasher {
        SeriesHasher::new(self.key.0, dialect, &self.project)
    }
}

impl Store {
    /// What ids of series are hashed with; asks the database once.
    pub async fn series_key(&self) -> Result<SeriesKey, StoreError> {
        if let Some(key) = self.series().read().key {
            return Ok(key);
        }
        let key: i64 = sqlx::query_scalar("select key from series_key limit 1")
            .fetch_one(self.write())
            .await?;
        let key = SeriesKey(key.cast_unsigned());
        self.series().change().key = Some(key);
        Ok(key)
    }

    /// The series of a project that were written today.
    pub fn known_series(&self, key: SeriesKey, project: &ProjectId) -> KnownSeries {
        self.series()
            .of_project(project, key, Utc::now().date_naive())
    }
}

impl SeriesCache {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self) -> MutexGuard<'_, HashMap<ProjectId, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_project(&self, project: &ProjectId, key: SeriesKey, today: NaiveDate) -> KnownSeries {
        let known = self.read();
        let of_project = known.by_project.get(project);
        KnownSeries {
            series: of_project.map(|of_project| Arc::clone(&of_project.series)),
            as_of: known.losses,
            project: project.clone(),
            key,
            today,
        }
    }

    /// Whether a batch leaves out series that were forgotten since it was read.
    pub(super) fn is_outdated(&self, batch: &Batch) -> bool {
        !batch.points.is_empty() && batch.series_known_as_of != self.read().losses
    }

    /// Whatever comes is described again: the database may have lost what was written to it, or be another one.
    pub(crate) fn forget_all(&self) {
        let mut known = self.change();
        known.by_project.clear();
        known.count = 0;
        known.losses += 1;
        drop(known);
        self.active().clear();
    }

    fn forget(&self, project: &ProjectId) {
        let mut known = self.change();
        known.losses += 1;
        if let Some(forgotten) = known.by_project.remove(project) {
            known.count -= lock(&forgotten.series).len();
        }
        drop(known);
        self.active().remove(project);
    }

    pub(crate) fn remember(&self, written: &[(ProjectId, SeriesId)], today: NaiveDate) {
        if written.is_empty() {
            return;
        }
        let mut known = self.change();
        if known.count + written.len() > KNOWN_MAX {
            known.by_project.clear();
            known.count = 0;
        }
        let Known {
            by_project, count, ..
        } = &mut *known;
        for (project, id) in written {
            let of_project = match by_project.get_mut(project) {
                Some(of_project) => of_project,
                None => by_project.entry(project.clone()).or_default(),
            };
            *count += usize::from(lock(&of_project.series).insert(*id, today).is_none());
        }
    }

    /// Forgets all if the server was restarted or is another one.
    fn compare(&self, identity: (DateTime<Utc>, i64)) {
        let before = self.read().identity;
        if before.is_some_and(|before| before != identity) {
            tracing::info!(
                "the database was restarted or is another one: series are described again"
            );
            self.forget_all();
            self.change().key = None;
        }
        self.change().identity = Some(identity);
    }

    /// Forgets what is known of projects that were deleted, or made again since.
    fn compare_projects(&self, stored: &HashMap<String, DateTime<Utc>>) {
        let remembered: Vec<(ProjectId, Option<DateTime<Utc>>)> = {
            let known = self.read();
            let of = |(project, of): (&ProjectId, &OfProject)| (project.clone(), of.created);
            known.by_project.iter().map(of).collect()
        };
        for (project, before) in remembered {
            let now = stored.get(project.as_str()).copied();
            if now.is_some() && now == before {
                continue;
            }
            // What was known before the first look may be of a project before this one.
            self.forget(&project);
            if now.is_some() {
                let mut known = self.change();
                known.by_project.entry(project).or_default().created = now;
            }
        }
    }

    fn projects(&self) -> Vec<String> {
        let known = self.read();
        let projects = known.by_project.keys();
        projects
            .map(|project| project.as_str().to_owned())
            .collect()
    }
}

fn lock(series: &WrittenOn) -> RwLockWriteGuard<'_, HashMap<SeriesId, NaiveDate>> {
    series.write().unwrap_or_else(PoisonError::into_inner)
}

/// Looks whether what this process knows of the dictionary still holds: a server that failed over may have lost the
/// last transactions, and another process may have deleted a project.
pub(in crate::metrics) async fn verify(store: &Store) -> Result<(), StoreError> {
    let identity: (DateTime<Utc>, i64) = sqlx::query_as(
        "select pg_postmaster_start_time(), oid::bigint from pg_database where datname = current_database()",
    )
    .fetch_one(store.background())
    .await?;
    store.series().compare(identity);
    let projects = store.series().projects();
    if projects.is_empty() {
        return Ok(());
    }
    let stored: Vec<(String, DateTime<Utc>)> =
        sqlx::query_as("select id, created_at from projects where id = any($1)")
            .bind(projects)
            .fetch_all(store.background())
            .await?;
    store
        .series()
        .compare_projects(&stored.into_iter().collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(id: &str) -> ProjectId {
        ProjectId::parse(id).unwrap()
    }

    fn knows(cache: &SeriesCache, id: &str, series: SeriesId, today: NaiveDate) -> bool {
        let known = cache.of_project(&project(id), SeriesKey(0), today);
        known.contains(series)
    }

    #[test]
    fn requests_in_progress_hold_up_no_writer() {
        let cache = SeriesCache::default();
        let today = Utc::now().date_naive();
        cache.remember(&[(project("a"), 1)], today);
        let known = cache.of_project(&project("a"), SeriesKey(0), today);
        // With a lock held by the request, this would never end.
        cache.remember(&[(project("a"), 2), (project("b"), 3)], today);
        assert!(known.contains(1) && known.contains(2));
        let mut batch = known.batch();
        batch.points.push(xtrace_model::MetricPoint {
            series: 1,
            time: 0,
            start: 0,
            flags: 0,
            value: xtrace_model::metric::PointValue::Double(0.0),
        });
        assert!(!cache.is_outdated(&batch));
        cache.forget_all();
        assert!(cache.is_outdated(&batch));
        cache.remember(&[(project("a"), 1)], today);
        assert!(cache.is_outdated(&batch));
    }

    #[test]
    fn what_is_known_ends_with_what_it_describes() {
        let cache = SeriesCache::default();
        let today = Utc::now().date_naive();
        let (one, two) = (Utc::now(), Utc::now() + chrono::TimeDelta::seconds(1));
        let remember = || {
            cache.remember(&[(project("a"), 1), (project("b"), 2)], today);
        };
        let stored = |created: &[(&str, DateTime<Utc>)]| {
            let created = created.iter();
            created.map(|(id, at)| ((*id).to_owned(), *at)).collect()
        };
        remember();
        assert!(knows(&cache, "a", 1, today) && knows(&cache, "b", 2, today));
        // A project's series tell nothing of another's.
        assert!(!knows(&cache, "b", 1, today));
        assert!(!knows(&cache, "a", 1, today.succ_opt().unwrap()));
        // The first look knows nothing of the time before it.
        cache.compare_projects(&stored(&[("a", one), ("b", one)]));
        remember();
        cache.compare_projects(&stored(&[("a", one), ("b", one)]));
        assert!(knows(&cache, "a", 1, today) && knows(&cache, "b", 2, today));
        // Deleted; deleted and made again.
        cache.compare_projects(&stored(&[("b", two)]));
        assert!(!knows(&cache, "a", 1, today) && !knows(&cache, "b", 2, today));
        remember();
        cache.compare((one, 1));
        assert!(knows(&cache, "a", 1, today));
        cache.compare((two, 1));
        assert!(!knows(&cache, "a", 1, today));
    }
}
