//! Whether requests will be served: what `/readyz` says. Without a database that answers, or without writers that
//! get on, nothing can be acknowledged: not ready. Work in the background that is late makes answers old
//! or tables large, but another process could do no better: degraded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use xtrace_store::background::Background;
use xtrace_store::{Readiness, Store, Writer};

/// How long an answer of the database is remembered: probes of many balancers cost one question.
const MEMORY: Duration = Duration::from_secs(1);
/// How long the database may take to answer.
const DATABASE_WAIT: Duration = Duration::from_secs(2);
/// A batch that has been in the queue for so long is one that writers don't get on with.
const QUEUE_AGE_MAX: Duration = Duration::from_secs(30);

/// How the service is; clones share what is remembered.
#[derive(Clone)]
pub struct Health {
    store: Store,
    writer: Writer,
    background: Background,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

/// What is wrong.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Why requests will not be served.
    pub fault: Option<String>,
    /// What else is not as it should be.
    pub degraded: Vec<String>,
}

impl Health {
    /// Of these.
    pub fn new(store: Store, writer: Writer, background: Background) -> Self {
        Self {
            store,
            writer,
            background,
            last: Arc::default(),
        }
    }

    pub(crate) async fn report(&self) -> Report {
        let mut report = Report::default();
        let writer = self.writer.health();
        let age = writer.age;
        if let Readiness::NotReady(reason) = self.database().await {
            report.fault = Some(reason.to_string());
        } else if age > QUEUE_AGE_MAX {
            let seconds = age.as_secs();
            report.fault = Some(format!(
                "the oldest batch has waited {seconds} s to be written"
            ));
        } else if writer.writers == 0 {
            report.fault = Some("no writer runs".to_owned());
        }
        if writer.writers < writer.writers_max {
            let (running, all) = (writer.writers, writer.writers_max);
            let missing = format!("{running} of {all} writers run");
            report.degraded.push(missing);
        }
        for (name, age) in self.background.overdue() {
            let seconds = age.as_secs();
            let late = format!("the loop {name} has not succeeded for {seconds} s");
            report.degraded.push(late);
        }
        report
    }

    /// Asks the database, once for all who ask meanwhile.
    async fn database(&self) -> Readiness {
        let standing = self.store.standing();
        if standing != Readiness::Ready {
            return standing;
        }
        let mut last = self.last.lock().await;
        if let Some((at, readiness)) = &*last
            && at.elapsed() < MEMORY
        {
            return readiness.clone();
        }
        let answer = timeout(DATABASE_WAIT, self.store.readiness()).await;
        let silent = || Readiness::NotReady("the database does not answer".into());
        let readiness = answer.unwrap_or_else(|_| silent());
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }
}
