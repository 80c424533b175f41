//! What sums are made of, in SQL: entries of the column `usage` of traces, and sums that saturate.

/// What a trace used, of a row `p` that holds the column `usage`: its entries, which hold no zeros.
/// Whole numbers are numeric, since sums of them may be greater than any integer type.
pub(crate) const ENTRIES: &str = "jsonb_to_recordset(p.usage) u(date date, environment text, model text, \
    observations numeric, input numeric, output numeric, total numeric, cost numeric, \
    latency jsonb, first_token jsonb)";
/// How long observations of [`ENTRIES`] took, by measure: microseconds, and how many took as long.
pub(crate) const DURATIONS: &str = "(select 'latency' as measure, key::bigint as micros, value::bigint as count \
    from jsonb_each_text(u.latency) union all select 'timeToFirstToken', key::bigint, value::bigint \
    from jsonb_each_text(u.first_token)) l";

/// A sum of whole numbers, which is null for no numbers: beyond the greatest integer it is that one.
pub(crate) fn whole(sum: &str) -> String {
    format!("least(coalesce({sum}, 0), {})::bigint", i64::MAX)
}

/// A numeric sum as a float, which is 0 for no numbers: beyond the greatest float it is that one.
pub(crate) fn float(sum: &str) -> String {
    format!("least(coalesce({sum}, 0), 1.7976931348623157e308::numeric)::float8")
}

/// A sum of floats, which is null for no numbers. Where Postgres' own is an error, since it is beyond the
/// greatest float, it is that one: divided by 2^64, which changes no digit, no number of rows overflows.
pub(crate) fn sum_of_floats(value: &str) -> String {
    scaled_back(&scaled_sum(value))
}

/// An average of floats. Postgres' own is an error as soon as the square of a value overflows.
pub(crate) fn average_of_floats(value: &str) -> String {
    scaled_back(&format!("({} / count({value}))", scaled_sum(value)))
}

fn scaled_sum(value: &str) -> String {
    format!("sum(({value})::float8 * 5.421010862427522e-20::float8)")
}

fn scaled_back(scaled: &str) -> String {
    // The greatest float, divided by 2^64.
    const MOST: &str = "9.745314011399998e+288::float8";
    // `least` of null and a number is the number.
    let is_any = format!("{scaled} is not null");
    format!(
        "case when {is_any} then least(greatest({scaled}, -{MOST}), {MOST}) * 18446744073709551616::float8 end"
    )
}
