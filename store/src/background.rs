//! Work that goes on for as long as the service does. Each loop has a task of its own: one that panics, ends
//! or gives no sign of life is started again after a pause, and everybody can ask how all of them are.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::StoreError;

/// Between the end of a loop and its next start: the first pause, doubled with every end that follows soon.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// A round that failed is tried again after this, doubled with every failure, but never later than
/// the next round would have been.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// The same failure is logged as a warning this often at most.
const WARNING_INTERVAL: Duration = Duration::from_mins(5);

/// A loop, and how long it may take.
pub struct Loop {
    name: &'static str,
    limits: Limits,
    start: Box<dyn Fn(Pulse) -> Task + Send + Sync>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long a loop may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Between two signs of life; after that the loop is ended and started again.
    pub silence_max: Duration,
    /// Between two rounds that succeed; after that the loop is overdue.
    pub success_max: Duration,
}

impl Loop {
    /// A loop that `start` begins; what it returns runs until it is dropped.
    pub fn new<T>(
        name: &'static str,
        limits: Limits,
        start: impl Fn(Pulse) -> T + Send + Sync + 'static,
    ) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        Self {
            name,
            limits,
            start: Box::new(move |pulse| Box::pin(start(pulse))),
        }
    }
}

/// What a loop says of itself while it runs; clones are of the same loop.
#[derive(Clone)]
pub struct Pulse {
    name: &'static str,
    limits: Limits,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The last sign of life; lies ahead while the loop rests.
    alive: Instant,
    /// When a round succeeded last, or the loop was first started.
    succeeded: Instant,
    warned: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
}

impl Pulse {
    /// Of a loop that starts now.
    pub fn new(name: &'static str, limits: Limits) -> Self {
        let now = Instant::now();
        let state = State {
            alive: now,
            succeeded: now,
            warned: None,
            failures: 0,
        };
        Self {
            name,
            limits,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Of work that nobody supervises: tests, and commands that run once.
    pub fn unwatched() -> Self {
        let limits = Limits {
            silence_max: Duration::MAX,
            success_max: Duration::MAX,
        };
        Self::new("unwatched", limits)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop makes progress; to be called within rounds that may take long.
    pub fn alive(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.alive = state.alive.max(now);
    }

    /// The loop does nothing for this long, as it should.
    pub fn rests(&self, time: Duration) {
        self.state().alive = Instant::now() + time;
    }

    /// A round succeeded.
    pub fn succeeded(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.alive = state.alive.max(now);
        state.succeeded = now;
        state.warned = None;
        let failures = std::mem::take(&mut state.failures);
        drop(state);
        if failures > 0 {
            tracing::info!(
                work = self.name,
                failures,
                "work in the background succeeds again"
            );
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        gauge!("xtrace_background_last_success_timestamp_seconds", "loop" => self.name)
            .set(now.unwrap_or_default().as_secs_f64());
    }

    /// A round failed, and another one follows. Logged as a warning at first and then now and then.
    pub fn failed(&self, error: &StoreError) {
        counter!("xtrace_background_failures_total", "loop" => self.name).increment(1);
        let now = Instant::now();
        let mut state = self.state();
        state.alive = state.alive.max(now);
        state.failures = state.failures.saturating_add(1);
        let failures = state.failures;
        let is_quiet = state
            .warned
            .is_some_and(|warned| now - warned < WARNING_INTERVAL);
        if !is_quiet {
            state.warned = Some(now);
        }
        drop(state);
        let cause = error.for_log();
        if is_quiet {
            tracing::debug!(work = self.name, %error, cause, failures, "work in the background failed");
        } else {
            tracing::warn!(work = self.name, %error, cause, failures, "work in the background failed and is tried again");
        }
    }

    fn silence(&self) -> Duration {
        Instant::now().saturating_duration_since(self.state().alive)
    }

    /// How long ago a round succeeded, if that is too long.
    fn overdue(&self) -> Option<Duration> {
        let age = self.state().succeeded.elapsed();
        (age > self.limits.success_max).then_some(age)
    }
}

/// All loops of a service; clones share them.
#[derive(Clone, Default)]
pub struct Background(Arc<Mutex<Vec<Pulse>>>);

impl Background {
    /// Runs loops until the future is dropped, each in a task of its own.
    pub async fn run(&self, loops: Vec<Loop>) {
        let mut supervisors = JoinSet::new();
        for one in loops {
            let pulse = Pulse::new(one.name, one.limits);
            // There from the start: whoever watches it sees a series, not a gap.
            counter!("xtrace_background_restarts_total", "loop" => one.name).increment(0);
            self.pulses().push(pulse.clone());
            supervisors.spawn(supervise(one, pulse));
        }
        while supervisors.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    }

    /// Loops that should have finished a round by now, and how long ago they did.
    pub fn overdue(&self) -> Vec<(&'static str, Duration)> {
        let pulses = self.pulses();
        let overdue = pulses.iter();
        overdue
            .filter_map(|pulse| Some((pulse.name, pulse.overdue()?)))
            .collect()
    }

    fn pulses(&self) -> MutexGuard<'_, Vec<Pulse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a loop again whenever it ends, until the task is dropped.
async fn supervise(one: Loop, pulse: Pulse) {
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        let why = end_of(&one, &pulse).await;
        counter!("xtrace_background_restarts_total", "loop" => one.name).increment(1);
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        tracing::warn!(
            work = one.name,
            why,
            ?pause,
            "work in the background is started again"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Runs a loop once; why it ended.
async fn end_of(one: &Loop, pulse: &Pulse) -> &'static str {
    pulse.rests(Duration::ZERO);
    // Dropped with this future, or when the loop hangs, which ends the task.
    let mut task = JoinSet::new();
    task.spawn((one.start)(pulse.clone()));
    loop {
        let left = one.limits.silence_max.saturating_sub(pulse.silence());
        match tokio::time::timeout(left.max(Duration::from_millis(1)), task.join_next()).await {
            Ok(Some(Err(error))) if JoinError::is_panic(&error) => return "it panicked",
            Ok(_) => return "it ended",
            Err(_) if pulse.silence() >= one.limits.silence_max => return "it hung",
            Err(_) => {}
        }
    }
}

/// Repeats a round until the future is dropped. A round says how long to rest after it; one that fails is
/// tried again sooner than `interval`, and later each time.
pub async fn repeat<R>(pulse: &Pulse, interval: Duration, mut round: impl FnMut() -> R)
where
    R: Future<Output = Result<Duration, StoreError>>,
{
    let mut retry = RETRY_MIN;
    loop {
        let rest = match round().await {
            Ok(rest) => {
                pulse.succeeded();
                retry = RETRY_MIN;
                rest
            }
            Err(error) => {
                pulse.failed(&error);
                let rest = retry.min(interval);
                retry *= 2;
                rest
            }
        };
        pulse.rests(rest);
        tokio::time::sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LIMITS: Limits = Limits {
        silence_max: Duration::from_mins(10),
        success_max: Duration::from_hours(1),
    };

    /// Runs a loop beside one that is well until `done`; what is overdue then.
    async fn beside_a_good_one(
        bad: Loop,
        good: &Arc<AtomicU32>,
        done: impl Fn() -> bool,
    ) -> Vec<&'static str> {
        let background = Background::default();
        let count = Arc::clone(good);
        let good = Loop::new("good", LIMITS, move |pulse| {
            let count = Arc::clone(&count);
            async move {
                let round = || async {
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(Duration::from_secs(1))
                };
                repeat(&pulse, Duration::from_secs(1), round).await;
            }
        });
        let running = background.run(vec![bad, good]);
        let until = async {
            while !done() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = running => {}
            () = until => {}
        }
        background.overdue().iter().map(|(name, _)| *name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_started_again_and_disturbs_no_other() {
        let (starts, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&starts);
        let bad = Loop::new("bad", LIMITS, move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(number >= 3, "the first three panic");
                std::future::pending::<()>().await;
            }
        });
        let began = Instant::now();
        beside_a_good_one(bad, &good, || starts.load(Ordering::Relaxed) == 4).await;
        // One, two and four seconds of pause.
        assert!(began.elapsed() >= Duration::from_secs(7));
        assert!(good.load(Ordering::Relaxed) >= 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_ended_and_is_overdue() {
        let (starts, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&starts);
        let bad = Loop::new("bad", LIMITS, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        });
        let done = || starts.load(Ordering::Relaxed) == 10;
        assert_eq!(beside_a_good_one(bad, &good, done).await, ["bad"]);
        assert!(good.load(Ordering::Relaxed) > 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_rests_or_makes_progress_does_not_hang() {
        let (starts, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&starts);
        let slow = Loop::new("slow", LIMITS, move |pulse| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                pulse.rests(Duration::from_hours(1));
                tokio::time::sleep(Duration::from_hours(1)).await;
                for _ in 0..20 {
                    pulse.alive();
                    tokio::time::sleep(Duration::from_mins(9)).await;
                }
                pulse.succeeded();
                pulse.rests(Duration::from_hours(9));
                std::future::pending::<()>().await;
            }
        });
        let done = || good.load(Ordering::Relaxed) > 5 * 3600;
        assert_eq!(beside_a_good_one(slow, &good, done).await, ["slow"]);
        assert_eq!(starts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_is_tried_again_later_and_later() {
        let pulse = Pulse::new("failing", LIMITS);
        let mut times = Vec::new();
        let began = Instant::now();
        let rounds = repeat(&pulse, Duration::from_mins(1), || {
            times.push(began.elapsed().as_secs());
            std::future::ready(Err(StoreError::Timeout))
        });
        let _ = tokio::time::timeout(Duration::from_mins(3), rounds).await;
        assert_eq!(times, [0, 5, 15, 35, 75, 135]);
        assert!(pulse.overdue().is_none());
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert!(pulse.overdue().is_some());
        pulse.succeeded();
        assert!(pulse.overdue().is_none());
    }
}
