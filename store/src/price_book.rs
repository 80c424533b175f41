//! What observations of a project cost: its own models first, then the built-in price list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgExecutor;
use xtrace_model::price::{Model, PriceList, Priced};
use xtrace_model::{Observation, ProjectId, json as rules};

use crate::models::{self, ProjectModel};
use crate::{Store, StoreError, prices};

/// How long a book is taken for right; models that this process writes count at once.
const TTL: Duration = Duration::from_secs(2);
/// Books that are kept at most.
const BOOKS_MAX: usize = 10_000;

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

    fn of(models: &[ProjectModel]) -> Self {
        if models.is_empty() {
            return Self::default();
        }
        let entry = |model: &ProjectModel| -> Value {
            json!({
                "id": model.id,
                "modelName": model.model_name,
                "matchPattern": model.match_pattern,
                "pricingTiers": rules::parse(&model.pricing_tiers).unwrap_or_default(),
            })
        };
        let list: Vec<Value> = models.iter().map(entry).collect();
        let own = PriceList::parse(&Value::Array(list).to_string());
        if let Err(error) = &own {
            // They were checked when they came; a price that is wrong must not stop traces.
            tracing::error!(%error, "models of a project can't be read; the built-in prices hold");
        }
        Self { own: own.ok() }
    }
}

/// Books by project, as long as they are right.
#[derive(Debug, Default)]
pub(crate) struct PriceBooks(Mutex<HashMap<ProjectId, (Instant, Arc<PriceBook>)>>);

impl PriceBooks {
    fn known(&self, project: &ProjectId) -> Option<Arc<PriceBook>> {
        let books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, book) = books.get(project)?;
        (since.elapsed() < TTL).then(|| Arc::clone(book))
    }

    fn keep(&self, project: &ProjectId, since: Instant, book: Arc<PriceBook>) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if books.len() >= BOOKS_MAX {
            books.clear();
        }
        books.insert(project.clone(), (since, book));
    }

    /// Reads a project's book anew when it is asked for next.
    pub(crate) fn forget(&self, project: &ProjectId) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        books.remove(project);
    }
}

impl Store {
    /// The prices of a project.
    pub async fn price_book(&self, project: &ProjectId) -> Result<Arc<PriceBook>, StoreError> {
        self.price_book_over(self.read(), project).await
    }

    /// The same over a connection that is at hand.
    pub(crate) async fn price_book_over(
        &self,
        executor: impl PgExecutor<'_>,
        project: &ProjectId,
    ) -> Result<Arc<PriceBook>, StoreError> {
        if let Some(book) = self.price_books().known(project) {
            return Ok(book);
        }
        let since = Instant::now();
        let book = Arc::new(PriceBook::of(&models::read(executor, project).await?));
        self.price_books().keep(project, since, Arc::clone(&book));
        Ok(book)
    }
}
