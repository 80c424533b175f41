//! Prompts: versions of a name, labels that move between them, tags that they share.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, QueryBuilder};
use xtrace_model::ProjectId;

use crate::erasure::fence;
use crate::filter::{self, Condition, PromptColumn};
use crate::page::{Page, Paged};
use crate::reading::ROWS_MAX;
use crate::{Store, StoreError};

/// The label that the newest version of a name always has.
pub const LATEST: &str = "latest";

/// One version of a prompt.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    missing_docs,
    reason = "columns of the table `prompts`, see migrations/0012_prompts.sql"
)]
pub struct Prompt {
    pub id: String,
    pub name: String,
    pub version: i32,
    pub r#type: String,
    /// JSON text: a string, or a list of messages.
    pub prompt: String,
    /// JSON text.
    pub config: String,
    pub labels: Vec<String>,
    pub tags: Vec<String>,
    pub commit_message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "p.id, p.name, p.version, p.type, p.prompt, p.config, p.labels, p.tags, \
    p.commit_message, p.created_at, p.updated_at";

/// Which version of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Which {
    /// That one.
    Version(i32),
    /// The one with that label.
    Label(String),
}

/// A version that is to be.
#[derive(Debug)]
pub struct NewPrompt {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `text` or `chat`.
    pub r#type: &'static str,
    /// JSON text.
    pub prompt: String,
    /// JSON text.
    pub config: String,
    /// Labels that it takes from other versions.
    pub labels: Vec<String>,
    /// Tags of all versions from now on; none keeps those that are.
    pub tags: Option<Vec<String>>,
    /// Why it is.
    pub commit_message: Option<String>,
}

/// A name's versions differ in type.
#[derive(Debug)]
pub struct OtherType;

/// What a list shows of a name.
#[derive(Debug, sqlx::FromRow)]
pub struct PromptSummary {
    /// The name.
    pub name: String,
    /// Of the highest version that was found.
    pub r#type: String,
    /// Versions that were found, ascending.
    pub versions: Vec<i32>,
    /// Labels of each of them.
    pub labels: Json<Vec<Vec<String>>>,
    /// Tags of the name.
    pub tags: Json<Vec<String>>,
    /// The newest change.
    pub updated_at: DateTime<Utc>,
    /// Of the highest version, JSON text.
    pub config: String,
}

/// One version of a name.
pub async fn find(
    store: &Store,
    project: &ProjectId,
    name: &str,
    which: &Which,
) -> Result<Option<Prompt>, StoreError> {
    let mut sql = QueryBuilder::new("select ");
    sql.push(COLUMNS)
        .push(" from prompts p where p.project_id = ");
    sql.push_bind(project.as_str().to_owned());
    sql.push(" and p.name = ").push_bind(name.to_owned());
    match which {
        Which::Version(version) => sql.push(" and p.version = ").push_bind(*version),
        Which::Label(label) => sql
            .push(" and ")
            .push_bind(label.clone())
            .push(" = any(p.labels)"),
    };
    let found = sql.build_query_as().fetch_optional(store.read()).await?;
    Ok(found)
}

/// A text prompt that others refer to.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(missing_docs, reason = "columns of the table `prompts`")]
pub struct Referred {
    pub id: String,
    pub name: String,
    pub version: i32,
    pub r#type: String,
    /// JSON text; none when all that was found is longer than was asked for.
    pub prompt: Option<String>,
}

/// The versions that are meant, each under its place in the list. Their prompts come along if those of text
/// have at most `bytes_max` together.
pub async fn find_all(
    store: &Store,
    project: &ProjectId,
    wanted: &[(String, Which)],
    bytes_max: usize,
) -> Result<Vec<(usize, Referred)>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        place: i64,
        #[sqlx(flatten)]
        found: Referred,
    }
    let (mut names, mut versions, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (name, which) in wanted {
        names.push(name.as_str());
        let (version, label) = match which {
            Which::Version(version) => (Some(*version), None),
            Which::Label(label) => (None, Some(label.as_str())),
        };
        versions.push(version);
        labels.push(label);
    }
    let rows: Vec<Row> = sqlx::query_as(
        "select w.place, p.id, p.name, p.version, p.type,
                case when sum(octet_length(p.prompt)) filter (where p.type = 'text') over () <= $5
                      and p.type = 'text' then p.prompt end as prompt
           from unnest($2::text[], $3::int[], $4::text[]) with ordinality w(name, version, label, place)
           join prompts p on p.project_id = $1
            and p.name = w.name
            and (p.version = w.version or w.label = any(p.labels))
          limit $6",
    )
    .bind(project.as_str())
    .bind(names)
    .bind(versions)
    .bind(labels)
    .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
    // Each is one version at most.
    .bind(i64::try_from(wanted.len()).unwrap_or(i64::MAX))
    .fetch_all(store.read())
    .await?;
    let placed = rows.into_iter().map(|row| {
        let place = usize::try_from(row.place - 1).unwrap_or_default();
        (place, row.found)
    });
    Ok(placed.collect())
}

/// All versions of a name, ascending, without what they hold.
pub async fn versions(
    store: &Store,
    project: &ProjectId,
    name: &str,
) -> Result<Vec<Prompt>, StoreError> {
    let columns = COLUMNS.replace("p.prompt, p.config", "'' as prompt, '' as config");
    let sql = format!(
        "select {columns} from prompts p where p.project_id = $1 and p.name = $2 order by p.version
          limit {ROWS_MAX}"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(name)
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// All versions of any name whose prompt holds a text, as it stands in JSON.
pub async fn holding(
    store: &Store,
    project: &ProjectId,
    text: &str,
) -> Result<Vec<Prompt>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from prompts p where p.project_id = $1 and strpos(p.prompt, $2) > 0
          order by p.name, p.version limit {ROWS_MAX}"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(text)
        .fetch_all(store.read())
        .await?;
    Ok(found)
}

/// Whether there is a prompt of that id.
pub async fn exists(store: &Store, project: &ProjectId, id: &str) -> Result<bool, StoreError> {
    let sql = "select exists (select from prompts where project_id = $1 and id = $2)";
    let found = sqlx::query_scalar(sql)
        .bind(project.as_str())
        .bind(id)
        .fetch_one(store.read())
        .await?;
    Ok(found)
}

/// A page of names with a version that meets all conditions, in alphabetical order.
pub async fn list(
    store: &Store,
    project: &ProjectId,
    conditions: &[Condition<PromptColumn>],
    page: Page,
) -> Result<Paged<PromptSummary>, StoreError> {
    let mut count = QueryBuilder::new("select count(distinct p.name)");
    push_from(&mut count, project, conditions);
    let total = count.build_query_scalar().fetch_one(store.read()).await?;
    // What versions hold is read of one version a name; of all of them, only what is short is collected.
    let mut rows = QueryBuilder::new(
        "select g.name, g.versions, g.labels, g.updated_at, newest.type, to_jsonb(newest.tags) as tags, newest.config
           from (select p.name, max(p.version) as newest,
                        -- Collects at most a number of each version of a name.
                        array_agg(p.version order by p.version) as versions,
                        -- Collects at most the labels of each, of which a name has each once.
                        jsonb_agg(p.labels order by p.version) as labels,
                        max(p.updated_at) as updated_at",
    );
    push_from(&mut rows, project, conditions);
    rows.push(" group by p.name order by p.name limit ")
        .push_bind(page.limit);
    rows.push(" offset ")
        .push_bind(page.offset())
        .push(") g join prompts newest on newest.project_id = ")
        .push_bind(project.as_str().to_owned());
    rows.push(" and newest.name = g.name and newest.version = g.newest order by g.name limit ")
        .push_bind(page.limit);
    let rows = rows.build_query_as().fetch_all(store.read()).await?;
    Ok(Paged { rows, total })
}

fn push_from(
    sql: &mut QueryBuilder<Postgres>,
    project: &ProjectId,
    conditions: &[Condition<PromptColumn>],
) {
    sql.push(" from prompts p where p.project_id = ")
        .push_bind(project.as_str().to_owned());
    filter::push_all(sql, conditions);
}

/// Adds a version: one more than the highest of its name.
pub async fn create(
    store: &Store,
    project: &ProjectId,
    new: NewPrompt,
    now: DateTime<Utc>,
) -> Result<Result<Prompt, OtherType>, StoreError> {
    let mut transaction = fence::begin(store.write(), project).await?;
    lock(&mut transaction, project, &new.name).await?;
    let newest: Option<(i32, String, Vec<String>)> = sqlx::query_as(
        "select version, type, tags from prompts where project_id = $1 and name = $2
          order by version desc limit 1",
    )
    .bind(project.as_str())
    .bind(&new.name)
    .fetch_optional(&mut *transaction)
    .await?;
    if newest
        .as_ref()
        .is_some_and(|(_, kind, _)| kind != new.r#type)
    {
        return Ok(Err(OtherType));
    }
    let (version, tags) = newest.map_or((0, Vec::new()), |(version, _, tags)| (version, tags));
    let mut labels = new.labels;
    labels.push(LATEST.to_owned());
    keep_first(&mut labels);
    take_labels(&mut transaction, project, &new.name, &labels, now).await?;
    if let Some(tags) = &new.tags {
        sqlx::query("update prompts set tags = $3 where project_id = $1 and name = $2")
            .bind(project.as_str())
            .bind(&new.name)
            .bind(tags)
            .execute(&mut *transaction)
            .await?;
    }
    let sql = format!(
        "insert into prompts as p (project_id, name, version, id, type, prompt, config, labels, tags,
                commit_message, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) returning {COLUMNS}"
    );
    let created = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(&new.name)
        .bind(version + 1)
        .bind(&new.id)
        .bind(new.r#type)
        .bind(&new.prompt)
        .bind(&new.config)
        .bind(&labels)
        .bind(new.tags.unwrap_or(tags))
        .bind(&new.commit_message)
        .bind(now)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Ok(created))
}

/// Gives a version more labels, taken from the other versions of its name.
pub async fn add_labels(
    store: &Store,
    project: &ProjectId,
    (name, version): (&str, i32),
    mut labels: Vec<String>,
    now: DateTime<Utc>,
) -> Result<Option<Prompt>, StoreError> {
    let mut transaction = store.write().begin().await?;
    lock(&mut transaction, project, name).await?;
    let has: Option<Vec<String>> = sqlx::query_scalar(
        "select labels from prompts where project_id = $1 and name = $2 and version = $3",
    )
    .bind(project.as_str())
    .bind(name)
    .bind(version)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(has) = has else {
        return Ok(None);
    };
    take_labels(&mut transaction, project, name, &labels, now).await?;
    labels.extend(has);
    keep_first(&mut labels);
    let sql = format!(
        "update prompts p set labels = $4, updated_at = $5
          where p.project_id = $1 and p.name = $2 and p.version = $3 returning {COLUMNS}"
    );
    let changed = sqlx::query_as(AssertSqlSafe(sql))
        .bind(project.as_str())
        .bind(name)
        .bind(version)
        .bind(&labels)
        .bind(now)
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(changed)
}

/// Deletes versions of a name; the highest that remains becomes the latest.
pub async fn delete(
    store: &Store,
    project: &ProjectId,
    name: &str,
    versions: &[i32],
) -> Result<(), StoreError> {
    let mut transaction = store.write().begin().await?;
    lock(&mut transaction, project, name).await?;
    sqlx::query("delete from prompts where project_id = $1 and name = $2 and version = any($3)")
        .bind(project.as_str())
        .bind(name)
        .bind(versions)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "update prompts p set labels = array_append(p.labels, $3)
          where p.project_id = $1 and p.name = $2 and $3 <> all(p.labels)
            and p.version = (select max(version) from prompts where project_id = $1 and name = $2)",
    )
    .bind(project.as_str())
    .bind(name)
    .bind(LATEST)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Changes of a name wait for each other: numbers have no gaps, and a label is in one place.
async fn lock(
    connection: &mut PgConnection,
    project: &ProjectId,
    name: &str,
) -> Result<(), StoreError> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))")
        .bind(project.as_str())
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}

async fn take_labels(
    connection: &mut PgConnection,
    project: &ProjectId,
    name: &str,
    labels: &[String],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "update prompts set updated_at = $4, labels = array(
                select label from unnest(labels) with ordinality as has(label, number)
                 where label <> all($3) order by number)
          where project_id = $1 and name = $2 and labels && $3",
    )
    .bind(project.as_str())
    .bind(name)
    .bind(labels)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

fn keep_first(labels: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    labels.retain(|label| seen.insert(label.clone()));
}
