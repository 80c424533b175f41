//! The price list: from a model's name and usage to costs. Rules: Langfuse's, restated in
//! docs/mapping.md ("Cost"); the file is an array of models with pricing tiers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::observation::Observation;
use crate::usage::{Costs, Usage, bounded_cost};

/// A list of models with their prices, ready to be matched.
#[derive(Debug)]
pub struct PriceList {
    models: Vec<Model>,
    names: RegexSet,
    /// Which model a name means; matching all patterns costs more than the rest of a row.
    known: RwLock<HashMap<String, Option<usize>>>,
    /// Names that are remembered at most.
    known_max: usize,
    bytes: usize,
}

/// Longer names mean no model: nobody calls one so, and each would be matched and remembered.
pub const NAME_BYTES_MAX: usize = 200;
/// Names that the built-in list remembers at most.
const KNOWN_MAX: usize = 10_000;
/// Names that a project's list remembers at most.
const OWN_KNOWN_MAX: usize = 200;
/// The longest pattern of a project's model.
pub const OWN_PATTERN_CHARS_MAX: usize = 1_000;
/// What one pattern of a project may become, and all of them together.
const OWN_PATTERN_BYTES_MAX: usize = 1 << 20;
const OWN_LIST_BYTES_MAX: usize = 4 << 20;
/// What the states may take that a project's patterns are matched with.
const OWN_STATES_BYTES_MAX: usize = 256 << 10;
/// What a pattern of kinds of usage may become, and how many of those a project may have.
const KINDS_BYTES_MAX: usize = 256 << 10;
const OWN_KINDS_MAX: usize = 200;

/// One model of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Stable id, visible to clients as `modelId`.
    pub id: String,
    /// Display name.
    pub model_name: String,
    match_pattern: String,
    pricing_tiers: Vec<Tier>,
}

/// Prices that hold under conditions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// Stable id.
    pub id: String,
    /// Display name.
    pub name: String,
    is_default: bool,
    priority: i32,
    conditions: Vec<Condition>,
    /// USD per unit, by kind of unit.
    pub prices: BTreeMap<String, f64>,
}

/// One of two shapes; which one shows in the members that are present.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    operator: String,
    usage_detail_pattern: Option<String>,
    value: Option<f64>,
    #[serde(default)]
    case_sensitive: bool,
    source: Option<String>,
    key: Option<String>,
    #[serde(default)]
    values: Vec<String>,
    #[serde(skip)]
    usage_kinds: Option<Regex>,
}

/// What the list says of one observation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Priced {
    /// Id of the model that matched.
    pub model_id: Option<String>,
    /// Id and name of the tier that applied.
    pub tier: Option<(String, String)>,
    /// Costs by kind of unit, with a total where one can be known.
    pub costs: Costs,
}

/// Why a price list can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PriceListError {
    /// The file is no such array.
    #[error("the price list is malformed")]
    Json(#[from] serde_json::Error),
    /// A pattern in it is no regular expression.
    #[error("a pattern of the price list is malformed")]
    Pattern(#[from] regex::Error),
    /// A pattern is too long.
    #[error("a pattern has more than 1,000 characters")]
    Long,
}

impl PriceList {
    /// Reads the list from JSON.
    pub fn parse(json: &str) -> Result<Self, PriceListError> {
        let mut models: Vec<Model> = serde_json::from_str(json)?;
        for model in &mut models {
            model.compile_conditions()?;
        }
        let names = name_set(&models, 64 << 20)?;
        Ok(Self {
            models,
            names,
            known: RwLock::default(),
            known_max: KNOWN_MAX,
            bytes: 0,
        })
    }

    /// The list of a project, of the models that are sound and fit, the first first; and how many do not. What
    /// one project's patterns cost is bounded, since everybody's writes wait while names are matched.
    pub fn of_project(models: Vec<Model>) -> (Self, usize) {
        let count = models.len();
        let mut kinds = 0;
        let sound = models.into_iter().filter_map(|mut model| {
            kinds += model.kinds_patterns();
            let is_sound = kinds <= OWN_KINDS_MAX && model.prepare_own().is_ok();
            is_sound.then_some(model)
        });
        let mut models: Vec<Model> = sound.collect();
        let sizes = [16 << 10, 64 << 10, 256 << 10, 1 << 20, OWN_LIST_BYTES_MAX];
        let fitting = sizes
            .into_iter()
            .find_map(|bytes| Some((name_set(&models, bytes).ok()?, bytes)));
        let (names, bytes) = fitting.unwrap_or_else(|| {
            let fits = |count: &usize| name_set(&models[..*count], OWN_LIST_BYTES_MAX).is_ok();
            let counts: Vec<usize> = (1..=models.len()).collect();
            let most = counts.partition_point(fits);
            models.truncate(most);
            let names = name_set(&models, OWN_LIST_BYTES_MAX).unwrap_or_else(|_| RegexSet::empty());
            (names, OWN_LIST_BYTES_MAX)
        });
        let left_out = count - models.len();
        let list = Self {
            models,
            names,
            known: RwLock::default(),
            known_max: OWN_KNOWN_MAX,
            bytes: bytes + kinds.min(OWN_KINDS_MAX) * (KINDS_BYTES_MAX / 8) + (64 << 10),
        };
        (list, left_out)
    }

    /// Bytes that a project's list takes, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The model of that id.
    pub fn model(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
    }

    /// The model that a name means.
    pub fn named(&self, name: &str) -> Option<&Model> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known.get(name) {
            return index.map(|index| &self.models[index]);
        }
        drop(known);
        let index = self.names.matches(name).iter().next();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.known_max {
            known.clear();
        }
        known.insert(name.to_owned(), index);
        index.map(|index| &self.models[index])
    }

    /// Prices an observation as [`Model::price`] does, of the model that its name means.
    pub fn price(&self, observation: &Observation) -> Priced {
        let model = observation.model.text().and_then(|name| self.named(name));
        price(model, observation)
    }
}

/// Patterns of names as one, which is no larger than so many bytes.
fn name_set(models: &[Model], bytes_max: usize) -> Result<RegexSet, regex::Error> {
    let patterns = models.iter().map(|model| &model.match_pattern);
    let mut builder = RegexSetBuilder::new(patterns);
    if bytes_max <= OWN_LIST_BYTES_MAX {
        builder.dfa_size_limit(OWN_STATES_BYTES_MAX);
    }
    builder.size_limit(bytes_max).build()
}

fn price(model: Option<&Model>, observation: &Observation) -> Priced {
    let sent_costs = observation
        .sent_costs
        .get()
        .filter(|costs| !costs.is_empty());
    let model_id = model.map(|model| model.id.clone());
    if let Some(costs) = sent_costs {
        return Priced {
            model_id,
            tier: None,
            costs: costs.clone(),
        };
    }
    let usage = observation.usage.get().filter(|usage| !usage.is_empty());
    let (Some(model), Some(usage), true) = (model, usage, observation.kind().is_priced()) else {
        return Priced {
            model_id,
            ..Priced::default()
        };
    };
    let Some(tier) = model.tier(usage, observation) else {
        return Priced {
            model_id,
            ..Priced::default()
        };
    };
    Priced {
        model_id,
        tier: Some((tier.id.clone(), tier.name.clone())),
        costs: tier.costs(usage),
    }
}

impl Model {
    /// Prices an observation. Costs that were sent count alone; otherwise those of generations
    /// and embeddings are computed, and a kind of unit without a price costs nothing.
    pub fn price(&self, observation: &Observation) -> Priced {
        price(Some(self), observation)
    }

    /// Prepares a model of a project, if its patterns are within their bounds.
    pub fn prepare_own(&mut self) -> Result<(), PriceListError> {
        if self.match_pattern.chars().count() > OWN_PATTERN_CHARS_MAX {
            return Err(PriceListError::Long);
        }
        RegexBuilder::new(&self.match_pattern)
            .size_limit(OWN_PATTERN_BYTES_MAX)
            .build()?;
        self.compile_conditions()?;
        Ok(())
    }

    fn compile_conditions(&mut self) -> Result<(), regex::Error> {
        self.pricing_tiers.sort_by_key(|tier| tier.priority);
        let tiers = self.pricing_tiers.iter_mut();
        tiers
            .flat_map(|tier| &mut tier.conditions)
            .try_for_each(Condition::compile)
    }

    fn kinds_patterns(&self) -> usize {
        let conditions = self.pricing_tiers.iter().flat_map(|tier| &tier.conditions);
        conditions
            .filter(|condition| condition.usage_detail_pattern.is_some())
            .count()
    }

    /// The prices that hold when no condition does.
    pub fn default_tier(&self) -> Option<&Tier> {
        self.pricing_tiers.iter().find(|tier| tier.is_default)
    }

    fn tier(&self, usage: &Usage, observation: &Observation) -> Option<&Tier> {
        let special = self.pricing_tiers.iter().filter(|tier| !tier.is_default);
        special
            .into_iter()
            .find(|tier| {
                tier.conditions
                    .iter()
                    .all(|condition| condition.holds(usage, observation))
            })
            .or_else(|| self.default_tier())
    }
}

impl Tier {
    fn costs(&self, usage: &Usage) -> Costs {
        let priced = usage.iter().filter_map(|(kind, units)| {
            let cost = self.prices.get(kind)? * *units as f64;
            Some((kind.clone(), bounded_cost(cost)))
        });
        let mut costs: Costs = priced.collect();
        if !costs.is_empty() && !costs.contains_key("total") {
            costs.insert("total".to_owned(), bounded_cost(costs.values().sum()));
        }
        costs
    }
}

impl Condition {
    fn compile(&mut self) -> Result<(), regex::Error> {
        if let Some(pattern) = &self.usage_detail_pattern {
            let insensitive = !self.case_sensitive;
            self.usage_kinds = Some(
                RegexBuilder::new(pattern)
                    .case_insensitive(insensitive)
                    .size_limit(KINDS_BYTES_MAX)
                    .dfa_size_limit(KINDS_BYTES_MAX)
                    .build()?,
            );
        }
        Ok(())
    }

    fn holds(&self, usage: &Usage, observation: &Observation) -> bool {
        if let (Some(kinds), Some(value)) = (&self.usage_kinds, self.value) {
            let matching = usage.iter().filter(|(kind, _)| kinds.is_match(kind));
            let units = matching.fold(0_i64, |sum, (_, units)| sum.saturating_add(*units));
            return compare(units as f64, &self.operator, value);
        }
        let source = match self.source.as_deref() {
            Some("model_parameters") => observation.parsed_model_parameters(),
            Some("metadata") => observation.metadata.value(),
            _ => None,
        };
        let Some(key) = &self.key else { return false };
        match source.as_ref().and_then(|source| source.get(key)) {
            Some(Value::String(text)) => self.values.contains(text),
            Some(value) => self.values.contains(&value.to_string()),
            None => false,
        }
    }
}

fn compare(units: f64, operator: &str, value: f64) -> bool {
    match operator {
        "gt" => units > value,
        "gte" => units >= value,
        "lt" => units < value,
        "lte" => units <= value,
        "eq" => (units - value).abs() < f64::EPSILON,
        "neq" => (units - value).abs() >= f64::EPSILON,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Kind;
    use crate::register::{RANK_EXPLICIT, Register, Stamp};
    use crate::{ObservationId, TraceId};

    const LIST: &str = r#"[{"id":"m","modelName":"big","matchPattern":"(?i)^(big)(-v2)?$","pricingTiers":[
        {"id":"std","name":"Standard","isDefault":true,"priority":0,"conditions":[],"prices":{"input":2,"output":3}},
        {"id":"long","name":"Long","isDefault":false,"priority":2,"prices":{"input":20,"output":30},
         "conditions":[{"usageDetailPattern":"input","operator":"gt","value":100,"caseSensitive":false}]},
        {"id":"fast","name":"Fast","isDefault":false,"priority":1,"prices":{"input":5,"output":5},
         "conditions":[{"source":"model_parameters","key":"service_tier","operator":"in","values":["fast"]}]}]}]"#;

    fn generation(model: &str, usage: &[(&str, i64)]) -> Observation {
        let stamp = Stamp::latest(RANK_EXPLICIT, 0, 0);
        let mut observation = Observation::new(
            TraceId::parse("t").unwrap(),
            ObservationId::parse("o").unwrap(),
        );
        observation.kind = Register::new(Kind::Generation, stamp);
        observation.model = Register::new(model.to_owned(), stamp);
        let usage = usage
            .iter()
            .map(|(kind, units)| ((*kind).to_owned(), *units))
            .collect();
        observation.usage = Register::new(usage, stamp);
        observation
    }

    fn check(observation: &Observation, tier: Option<&str>, total: Option<f64>) {
        let priced = PriceList::parse(LIST).unwrap().price(observation);
        assert_eq!(priced.tier.as_ref().map(|(id, _)| id.as_str()), tier);
        assert_eq!(priced.costs.get("total").copied(), total);
    }

    #[test]
    fn the_tier_follows_usage_and_parameters() {
        check(
            &generation("BIG", &[("input", 100), ("output", 1)]),
            Some("std"),
            Some(203.0),
        );
        check(
            &generation("big-v2", &[("input", 101)]),
            Some("long"),
            Some(2020.0),
        );
        let mut fast = generation("big", &[("input", 101)]);
        let parameters = r#"{"service_tier":"fast"}"#.to_owned();
        fast.model_parameters = Register::new(parameters, Stamp::latest(RANK_EXPLICIT, 0, 0));
        check(&fast, Some("fast"), Some(505.0));
        check(&generation("bigger", &[("input", 1)]), None, None);
    }

    #[test]
    fn a_kind_without_a_price_costs_nothing() {
        check(
            &generation("big", &[("input", 1), ("input_cached", 50), ("total", 51)]),
            Some("std"),
            Some(2.0),
        );
        check(
            &generation("big", &[("input_cached", 50)]),
            Some("std"),
            None,
        );
    }

    fn own(id: usize, pattern: &str) -> Model {
        let model = serde_json::json!({"id": format!("m-{id}"), "modelName": "n", "matchPattern": pattern,
            "pricingTiers": []});
        serde_json::from_value(model).unwrap()
    }

    #[test]
    fn a_project_s_patterns_are_bounded_and_bad_ones_spoil_no_others() {
        let huge = "(?:[a-z]{100}){200}";
        let patterns = ["(", huge, &"x".repeat(2000), "^good$"];
        let models = patterns
            .iter()
            .enumerate()
            .map(|(id, pattern)| own(id, pattern));
        let (list, left_out) = PriceList::of_project(models.collect());
        assert_eq!(left_out, 3);
        assert_eq!(list.named("good").unwrap().id, "m-3");
        assert!(list.bytes() < 1 << 20);
        // Each is small enough, and together they are not: the first ones hold.
        let models = (0..300).map(|id| own(id, &format!("^m{id}[a-z]{{900}}$")));
        let (list, left_out) = PriceList::of_project(models.collect());
        assert!((1..300).contains(&left_out), "{left_out}");
        assert!(list.named("m0").is_none());
        assert!(list.model("m-0").is_some());
    }

    #[test]
    fn long_names_mean_no_model_and_are_not_remembered() {
        let (list, _) = PriceList::of_project(vec![own(1, ".*")]);
        for n in 0..10_000 {
            assert!(list.named(&format!("name {n}")).is_some());
            assert!(
                list.named(&format!("{n}{}", "x".repeat(NAME_BYTES_MAX)))
                    .is_none()
            );
        }
        assert!(list.known.read().unwrap().len() <= OWN_KNOWN_MAX);
    }

    #[test]
    fn only_generations_and_embeddings_are_priced() {
        let mut agent = generation("big", &[("input", 1)]);
        agent.kind = Register::new(Kind::Agent, Stamp::latest(RANK_EXPLICIT, 0, 0));
        check(&agent, None, None);
    }

    #[test]
    fn costs_that_were_sent_count_alone() {
        let mut sent = generation("big", &[("input", 1)]);
        let costs = Costs::from([("total".to_owned(), 0.5)]);
        sent.sent_costs = Register::new(costs, Stamp::latest(RANK_EXPLICIT, 0, 0));
        check(&sent, None, Some(0.5));
    }
}
