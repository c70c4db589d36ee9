//! Fills a database with SQL. Through the API it would take hours.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};

use crate::support::Database;

/// What a database is filled with: workspaces, each with a pipeline that is FAILED, and of it jobs that are QUEUED.
///
/// A job of such a pipeline is claimed and ended as every other is, but no process is started for it: so what it takes is what the database takes.
/// They are verifications, for of runs a pipeline has one at a time.
pub struct Filling {
    pub workspaces: usize,
    /// How many jobs each has.
    pub jobs: usize,
}

/// What the two databases say differently.
struct Dialect {
    /// The numbers from 1 on, as a query.
    places: String,
    /// A new id,
    id: &'static str,
    /// and the moment of a number.
    moment: &'static str,
    /// The column of a change's position, if it is not the number by which it arrived anyway; and what goes there.
    position: [&'static str; 2],
}

impl Filling {
    /// Fills the database in a server's data directory. No server is to run there.
    pub fn fill_sqlite(&self, data: &Path) {
        let path = data.join("jobstream.db");
        let mut database = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
        let dialect = Dialect {
            places: format!(
                "WITH RECURSIVE places (place) AS (SELECT 1 UNION ALL SELECT place + 1 FROM places WHERE place < {}) \
                 SELECT place FROM places",
                self.jobs.max(self.workspaces)
            ),
            id: "randomblob(16)",
            moment: "1735689600000000 + place * 1000",
            position: ["", ""],
        };
        // Room for all of it: what is found by random ids is all over the file.
        database.batch_execute("PRAGMA cache_size = -1000000; BEGIN").expect("a transaction");
        for statement in self.statements(&dialect) {
            database.batch_execute(&statement).expect(&statement);
        }
        database.batch_execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").expect("a commit");
    }

    /// Fills a database that a server has made its tables in.
    pub fn fill_postgres(&self, database: &Database) {
        let dialect = Dialect {
            places: format!("SELECT generate_series(1, {}) AS place", self.jobs.max(self.workspaces)),
            id: "gen_random_uuid()",
            moment: "to_timestamp(1735689600 + place / 1000.0)",
            position: [", position", ", latest_change"],
        };
        for statement in self.statements(&dialect) {
            database.execute(&statement);
        }
        // As it would be by and by; it is not to be done while something is measured.
        database.execute("VACUUM ANALYZE");
        database.execute("CHECKPOINT");
    }

    fn statements(&self, dialect: &Dialect) -> [String; 8] {
        let Self { workspaces, jobs } = self;
        let Dialect { places, id, moment, position: [position, arrival] } = dialect;
        [
            format!("CREATE TABLE filling AS {places}"),
            format!(
                "INSERT INTO workspaces (id, created, last_modified, name, alias, status) \
                 SELECT {id}, {moment}, {moment}, 'Workspace ' || place, '', 'READY' FROM filling WHERE place <= {workspaces}"
            ),
            format!(
                "INSERT INTO pipelines (id, workspace, created, last_modified, name, status, definition) \
                 SELECT {id}, id, created, created, 'Pipeline', 'FAILED', {id} FROM workspaces"
            ),
            "INSERT INTO definitions (id, pipeline, body) SELECT definition, id, \
             '{\"schedule\":null,\"timeout\":0,\"max_retries\":0,\"script\":\"true\",\"data_components\":[],\"actions\":[],\"properties\":[]}' \
             FROM pipelines"
                .to_owned(),
            // The workspaces have queued them in turns.
            format!(
                "INSERT INTO jobs (id, workspace, pipeline, definition, type, created, max_attempts, status, attempt, ready, \
                 latest_change, changed_at, number) \
                 SELECT {id}, workspace, id, definition, 'PIPELINE_VERIFY', {moment}, 1, 'QUEUED', 1, {moment}, \
                 row_number() OVER (ORDER BY place), {moment}, row_number() OVER (ORDER BY place) FROM pipelines \
                 CROSS JOIN filling WHERE place <= {jobs}"
            ),
            format!(
                "INSERT INTO changes (workspace, pipeline, job, status, attempt, at, deleted{position}) \
                 SELECT workspace, pipeline, id, status, attempt, created, FALSE{arrival} FROM jobs ORDER BY latest_change"
            ),
            format!("INSERT INTO queues (workspace, turn) SELECT id, {moment} FROM workspaces JOIN filling ON place = 1"),
            "DROP TABLE filling".to_owned(),
        ]
    }
}
