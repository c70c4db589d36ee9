//! What is checked of the database.

use std::path::Path;
use std::time::Duration;

use super::{Findings, Places};
use crate::config::Options;
use crate::directory;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::{ClockSurvey, Colleague, DatabaseUrl, Jump, PostgresSurvey, SqliteSurvey, Standing};

/// The oldest PostgreSQL, as PostgreSQL tells its version.
const OLDEST: u32 = 13_00_00;
/// A difference of clocks in seconds that is worth a remark.
const APART: f64 = 5.0;

/// For how long a jump of the clock is worth a remark.
const OLD_NEWS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which key the database needs.
pub(super) enum Key {
    /// The one with this fingerprint.
    Needed(String),
    /// None yet.
    None,
    /// It could not be found out.
    Unknown,
}

impl From<Option<String>> for Key {
    fn from(noted: Option<String>) -> Self {
        noted.map_or(Self::None, Self::Needed)
    }
}

pub(super) fn sqlite(path: &Path, findings: &mut Findings<'_>) -> Key {
    let shown = path.display();
    if !path.exists() {
        findings.ok(format!("there is no database {shown} yet; a server makes it"));
        return Key::None;
    }
    match SqliteSurvey::at(path) {
        Err(error) => {
            findings.wrong(format!("the database {shown} cannot be read: {}", detail(&error)));
            Key::Unknown
        }
        Ok(survey) => {
            findings.ok(format!("the database {shown} can be read"));
            schema(&survey.schema, findings);
            clock(&survey.clock, findings);
            survey.key.into()
        }
    }
}

pub(super) async fn postgres(
    url: &DatabaseUrl,
    options: &Options,
    places: &Places,
    findings: &mut Findings<'_>,
) -> Key {
    let survey = match PostgresSurvey::at(url).await {
        Ok(survey) => survey,
        Err(error) => {
            findings.wrong(format!("the database {url} cannot be reached: {}", detail(&error)));
            return Key::Unknown;
        }
    };
    match &survey.tls {
        Some(version) => findings.ok(format!("the database {url} is reached, with {version}")),
        None => findings.ok(format!("the database {url} is reached, without TLS")),
    }
    server(&survey, findings);
    for (what, result) in [("sessions", Some(&survey.sessions)), ("notifications", survey.notifications.as_ref())] {
        match result {
            Some(Ok(())) if what == "sessions" => findings.ok("its connections have sessions of their own"),
            Some(Ok(())) => findings.ok("its notifications arrive"),
            Some(Err(error)) => findings.wrong(format!("the database cannot be used: {}", detail(error))),
            None => {}
        }
    }
    schema(&survey.schema, findings);
    if survey.lacks.is_empty() {
        findings.ok("the user may do what a server does");
    } else {
        findings.wrong(format!("the user lacks: {}", survey.lacks.join("; ")));
    }
    connections(&survey, options, findings);
    clock(&survey.clock, findings);
    colleagues(&survey.nodes, places, findings);
    match survey.schema {
        Standing::Newer(_) => Key::Unknown,
        _ => survey.key.into(),
    }
}

/// What is to be said of the server that PostgreSQL is.
fn server(survey: &PostgresSurvey, findings: &mut Findings<'_>) {
    let (major, minor) = (survey.version / 10_000, survey.version % 10_000);
    if survey.version < OLDEST {
        findings.wrong(format!(
            "it is PostgreSQL {major}: 13 or later is needed. Older ones are mended by nobody any more, and were not tried"
        ));
    } else {
        findings.ok(format!("it is PostgreSQL {major}.{minor}"));
    }
    if survey.is_replica {
        findings.wrong("it is a replica, which cannot be written to: name the primary");
    }
    if !is_english(&survey.messages) {
        findings.remark(format!(
            "its messages are those of {}: where it cannot do something for a while, as with a full disk, clients may be told INTERNAL instead of \
             UNAVAILABLE. lc_messages = 'C' for the user mends that",
            survey.messages
        ));
    }
    let apart = survey.ahead.abs();
    if apart > APART {
        let where_to = if survey.ahead > 0.0 { "ahead of" } else { "behind" };
        findings.remark(format!(
            "its clock is {apart:.1} s {where_to} this machine's. What is stored has its instants; what the server logs of itself has the machine's"
        ));
    } else {
        findings.ok(format!("its clock and this machine's are {apart:.1} s apart"));
    }
}

/// Whether PostgreSQL speaks English in this locale. What it says is all that there is to tell some errors apart by.
fn is_english(locale: &str) -> bool {
    let language = locale.split(['_', '.', '@']).next().unwrap_or_default();
    ["", "C", "POSIX", "en", "English"].contains(&language)
}

fn schema(standing: &Standing, findings: &mut Findings<'_>) {
    match standing {
        Standing::Missing => findings.ok("it has no schema yet; a server makes it"),
        Standing::Same => findings.ok("its schema is that of this version"),
        Standing::Older(steps) => findings.remark(format!(
            "its schema is {steps} {} older than this version: a server brings it up to date when it starts, and older versions cannot be started then",
            if *steps == 1 { "step" } else { "steps" }
        )),
        Standing::Newer(version) => {
            findings.wrong(format!("it has schema {version}, which this version does not know: it is newer"));
        }
    }
}

/// What is to be said of the clock that the database's instants are from.
fn clock(survey: &ClockSurvey, findings: &mut Findings<'_>) {
    let now = Timestamp::now();
    // What was noted long ago is over.
    let mut jumps = survey.jumps.iter().filter(|(jump, _)| jump.expected.min(jump.shown) + OLD_NEWS > now);
    if let Some((Jump { expected, shown }, node)) = jumps.next() {
        let others = match jumps.count() {
            0 => String::new(),
            others => format!(", and {others} times before"),
        };
        findings.remark(format!(
            "the clock jumped from {expected} to {shown}, as the server {node} noticed{others}: what was stored while it was wrong has wrong \
             instants, and ticks of schedules may have been missed"
        ));
    }
    if survey.jobs_ahead > 0 {
        findings.remark(format!(
            "the clock was ahead, or is behind now: {} jobs were created later than now by its instants",
            survey.jobs_ahead
        ));
    }
}

fn connections(survey: &PostgresSurvey, options: &Options, findings: &mut Findings<'_>) {
    let wanted = u32::from(options.database.database_connections) + 1;
    let (most, in_use) = (survey.most_connections, survey.connections);
    let registered = u32::try_from(survey.nodes.len()).unwrap_or(u32::MAX);
    let all = wanted.saturating_mul(registered);
    let counted = format!("a server has up to {wanted} connections, and PostgreSQL {most}, {in_use} of them in use");
    if wanted > most {
        findings.wrong(format!("{counted}: lower --database-connections, or raise max_connections"));
    } else if all > most {
        findings.remark(format!("{counted}: too few for all {registered} servers that are registered"));
    } else if in_use + wanted > most {
        findings.remark(format!("{counted}: too few for another server"));
    } else {
        findings.ok(counted);
    }
}

/// What is to be said of the servers that are registered.
fn colleagues(nodes: &[Colleague], places: &Places, findings: &mut Findings<'_>) {
    let own = directory::id_of(&places.data);
    let shared = places.shared.as_deref().and_then(directory::id_of);
    if nodes.is_empty() {
        findings.ok("no server is registered");
    }
    for node in nodes {
        let name = &node.name;
        let is_own = own.is_some() && node.home == own;
        if node.lease < 0.0 {
            findings.remark(format!(
                "the server {name} is registered, and its lease has been over for {:.0} s: another takes over what it ran",
                -node.lease
            ));
        } else {
            findings.ok(format!("the server {name} is registered; its lease holds for {:.0} s", node.lease));
            if !is_own && node.shared != shared {
                findings.wrong(format!(
                    "the server {name} has another shared directory: all servers of a database need the same --shared-dir"
                ));
            }
        }
    }
}

/// What an error says to whoever runs the server.
fn detail(error: &Error) -> String {
    error.detail().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::is_english;

    #[test]
    fn a_locale_says_whether_messages_are_in_english() {
        assert!(["", "C", "C.UTF-8", "POSIX", "en_GB.UTF-8", "English_United States.1252"].into_iter().all(is_english));
        assert!(!["de_DE.UTF-8", "fr_FR@euro", "eno"].into_iter().any(is_english));
    }
}
