//! PostgreSQL as people run it, and pgbench, which says what the machine does with it.

use std::process::Command;
use std::time::Duration;

use crate::support::postgres::process::binaries;
use crate::support::{Cluster, Database, eventually};

/// A cluster whose commits wait for the disk, which those of the tests do not. Nothing, and a word on why, if it cannot be had.
pub async fn durable() -> Option<Cluster> {
    let cluster = Cluster::start()?;
    let database = cluster.database();
    for change in ["ALTER SYSTEM RESET ALL", "ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET full_page_writes = on"] {
        database.execute(change);
    }
    database.execute("SELECT pg_reload_conf()");
    let on = "pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'on'";
    eventually("commits wait for the disk", async || (database.count(on) == 3).then_some(())).await;
    // What was written before is not on the disk yet.
    database.execute("CHECKPOINT");
    Some(cluster)
}

/// Commits of the smallest kind there is, which many clients make at once.
pub struct Transactions {
    database: Database,
    script: tempfile::NamedTempFile,
}

impl Transactions {
    /// Each is one UPDATE of one row, for a claim is at its heart such a one; and each client's of a row of its own, so that none waits for
    /// another's, but all for the disk.
    pub fn new(cluster: &Cluster) -> Self {
        let database = cluster.database();
        database.execute("CREATE TABLE rows (id INT PRIMARY KEY, value INT) WITH (fillfactor = 50)");
        database.execute("INSERT INTO rows SELECT generate_series(0, 99), 0");
        let script = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(script.path(), "UPDATE rows SET value = value + 1 WHERE id = :client_id;\n").expect("a file");
        Self { database, script }
    }

    /// How long so many clients take for so many transactions in all, without the time to connect.
    pub fn run(&self, clients: usize, number: usize) -> Duration {
        // Beside initdb, to which there may be a link on the PATH.
        let initdb = binaries().expect("PostgreSQL").join("initdb").canonicalize().expect("initdb");
        let output = Command::new(initdb.with_file_name("pgbench"))
            .args(["--no-vacuum", "--protocol=prepared", "--client", &clients.to_string()])
            .args(["--transactions", &number.div_ceil(clients).to_string(), "--file"])
            .arg(self.script.path())
            .arg(self.database.url())
            .output()
            .expect("pgbench runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        Duration::from_secs_f64(number as f64 / rate.expect("its rate"))
    }
}
