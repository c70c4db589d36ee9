//! What is wrong with a configuration, the directories and the database, without changing anything: `jobstream check`.
//!
//! Servers may be running meanwhile. What is found is said at once, a line each: `ok`, `remark` for what somebody should know, or `wrong` for
//! what keeps a server from starting, or from working as it should.

mod database;
mod host;
mod secrets;

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Options;
use crate::secret::Secrets;

/// What is found.
struct Findings<'a> {
    out: &'a mut (dyn Write + Send),
    is_well: bool,
}

impl Findings<'_> {
    fn ok(&mut self, what: impl AsRef<str>) {
        self.say("ok", what.as_ref());
    }

    fn remark(&mut self, what: impl AsRef<str>) {
        self.say("remark", what.as_ref());
    }

    fn wrong(&mut self, what: impl AsRef<str>) {
        self.is_well = false;
        self.say("wrong", what.as_ref());
    }

    fn say(&mut self, verdict: &str, what: &str) {
        // One line, whatever it was made of. Nobody may be reading any more; the exit code says the rest.
        let _ = writeln!(self.out, "{verdict:<7} {}", what.replace('\n', " ").trim_end());
    }
}

/// Where everything is, as far as it is there.
struct Places {
    data: PathBuf,
    /// Nothing with an embedded database, which is not shared.
    shared: Option<PathBuf>,
    key: PathBuf,
}

impl Places {
    fn of(options: &Options) -> Self {
        let data = whole(&options.data_dir);
        let is_shared = options.database.database_url.is_some();
        let shared = options.shared_dir.as_deref().map_or_else(|| data.join("shared"), whole);
        let shared = is_shared.then_some(shared);
        let key = options.key_file.clone().unwrap_or_else(|| shared.as_ref().unwrap_or(&data).join("key"));
        Self { data, shared, key }
    }
}

fn whole(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// Says what is found with these options and these secrets, and answers whether nothing is wrong.
pub async fn run(options: &Options, secrets: &Secrets, out: &mut (dyn Write + Send)) -> bool {
    let mut findings = Findings { out, is_well: true };
    let places = Places::of(options);
    host::options(options, secrets.token.as_deref(), &mut findings);
    secrets::secrets(options, secrets, &mut findings);
    host::time_zone(options, &mut findings);
    host::listener(options, &mut findings);
    host::data_directory(&places, &mut findings);
    host::shared_directory(options, &places, &mut findings);
    host::programs(options, &places, &mut findings);
    let key = match &options.database.database_url {
        None => database::sqlite(&places.data.join("jobstream.db"), &mut findings),
        Some(url) => database::postgres(url, options, &places, &mut findings).await,
    };
    host::key_file(&places.key, key, &mut findings);
    findings.is_well
}
