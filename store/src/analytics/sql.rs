//! One statement of a question.

use sqlx::{Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use super::{Aggregation, Granularity, Metric, OrderKey, Question, View, histogram};
use crate::filter::{self, Column};
use crate::usage::sql::{average_of_floats, sum_of_floats};

pub(super) type Sql = QueryBuilder<Postgres>;

/// A statement of two columns: rows as JSON text, and their buckets as they show them, if there are any.
///
/// What is grouped is put in order and cut to the limit first, so that what else is computed of it is
/// computed of rows that are answered.
pub(super) fn statement(project: &ProjectId, question: &Question) -> Sql {
    let mut sql = Sql::new(
        "with g as materialized (select row_number() over () as place, q.* from (select * from (select ",
    );
    push_grouped(&mut sql, question);
    push_from(&mut sql, project, question);
    if keys(question) > 0 {
        let places: Vec<String> = (1..=keys(question))
            .map(|place| place.to_string())
            .collect();
        sql.push(format_args!(" group by {}", places.join(", ")));
    }
    sql.push(") q");
    push_order(&mut sql, question);
    sql.push(" limit ").push_bind(question.limit);
    sql.push(") q)");
    histogram::push_bins(&mut sql, project, question);
    let bucket = match question.granularity {
        Some(_) => "r.time_dimension",
        None => "null::text",
    };
    sql.push(format_args!(
        " select row_to_json(r)::text as json, {bucket} as bucket from (select "
    ));
    push_shown(&mut sql, question);
    sql.push(" from g");
    histogram::push_joins(&mut sql, question);
    sql.push(" order by g.place) r");
    sql
}

/// How many keys rows are told apart by; they are the first columns of what is grouped.
pub(super) fn keys(question: &Question) -> usize {
    question.dimensions.len() + usize::from(question.granularity.is_some())
}

/// What rows show, of what was grouped; what is asked for twice, once.
fn push_shown(sql: &mut Sql, question: &Question) {
    let mut columns: Vec<(String, String)> = Vec::new();
    let mut show = |name: &str, shown: String| {
        if columns.iter().all(|(known, _)| known != name) {
            columns.push((name.to_owned(), shown));
        }
    };
    for (place, dimension) in question.dimensions.iter().enumerate() {
        show(dimension.name, format!("g.d{place}"));
    }
    if let Some(granularity) = question.granularity {
        let format = match granularity {
            Granularity::Minute | Granularity::Hour => "YYYY-MM-DD\"T\"HH24:MI:SS.000\"Z\"",
            _ => "YYYY-MM-DD",
        };
        let shown = format!("to_char(g.bucket at time zone 'utc', '{format}')");
        show("time_dimension", shown);
    }
    for (place, metric) in question.metrics.iter().enumerate() {
        let shown = match metric.aggregation {
            Aggregation::Histogram => histogram::shown(place),
            _ => format!("g.m{place}"),
        };
        show(&metric.name(), shown);
    }
    let columns = columns
        .iter()
        .map(|(name, shown)| format!("{shown} as \"{name}\""));
    let columns: Vec<String> = columns.collect();
    sql.push(if columns.is_empty() {
        "1".to_owned()
    } else {
        columns.join(", ")
    });
}

/// Appends the keys of rows: `d0`, `d1`, …, and `bucket`.
pub(super) fn push_keys(sql: &mut Sql, question: &Question) {
    let dimensions = question.dimensions.iter().enumerate();
    let dimensions = dimensions.map(|(place, one)| format!("{} as d{place}", one.sql));
    let bucket = question.granularity.map(|granularity| {
        format!(
            "date_trunc('{}', {}, 'UTC') as bucket",
            granularity.name(),
            question.view.time()
        )
    });
    let mut columns: Vec<String> = dimensions.chain(bucket).collect();
    if columns.is_empty() {
        columns.push("1 as one".to_owned());
    }
    sql.push(columns.join(", "));
}

fn push_grouped(sql: &mut Sql, question: &Question) {
    if keys(question) > 0 {
        push_keys(sql, question);
        sql.push(", ");
    }
    let metrics = question.metrics.iter().enumerate();
    let mut columns: Vec<String> = metrics
        .map(|(place, metric)| aggregate(place, metric))
        .collect();
    if columns.is_empty() {
        columns.push("count(*)".to_owned());
    }
    sql.push(columns.join(", "));
}

fn aggregate(place: usize, metric: &Metric) -> String {
    let measure = metric.measure;
    let value = measure.sql;
    let is_count = measure.name == "count";
    let computed = match metric.aggregation {
        Aggregation::Count | Aggregation::Sum | Aggregation::Uniq if is_count => {
            "count(*)".to_owned()
        }
        Aggregation::Count if !measure.is_number => format!("count(distinct {value})"),
        Aggregation::Count => format!("count({value})"),
        Aggregation::Uniq => format!("count(distinct {value})"),
        Aggregation::Sum if measure.is_whole => {
            format!("least(coalesce(sum({value}), 0), {})", i64::MAX)
        }
        Aggregation::Sum => format!("coalesce({}, 0)", sum_of_floats(value)),
        Aggregation::Avg => average_of_floats(value),
        Aggregation::Max => format!("max({value})"),
        Aggregation::Min => format!("min({value})"),
        Aggregation::P50 => percentile("0.5", value),
        Aggregation::P75 => percentile("0.75", value),
        Aggregation::P90 => percentile("0.9", value),
        Aggregation::P95 => percentile("0.95", value),
        Aggregation::P99 => percentile("0.99", value),
        Aggregation::Histogram => return histogram::grouped(place, value),
    };
    format!("{computed} as m{place}")
}

fn percentile(fraction: &str, value: &str) -> String {
    format!("percentile_cont({fraction}) within group (order by ({value})::float8)")
}

/// Appends where rows come from, and which.
pub(super) fn push_from(sql: &mut Sql, project: &ProjectId, question: &Question) {
    const TRACE_OF_OBSERVATION: &str =
        " left join traces t on t.project_id = o.project_id and t.id = o.trace_id";
    const TRACE_OF_SCORE: &str =
        " left join traces t on t.project_id = s.project_id and t.id = s.trace_id";
    // All observations of a trace begin within its extent: one look-up a score, in the partitions of that
    // extent instead of in all.
    const OBSERVATION_OF_SCORE: &str = " left join lateral (select o.* from observations o \
        where o.project_id = s.project_id and o.trace_id = t.id and o.id = s.observation_id \
          and o.start_time between t.first_start and t.last_start offset 0) o on true";
    let (table, alias) = match question.view {
        View::Traces => ("traces t", "t"),
        View::Observations => ("observations o", "o"),
        _ => ("scores s", "s"),
    };
    sql.push(format_args!(" from {table}"));
    match question.view {
        View::Traces => {}
        View::Observations if uses(question, "t.") => {
            sql.push(TRACE_OF_OBSERVATION);
        }
        View::Observations => {}
        _ => {
            let of_observation = uses(question, "o.");
            if of_observation || uses(question, "t.") {
                sql.push(TRACE_OF_SCORE);
            }
            if of_observation {
                sql.push(OBSERVATION_OF_SCORE);
            }
        }
    }
    for exploded in question
        .dimensions
        .iter()
        .filter_map(|dimension| dimension.exploded)
    {
        sql.push(format_args!(" cross join lateral {exploded}"));
    }
    sql.push(format_args!(" where {alias}.project_id = "))
        .push_bind(project.as_str().to_owned());
    let time = question.view.time();
    sql.push(format_args!(" and {time} >= "))
        .push_bind(question.from);
    sql.push(format_args!(" and {time} <= "))
        .push_bind(question.to);
    sql.push(match question.view {
        View::NumericScores => " and s.data_type in ('NUMERIC', 'BOOLEAN')",
        View::CategoricalScores => " and s.data_type = 'CATEGORICAL'",
        View::BooleanScores => " and s.data_type = 'BOOLEAN'",
        _ => "",
    });
    filter::push_all(sql, &question.conditions);
}

/// Whether anything that is asked for is of that table.
fn uses(question: &Question, prefix: &str) -> bool {
    let dimensions = question.dimensions.iter().map(|dimension| dimension.sql);
    let measures = question.metrics.iter().map(|metric| metric.measure.sql);
    let columns = question
        .conditions
        .iter()
        .map(|condition| condition.column.sql());
    let is_of = |sql: &str| {
        sql.match_indices(prefix).any(|(at, _)| {
            let before = sql[..at].chars().next_back();
            !before.is_some_and(|char| char.is_alphanumeric() || char == '_')
        })
    };
    dimensions.chain(measures).chain(columns).any(is_of)
}

fn push_order(sql: &mut Sql, question: &Question) {
    let key = |key: &OrderKey| match key {
        OrderKey::Dimension(place) => format!("d{place}"),
        OrderKey::Time => "bucket".to_owned(),
        OrderKey::Metric(place) => format!("m{place}"),
    };
    let mut keys: Vec<String> = question
        .order
        .iter()
        .map(|(order, descends)| {
            format!(
                "{} {}",
                key(order),
                if *descends { "desc nulls last" } else { "asc" }
            )
        })
        .collect();
    // Ties have an order too.
    keys.extend((0..question.dimensions.len()).map(|place| format!("d{place}")));
    if !keys.is_empty() {
        sql.push(" order by ").push(keys.join(", "));
    }
}
