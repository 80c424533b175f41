//! The `filter` parameter: a JSON array of conditions, all of which must hold.

use serde_json::{Map, Value, json};
use xtrace_model::time;
use xtrace_store::filter::{
    Column, ColumnType, Condition, ObservationColumn, Order, Test, TextTest,
};

use crate::body::ITEMS_MAX;
use crate::error::{CompatError, issue};
use crate::query::Query;

/// Conditions of a filter at most: each is weighed against every row.
const CONDITIONS_MAX: usize = 100;

/// The filter's types and the operators that each has.
const TYPES: [(&str, &[&str]); 12] = [
    ("datetime", &[">", "<", ">=", "<="]),
    ("string", TEXT_OPERATORS),
    ("number", NUMBER_OPERATORS),
    ("stringOptions", &["any of", "none of"]),
    ("categoryOptions", &["any of", "none of"]),
    ("arrayOptions", &["any of", "none of", "all of"]),
    ("stringObject", TEXT_OPERATORS),
    ("numberObject", NUMBER_OPERATORS),
    ("booleanObject", &["=", "<>"]),
    ("boolean", &["=", "<>"]),
    ("null", &["is null", "is not null"]),
    ("positionInTrace", &["="]),
];
const TEXT_OPERATORS: &[&str] = &[
    "=",
    "contains",
    "does not contain",
    "starts with",
    "ends with",
];
const NUMBER_OPERATORS: &[&str] = &["=", ">", "<", ">=", "<="];

/// Reads the parameter; an empty one is none.
pub(crate) fn parse<C: Column>(query: &Query) -> Result<Vec<Condition<C>>, CompatError> {
    parse_items(query, |item: &Item<'_>| item.condition())
}

/// The same for version 2 of observations, which can also search texts for words.
pub(crate) fn parse_matching(
    query: &Query,
) -> Result<Vec<Condition<ObservationColumn>>, CompatError> {
    parse_items(query, |item| {
        let kind = item.text("type")?;
        if item.text("operator")? == "matches" && matches!(kind, "string" | "stringObject") {
            return item.matching().map(Some);
        }
        item.condition()
    })
}

/// The same with operators that ask whether there is a text or a member at all.
pub(crate) fn parse_with_presence<C: Column>(
    query: &Query,
) -> Result<Vec<Condition<C>>, CompatError> {
    parse_items(query, |item| {
        let negated = match (item.text("type")?, item.text("operator")?) {
            ("string", "is not empty") => {
                return item.with_operator("stringOptions", "none of", json!([""]));
            }
            ("stringObject", "is set") => "is not null",
            ("stringObject", "is not set") => "is null",
            _ => return item.condition(),
        };
        item.with_operator("null", negated, json!(""))
    })
}

fn parse_items<C: Column>(
    query: &Query,
    condition: impl Fn(&Item<'_>) -> Result<Option<Condition<C>>, CompatError>,
) -> Result<Vec<Condition<C>>, CompatError> {
    let Some(text) = query.text("filter").filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let malformed = || CompatError::BadRequest("Invalid JSON in filter parameter".to_owned());
    let items: Value = serde_json::from_str(text).map_err(|_| malformed())?;
    parse_list(&items, &["filter"], condition)
}

/// Reads conditions from a list, which stands at a path.
pub(crate) fn parse_list<C: Column>(
    items: &Value,
    path: &[&str],
    condition: impl Fn(&Item<'_>) -> Result<Option<Condition<C>>, CompatError>,
) -> Result<Vec<Condition<C>>, CompatError> {
    let mut conditions = Vec::new();
    let Value::Array(items) = items else {
        return Err(invalid(path, 0, None, "Invalid input: expected array"));
    };
    if items.len() > CONDITIONS_MAX {
        let path: Vec<Value> = path.iter().map(|part| json!(part)).collect();
        return Err(CompatError::Invalid(issue::many(&path, CONDITIONS_MAX)));
    }
    for (index, item) in items.iter().enumerate() {
        let members = item.as_object();
        let members =
            members.ok_or_else(|| invalid(path, index, None, "Invalid input: expected object"))?;
        let item = Item {
            path,
            index,
            members,
        };
        conditions.extend(condition(&item)?);
    }
    Ok(conditions)
}

fn invalid(path: &[&str], index: usize, member: Option<&str>, message: &str) -> CompatError {
    let mut path: Vec<Value> = path.iter().map(|part| json!(part)).collect();
    path.push(json!(index));
    path.extend(member.map(|member| json!(member)));
    CompatError::Invalid(issue::custom(&path, message))
}

/// One element of the array.
pub(crate) struct Item<'a> {
    path: &'a [&'a str],
    index: usize,
    members: &'a Map<String, Value>,
}

/// What an element says, before its column is known.
pub(crate) struct Parts<'a> {
    pub(crate) kind: &'a str,
    pub(crate) column: &'a str,
    /// None for a type that is accepted and ignored.
    pub(crate) test: Option<Test>,
}

impl Item<'_> {
    fn fault(&self, member: &str, message: &str) -> CompatError {
        invalid(self.path, self.index, Some(member), message)
    }

    fn text(&self, member: &str) -> Result<&str, CompatError> {
        let text = self.members.get(member).and_then(Value::as_str);
        text.ok_or_else(|| self.fault(member, "Invalid input: expected string"))
    }

    fn value(&self) -> &Value {
        self.members.get("value").unwrap_or(&Value::Null)
    }

    /// Type, column and test, which fit each other.
    pub(crate) fn parts(&self) -> Result<Parts<'_>, CompatError> {
        let kind = self.text("type")?;
        let operators = TYPES
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, operators)| *operators);
        let operators =
            operators.ok_or_else(|| self.fault("type", "Invalid discriminator value"))?;
        let operator = self.text("operator")?;
        if operator == "matches" && matches!(kind, "string" | "stringObject") {
            let message = "`matches` is only supported by /api/public/v2/observations.";
            return Err(CompatError::BadRequest(message.to_owned()));
        }
        if !operators.contains(&operator) {
            let message = format!("Invalid option: expected one of {}", operators.join("|"));
            return Err(self.fault("operator", &message));
        }
        let column = self.text("column")?;
        let test = Some(self.test(kind, operator)?).filter(|_| kind != "positionInTrace");
        Ok(Parts { kind, column, test })
    }

    /// The condition; none for a type that is accepted and ignored.
    fn condition<C: Column>(&self) -> Result<Option<Condition<C>>, CompatError> {
        let Parts {
            kind,
            column: name,
            test,
        } = self.parts()?;
        let Some(test) = test else {
            return Ok(None);
        };
        let column = C::parse(name).or_else(|| C::parse(&id_of_heading(name)));
        let column = column.ok_or_else(|| {
            CompatError::BadRequest(format!(
                "Column {name} does not match a UI / CH table mapping."
            ))
        })?;
        let test = fit(test, kind, column.column_type(), name)?;
        let key = self.key(kind, column.column_type())?;
        Ok(Some(Condition { column, key, test }))
    }

    /// The condition that this one stands for.
    fn with_operator<C: Column>(
        &self,
        kind: &str,
        operator: &str,
        value: Value,
    ) -> Result<Option<Condition<C>>, CompatError> {
        let mut members = self.members.clone();
        for (name, value) in [
            ("type", json!(kind)),
            ("operator", json!(operator)),
            ("value", value),
        ] {
            members.insert(name.to_owned(), value);
        }
        let item = Item {
            path: self.path,
            index: self.index,
            members: &members,
        };
        item.condition()
    }

    /// A search for words in input, output, or a value of metadata.
    fn matching(&self) -> Result<Condition<ObservationColumn>, CompatError> {
        let bad = |message: &str| CompatError::BadRequest(message.to_owned());
        let value = self.value().as_str().unwrap_or_default().to_owned();
        if !value.chars().any(char::is_alphanumeric) {
            return Err(bad("`matches` requires at least one search token."));
        }
        let column = ObservationColumn::parse(self.text("column")?);
        match (column, self.text("type")?) {
            (Some(ObservationColumn::Input | ObservationColumn::Output), "string") => {
                let test = Test::Text(TextTest::MatchesAnyCase, value);
                Ok(Condition::new(
                    column.unwrap_or(ObservationColumn::Input),
                    test,
                ))
            }
            (Some(ObservationColumn::Metadata), "stringObject") => Ok(Condition {
                column: ObservationColumn::Metadata,
                key: self.key("stringObject", ColumnType::Object)?,
                test: Test::Text(TextTest::Matches, value),
            }),
            _ => Err(bad(
                "`matches` is only supported for input, output, and metadata filters.",
            )),
        }
    }

    /// The member of an object column; required where the type names one.
    pub(crate) fn key(
        &self,
        kind: &str,
        column_type: ColumnType,
    ) -> Result<Option<String>, CompatError> {
        let required = matches!(
            kind,
            "categoryOptions" | "stringObject" | "numberObject" | "booleanObject"
        );
        let is_object = matches!(
            column_type,
            ColumnType::Object
                | ColumnType::NumberObject
                | ColumnType::CategoryObject
                | ColumnType::BoolObject
        );
        match self.members.get("key") {
            Some(Value::String(key)) if is_object => Ok(Some(key.clone())),
            None | Some(Value::Null) if required => {
                Err(self.fault("key", "Invalid input: expected string, received undefined"))
            }
            _ => Ok(None),
        }
    }

    fn test(&self, kind: &str, operator: &str) -> Result<Test, CompatError> {
        let expected = |what: &str| self.fault("value", &format!("Invalid input: expected {what}"));
        let value = self.value();
        Ok(match kind {
            "datetime" => {
                let text = value.as_str().and_then(lenient_time);
                Test::Time(order(operator), text.ok_or_else(|| expected("date"))?)
            }
            "string" | "stringObject" => {
                let text = value.as_str().ok_or_else(|| expected("string"))?;
                Test::Text(text_test(operator), text.to_owned())
            }
            "number" | "numberObject" => Test::Number(
                order(operator),
                value.as_f64().ok_or_else(|| expected("number"))?,
            ),
            "stringOptions" | "categoryOptions" => {
                let options = self
                    .options()?
                    .ok_or_else(|| expected("array of strings"))?;
                if options.is_empty() && kind == "stringOptions" {
                    return Err(expected("array to have >=1 items"));
                }
                Test::OneOf(options, operator == "none of")
            }
            "arrayOptions" => {
                let options = self
                    .options()?
                    .ok_or_else(|| expected("array of strings"))?;
                match operator {
                    "all of" => Test::ContainsAll(options),
                    "any of" if options.is_empty() => {
                        return Err(expected("array to have >=1 items"));
                    }
                    operator => Test::Overlaps(options, operator == "none of"),
                }
            }
            "boolean" | "booleanObject" => {
                let truth = value.as_bool().ok_or_else(|| expected("boolean"))?;
                Test::Bool(truth == (operator == "="))
            }
            "null" => {
                if value.as_str() != Some("") {
                    return Err(expected("\"\""));
                }
                Test::IsNull(operator == "is not null")
            }
            _ => {
                let number = value.is_null() || value.as_f64().is_some_and(|number| number >= 1.0);
                if !number {
                    return Err(expected("number to be >=1"));
                }
                Test::IsNull(false)
            }
        })
    }

    /// The texts of a list; none if it is no such list.
    fn options(&self) -> Result<Option<Vec<String>>, CompatError> {
        let Some(items) = self.value().as_array() else {
            return Ok(None);
        };
        if items.len() > ITEMS_MAX {
            let message = format!("Too big: expected array to have <={ITEMS_MAX} items");
            return Err(self.fault("value", &message));
        }
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        Ok(texts.collect())
    }
}

/// Which filter types a column takes; text options also stand for arrays and categories.
fn fit(test: Test, kind: &str, column_type: ColumnType, column: &str) -> Result<Test, CompatError> {
    let expected = match column_type {
        ColumnType::Text => "stringOptions",
        ColumnType::Number => "number",
        ColumnType::Time => "datetime",
        ColumnType::Array => "arrayOptions",
        ColumnType::Bool => "boolean",
        ColumnType::Object => "stringObject",
        ColumnType::NumberObject => "numberObject",
        ColumnType::CategoryObject => "categoryOptions",
        ColumnType::BoolObject => "booleanObject",
    };
    let fits = kind == expected
        || kind == "null"
        || (column_type == ColumnType::Text && kind == "string")
        || (matches!(column_type, ColumnType::Array | ColumnType::CategoryObject)
            && kind == "stringOptions");
    if !fits {
        return Err(CompatError::BadRequest(format!(
            "Invalid filter type '{kind}' for column '{column}'. Expected filter type '{expected}'."
        )));
    }
    Ok(match (column_type, test) {
        (ColumnType::Array, Test::OneOf(values, negated)) => Test::Overlaps(values, negated),
        (_, test) => test,
    })
}

/// The id of a column by the heading that it has on Langfuse's pages: `User ID`, `Latency (s)`.
fn id_of_heading(heading: &str) -> String {
    const ODD: [(&str, &str); 7] = [
        ("⭐️", "bookmarked"),
        ("Scores (numeric)", "scores_avg"),
        ("Scores (categorical)", "score_categories"),
        ("Error Level Count", "errorCount"),
        ("Warning Level Count", "warningCount"),
        ("Default Level Count", "defaultCount"),
        ("Debug Level Count", "debugCount"),
    ];
    if let Some((_, id)) = ODD.iter().find(|(known, _)| *known == heading) {
        return (*id).to_owned();
    }
    // An id is no heading of another column.
    if !heading.starts_with(|first: char| first.is_ascii_uppercase()) {
        return String::new();
    }
    let words = heading.split_once(" (").map_or(heading, |(words, _)| words);
    let mut id = String::new();
    for word in words.split(' ') {
        let word = word.to_ascii_lowercase();
        match word.split_at_checked(1).filter(|_| !id.is_empty()) {
            Some((first, rest)) => {
                id.push_str(&first.to_ascii_uppercase());
                id.push_str(rest);
            }
            None => id.push_str(&word),
        }
    }
    id
}

/// What JavaScript's `Date` would read: also a bare date, also 24:00.
pub(crate) fn lenient_time(text: &str) -> Option<i64> {
    if let Some(time) = time::parse_rfc3339(text) {
        return Some(time);
    }
    if let Some((date, rest)) = text.split_once("T24:00:00") {
        let midnight = format!("{date}T00:00:00{rest}");
        return Some(time::parse_rfc3339(&midnight)? + time::DAY);
    }
    let candidates = [format!("{text}T00:00:00Z"), format!("{text}Z")];
    candidates
        .iter()
        .find_map(|candidate| time::parse_rfc3339(candidate))
}

fn order(operator: &str) -> Order {
    match operator {
        ">" => Order::Greater,
        "<" => Order::Less,
        ">=" => Order::AtLeast,
        "<=" => Order::AtMost,
        _ => Order::Equal,
    }
}

fn text_test(operator: &str) -> TextTest {
    match operator {
        "contains" => TextTest::Contains,
        "does not contain" => TextTest::Lacks,
        "starts with" => TextTest::StartsWith,
        "ends with" => TextTest::EndsWith,
        _ => TextTest::Equals,
    }
}

/// Adds the conditions of simple parameters, but for columns that the filter names.
pub(crate) fn with_simple<C: Column>(
    mut conditions: Vec<Condition<C>>,
    simple: impl IntoIterator<Item = Condition<C>>,
) -> Vec<Condition<C>> {
    let advanced: Vec<C> = conditions
        .iter()
        .map(|condition| condition.column)
        .collect();
    conditions.extend(
        simple
            .into_iter()
            .filter(|condition| !advanced.contains(&condition.column)),
    );
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtrace_store::filter::TraceColumn;

    fn check(filter: &str, expected: Result<Test, &str>) {
        let query = format!(
            "filter={}",
            form_urlencoded::byte_serialize(filter.as_bytes()).collect::<String>()
        );
        let parsed = parse::<TraceColumn>(&Query::parse(&query));
        match (parsed, expected) {
            (Ok(conditions), Ok(test)) => assert_eq!(conditions[0].test, test),
            (Err(CompatError::BadRequest(message)), Err(words)) => {
                assert!(message.contains(words), "{message}");
            }
            (Err(CompatError::Invalid(issue)), Err(words)) => {
                assert!(issue.to_string().contains(words), "{issue}");
            }
            (parsed, expected) => panic!("{filter}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn types_operators_and_columns_must_fit() {
        check(
            r#"[{"type":"string","column":"level","operator":"=","value":"ERROR"}]"#,
            Ok(Test::Text(TextTest::Equals, "ERROR".into())),
        );
        check(
            r#"[{"type":"stringOptions","column":"tags","operator":"none of","value":["a"]}]"#,
            Ok(Test::Overlaps(vec!["a".into()], true)),
        );
        check(
            r#"[{"type":"datetime","column":"timestamp","operator":">=","value":"2024-01-01T24:00:00Z"}]"#,
            Ok(Test::Time(Order::AtLeast, 1_704_153_600_000_000)),
        );
        check(
            r#"[{"type":"boolean","column":"bookmarked","operator":"<>","value":true}]"#,
            Ok(Test::Bool(false)),
        );
        check("{", Err("Invalid JSON in filter parameter"));
        check("{}", Err("expected array"));
        check("[1]", Err("expected object"));
        check(r#"[{"type":"bogus"}]"#, Err("discriminator"));
        check(
            r#"[{"type":"string","column":"name","operator":"like","value":"x"}]"#,
            Err("expected one of"),
        );
        check(
            r#"[{"type":"string","column":"name","operator":"="}]"#,
            Err("expected string"),
        );
        check(
            r#"[{"type":"string","column":"nope","operator":"=","value":"x"}]"#,
            Err("Column nope does not match"),
        );
        check(
            r#"[{"type":"string","column":"tags","operator":"=","value":"x"}]"#,
            Err("Invalid filter type 'string' for column 'tags'"),
        );
        check(
            r#"[{"type":"stringObject","column":"metadata","operator":"=","value":"x"}]"#,
            Err("key"),
        );
        check(
            r#"[{"type":"null","column":"name","operator":"is null","value":"x"}]"#,
            Err("value"),
        );
    }

    #[test]
    fn headings_are_names_of_columns_too() {
        for (heading, id) in [
            ("Name", "name"),
            ("User ID", "userId"),
            ("Latency (s)", "latency"),
            ("Total Cost ($)", "totalCost"),
            ("Time To First Token (s)", "timeToFirstToken"),
            ("Scores (numeric)", "scores_avg"),
            ("name", ""),
            ("Éa b", ""),
        ] {
            assert_eq!(id_of_heading(heading), id);
        }
        check(
            r#"[{"type":"string","column":"User ID","operator":"=","value":"ada"}]"#,
            Ok(Test::Text(TextTest::Equals, "ada".into())),
        );
    }

    #[test]
    fn the_filter_replaces_a_simple_parameter_of_its_column() {
        let advanced = vec![Condition::equals(TraceColumn::UserId, "ada")];
        let simple = [
            Condition::equals(TraceColumn::UserId, "bob"),
            Condition::equals(TraceColumn::Name, "n"),
        ];
        let columns: Vec<TraceColumn> = with_simple(advanced, simple)
            .iter()
            .map(|condition| condition.column)
            .collect();
        assert_eq!(columns, [TraceColumn::UserId, TraceColumn::Name]);
    }
}
