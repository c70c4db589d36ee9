//! What a field may hold. All that is wrong with a request is found at once, with paths.

use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;

use super::Used;
use crate::catalogue::{DataPlugin, is_name};
use crate::error::{Error, Problem};
use crate::model::{Definition, Property, Quoted, RepositoryUrl, Schedule, Timestamp, naming, variable};

/// Characters of a name; a pipeline's becomes the name of a file.
const NAME_CHARS: usize = 100;
const NAME_BYTES: usize = 200;
/// One argument of a Linux process holds 128 KiB, and the script is one.
const SCRIPT_BYTES: usize = 100 * 1024;
/// So is each property, as a variable of the environment.
const PROPERTY_BYTES: usize = 64 * 1024;
const PROPERTIES_BYTES: usize = 512 * 1024;
const LIST_ITEMS: usize = 200;
const WORD_CHARS: usize = 128;
/// What the variables of properties do not begin with.
const OWN_PREFIXES: [&str; 4] = ["JOBSTREAM_", "MELTANO_", "PIP_", "UV_"];
const SCHEDULE_BYTES: usize = 256;
const TIMEOUT_SECONDS: i32 = 7 * 24 * 60 * 60;
const MAX_RETRIES: i32 = 100;

/// Checks the name of a workspace, and the URL of its repository, as far as they are given.
pub(super) fn workspace(
    name: Option<&str>,
    repository_url: Option<String>,
    files_allowed: bool,
) -> Result<Option<RepositoryUrl>, Error> {
    let mut problems = Problems::default();
    if let Some(name) = name {
        problems.name(name);
    }
    let parsed = repository_url.map(|url| RepositoryUrl::parse(url, files_allowed)).transpose();
    let url = parsed.unwrap_or_else(|fault| {
        problems.add("repositoryUrl", fault);
        None
    });
    problems.into_result().map(|()| url)
}

/// Checks an e-mail address: its form, not whether somebody reads it.
pub fn email(email: &str) -> Result<(), Error> {
    let well_formed = email.split_once('@').is_some_and(|(user, host)| {
        let host_ok = host.split('.').all(|label| !label.is_empty()) && !host.contains('@');
        !user.is_empty()
            && host_ok
            && email.len() <= 254
            && !email.contains(|c: char| c.is_whitespace() || naming::is_unfit(c))
    });
    if well_formed { Ok(()) } else { Err(Error::bad_input("input.email", "This is not an e-mail address.")) }
}

/// Everything that is wrong with a pipeline, as far as it can be told without the database. Its name, if it gets one.
pub(super) fn pipeline(name: Option<&str>, definition: &Definition, triggered_by: &[String]) -> Vec<Problem> {
    let mut problems = Problems::default();
    if let Some(name) = name {
        problems.pipeline_name(name);
    }
    if let Some(schedule) = &definition.schedule {
        problems.schedule(schedule);
    }
    problems.within("timeout", definition.timeout, TIMEOUT_SECONDS, "seconds");
    problems.within("maxRetries", definition.max_retries, MAX_RETRIES, "retries");
    if let Some(script) = &definition.script {
        problems.script(script);
    }
    problems.words("dataComponents", &definition.data_components, is_component, "a plugin's name");
    problems.words("actions", &definition.actions, is_action, "a plugin's name, or `plugin:command`");
    problems.properties(&definition.properties);
    problems.list("triggeredBy", triggered_by);
    problems.found
}

/// Everything that is wrong with the name of a data component.
pub(super) fn component_name(name: &str) -> Vec<Problem> {
    let mut problems = Problems::default();
    if !is_name(name) {
        problems.add(
            "name",
            "It begins with a letter or digit, and has letters, digits, hyphens and underscores, at most 128.",
        );
    } else if OWN_PREFIXES.iter().any(|prefix| format!("{}_", variable(name)).starts_with(prefix)) {
        problems.add("name", "Variables that begin with JOBSTREAM_, MELTANO_, PIP_ or UV_ are the server's.");
    }
    problems.found
}

/// Everything that is wrong with the settings of a data component.
pub(super) fn settings(plugin: &DataPlugin, properties: &[Property]) -> Vec<Problem> {
    let mut problems = Problems::default();
    problems.list("properties", properties);
    let mut set = HashSet::new();
    for (index, property) in properties.iter().enumerate() {
        let path = format!("properties.{index}");
        problems.setting(&path, plugin, &property.name, property.text());
        problems.value(&path, property);
        if !set.insert(property.name.as_str()) {
            problems.add(format_args!("{path}.name"), "It is set already.");
        }
    }
    problems.missing(plugin, &set.into_iter().collect::<Vec<_>>());
    problems.found
}

/// Everything that is wrong with what a pipeline says of the data components and plugins that it uses.
pub(super) fn uses(definition: &Definition, uses: &[Used]) -> Vec<Problem> {
    let mut problems = Problems::default();
    let find = |name: &str| uses.iter().find(|used| used.name == name);
    let known = |name: &str| find(name).is_some_and(|used| used.plugin.is_some());
    // What is malformed is told already.
    let well_formed = |it: &(usize, &String)| is_action(it.1) && it.1.len() <= WORD_CHARS;
    let components = definition.data_components.iter().enumerate().filter(well_formed);
    let actions = definition.actions.iter().enumerate().filter(well_formed);
    let named = components.map(|it| ("dataComponents", it)).chain(actions.map(|it| ("actions", it)));
    for (path, (index, name)) in named {
        let name = name.split_once(':').map_or(name.as_str(), |it| it.0);
        if !known(name) {
            problems.add(
                format_args!("{path}.{index}"),
                format!(
                    "The workspace has no data component {}, and there is no data plugin of that name.",
                    Quoted(name)
                ),
            );
        }
    }
    for (index, property) in definition.properties.iter().enumerate() {
        let path = format!("properties.{index}");
        let Some((name, setting)) = property.name.split_once('.') else { continue };
        match find(name).and_then(|used| used.plugin.as_ref()) {
            // Those of every extractor are looked at already.
            Some(plugin) => {
                problems.setting(&path, plugin, setting, property.text().filter(|_| !setting.starts_with('_')))
            }
            // A script may call its variables as it likes.
            None if definition.script.is_some() || uses.is_empty() => {}
            None => problems.add(
                format_args!("{path}.name"),
                format!("The pipeline names no data component or data plugin {}.", Quoted(name)),
            ),
        }
    }
    if definition.script.is_none() {
        for Used { name, plugin, component } in uses {
            let Some(plugin) = plugin else { continue };
            let own = component.iter().flat_map(|it| &it.properties).map(|it| it.name.as_str());
            let prefix = format!("{name}.");
            let given = definition.properties.iter().filter_map(|it| it.name.strip_prefix(&prefix));
            problems.missing(plugin, &own.chain(given).collect::<Vec<_>>());
        }
    }
    problems.found
}

#[derive(Default)]
struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, path: impl std::fmt::Display, message: impl Into<String>) {
        self.found.push(Problem { path: format!("input.{path}"), message: message.into() });
    }

    fn into_result(self) -> Result<(), Error> {
        if self.found.is_empty() { Ok(()) } else { Err(Error::BadUserInput(self.found)) }
    }

    fn name(&mut self, name: &str) {
        if name.trim().is_empty() {
            self.add("name", "A name is needed.");
        } else if name.trim() != name {
            self.add("name", "A name cannot begin or end with white space.");
        } else if name.chars().count() > NAME_CHARS || name.len() > NAME_BYTES {
            self.add("name", format!("A name has at most {NAME_CHARS} characters, and {NAME_BYTES} bytes."));
        } else if name.contains(char::is_control) {
            self.add("name", "A name cannot hold control characters.");
        } else if let Some(unfit) = naming::unfit(name) {
            let code = u32::from(unfit);
            self.add(
                "name",
                format!("A name cannot hold the character U+{code:04X}: it is invisible, looks like a space, or is not assigned by Unicode."),
            );
        }
    }

    /// A pipeline's name is also that of its file in the repository.
    fn pipeline_name(&mut self, name: &str) {
        self.name(name);
        if name.contains(['/', '\\']) {
            self.add("name", "The name of a pipeline cannot hold a slash.");
        }
        if name.starts_with('.') {
            self.add("name", "The name of a pipeline cannot begin with a dot.");
        }
    }

    fn schedule(&mut self, schedule: &str) {
        if schedule.len() > SCHEDULE_BYTES {
            return self.add("schedule", format!("A schedule has at most {SCHEDULE_BYTES} bytes."));
        }
        let problems = Schedule::problems(schedule);
        for problem in &problems {
            let example = "second, minute, hour, day, month, weekday: `0 0 9-17 * * MON-FRI`";
            self.add("schedule", format!("This is not a cron expression with seconds ({example}): {problem}"));
        }
        let next = Schedule::read(schedule, TimeZone::UTC).and_then(|it| it.next_after(Timestamp::now()));
        if problems.is_empty() && next.is_none() {
            self.add("schedule", "There is no such day: it would never run.");
        }
    }

    fn within(&mut self, path: &str, value: i32, most: i32, unit: &str) {
        if !(0..=most).contains(&value) {
            self.add(path, format!("It is between 0 and {most} {unit}."));
        }
    }

    fn script(&mut self, script: &str) {
        if script.len() > SCRIPT_BYTES {
            self.add("script", format!("A script has at most {SCRIPT_BYTES} bytes."));
        }
        if script.contains('\0') {
            self.add("script", "A script cannot hold a NUL character.");
        }
    }

    fn list<T>(&mut self, path: &str, items: &[T]) {
        if items.len() > LIST_ITEMS {
            self.add(path, format!("It has at most {LIST_ITEMS} items."));
        }
    }

    fn words(&mut self, path: &str, words: &[String], valid: fn(&str) -> bool, what: &str) {
        self.list(path, words);
        for (index, word) in words.iter().enumerate() {
            if !valid(word) || word.len() > WORD_CHARS {
                self.add(
                    format_args!("{path}.{index}"),
                    format!("It is {what}: at most {WORD_CHARS} letters, digits, dots, hyphens and underscores."),
                );
            }
        }
    }

    fn properties(&mut self, properties: &[Property]) {
        self.list("properties", properties);
        let mut variables = HashMap::new();
        for (index, property) in properties.iter().enumerate() {
            let path = format!("properties.{index}");
            self.property(&path, property);
            let variable = variable(&property.name);
            if let Some(earlier) = variables.insert(variable.clone(), index) {
                self.add(
                    format_args!("{path}.name"),
                    format!("It becomes the variable {variable}, and so does properties.{earlier}."),
                );
            }
        }
        if properties.iter().map(|it| it.name.len() + it.text().map_or(0, str::len)).sum::<usize>() > PROPERTIES_BYTES {
            self.add("properties", format!("All properties together have at most {PROPERTIES_BYTES} bytes."));
        }
    }

    fn property(&mut self, path: &str, property: &Property) {
        let name = &property.name;
        let setting = name.split_once('.').map(|(component, setting)| (is_component(component), setting));
        let well_formed =
            matches!(setting, Some((true, setting)) if !setting.is_empty() && setting.chars().all(in_word));
        if !well_formed || name.len() > WORD_CHARS {
            self.add(
                format_args!("{path}.name"),
                format!(
                    "It is `datacomponent.setting`, with a dot between the two: at most {WORD_CHARS} ASCII letters, digits, dots, hyphens and \
                     underscores, and the first is a letter or digit."
                ),
            );
        } else if OWN_PREFIXES.iter().any(|prefix| variable(name).starts_with(prefix)) {
            self.add(
                format_args!("{path}.name"),
                "Variables that begin with JOBSTREAM_, MELTANO_, PIP_ or UV_ are the server's.",
            );
        }
        // The two settings that every extractor has, also one that only a script knows of.
        let Some(value) = property.text() else { return };
        if name.ends_with("._select") && serde_json::from_str::<Vec<serde_json::Value>>(value).is_err() {
            self.add(format_args!("{path}.value"), "`_select` is a JSON array.");
        }
        if name.ends_with("._metadata")
            && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(value).is_err()
        {
            self.add(format_args!("{path}.value"), "`_metadata` is a JSON object.");
        }
        self.value(path, property);
    }

    /// A setting of a plugin: whether there is such a one, and whether the value is of its kind.
    fn setting(&mut self, path: &str, plugin: &DataPlugin, name: &str, value: Option<&str>) {
        if !plugin.has_setting(name) {
            self.add(
                format_args!("{path}.name"),
                format!("The data plugin {} has no setting {}.", plugin.name, Quoted(name)),
            );
        } else if let Some(fault) = value.and_then(|value| plugin.fault(name, value)) {
            self.add(format_args!("{path}.value"), fault);
        }
    }

    fn missing(&mut self, plugin: &DataPlugin, set: &[&str]) {
        let missing = plugin.missing(set);
        if !missing.is_empty() {
            self.add("properties", format!("The data plugin {} needs {}.", plugin.name, missing.join(", ")));
        }
    }

    /// What is sealed was right when it was.
    fn value(&mut self, path: &str, property: &Property) {
        let Some(value) = property.text() else { return };
        if value.len() > PROPERTY_BYTES {
            self.add(format_args!("{path}.value"), format!("A value has at most {PROPERTY_BYTES} bytes."));
        }
        if value.contains('\0') {
            self.add(format_args!("{path}.value"), "A value cannot hold a NUL character.");
        }
    }
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn is_component(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(in_word)
}

fn is_action(word: &str) -> bool {
    match word.split_once(':') {
        Some((plugin, command)) => is_component(plugin) && is_component(command),
        None => is_component(word),
    }
}
