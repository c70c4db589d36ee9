//! What a PostgreSQL database is like, for somebody who looks and changes nothing.
//!
//! It is asked in the simple protocol, which works through any pooler: what is wrong with that is to be said, and the rest too.

use std::time::{SystemTime, UNIX_EPOCH};

use diesel::pg::Pg;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::sessions::{self, ask, rows};
use super::{DatabaseUrl, MIGRATIONS, PATIENCE, check_notifications};
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::clock::Jump;
use crate::store::migrations::{NOTED, Standing};
use crate::store::survey::{ClockSurvey, Colleague, LATEST_JOBS, PostgresSurvey};

const TABLES: &str = "'workspaces', 'queues', 'pipelines', 'definitions', 'triggers', 'data_components', 'encryption_keys', 'invitations', \
    'nodes', 'jobs', 'changes', 'log_chunks', 'webhooks', 'deliveries', 'clock_jumps', '__diesel_schema_migrations'";

/// Looks at the database.
pub(in crate::store) async fn survey(url: &DatabaseUrl) -> Result<PostgresSurvey, Error> {
    timeout(PATIENCE, look(url)).await.map_err(|_| Error::unavailable("the database does not answer"))?
}

async fn look(url: &DatabaseUrl) -> Result<PostgresSurvey, Error> {
    let client = url.client().await?;
    let settings = "SELECT current_setting('server_version_num'), pg_is_in_recovery(), \
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int, \
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
        (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), current_setting('lc_messages')";
    let settings = rows(&client, settings).await?.pop().unwrap_or_default();
    let setting = |nth: usize| settings.get(nth).cloned().flatten();
    let number = |nth: usize| setting(nth).and_then(|it| it.parse().ok()).unwrap_or_default();
    let ahead = ahead(&client).await?;
    let schema = schema(&client).await?;
    let sessions = sessions::check(url).await;
    let notifications = if sessions.is_ok() { Some(check_notifications(url).await) } else { None };
    // What a newer version keeps, nobody here knows.
    let is_known = matches!(schema, Standing::Older(_) | Standing::Same);
    let (key, nodes) = if is_known { (key(&client).await?, nodes(&client).await?) } else { (None, Vec::new()) };
    let clock = if is_known { clock(&client).await } else { ClockSurvey::default() };
    Ok(PostgresSurvey {
        version: number(0),
        is_replica: setting(1).as_deref() == Some("t"),
        most_connections: number(2),
        connections: number(3),
        tls: setting(4),
        messages: setting(5).unwrap_or_default(),
        ahead,
        sessions,
        notifications,
        lacks: lacks(&client, &schema).await?,
        schema,
        key,
        clock,
        nodes,
    })
}

/// By how many seconds the database's clock is ahead of this machine's. The answer was given in the middle of the wait for it.
async fn ahead(client: &Client) -> Result<f64, Error> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let asked = now();
    let there = ask(client, "SELECT extract(epoch FROM clock_timestamp())").await?;
    let here = asked.midpoint(now());
    Ok(there.and_then(|it| it.parse::<f64>().ok()).map_or(0.0, |there| there - here))
}

async fn schema(client: &Client) -> Result<Standing, Error> {
    if ask(client, &format!("SELECT to_regclass('{NOTED}')")).await?.is_none() {
        return Ok(Standing::Missing);
    }
    let applied = rows(client, &format!("SELECT version FROM {NOTED} ORDER BY version")).await?;
    let applied: Vec<String> = applied.into_iter().flatten().flatten().collect();
    Standing::of::<Pg>(&applied, &MIGRATIONS)
}

/// What the user lacks for what is to be done with such a schema.
async fn lacks(client: &Client, schema: &Standing) -> Result<Vec<String>, Error> {
    let mut lacks = Vec::new();
    if matches!(schema, Standing::Missing | Standing::Older(_)) {
        let may_create = "SELECT has_schema_privilege(current_schema(), 'CREATE')";
        if ask(client, may_create).await?.as_deref() != Some("t") {
            lacks.push("CREATE on the schema".to_owned());
        }
    }
    let owned = if matches!(schema, Standing::Older(_)) { "pg_has_role(relowner, 'USAGE')" } else { "true" };
    let privileges = ["SELECT", "INSERT", "UPDATE", "DELETE"].map(|it| format!("has_table_privilege(oid, '{it}')"));
    let tables = format!(
        "SELECT relname, {owned} FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relname IN ({TABLES}) \
         AND NOT ({owned} AND {}) ORDER BY relname",
        privileges.join(" AND ")
    );
    for row in rows(client, &tables).await? {
        let [Some(table), Some(owned)] = &row[..] else { continue };
        let what = if owned == "t" { "SELECT, INSERT, UPDATE and DELETE on" } else { "to be the owner of" };
        lacks.push(format!("{what} {table}"));
    }
    Ok(lacks)
}

async fn key(client: &Client) -> Result<Option<String>, Error> {
    // Who may not read the table has been told so.
    Ok(ask(client, "SELECT fingerprint FROM encryption_keys").await.unwrap_or_default())
}

/// What it tells of its clock. An old schema has no place for all of that.
async fn clock(client: &Client) -> ClockSurvey {
    let latest = format!("SELECT created FROM jobs ORDER BY number DESC, id DESC LIMIT {LATEST_JOBS}");
    let ahead = format!("SELECT count(*) FROM ({latest}) latest WHERE created > clock_timestamp() + interval '5 s'");
    let ahead = ask(client, &ahead).await.unwrap_or_default();
    let micros = |column: &str| format!("(extract(epoch FROM {column}) * 1000000)::BIGINT");
    let jumps = format!("SELECT {}, {}, node FROM clock_jumps ORDER BY id DESC", micros("expected"), micros("shown"));
    let jumps = rows(client, &jumps).await.unwrap_or_default().into_iter().filter_map(|row| {
        let mut values = row.into_iter().flatten();
        let mut instant = || Timestamp::from_micros(values.next()?.parse().ok()?);
        let jump = Jump { expected: instant()?, shown: instant()? };
        Some((jump, values.next()?))
    });
    ClockSurvey { jobs_ahead: ahead.and_then(|it| it.parse().ok()).unwrap_or_default(), jumps: jumps.collect() }
}

async fn nodes(client: &Client) -> Result<Vec<Colleague>, Error> {
    let nodes = "SELECT name, extract(epoch FROM lease_until - clock_timestamp()), home, shared FROM nodes ORDER BY started, id";
    let found = rows(client, nodes).await.unwrap_or_default();
    let found = found.into_iter().map(|row| {
        let mut values = row.into_iter();
        let mut next = || values.next().flatten();
        Colleague {
            name: next().unwrap_or_default(),
            lease: next().and_then(|it| it.parse().ok()).unwrap_or_default(),
            home: next().and_then(|it| it.parse().ok()),
            shared: next().and_then(|it| it.parse().ok()),
        }
    });
    Ok(found.collect())
}
