//! Metrics in JSON.

use std::marker::PhantomData;

use serde::de::{Deserializer, Error, MapAccess};

use super::{Member, Message, MessageVisitor, read, skip, take};
use crate::receivers::otlp::wire::metrics::{
    Buckets, Data, DataKind, Distribution, Exemplar, Metric, Number, Point, Quantile,
};

const PARTS: &str = "attributes, exemplars and buckets";

/// Messages with nothing borrowed, or with a lifetime, are members alike.
macro_rules! member {
    ($($type:ty),+) => {
        $(impl<'de> Member<'de> for $type {
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_option(MessageVisitor(PhantomData))
            }
        })+
    };
}

member!(
    Metric<'de>,
    Point<'de>,
    Exemplar<'de>,
    AnyData<'de>,
    Buckets,
    Quantile
);

/// Points of some kind; which one, the member's name says.
#[derive(Default)]
struct AnyData<'a> {
    points: Vec<Point<'a>>,
    temporality: i32,
    is_monotonic: bool,
}

impl<'de> Message<'de> for Metric<'de> {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.items, "metrics")
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let kind = match name {
            "name" => return read(map).map(|text| self.name = text),
            "description" => return read(map).map(|text| self.description = text),
            "unit" => return read(map).map(|text| self.unit = text),
            "metadata" => return read(map).map(|pairs| self.metadata = pairs),
            "gauge" => DataKind::Gauge,
            "sum" => DataKind::Sum,
            "histogram" => DataKind::Histogram,
            "exponentialHistogram" => DataKind::ExponentialHistogram,
            "summary" => DataKind::Summary,
            _ => return skip(map),
        };
        if let Some(data) = read::<Option<AnyData<'de>>, _>(map)? {
            self.data = Some(Data {
                kind,
                points: data.points,
                temporality: data.temporality,
                is_monotonic: data.is_monotonic,
            });
        }
        // What a kind does not have is not a member of its points either.
        let is_number = matches!(kind, DataKind::Gauge | DataKind::Sum);
        for point in self.data.iter_mut().flat_map(|data| &mut data.points) {
            if is_number {
                point.distribution = None;
            } else {
                let distribution = point.distribution.get_or_insert_default();
                if kind == DataKind::Summary {
                    distribution.sum.get_or_insert(0.0);
                }
            }
        }
        Ok(())
    }
}

impl<'de> Message<'de> for AnyData<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "dataPoints" => self.points = read(map)?,
            "aggregationTemporality" => self.temporality = read(map)?,
            "isMonotonic" => self.is_monotonic = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Message<'de> for Point<'de> {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.points, "data points")
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "attributes" => self.attributes = read(map)?,
            "startTimeUnixNano" => self.start_time_unix_nano = read(map)?,
            "timeUnixNano" => self.time_unix_nano = read(map)?,
            "flags" => self.flags = read(map)?,
            "exemplars" => self.exemplars = read(map)?,
            "asDouble" => set_number(&mut self.value, read(map)?, Number::Double),
            "asInt" => set_number(&mut self.value, read(map)?, Number::Int),
            _ => return distribution_member(&mut self.distribution, name, map),
        }
        Ok(())
    }
}

fn set_number<T>(value: &mut Option<Number>, sent: Option<T>, number: fn(T) -> Number) {
    if let Some(sent) = sent {
        *value = Some(number(sent));
    }
}

fn distribution_member<'de, A: MapAccess<'de>>(
    distribution: &mut Option<Box<Distribution>>,
    name: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    const NAMES: [&str; 12] = [
        "count",
        "sum",
        "min",
        "max",
        "bucketCounts",
        "explicitBounds",
        "scale",
        "zeroCount",
        "zeroThreshold",
        "positive",
        "negative",
        "quantileValues",
    ];
    if !NAMES.contains(&name) {
        return skip(map);
    }
    let one = distribution.get_or_insert_default();
    match name {
        "count" => one.count = read(map)?,
        "sum" => one.sum = read(map)?,
        "min" => one.min = read(map)?,
        "max" => one.max = read(map)?,
        "bucketCounts" => one.bucket_counts = read(map)?,
        "explicitBounds" => one.explicit_bounds = read(map)?,
        "scale" => one.scale = read(map)?,
        "zeroCount" => one.zero_count = read(map)?,
        "zeroThreshold" => one.zero_threshold = read(map)?,
        "positive" => one.positive = read(map)?,
        "negative" => one.negative = read(map)?,
        _ => one.quantile_values = read(map)?,
    }
    Ok(())
}

impl<'de> Message<'de> for Buckets {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "offset" => self.offset = read(map)?,
            "bucketCounts" => self.bucket_counts = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Message<'de> for Quantile {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.attributes, PARTS)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "quantile" => self.quantile = read(map)?,
            "value" => self.value = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Message<'de> for Exemplar<'de> {
    fn admit<E: Error>() -> Result<(), E> {
        take(|caps| &mut caps.attributes, PARTS)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "filteredAttributes" => self.filtered_attributes = read(map)?,
            "timeUnixNano" => self.time_unix_nano = read(map)?,
            "asDouble" => set_number(&mut self.value, read(map)?, Number::Double),
            "asInt" => set_number(&mut self.value, read(map)?, Number::Int),
            "spanId" => self.span_id = read(map)?,
            "traceId" => self.trace_id = read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}
