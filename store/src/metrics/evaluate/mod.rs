//! From points to one value a bucket.

mod bucket;
mod parts;

use std::collections::{BTreeMap, HashMap};

use chrono::DateTime;
use xtrace_model::metric::{Distribution, MetricPoint, Nanos, PointValue, SeriesId, Shape};
use xtrace_model::time;

use self::bucket::{Bucket, Group, Window};
pub(super) use self::parts::View;
use super::growth;
use super::query::{Aggregation, Answer, AnswerSeries, MetricsQuery, SERIES_MAX};
use super::read::Fold;
use super::series::Found;
use crate::StoreError;

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

const SECOND: Nanos = 1_000_000_000;
/// Series that bounds and quantiles may make of themselves.
const SPREAD_OUT_MAX: usize = 10_000;
/// What an answer may hold while it is made.
const BYTES_MAX: usize = 48 << 20;

/// Series of the answer, as they are gathered.
pub(super) struct Groups {
    query: MetricsQuery,
    view: View,
    window: Window,
    /// The labels that each series is added to.
    members: HashMap<SeriesId, (Labels, Found)>,
    groups: Vec<(Labels, Group)>,
    /// Where the group of some labels lies: that is looked up once for each series, not for each bucket.
    places: BTreeMap<Labels, usize>,
    /// Whether the question is how much series grow: nobody else has to compare points.
    grows: bool,
    present: Option<Present>,
    bytes: usize,
    has_missed: bool,
}

/// The series whose points come.
struct Present {
    id: SeriesId,
    labels: Labels,
    /// As its parts are, where parts of it are looked at.
    series: Found,
    whole: Running,
    /// Bounds or quantiles, by their bits.
    parts: HashMap<u64, (Labels, Running)>,
}

/// A series of numbers on its way: a bucket is added when all of its points are there, so that sums are the same
/// in however many pieces they come.
#[derive(Default)]
struct Running {
    /// Its group, once it has one.
    place: Option<usize>,
    before: Option<MetricPoint>,
    open: Option<(Nanos, Bucket)>,
}

fn nanos(at: DateTime<chrono::Utc>) -> Nanos {
    time::from_utc(at).saturating_mul(1000)
}

impl Groups {
    /// Series come with the labels that they are added to.
    pub(super) fn new(
        query: MetricsQuery,
        view: View,
        members: HashMap<SeriesId, (Labels, Found)>,
    ) -> Self {
        Self {
            window: Window {
                from: nanos(query.from),
                // A question ends with a microsecond, points with nanoseconds.
                to: nanos(query.to).saturating_add(999),
                step: query.step_s.saturating_mul(SECOND),
            },
            grows: matches!(query.aggregation, Aggregation::Rate | Aggregation::Increase),
            query,
            view,
            members,
            groups: Vec::new(),
            places: BTreeMap::new(),
            present: None,
            bytes: 0,
            has_missed: false,
        }
    }

    /// What is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A series that is asked for.
    pub(super) fn member(&self, id: SeriesId) -> Option<&Found> {
        self.members.get(&id).map(|(_, series)| series)
    }

    fn begin(&mut self, id: SeriesId) -> Result<Option<Present>, StoreError> {
        match self.present.take() {
            Some(present) if present.id == id => return Ok(Some(present)),
            Some(ended) => self.end(ended)?,
            None => {}
        }
        let Some((labels, series)) = self.members.get(&id) else {
            return Ok(None);
        };
        let series = if series.kind.is_distribution() {
            self.view.as_numbers(series)
        } else {
            series.clone()
        };
        Ok(Some(Present {
            id,
            labels: labels.clone(),
            series,
            whole: Running::default(),
            parts: HashMap::new(),
        }))
    }

    fn end(&mut self, ended: Present) -> Result<(), StoreError> {
        let mut parts: Vec<(u64, (Labels, Running))> = ended.parts.into_iter().collect();
        parts.sort_by_key(|(bits, _)| *bits);
        let parts = parts.into_iter().map(|(_, part)| part);
        for (labels, mut running) in std::iter::once((ended.labels, ended.whole)).chain(parts) {
            if let Some((begins, bucket)) = running.open {
                self.put((&labels, &mut running.place), begins, bucket)?;
            }
        }
        Ok(())
    }

    fn place_of(&mut self, labels: &Labels) -> usize {
        if let Some(place) = self.places.get(labels) {
            return *place;
        }
        let place = self.groups.len();
        self.groups.push((labels.clone(), Group::default()));
        self.places.insert(labels.clone(), place);
        place
    }

    /// Adds a bucket to the group of these labels, whose place is remembered.
    fn put(
        &mut self,
        (labels, place): (&Labels, &mut Option<usize>),
        begins: Nanos,
        more: Bucket,
    ) -> Result<(), StoreError> {
        let place = *place.get_or_insert_with(|| self.place_of(labels));
        let (before, after) = self.groups[place].1.add(begins, more);
        self.bytes = (self.bytes + after).saturating_sub(before);
        if self.bytes > BYTES_MAX {
            let megabytes = BYTES_MAX >> 20;
            return Err(StoreError::TooBroad(format!(
                "its buckets take more than {megabytes} MB; ask for a shorter range, a larger step, or for fewer \
                 series by labels"
            )));
        }
        Ok(())
    }

    /// Adds one number to the bucket of its time.
    fn number(
        &mut self,
        (series, labels): (&Found, &Labels),
        running: &mut Running,
        point: &MetricPoint,
    ) -> Result<(), StoreError> {
        let Some(value) = point.value.number().filter(|value| !value.is_nan()) else {
            return Ok(());
        };
        let Running {
            place,
            before,
            open,
        } = running;
        if self.window.contains(point.time) {
            let bucket = match open {
                Some((begins, bucket)) if self.window.is_in_bucket(*begins, point.time) => bucket,
                _ => self.open((labels, place), open, point.time)?,
            };
            bucket.add(point.time, value);
            if self.grows {
                let from = self.window.from;
                bucket.grow(growth::of_number(series, before.as_ref(), point, from));
            }
            if self.query.aggregation.fraction().is_some() {
                bucket.values.push(value);
            }
            // A bucket that is still open counts too.
            if self.bytes + bucket.values.capacity() * size_of::<f64>() > BYTES_MAX {
                let (ended, bucket) = open.take().unwrap_or_default();
                self.put((labels, place), ended, bucket)?;
            }
        }
        if self.grows {
            *before = Some(point.clone());
        }
        Ok(())
    }

    /// Ends the bucket that is open, and opens that of a time.
    fn open<'a>(
        &mut self,
        group: (&Labels, &mut Option<usize>),
        open: &'a mut Option<(Nanos, Bucket)>,
        time: Nanos,
    ) -> Result<&'a mut Bucket, StoreError> {
        let mut opened = Bucket::default();
        if let Some((begins, ended)) = open.take() {
            // It mostly holds as many values as the one before it.
            opened.values.reserve_exact(ended.values.len());
            self.put(group, begins, ended)?;
        }
        let opened = open.insert((self.window.bucket_of(time), opened));
        Ok(&mut opened.1)
    }

    /// Adds each part of a distribution, as a point of its own series.
    fn spread_out(&mut self, present: &mut Present, point: &MetricPoint) -> Result<(), StoreError> {
        let key = self.view.label().unwrap_or_default();
        let wanted = self.query.selector.labels.get(key);
        let wanted = wanted.map(|text| text.parse::<f64>().unwrap_or(f64::NAN));
        for (end, number) in self.view.parts(point) {
            if wanted.is_some_and(|wanted| wanted.total_cmp(&end).is_ne()) {
                continue;
            }
            let bits = end.to_bits();
            let (labels, mut running) = match present.parts.remove(&bits) {
                Some(known) => known,
                None => {
                    let mut labels = present.labels.clone();
                    let keys = self.query.group_by.as_ref();
                    if keys.is_none_or(|keys| keys.iter().any(|one| one == key)) {
                        labels.insert(key.to_owned(), parts::text_of(end));
                    }
                    (labels, Running::default())
                }
            };
            let of_part = MetricPoint {
                value: number,
                ..*point
            };
            self.number((&present.series, &labels), &mut running, &of_part)?;
            present.parts.insert(bits, (labels, running));
        }
        if present.parts.len().max(self.groups.len()) > SPREAD_OUT_MAX {
            return Err(StoreError::TooBroad(format!(
                "it makes more than {SPREAD_OUT_MAX} series; name one value of the label \"{key}\", group by fewer \
                 labels, or ask for a shorter range"
            )));
        }
        Ok(())
    }

    /// Adds whole distributions, each to the bucket of its time.
    fn distributions(
        &mut self,
        present: &mut Present,
        points: &[MetricPoint],
    ) -> Result<(), StoreError> {
        let carried = present.whole.before.take();
        let mut before = carried.as_ref();
        for point in points {
            if let PointValue::Distribution(all) = &point.value {
                if self.window.contains(point.time) {
                    let of_bucket = self.of_distribution(&present.series, before, point, all);
                    let begins = self.window.bucket_of(point.time);
                    let group = (&present.labels, &mut present.whole.place);
                    self.put(group, begins, of_bucket)?;
                }
                before = Some(point);
            }
        }
        present.whole.before = before.cloned();
        Ok(())
    }

    fn of_distribution(
        &self,
        series: &Found,
        before: Option<&MetricPoint>,
        point: &MetricPoint,
        all: &Distribution,
    ) -> Bucket {
        let grown = growth::of_distribution(series, before, point, self.window.from);
        let mut of_bucket = Bucket::of_distribution(point.time, grown);
        // Quantiles that the sender computed can't be added up: the greatest is told.
        if let (Shape::Quantiles(quantiles), Some(fraction)) =
            (&all.shape, self.query.aggregation.fraction())
        {
            let is_it = |(quantile, _): &&(f64, f64)| (quantile - fraction).abs() < 1e-9;
            let of = quantiles.iter().find(is_it);
            of_bucket.values.extend(of.map(|(_, value)| *value));
        }
        of_bucket
    }

    pub(super) fn answer(mut self) -> Result<Answer, StoreError> {
        if let Some(ended) = self.present.take() {
            self.end(ended)?;
        }
        let utc = DateTime::from_timestamp_nanos;
        let mut series: Vec<AnswerSeries> = Vec::new();
        let mut truncated = self.has_missed;
        for (labels, group) in self.groups {
            truncated |= group.truncated;
            let value = |(begins, mut bucket): (Nanos, Bucket)| {
                let value = bucket.value(&self.query, self.window.bucket(begins))?;
                Some((utc(begins), value))
            };
            let values: Vec<_> = group.buckets.into_iter().filter_map(value).collect();
            if !values.is_empty() {
                let latest = utc(group.latest);
                series.push(AnswerSeries {
                    labels,
                    values,
                    latest,
                });
            }
        }
        series.sort_by(|a, b| (b.latest, &a.labels).cmp(&(a.latest, &b.labels)));
        truncated |= series.len() > SERIES_MAX;
        series.truncate(SERIES_MAX);
        Ok(Answer {
            series,
            truncated,
            exemplars: Vec::new(),
        })
    }
}

impl Fold for Groups {
    fn add(&mut self, id: SeriesId, points: &[MetricPoint]) -> Result<(), StoreError> {
        let Some(mut present) = self.begin(id)? else {
            return Ok(());
        };
        if self.view == View::Value && present.series.kind.is_distribution() {
            self.distributions(&mut present, points)?;
            self.present = Some(present);
            return Ok(());
        }
        for point in points {
            match (&point.value, self.view) {
                (PointValue::Nothing, _) => {}
                (PointValue::Double(_) | PointValue::Int(_), _) => {
                    let of = (&present.series, &present.labels);
                    self.number(of, &mut present.whole, point)?;
                }
                (PointValue::Distribution(_), View::Bucket | View::Quantile) => {
                    self.spread_out(&mut present, point)?;
                }
                (PointValue::Distribution(one), view) => {
                    if let Some(value) = view.part(one) {
                        let of = (&present.series, &present.labels);
                        let number = MetricPoint { value, ..*point };
                        self.number(of, &mut present.whole, &number)?;
                    }
                }
            }
        }
        self.present = Some(present);
        Ok(())
    }

    fn miss(&mut self) {
        self.has_missed = true;
    }
}
