//! What is checked of secrets: how they reach the program, and who else can read them there.

use super::Findings;
use crate::config::Options;
use crate::secret::{self, Secrets, Source};

pub(super) fn secrets(options: &Options, secrets: &Secrets, findings: &mut Findings<'_>) {
    let database_url = secrets.database_url_source.as_ref();
    let has_password = options.database.database_url.as_ref().is_some_and(crate::store::DatabaseUrl::has_password);
    let given = [
        ("the token", secrets.token_source.as_ref(), "--token-fd"),
        ("the password of the database", database_url.filter(|_| has_password), "--database-url-fd"),
    ];
    if secrets.token.is_none() {
        findings.remark(format!("there is no token: whoever can connect to {} can run programs", options.listen));
    }
    let mut are_given = false;
    for (what, source, better) in given {
        if let Some(source) = source {
            of(what, source, better, findings);
            are_given = true;
        }
    }
    if are_given {
        process(findings);
    }
}

/// What follows from where a secret came from.
fn of(what: &str, source: &Source, better: &str, findings: &mut Findings<'_>) {
    let instead = format!("use {better} with a file that only root can open");
    match source {
        Source::Descriptor { number, can_be_opened: false } => {
            findings.ok(format!("{what} came from descriptor {number}, which jobs cannot open"));
        }
        Source::Descriptor { number, can_be_opened: true } => findings.remark(format!(
            "{what} came from descriptor {number}, but this user can open the file behind it, and so can jobs: make it a file of root with mode 600"
        )),
        Source::File(path) => findings.remark(format!(
            "{what} came from the file {}. Jobs run as this user and can read it: {instead}",
            path.display()
        )),
        Source::Variable => findings.remark(format!(
            "{what} came from an environment variable. Jobs run as this user: a process that one left behind can read the variable in /proc at the moment \
             when the program starts: {instead}"
        )),
        Source::Argument => findings.remark(format!(
            "{what} came from an argument, which every user of this machine can read for as long as the program runs: {instead}"
        )),
    }
}

/// Whether other processes of this user can read the memory of this program.
fn process(findings: &mut Findings<'_>) {
    if rustix::process::geteuid().is_root() {
        findings.remark("this user is root: jobs that run as root can read every secret of the server");
    } else if secret::is_protected_from_start() {
        findings.ok("the memory of the program is protected from processes of this user from its start");
    } else {
        findings.remark(
            "this user can read the program's file, so for about a millisecond when the program starts, other processes of this user can open its memory: \
             make it a file of root with mode 711",
        );
    }
}
