//! What must be known of a database before xtrace uses it, and what is said of one that will not do.

use sqlx::PgConnection;

use crate::schema::MIGRATIONS;
use crate::unusable::Unusable;

/// PostgreSQL 14: lz4 compression of columns.
const OLDEST_SERVER: i32 = 140_000;
/// What the seed of xtrace made has ids of this type in `traces`; ours are text.
const TYPE_OF_THE_SEEDS_IDS: &str = "uuid";

/// A database as it was found.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Facts {
    server_version: i32,
    encoding: String,
    has_lz4: bool,
    is_standby: bool,
    role: String,
    database: String,
    schema: Option<String>,
    may_create: bool,
    /// The role owns `traces`, or there is no such table.
    owns_tables: bool,
    type_of_trace_ids: Option<String>,
    has_migrations: bool,
    has_meta: bool,
    #[sqlx(skip)]
    applied: Vec<(i64, Vec<u8>)>,
    #[sqlx(skip)]
    oldest_program: Option<String>,
}

const FACTS: &str = "
    select current_setting('server_version_num')::int as server_version,
           current_setting('server_encoding') as encoding,
           coalesce((select 'lz4' = any(enumvals) from pg_settings
                      where name = 'default_toast_compression'), false) as has_lz4,
           pg_is_in_recovery() as is_standby,
           current_user::text as role,
           current_database()::text as database,
           current_schema()::text as schema,
           coalesce(has_schema_privilege(current_schema()::text, 'create'), false) as may_create,
           coalesce((select pg_has_role(relowner, 'usage') from pg_class
                      where oid = to_regclass('traces')), true) as owns_tables,
           (select atttypid::regtype::text from pg_attribute
             where attrelid = to_regclass('traces') and attname = 'id'
               and not attisdropped) as type_of_trace_ids,
           to_regclass('_sqlx_migrations') is not null as has_migrations,
           to_regclass('schema_meta') is not null as has_meta";

impl Facts {
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let mut facts: Self = sqlx::query_as(FACTS).fetch_one(&mut *connection).await?;
        if facts.has_migrations {
            let applied = "select version, checksum from _sqlx_migrations where success order by 1";
            facts.applied = sqlx::query_as(applied).fetch_all(&mut *connection).await?;
        }
        if facts.has_meta {
            let oldest = "select oldest_program from schema_meta limit 1";
            facts.oldest_program = sqlx::query_scalar(oldest)
                .fetch_optional(connection)
                .await?;
        }
        Ok(facts)
    }

    /// Whether this program may use the database.
    pub(crate) fn judge(&self) -> Result<(), Unusable> {
        self.judge_server()?;
        self.judge_schema()?;
        match &self.oldest_program {
            Some(oldest) if version(oldest) > version(env!("CARGO_PKG_VERSION")) => {
                Err(Unusable::Foreign(format!(
                    "it needs xtrace {oldest} or newer, and this is {}",
                    env!("CARGO_PKG_VERSION")
                )))
            }
            _ => Ok(()),
        }
    }

    fn judge_server(&self) -> Result<(), Unusable> {
        if self.server_version < OLDEST_SERVER {
            return Err(Unusable::Unfit(format!(
                "PostgreSQL {} or newer is needed; the server is {}",
                OLDEST_SERVER / 10_000,
                self.server_version / 10_000
            )));
        }
        if !self.has_lz4 {
            return Err(Unusable::Unfit(
                "this PostgreSQL was built without lz4, which columns are compressed with; use one \
                 built --with-lz4, as those of Debian, Red Hat and the official images are"
                    .to_owned(),
            ));
        }
        if self.encoding != "UTF8" {
            return Err(Unusable::Unfit(format!(
                "its encoding is {}; make it with `create database {} encoding 'UTF8' template template0`",
                self.encoding, self.database
            )));
        }
        if self.is_standby {
            return Err(Unusable::Away(
                "the server is a standby, which takes no writes".to_owned(),
            ));
        }
        Ok(())
    }

    fn judge_schema(&self) -> Result<(), Unusable> {
        if self.type_of_trace_ids.as_deref() == Some(TYPE_OF_THE_SEEDS_IDS) {
            return Err(Unusable::Foreign(
                "it was made by xtrace 0.1; `xtrace import seed` will copy it once that command is there. \
                 Nothing was changed: keep it, and set DATABASE_URL to an empty database"
                    .to_owned(),
            ));
        }
        let other = "it holds tables of another program. Nothing was changed: set DATABASE_URL to an empty \
                     database";
        if self.type_of_trace_ids.is_some() && self.applied.is_empty() {
            return Err(Unusable::Foreign(other.to_owned()));
        }
        for (number, checksum) in &self.applied {
            let ours = MIGRATIONS.iter().find(|ours| ours.version == *number);
            if ours.is_some_and(|ours| *ours.checksum != **checksum) {
                return Err(Unusable::Foreign(format!(
                    "its migration {number} is not this program's; {other}"
                )));
            }
        }
        // Versions without a single one of ours are those of somebody else.
        let is_ours = |(number, _): &(i64, _)| MIGRATIONS.version_exists(*number);
        if !self.applied.is_empty() && !self.applied.iter().any(is_ours) {
            return Err(Unusable::Foreign(other.to_owned()));
        }
        Ok(())
    }

    /// Whether the role may run migrations.
    pub(crate) fn judge_privileges(&self) -> Result<(), Unusable> {
        let Self { role, database, .. } = self;
        let Some(schema) = &self.schema else {
            return Err(Unusable::Unfit(format!(
                "no schema of the search_path of {role} is in it; create one, or set search_path"
            )));
        };
        if !self.may_create {
            return Err(Unusable::Unfit(format!(
                "{role} may not make tables in the schema {schema} of {database}; run \
                 `grant create on schema {schema} to {role}`, or make {role} the owner of the database"
            )));
        }
        if !self.owns_tables {
            return Err(Unusable::Unfit(format!(
                "its tables belong to another role than {role}, which can't change them; connect as their owner"
            )));
        }
        Ok(())
    }

    /// Whether no migration has run.
    pub(crate) fn is_empty(&self) -> bool {
        self.applied.is_empty()
    }

    /// Whether all migrations of this program have run.
    pub(crate) fn lacks_nothing(&self) -> bool {
        let applied = |number: i64| self.applied.iter().any(|(done, _)| *done == number);
        MIGRATIONS.iter().all(|ours| applied(ours.version))
    }
}

/// Major, minor and patch; what follows a hyphen or plus doesn't count.
fn version(text: &str) -> [u64; 3] {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Facts);

    fn good() -> Facts {
        Facts {
            server_version: 150_000,
            encoding: "UTF8".to_owned(),
            has_lz4: true,
            is_standby: false,
            role: "reader".to_owned(),
            database: "traces".to_owned(),
            schema: Some("public".to_owned()),
            may_create: true,
            owns_tables: true,
            type_of_trace_ids: None,
            has_migrations: false,
            has_meta: false,
            applied: Vec::new(),
            oldest_program: None,
        }
    }

    #[test]
    fn each_fault_of_a_server_has_its_sentence() {
        good().judge().unwrap();
        good().judge_privileges().unwrap();
        let cases: [(Spoil, &str); 7] = [
            (
                |facts| facts.server_version = 130_011,
                "PostgreSQL 14 or newer is needed; the server is 13",
            ),
            (|facts| facts.has_lz4 = false, "built without lz4"),
            (
                |facts| "LATIN1".clone_into(&mut facts.encoding),
                "its encoding is LATIN1",
            ),
            (|facts| facts.is_standby = true, "a standby"),
            (|facts| facts.schema = None, "no schema of the search_path"),
            (
                |facts| facts.may_create = false,
                "grant create on schema public to reader",
            ),
            (
                |facts| facts.owns_tables = false,
                "belong to another role than reader",
            ),
        ];
        for (spoil, words) in cases {
            let mut facts = good();
            spoil(&mut facts);
            let found = facts.judge().and_then(|()| facts.judge_privileges());
            let said = found.unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn programs_are_compared_by_their_numbers() {
        assert!(version("0.10.0") > version("0.9.9"));
        assert!(version("1.0.0-rc.1+build") == version("1.0.0"));
        assert!(version("1") > version("0.99"));
    }
}
