//! What observations of a project cost: its own models first, then the built-in price list.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgExecutor;
use xtrace_model::price::{Model, PriceList, Priced};
use xtrace_model::{Observation, ProjectId, json as rules};

use crate::models::{self, ProjectModel};
use crate::{Store, StoreError, prices};

/// How long a book is taken for right; models that this process writes count at once.
const TTL: Duration = Duration::from_secs(2);
/// What all books together may take, by estimate; those that were not used for longest go first.
const BYTES_MAX: usize = 64 << 20;

/// The prices of a project.
#[derive(Debug, Default)]
pub struct PriceBook {
    own: Option<PriceList>,
}

impl PriceBook {
    /// Prices an observation.
    pub fn price(&self, observation: &Observation) -> Priced {
        let name = observation.model.text();
        let own = name.and_then(|name| self.own.as_ref()?.named(name));
        match own {
            Some(model) => model.price(observation),
            None => prices().price(observation),
        }
    }

    /// The model of that id.
    pub fn model(&self, id: &str) -> Option<&Model> {
        let own = self.own.as_ref().and_then(|own| own.model(id));
        own.or_else(|| prices().model(id))
    }

    /// The book of a project's models, of those that are sound and fit; and how many do not.
    fn of(models: &[ProjectModel]) -> (Self, usize) {
        if models.is_empty() {
            return (Self::default(), 0);
        }
        let entry = |model: &ProjectModel| {
            let entry = json!({
                "id": model.id,
                "modelName": model.model_name,
                "matchPattern": model.match_pattern,
                "pricingTiers": rules::parse(&model.pricing_tiers).unwrap_or_default(),
            });
            serde_json::from_value(entry).ok()
        };
        let readable: Vec<Model> = models.iter().filter_map(entry).collect();
        let unreadable = models.len() - readable.len();
        let (own, left_out) = PriceList::of_project(readable);
        (Self { own: Some(own) }, unreadable + left_out)
    }

    fn bytes(&self) -> usize {
        1000 + self.own.as_ref().map_or(0, PriceList::bytes)
    }
}

/// Whether all of these models can hold together. It takes a while: never ask on a thread that serves.
pub(crate) fn fit(models: &[ProjectModel]) -> bool {
    PriceBook::of(models).1 == 0
}

/// Books by project.
#[derive(Debug, Default)]
pub(crate) struct PriceBooks(Mutex<HashMap<ProjectId, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    book: Option<Arc<PriceBook>>,
    /// Of the rows that the book was made of.
    rows: u64,
    /// Since when it is right; none if it is to be read anew.
    since: Option<Instant>,
    used: Option<Instant>,
    /// Held by who reads it anew; the others wait for that.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl PriceBooks {
    fn books(&self) -> MutexGuard<'_, HashMap<ProjectId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, project: &ProjectId) -> Option<Arc<PriceBook>> {
        let mut books = self.books();
        let entry = books.get_mut(project)?;
        entry.used = Some(Instant::now());
        let is_fresh = entry.since.is_some_and(|since| since.elapsed() < TTL);
        entry.book.clone().filter(|_| is_fresh)
    }

    /// The newest book that is at hand, however old.
    pub(crate) fn latest(&self, project: &ProjectId) -> Option<Arc<PriceBook>> {
        self.books().get(project)?.book.clone()
    }

    /// The book that was made of the same rows.
    fn made_of(&self, project: &ProjectId, rows: u64) -> Option<Arc<PriceBook>> {
        let books = self.books();
        let entry = books.get(project).filter(|entry| entry.rows == rows)?;
        entry.book.clone()
    }

    fn turn(&self, project: &ProjectId) -> Arc<tokio::sync::Mutex<()>> {
        let mut books = self.books();
        Arc::clone(&books.entry(project.clone()).or_default().turn)
    }

    fn keep(&self, project: &ProjectId, (rows, since): (u64, Instant), book: Arc<PriceBook>) {
        let mut books = self.books();
        let entry = books.entry(project.clone()).or_default();
        entry.book = Some(book);
        (entry.rows, entry.since, entry.used) = (rows, Some(since), Some(Instant::now()));
        let bytes = |entry: &Entry| entry.book.as_ref().map_or(1000, |book| book.bytes());
        let mut all: usize = books.values().map(bytes).sum();
        while all > BYTES_MAX && books.len() > 1 {
            let oldest = books.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(project, _)| project.clone()) else {
                break;
            };
            all -= books.remove(&oldest).as_ref().map_or(0, bytes);
        }
    }

    /// Reads a project's book anew when it is asked for next.
    pub(crate) fn forget(&self, project: &ProjectId) {
        if let Some(entry) = self.books().get_mut(project) {
            entry.since = None;
        }
    }
}

impl Store {
    /// The prices of a project.
    pub async fn price_book(&self, project: &ProjectId) -> Result<Arc<PriceBook>, StoreError> {
        self.price_book_over(self.read(), project).await
    }

    /// The same over a connection that is at hand. Patterns are compiled once for the same rows, and aside.
    pub(crate) async fn price_book_over(
        &self,
        executor: impl PgExecutor<'_>,
        project: &ProjectId,
    ) -> Result<Arc<PriceBook>, StoreError> {
        let books = self.price_books();
        if let Some(book) = books.fresh(project) {
            return Ok(book);
        }
        let turn = books.turn(project);
        let _turn = turn.lock().await;
        if let Some(book) = books.fresh(project) {
            return Ok(book);
        }
        let since = Instant::now();
        let models = models::read(executor, project).await?;
        let rows = hash(&models);
        let book = match books.made_of(project, rows) {
            Some(book) => book,
            None => compile(project.clone(), models).await?,
        };
        books.keep(project, (rows, since), Arc::clone(&book));
        Ok(book)
    }
}

async fn compile(
    project: ProjectId,
    models: Vec<ProjectModel>,
) -> Result<Arc<PriceBook>, StoreError> {
    if models.is_empty() {
        return Ok(Arc::default());
    }
    let compiled = tokio::task::spawn_blocking(move || {
        let (book, left_out) = PriceBook::of(&models);
        if left_out > 0 {
            // They were checked when they came.
            tracing::error!(%project, left_out, "models of a project can't be read or are too large together");
        }
        Arc::new(book)
    });
    compiled
        .await
        .map_err(|_| StoreError::Internal(sqlx::Error::WorkerCrashed))
}

/// Of what a book is made of.
fn hash(models: &[ProjectModel]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    for model in models {
        for text in [
            &model.id,
            &model.model_name,
            &model.match_pattern,
            &model.pricing_tiers,
        ] {
            text.hash(&mut hasher);
        }
    }
    hasher.digest()
}
