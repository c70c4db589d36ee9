//! SQL types that every database knows, and how the model's types are stored in them.

use std::io::Write;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql};
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, Binary, SqlOrd, SqlType, Text};
use diesel::sqlite::Sqlite;
use uuid::Uuid;

use crate::model::{
    ActivityLevel, CauseType, Failure, Id, JobStatus, JobStopReason, JobType, RepositoryUrl, ResourceStatus, Timestamp,
};

/// A UUID: `uuid` in PostgreSQL, its 16 bytes in SQLite.
#[derive(Debug, Clone, Copy, Default, SqlType, QueryId)]
#[diesel(postgres_type(oid = 2950, array_oid = 2951), sqlite_type(name = "Binary"))]
pub struct Uid;

/// A moment: `timestamptz` in PostgreSQL, microseconds since 1970 in SQLite.
#[derive(Debug, Clone, Copy, Default, SqlType, QueryId)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185), sqlite_type(name = "Long"))]
pub struct Instant;

impl SqlOrd for Instant {}

impl<T: 'static> ToSql<Uid, Sqlite> for Id<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.as_bytes().as_slice());
        Ok(IsNull::No)
    }
}

impl<T: 'static> FromSql<Uid, Sqlite> for Id<T> {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
        Ok(Uuid::from_slice(&bytes)?.into())
    }
}

impl<T: 'static> ToSql<Uid, Pg> for Id<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl<T: 'static> FromSql<Uid, Pg> for Id<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Uuid::from_slice(value.as_bytes())?.into())
    }
}

/// PostgreSQL counts from the year 2000.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql<Instant, Pg> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&(self.micros() - POSTGRES_EPOCH).to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Pg> for Timestamp {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let micros = i64::from_be_bytes(value.as_bytes().try_into()?).saturating_add(POSTGRES_EPOCH);
        Self::from_micros(micros).ok_or_else(|| format!("no such instant: {micros}").into())
    }
}

impl ToSql<Instant, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.micros());
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Sqlite> for Timestamp {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?;
        Self::from_micros(micros).ok_or_else(|| format!("no such instant: {micros}").into())
    }
}

/// Stores an enum of the model as its name.
macro_rules! stored_as_name {
    ($($name:ident),+) => { $(
        impl<DB: Backend> ToSql<Text, DB> for $name
        where
            str: ToSql<Text, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                self.as_str().to_sql(out)
            }
        }

        impl<DB: Backend> FromSql<Text, DB> for $name
        where
            String: FromSql<Text, DB>,
        {
            fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
                let name = String::from_sql(value)?;
                Self::from_name(&name).ok_or_else(|| format!("no such {}: {name}", stringify!($name)).into())
            }
        }
    )+ };
}

stored_as_name!(JobType, JobStatus, JobStopReason, ResourceStatus, CauseType, ActivityLevel);

impl<DB: Backend> ToSql<Text, DB> for RepositoryUrl
where
    str: ToSql<Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        self.as_str().to_sql(out)
    }
}

impl<DB: Backend> FromSql<Text, DB> for RepositoryUrl
where
    String: FromSql<Text, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(String::from_sql(value)?.into())
    }
}

/// Stores a structure of the model as JSON.
macro_rules! stored_as_json {
    ($($name:ident),+) => { $(
        impl ToSql<Text, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                serde_json::to_writer(out, self)?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<Text, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Ok(serde_json::from_slice(value.as_bytes())?)
            }
        }

        impl ToSql<Text, Sqlite> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                out.set_value(serde_json::to_string(self)?);
                Ok(IsNull::No)
            }
        }

        impl FromSql<Text, Sqlite> for $name {
            fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                let json = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
                Ok(serde_json::from_str(&json)?)
            }
        }
    )+ };
}

stored_as_json!(Failure);
