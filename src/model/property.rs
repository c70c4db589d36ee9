//! Properties: the settings of pipelines and data components.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A setting. Its `Debug` hides the value, sensitive or not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// A pipeline's is `{datacomponent}.{setting}`, a data component's the name of the setting.
    pub name: String,
    /// What it is set to.
    #[serde(flatten)]
    pub value: PropertyValue,
}

/// What a property is set to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropertyValue {
    /// Anybody may read it.
    #[serde(rename = "value")]
    Plain(String),
    /// It is sensitive: it can be written but never read.
    #[serde(rename = "sealed")]
    Sealed(Sealed),
    /// It is sensitive, and as the user gave it. Nothing stores it before it is sealed.
    #[serde(skip)]
    Unsealed(String),
}

/// A sensitive value in the form in which it is stored. Only the cipher can open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Property {
    /// The value for everybody to read: none if it is sensitive.
    pub fn plain(&self) -> Option<&str> {
        match &self.value {
            PropertyValue::Plain(value) => Some(value),
            PropertyValue::Sealed(_) | PropertyValue::Unsealed(_) => None,
        }
    }

    /// The value, unless it is sealed.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            PropertyValue::Plain(value) | PropertyValue::Unsealed(value) => Some(value),
            PropertyValue::Sealed(_) => None,
        }
    }
}

/// The environment variable that carries a setting: upper case, with an underscore for every `.` and `-`.
pub fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace(['.', '-'], "_")
}

impl Sealed {
    /// The stored form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Sealed {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}
