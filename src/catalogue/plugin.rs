//! One data plugin, as its definition says it.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{PluginType, SettingKind};

/// A data plugin.
#[derive(Clone)]
pub struct DataPlugin {
    /// Its name, such as `tap-spreadsheets`.
    pub name: String,
    /// What it is for.
    pub type_: PluginType,
    /// Its name for people.
    pub label: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// Which of several of this name it is.
    pub variant: Option<String>,
    /// What is installed for it from the Python package index; none if nothing has to be.
    pub pip_url: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its settings.
    pub settings: Vec<Setting>,
    /// Which settings are required: all of one of these groups.
    pub required: Vec<Vec<String>>,
    definition: Value,
}

/// A setting of a plugin.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub label: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// What its values are.
    pub kind: SettingKind,
    /// Whether its value can be written but never read.
    pub sensitive: bool,
    /// The values that it can have, where there are only some.
    pub options: Vec<String>,
    /// What it is set to where nobody has set it, as JSON.
    pub default: Option<String>,
}

/// The two settings that every extractor has beside its own.
const OF_EXTRACTORS: [&str; 2] = ["_select", "_metadata"];

impl DataPlugin {
    /// Reads a definition, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let definition = crate::yaml::read(text)?;
        let read: Definition = serde_json::from_value(definition.clone()).map_err(|error| error.to_string())?;
        let type_ =
            plugin_type(&read.plugin_type).ok_or_else(|| format!("there is no plugin_type {:?}", read.plugin_type))?;
        if !is_name(&read.name) {
            return Err(format!("{:?} is not a name: letters, digits, hyphens and underscores", read.name));
        }
        if read.pip_url.is_none() && read.executable.is_none() {
            return Err("it has neither a pip_url nor an executable".to_owned());
        }
        let settings: Vec<Setting> = read.settings.into_iter().map(Setting::from).collect();
        let known = |name: &String| settings.iter().any(|setting| setting.name == *name);
        if let Some(unknown) = read.settings_group_validation.iter().flatten().find(|name| !known(name)) {
            return Err(format!("settings_group_validation names {unknown:?}, which is not among its settings"));
        }
        Ok(Self {
            name: read.name,
            type_,
            label: read.label,
            description: read.description,
            variant: read.variant,
            pip_url: read.pip_url,
            capabilities: read.capabilities,
            settings,
            required: read.settings_group_validation,
            definition,
        })
    }

    /// The definition as Meltano reads it.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// Whether it has such a setting.
    pub fn has_setting(&self, name: &str) -> bool {
        self.setting(name).is_some() || self.is_of_extractors(name)
    }

    /// The setting with this name, if it is one of its own.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// Whether the value of this setting can be written but never read.
    pub fn is_sensitive(&self, name: &str) -> bool {
        self.setting(name).is_some_and(|setting| setting.sensitive)
    }

    /// What is wrong with a value for a setting, if anything is.
    pub fn fault(&self, name: &str, value: &str) -> Option<String> {
        match self.setting(name) {
            Some(setting) => setting.fault(value),
            None if name == "_select" && self.is_of_extractors(name) => SettingKind::Array.fault(value),
            None if name == "_metadata" && self.is_of_extractors(name) => SettingKind::Object.fault(value),
            None => None,
        }
    }

    /// The settings that have to be set too, where these are: of the group that wants the fewest more.
    pub fn missing(&self, set: &[&str]) -> Vec<&str> {
        let has_default = |name: &str| self.setting(name).is_some_and(|setting| setting.default.is_some());
        let is_missing = |name: &&str| !set.contains(name) && !has_default(name);
        let groups = self.required.iter().map(|group| group.iter().map(String::as_str).filter(is_missing).collect());
        groups.min_by_key(Vec::len).unwrap_or_default()
    }

    fn is_of_extractors(&self, name: &str) -> bool {
        self.type_ == PluginType::Extractor && OF_EXTRACTORS.contains(&name)
    }
}

impl fmt::Debug for DataPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlugin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Setting {
    fn fault(&self, value: &str) -> Option<String> {
        if self.options.is_empty() || self.options.iter().any(|option| option == value) {
            return self.kind.fault(value);
        }
        Some(format!("It is one of {}.", self.options.join(", ")))
    }
}

impl SettingKind {
    /// What is wrong with a value of this kind, if anything is. It does not repeat the value, which may be sensitive.
    fn fault(self, value: &str) -> Option<String> {
        let json = |is: fn(&Value) -> bool| serde_json::from_str(value).is_ok_and(|value| is(&value));
        let (right, what) = match self {
            Self::String | Self::Options | Self::File => return None,
            Self::Integer => (value.parse::<i64>().is_ok(), "an integer"),
            Self::Decimal => (value.parse::<f64>().is_ok_and(f64::is_finite), "a decimal number"),
            Self::Boolean => (["true", "false"].contains(&value), "`true` or `false`"),
            Self::Date => (is_date(value), "a date or an instant in ISO 8601"),
            Self::Email => (
                value.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
                "an e-mail address",
            ),
            Self::Array => (json(Value::is_array), "a JSON array"),
            Self::Object => (json(Value::is_object), "a JSON object"),
        };
        (!right).then(|| format!("It is {what}."))
    }
}

fn is_date(value: &str) -> bool {
    value.parse::<chrono::NaiveDate>().is_ok()
        || value.parse::<chrono::NaiveDateTime>().is_ok()
        || chrono::DateTime::parse_from_rfc3339(value).is_ok()
}

/// Whether a plugin or a data component can be called so: it stands before the dot of a property.
pub fn is_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn plugin_type(name: &str) -> Option<PluginType> {
    Some(match name {
        "extractor" | "extractors" => PluginType::Extractor,
        "loader" | "loaders" => PluginType::Loader,
        "mapper" | "mappers" => PluginType::Mapper,
        "orchestrator" | "orchestrators" => PluginType::Orchestrator,
        "transformer" | "transformers" => PluginType::Transformer,
        "utility" | "utilities" => PluginType::Utility,
        _ => return None,
    })
}

/// Meltano's form.
#[derive(Deserialize)]
struct Definition {
    plugin_type: String,
    name: String,
    label: Option<String>,
    description: Option<String>,
    variant: Option<String>,
    pip_url: Option<String>,
    executable: Option<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    settings: Vec<DefinedSetting>,
    #[serde(default)]
    settings_group_validation: Vec<Vec<String>>,
}

#[derive(Deserialize)]
struct DefinedSetting {
    name: String,
    label: Option<String>,
    description: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    options: Vec<DefinedOption>,
    value: Option<Value>,
}

#[derive(Deserialize)]
struct DefinedOption {
    value: Value,
}

impl From<DefinedSetting> for Setting {
    fn from(it: DefinedSetting) -> Self {
        let kind = it.kind.as_deref().unwrap_or("string");
        Self {
            name: it.name,
            label: it.label,
            description: it.description,
            sensitive: it.sensitive || kind == "password", // Meltano's older way to say it
            kind: match kind {
                "array" => SettingKind::Array,
                "boolean" => SettingKind::Boolean,
                "date_iso8601" => SettingKind::Date,
                "decimal" => SettingKind::Decimal,
                "email" => SettingKind::Email,
                "file" => SettingKind::File,
                "integer" => SettingKind::Integer,
                "object" => SettingKind::Object,
                "options" => SettingKind::Options,
                _ => SettingKind::String,
            },
            options: it.options.into_iter().map(|it| plain(it.value)).collect(),
            default: it.value.filter(|value| !value.is_null()).map(plain),
        }
    }
}

/// A value as a property has it: a text is itself, everything else JSON.
fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> DataPlugin {
        DataPlugin::parse(
            "plugin_type: extractors\nname: tap-x\nexecutable: tap-x\nsettings:\n- name: url\n- name: count\n  kind: integer\n  value: 3\n\
             - name: since\n  kind: date_iso8601\n- name: mode\n  kind: options\n  options:\n  - value: a\n  - value: b\n\
             - name: password\n  sensitive: true\n- name: token\n  kind: password\n\
             settings_group_validation:\n- [url, token]\n- [url, password, count]\n",
        )
        .unwrap()
    }

    #[test]
    fn a_value_is_of_its_settings_kind() {
        let plugin = plugin();
        for (name, right, wrong) in [
            ("count", "-7", "7.5"),
            ("since", "2026-11-24T03:00:00Z", "yesterday"),
            ("since", "2026-11-24", "24.11.2026"),
            ("mode", "b", "c"),
            ("_select", r#"["*.*"]"#, r#"{"a": 1}"#),
            ("_metadata", r#"{"a": 1}"#, "[]"),
        ] {
            assert_eq!(plugin.fault(name, right), None, "{name}");
            assert!(plugin.fault(name, wrong).is_some(), "{name}");
        }
        assert!(plugin.has_setting("_select") && !plugin.has_setting("_other") && !plugin.has_setting("nothing"));
        assert!(plugin.is_sensitive("password") && plugin.is_sensitive("token") && !plugin.is_sensitive("url"));
    }

    #[test]
    fn one_group_of_settings_has_to_be_set() {
        let plugin = plugin();
        assert_eq!(plugin.missing(&["url", "token"]), Vec::<&str>::new());
        assert_eq!(plugin.missing(&["url", "password"]), Vec::<&str>::new(), "count has a default");
        assert_eq!(plugin.missing(&["password"]), ["url"]);
    }
}
