//! Histograms in bounded memory: the extent of each row's values is found with all that is grouped, and then
//! the values are read once more and counted, bin by bin. Collected, they would be as many as there are rows,
//! in memory that Postgres does not bound.

use xtrace_model::ProjectId;

use super::sql::{Sql, keys, push_from, push_keys};
use super::{Aggregation, Dimension, Question};
use crate::filter::ColumnType;

/// Places of the metrics that are histograms.
fn places(question: &Question) -> impl Iterator<Item = usize> + Clone {
    let metrics = question.metrics.iter().enumerate();
    metrics
        .filter(|(_, metric)| metric.aggregation == Aggregation::Histogram)
        .map(|(place, _)| place)
}

/// What is grouped for one: the extent of its values, and how many there are.
pub(super) fn grouped(place: usize, value: &str) -> String {
    format!(
        "array[min({value})::float8, max({value})::float8] as m{place}, count({value}) as c{place}"
    )
}

/// What is shown of one, of rows `g` joined as in [`push_joins`].
pub(super) fn shown(place: usize) -> String {
    format!(
        "case when g.m{place}[1] is null then '[]'::json
              when g.m{place}[1] = g.m{place}[2]
                then json_build_array(json_build_array(g.m{place}[1], g.m{place}[2], g.c{place}))
              else h{place}.bins end"
    )
}

/// Appends the bins of all rows `g` as a further `with` query, if any are asked for: equal in width between the
/// least and the greatest value, as `[lower, upper, height]`; empty ones are left out.
pub(super) fn push_bins(sql: &mut Sql, project: &ProjectId, question: &Question) {
    let places = places(question);
    if places.clone().next().is_none() {
        return;
    }
    let bins = question.bins;
    // Where the least and the greatest value are so far apart that no float holds their distance, or a product
    // of it and the number of bins, values are compared a millionth as large.
    let is_near = "e[2] / 2 - e[1] / 2 < 8e305";
    let edge = |number: &str| {
        format!(
            "case when {is_near} then e[1] + {number} * (e[2] - e[1]) / {bins}
                  else e[1] * (1 - ({number})::float8 / {bins}) + e[2] * (({number})::float8 / {bins}) end"
        )
    };
    let bin =
        |scale: &str| format!("width_bucket(x.value{scale}, e[1]{scale}, e[2]{scale}, {bins})");
    let bin = format!(
        "least(case when {is_near} then {} else {} end, {bins})",
        bin(""),
        bin(" * 9.5367431640625e-07::float8")
    );
    // Collects at most as many bins of a row as a question may ask for.
    sql.push(format_args!(
        ", h as materialized (
            select place, metric, json_agg(json_build_array({}, {}, height) order by bin) as bins
              from (select g.place, x.metric, x.e,
                           {bin} as bin, count(*) as height
                      from (select ",
        edge("(bin - 1)"),
        edge("bin"),
    ));
    push_keys(sql, question);
    for place in places.clone() {
        let value = question.metrics[place].measure.sql;
        sql.push(format_args!(", ({value})::float8 as x{place}"));
    }
    push_from(sql, project, question);
    let values: Vec<String> = places
        .map(|place| format!("({place}, v.x{place}, g.m{place})"))
        .collect();
    sql.push(format_args!(
        ") v join g on {} cross join lateral (values {}) x(metric, value, e)
           where x.value is not null and x.e[1] < x.e[2]
           group by 1, 2, 3, 4) counted
     group by place, metric)",
        is_same_row(question),
        values.join(", "),
    ));
}

/// Appends the bins `h…` of each metric to rows `g`.
pub(super) fn push_joins(sql: &mut Sql, question: &Question) {
    for place in places(question) {
        sql.push(format_args!(
            " left join h h{place} on h{place}.place = g.place and h{place}.metric = {place}"
        ));
    }
}

/// That a value `v` is one of the row `g`. Both sides of each comparison are never null, since Postgres can
/// hash nothing else.
fn is_same_row(question: &Question) -> String {
    let dimension = |(place, dimension): (usize, &&Dimension)| {
        let nothing = match dimension.column_type {
            ColumnType::Array if dimension.exploded.is_none() => "'{}'",
            ColumnType::Number => "0",
            ColumnType::Bool => "false",
            _ => "''",
        };
        format!(
            "coalesce(v.d{place}, {nothing}) = coalesce(g.d{place}, {nothing})
             and (v.d{place} is null) = (g.d{place} is null)"
        )
    };
    let dimensions = question.dimensions.iter().enumerate().map(dimension);
    let bucket = question
        .granularity
        .map(|_| "v.bucket = g.bucket".to_owned());
    let all: Vec<String> = dimensions.chain(bucket).collect();
    if keys(question) == 0 {
        return "true".to_owned();
    }
    all.join(" and ")
}
