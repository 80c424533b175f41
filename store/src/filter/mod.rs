//! Conditions on lists. Callers name columns and comparisons by enum and give values; this module
//! alone turns them into SQL, and every value is bound.

mod columns;
mod experiment_columns;
mod prompt_columns;
mod score_columns;

use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use xtrace_model::text::cut_chars;
use xtrace_model::{Micros, json, time};

pub(crate) use columns::PREFIX_CHARS;
pub use columns::{Column, ColumnType, ObservationColumn, TraceColumn};
pub use experiment_columns::{ExperimentColumn, ExperimentItemColumn};
pub use prompt_columns::PromptColumn;
pub use score_columns::ScoreColumn;

/// One condition of a list; all of them must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition<C> {
    /// What is compared.
    pub column: C,
    /// The member of an object column: a metadata key, or a score's name.
    pub key: Option<String>,
    /// What it is compared with.
    pub test: Test,
}

/// A comparison and its value. Unless said otherwise, a missing value never passes.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Compares text.
    Text(TextTest, String),
    /// Compares a number.
    Number(Order, f64),
    /// A number is one of these.
    NumberOneOf(Vec<f64>),
    /// Compares a time.
    Time(Order, Micros),
    /// Text is one of these, or none of these.
    OneOf(Vec<String>, Negated),
    /// An array holds any of these, or none of these.
    Overlaps(Vec<String>, Negated),
    /// An array holds all of these.
    ContainsAll(Vec<String>),
    /// A truth value, or its opposite.
    Bool(bool),
    /// There is no value, or there is one.
    IsNull(Negated),
}

/// Whether a test asks for the opposite.
pub type Negated = bool;

/// How text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextTest {
    /// Equal, with case.
    Equals,
    /// Holds the text.
    Contains,
    /// Does not hold the text.
    Lacks,
    /// Begins with the text.
    StartsWith,
    /// Ends with the text.
    EndsWith,
    /// Holds the text, whatever its case, between characters that are no letters or digits.
    MatchesAnyCase,
    /// The same, with case.
    Matches,
    /// Is like a pattern, whatever its case: `%` is any text, `_` any character.
    Like,
    /// Is not like it.
    Unlike,
}

/// How numbers and times are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `=`
    Equal,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `<>`
    NotEqual,
}

impl Order {
    fn sql(self) -> &'static str {
        match self {
            Self::Equal => " = ",
            Self::Greater => " > ",
            Self::Less => " < ",
            Self::AtLeast => " >= ",
            Self::AtMost => " <= ",
            Self::NotEqual => " <> ",
        }
    }
}

impl<C: Column> Condition<C> {
    /// A condition on a plain column.
    pub fn new(column: C, test: Test) -> Self {
        Self {
            column,
            key: None,
            test,
        }
    }

    /// Whether an index finds what passes.
    pub(crate) fn is_indexed_equality(&self) -> bool {
        let one = match &self.test {
            Test::Text(TextTest::Equals, _) => true,
            Test::OneOf(values, negated) => values.len() == 1 && !negated,
            _ => false,
        };
        one && self.column.indexed_prefix().is_some()
    }

    /// Text equal to a value.
    pub fn equals(column: C, value: impl Into<String>) -> Self {
        Self::new(column, Test::Text(TextTest::Equals, value.into()))
    }
}

type Sql = QueryBuilder<Postgres>;

/// Appends ` and <condition>` for each condition.
pub(crate) fn push_all<C: Column>(sql: &mut Sql, conditions: &[Condition<C>]) {
    for condition in conditions {
        sql.push(" and ");
        push(sql, condition);
    }
}

fn push<C: Column>(sql: &mut Sql, condition: &Condition<C>) {
    if let Some(score) = condition.column.score_source() {
        return push_score(sql, condition, score);
    }
    let test = match &condition.test {
        // Equality keeps the order of an index; a set of values doesn't.
        Test::OneOf(values, false) if values.len() == 1 => {
            &Test::Text(TextTest::Equals, values[0].clone())
        }
        test => test,
    };
    let key = condition.key.as_deref();
    if let Test::Text(TextTest::Equals, value) = test {
        if let Some(prefix) = condition.column.indexed_prefix() {
            sql.push(prefix).push(" = ");
            sql.push_bind(cut_chars(value, PREFIX_CHARS).to_owned());
            if value.chars().count() < PREFIX_CHARS {
                return;
            }
            sql.push(" and ");
        }
        if let Some(key) = key.filter(|_| condition.column.is_indexed_object()) {
            push_containment(sql, condition.column.sql(), key, value);
        }
    }
    push_test(sql, condition.column.sql(), key, test);
}

/// What an object contains whose member `key` reads as `value`: that text, or what it is as JSON.
/// The index of the column knows containment only.
fn push_containment(sql: &mut Sql, expression: &str, key: &str, value: &str) {
    let parsed = json::parse(value).filter(|parsed| !parsed.is_null());
    let values = std::iter::once(Value::from(value)).chain(parsed);
    let nested = |value: Value| {
        let path = key.rsplit('.');
        path.fold(value, |inner, name| {
            Map::from_iter([(name.to_owned(), inner)]).into()
        })
    };
    let objects = values.flat_map(|value| {
        let nested = key.contains('.').then(|| nested(value.clone()));
        let plain = Value::from(Map::from_iter([(key.to_owned(), value)]));
        std::iter::once(plain).chain(nested)
    });
    sql.push("(");
    for (number, object) in objects.enumerate() {
        let object = json::storable(object);
        sql.push(if number > 0 { " or " } else { "" });
        sql.push(expression).push(" @> ").push_bind(Json(object));
    }
    sql.push(") and ");
}

/// `expression` alone, or its member `key` as text.
fn push_operand(sql: &mut Sql, expression: &str, key: Option<&str>) {
    if key.is_some_and(|key| key.contains('.')) {
        sql.push("coalesce(");
    }
    sql.push(expression);
    let Some(key) = key else {
        return;
    };
    if !key.contains('.') {
        sql.push(" ->> ").push_bind(key.to_owned());
        return;
    }
    // `scope.name` is a key of that name, or else the member `name` of `scope`.
    sql.push(" ->> ").push_bind(key.to_owned());
    sql.push(", ").push(expression).push(" #>> ");
    sql.push_bind(path_of(key)).push(")");
}

/// The members that a key with dots leads through.
fn path_of(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

fn push_test(sql: &mut Sql, expression: &str, key: Option<&str>, test: &Test) {
    sql.push("(");
    match test {
        Test::Text(how, value) => push_text(sql, expression, key, *how, value),
        Test::Number(order, value) => {
            push_operand(sql, expression, key);
            sql.push(order.sql()).push_bind(*value);
        }
        Test::NumberOneOf(values) => {
            push_operand(sql, expression, key);
            sql.push(" = any(").push_bind(values.clone()).push(")");
        }
        Test::Time(order, value) => push_time(sql, (expression, key), *order, *value),
        Test::OneOf(values, negated) => {
            push_operand(sql, expression, key);
            sql.push(if *negated { " <> all(" } else { " = any(" });
            sql.push_bind(values.clone()).push(")");
        }
        Test::Overlaps(values, negated) => {
            sql.push(if *negated { "not " } else { "" });
            push_operand(sql, expression, key);
            sql.push(" && ").push_bind(values.clone());
        }
        Test::ContainsAll(values) => {
            push_operand(sql, expression, key);
            sql.push(" @> ").push_bind(values.clone());
        }
        Test::Bool(value) => {
            push_operand(sql, expression, key);
            sql.push(" = ").push_bind(*value);
        }
        Test::IsNull(negated) => {
            push_operand(sql, expression, key);
            sql.push(if *negated { " is not null" } else { " is null" });
        }
    }
    sql.push(")");
}

/// A time as answers print it must select the row that it was printed of.
fn push_time(sql: &mut Sql, (expression, key): (&str, Option<&str>), order: Order, value: Micros) {
    let first = time::to_utc(value);
    let last = time::to_utc(time::last_printed_as(value));
    push_operand(sql, expression, key);
    match order {
        Order::Equal => {
            sql.push(" between ").push_bind(first);
            sql.push(" and ").push_bind(last);
        }
        Order::NotEqual => {
            sql.push(" not between ").push_bind(first);
            sql.push(" and ").push_bind(last);
        }
        Order::Less | Order::AtLeast => {
            sql.push(order.sql()).push_bind(first);
        }
        Order::Greater | Order::AtMost => {
            sql.push(order.sql()).push_bind(last);
        }
    }
}

/// `strpos` and friends take the text as it is: no pattern characters to escape.
fn push_text(sql: &mut Sql, expression: &str, key: Option<&str>, how: TextTest, value: &str) {
    let value = value.to_owned();
    match how {
        TextTest::Equals => {
            push_operand(sql, expression, key);
            sql.push(" = ").push_bind(value);
        }
        TextTest::Contains | TextTest::Lacks => {
            sql.push("strpos(");
            push_operand(sql, expression, key);
            sql.push(", ").push_bind(value);
            sql.push(if how == TextTest::Contains {
                ") > 0"
            } else {
                ") = 0"
            });
        }
        TextTest::StartsWith => {
            sql.push("starts_with(");
            push_operand(sql, expression, key);
            sql.push(", ").push_bind(value).push(")");
        }
        TextTest::Matches | TextTest::MatchesAnyCase => {
            push_operand(sql, expression, key);
            // The text is quoted whole: no character of it means anything to the expression.
            sql.push(if how == TextTest::Matches {
                " ~ "
            } else {
                " ~* "
            });
            sql.push("('(^|[^[:alnum:]])' || regexp_replace(")
                .push_bind(value)
                .push("::text, '([^[:alnum:]])', '\\\\\\1', 'g') || '($|[^[:alnum:]])')");
        }
        TextTest::Like | TextTest::Unlike => {
            push_operand(sql, expression, key);
            sql.push(if how == TextTest::Like {
                " ilike "
            } else {
                " not ilike "
            });
            // Without an escape character no pattern is an error.
            sql.push_bind(value).push(" escape ''");
        }
        TextTest::EndsWith => {
            sql.push("right(");
            push_operand(sql, expression, key);
            sql.push(", length(")
                .push_bind(value.clone())
                .push("::text)) = ")
                .push_bind(value);
        }
    }
}

/// A condition on scores holds when any score of that name satisfies it; "none of" when none does.
fn push_score<C: Column>(sql: &mut Sql, condition: &Condition<C>, source: ScoreSource) {
    let (wanted, negated) = match &condition.test {
        Test::OneOf(values, negated) => (Test::OneOf(values.clone(), false), *negated),
        Test::IsNull(negated) => (Test::IsNull(true), !*negated),
        other => (other.clone(), false),
    };
    sql.push(if negated { "not " } else { "" });
    sql.push(
        "exists (select 1 from scores s where s.project_id = t.project_id and s.trace_id = t.id",
    );
    sql.push(source.condition());
    if let Some(name) = &condition.key {
        sql.push(" and s.name = ").push_bind(name.clone());
    }
    sql.push(" and ");
    let operand = match (&wanted, condition.key.is_some(), source) {
        // Options without a name hold it themselves.
        (Test::OneOf(..), false, ScoreSource::Categories) => "(s.name || ':' || s.string_value)",
        _ => source.sql(),
    };
    push_test(sql, operand, None, &wanted);
    sql.push(")");
}

/// Which scores a column looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreSource {
    /// Numbers of numeric and boolean scores.
    Numbers,
    /// Labels of categorical scores.
    Categories,
    /// Truth values.
    Booleans,
}

impl ScoreSource {
    fn condition(self) -> &'static str {
        match self {
            Self::Numbers => " and s.data_type in ('NUMERIC', 'BOOLEAN')",
            Self::Categories => " and s.data_type = 'CATEGORICAL'",
            Self::Booleans => " and s.data_type = 'BOOLEAN'",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Numbers => "s.value",
            Self::Categories => "s.string_value",
            Self::Booleans => "(s.value = 1)",
        }
    }
}
