//! Metrics in protobuf. Field numbers: opentelemetry-proto, `metrics/v1`.

use super::{Decode, Decoder, Field, Reader, TRUNCATED, WRONG_TYPE, WireId};
use crate::receivers::otlp::wire::metrics::{
    Buckets, Data, DataKind, Distribution, Exemplar, Metric, Number, Point, Quantile,
};
use crate::receivers::otlp::wire::{DecodeError, take};

const PARTS: &str = "attributes, exemplars and buckets";

impl<'a> Decode<'a> for Metric<'a> {
    fn decode(decoder: &mut Decoder, reader: Reader<'a>) -> Result<Self, DecodeError> {
        let mut metric = Self::default();
        reader.each_field(|number, field| {
            match number {
                1 => metric.name = field.text()?,
                2 => metric.description = field.text()?,
                3 => metric.unit = field.text()?,
                5 => decoder.data(&mut metric, DataKind::Gauge, &field)?,
                7 => decoder.data(&mut metric, DataKind::Sum, &field)?,
                9 => decoder.data(&mut metric, DataKind::Histogram, &field)?,
                10 => decoder.data(&mut metric, DataKind::ExponentialHistogram, &field)?,
                11 => decoder.data(&mut metric, DataKind::Summary, &field)?,
                12 => metric.metadata.push(decoder.key_value(field.message()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(metric)
    }
}

impl Decoder {
    /// Two messages of one kind merge; of two kinds the last counts.
    fn data<'a>(
        &mut self,
        metric: &mut Metric<'a>,
        kind: DataKind,
        field: &Field<'a>,
    ) -> Result<(), DecodeError> {
        let known = metric.data.take().filter(|data| data.kind == kind);
        let mut data = known.unwrap_or_else(|| Data::new(kind));
        field.message()?.each_field(|number, field| {
            match number {
                1 => {
                    take(&mut self.caps.points, "data points")?;
                    data.points.push(self.point(kind, field.message()?)?);
                }
                2 => data.temporality = field.int32()?,
                3 => data.is_monotonic = field.varint()? != 0,
                _ => {}
            }
            Ok(())
        })?;
        metric.data = Some(data);
        Ok(())
    }

    fn point<'a>(&mut self, kind: DataKind, reader: Reader<'a>) -> Result<Point<'a>, DecodeError> {
        let mut point = Point::default();
        let mut distribution = Distribution::default();
        reader.each_field(|number, field| match (kind, number) {
            (_, 2) => field
                .fixed64()
                .map(|time| point.start_time_unix_nano = time),
            (_, 3) => field.fixed64().map(|time| point.time_unix_nano = time),
            (DataKind::Gauge | DataKind::Sum, _) => self.number(number, &field, &mut point),
            (DataKind::Histogram, 9)
            | (DataKind::ExponentialHistogram, 1)
            | (DataKind::Summary, 7) => {
                point.attributes.push(self.key_value(field.message()?)?);
                Ok(())
            }
            (DataKind::Histogram, 8) | (DataKind::ExponentialHistogram, 11) => {
                point.exemplars.push(self.exemplar(field.message()?)?);
                Ok(())
            }
            (DataKind::Histogram | DataKind::ExponentialHistogram, 10) | (DataKind::Summary, 8) => {
                field.uint32().map(|flags| point.flags = flags)
            }
            (_, 4) => field.fixed64().map(|count| distribution.count = count),
            (_, 5) => field.double().map(|sum| distribution.sum = Some(sum)),
            (DataKind::Histogram, _) => self.explicit(number, &field, &mut distribution),
            (DataKind::ExponentialHistogram, _) => {
                self.exponential(number, &field, &mut distribution)
            }
            (DataKind::Summary, 6) => {
                take(&mut self.caps.attributes, PARTS)?;
                distribution
                    .quantile_values
                    .push(quantile(field.message()?)?);
                Ok(())
            }
            (DataKind::Summary, _) => Ok(()),
        })?;
        if !matches!(kind, DataKind::Gauge | DataKind::Sum) {
            // A summary's sum is not optional: what is not sent is zero.
            if kind == DataKind::Summary {
                distribution.sum.get_or_insert(0.0);
            }
            point.distribution = Some(Box::new(distribution));
        }
        Ok(point)
    }

    fn number<'a>(
        &mut self,
        number: u32,
        field: &Field<'a>,
        point: &mut Point<'a>,
    ) -> Result<(), DecodeError> {
        match number {
            4 => point.value = Some(Number::Double(field.double()?)),
            5 => point.exemplars.push(self.exemplar(field.message()?)?),
            6 => point.value = Some(Number::Int(field.fixed64()?.cast_signed())),
            7 => point.attributes.push(self.key_value(field.message()?)?),
            8 => point.flags = field.uint32()?,
            _ => {}
        }
        Ok(())
    }

    fn explicit(
        &mut self,
        number: u32,
        field: &Field<'_>,
        distribution: &mut Distribution,
    ) -> Result<(), DecodeError> {
        match number {
            6 => self.fixed64s(field, |bits| distribution.bucket_counts.push(bits))?,
            7 => self.fixed64s(field, |bits| {
                distribution.explicit_bounds.push(f64::from_bits(bits));
            })?,
            11 => distribution.min = Some(field.double()?),
            12 => distribution.max = Some(field.double()?),
            _ => {}
        }
        Ok(())
    }

    fn exponential(
        &mut self,
        number: u32,
        field: &Field<'_>,
        distribution: &mut Distribution,
    ) -> Result<(), DecodeError> {
        match number {
            6 => distribution.scale = field.sint32()?,
            7 => distribution.zero_count = field.fixed64()?,
            8 => self.buckets(field, &mut distribution.positive)?,
            9 => self.buckets(field, &mut distribution.negative)?,
            12 => distribution.min = Some(field.double()?),
            13 => distribution.max = Some(field.double()?),
            14 => distribution.zero_threshold = field.double()?,
            _ => {}
        }
        Ok(())
    }

    fn buckets(&mut self, field: &Field<'_>, buckets: &mut Buckets) -> Result<(), DecodeError> {
        field.message()?.each_field(|number, field| {
            match (number, &field) {
                (1, _) => buckets.offset = field.sint32()?,
                (2, Field::Varint(count)) => {
                    take(&mut self.caps.attributes, PARTS)?;
                    buckets.bucket_counts.push(*count);
                }
                (2, _) => {
                    let mut packed = Reader::new(field.bytes()?);
                    while !packed.bytes.is_empty() {
                        take(&mut self.caps.attributes, PARTS)?;
                        buckets.bucket_counts.push(packed.varint()?);
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// A repeated field of eight bytes, packed or not.
    fn fixed64s(
        &mut self,
        field: &Field<'_>,
        mut push: impl FnMut(u64),
    ) -> Result<(), DecodeError> {
        if let Field::Fixed64(bits) = field {
            take(&mut self.caps.attributes, PARTS)?;
            push(*bits);
            return Ok(());
        }
        let (words, rest) = field.bytes()?.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(TRUNCATED);
        }
        for word in words {
            take(&mut self.caps.attributes, PARTS)?;
            push(u64::from_le_bytes(*word));
        }
        Ok(())
    }

    fn exemplar<'a>(&mut self, reader: Reader<'a>) -> Result<Exemplar<'a>, DecodeError> {
        take(&mut self.caps.attributes, PARTS)?;
        let mut exemplar = Exemplar::default();
        reader.each_field(|number, field| {
            match number {
                2 => exemplar.time_unix_nano = field.fixed64()?,
                3 => exemplar.value = Some(Number::Double(field.double()?)),
                4 => exemplar.span_id = WireId::from_bytes(field.bytes()?),
                5 => exemplar.trace_id = WireId::from_bytes(field.bytes()?),
                6 => exemplar.value = Some(Number::Int(field.fixed64()?.cast_signed())),
                7 => exemplar
                    .filtered_attributes
                    .push(self.key_value(field.message()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(exemplar)
    }
}

fn quantile(reader: Reader<'_>) -> Result<Quantile, DecodeError> {
    let mut quantile = Quantile::default();
    reader.each_field(|number, field| {
        match number {
            1 => quantile.quantile = field.double()?,
            2 => quantile.value = field.double()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(quantile)
}

impl Field<'_> {
    fn double(&self) -> Result<f64, DecodeError> {
        self.fixed64().map(f64::from_bits)
    }

    fn sint32(&self) -> Result<i32, DecodeError> {
        let Field::Varint(_) = self else {
            return Err(WRONG_TYPE);
        };
        let bits = self.uint32()?;
        Ok((bits >> 1).cast_signed() ^ -((bits & 1).cast_signed()))
    }
}
