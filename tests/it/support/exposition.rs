//! `/metrics`, read strictly.

use std::collections::{BTreeMap, HashSet};

use super::{TestServer, within};

/// What a server answered at `/metrics`.
#[derive(Debug)]
pub struct Exposition {
    families: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl TestServer {
    /// What the server counts. What is not valid in it fails the test.
    pub async fn metrics(&self) -> Exposition {
        let response = within(self.http.get(self.url("/metrics")).send()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let media_type = response.headers()["content-type"].to_str().expect("text");
        assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        Exposition::parse(&response.text().await.expect("text"))
    }
}

impl Exposition {
    /// Reads OpenMetrics text: each family has its HELP and TYPE, then its samples, whose names follow from the type.
    fn parse(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n").expect("an end").lines();
        let mut found = Self { families: BTreeMap::new(), samples: Vec::new() };
        let (mut helped, mut family, mut seen) = (String::new(), (String::new(), String::new()), HashSet::new());
        for line in lines {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a text");
                assert!(is_name(name) && help.len() > 10 && help.ends_with('.'), "{line}");
                helped = name.to_owned();
            } else if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').expect("a type");
                assert_eq!(name, helped, "HELP comes before TYPE");
                family = (name.to_owned(), kind.to_owned());
                assert!(found.families.insert(family.0.clone(), family.1.clone()).is_none(), "twice: {name}");
            } else {
                let sample = Sample::parse(line);
                let suffix = sample.name.strip_prefix(&family.0).unwrap_or_else(|| panic!("not of {family:?}: {line}"));
                let suffixes: &[&str] = match family.1.as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "info" => &["_info"],
                    other => panic!("not a type: {other}"),
                };
                assert!(suffixes.contains(&suffix), "{family:?}: {line}");
                assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
                found.samples.push(sample);
            }
        }
        found
    }

    /// The families, and their types.
    pub fn families(&self) -> &BTreeMap<String, String> {
        &self.families
    }

    /// The samples of this name that have these labels, and maybe others.
    pub fn samples<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let has =
            |sample: &Sample, (label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|it| it == value);
        self.samples.iter().filter(move |it| it.name == name && labels.iter().all(|label| has(it, label)))
    }

    /// The sum of the samples of this name that have these labels; nothing, if there are none.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples(name, labels).map(|it| it.value).reduce(|one, other| one + other)
    }

    /// The sum of the samples of this name that have these labels. There has to be one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("there is no {name} with {labels:?}"))
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a brace")),
        };
        assert!(is_name(name), "{line}");
        // No value here holds a comma or a quote.
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (key, value) = label.split_once('=').expect("a value");
            assert!(is_name(key), "{line}");
            let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).expect("quotes");
            assert!(!value.contains(['"', '\\', '\n']), "{line}");
            (key.to_owned(), value.to_owned())
        });
        Self { name: name.to_owned(), labels: labels.collect(), value: value.parse().expect("a number") }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}
