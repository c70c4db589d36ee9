//! SQL types that every database knows, and how the model's types are stored in them.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql};
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, Binary, SqlType, Text};
use diesel::sqlite::Sqlite;
use uuid::Uuid;

use crate::model::{
    ActivityLevel, CauseType, Failure, Id, JobStatus, JobStopReason, JobType, ResourceStatus, Timestamp,
};

/// A UUID: its 16 bytes in SQLite.
#[derive(Debug, Clone, Copy, Default, SqlType, QueryId)]
#[diesel(sqlite_type(name = "Binary"))]
pub struct Uid;

/// A moment: microseconds since 1970 in SQLite.
#[derive(Debug, Clone, Copy, Default, SqlType, QueryId)]
#[diesel(sqlite_type(name = "Long"))]
pub struct Instant;

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

/// Stores a structure of the model as JSON.
macro_rules! stored_as_json {
    ($($name:ident),+) => { $(
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
