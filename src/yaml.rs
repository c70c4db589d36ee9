//! YAML as Meltano reads it: version 1.2, in which `y` and `no` are texts.

use serde_json::Value;
use serde_saphyr::{Options, options};

/// Reads a document, or says what is wrong with it.
pub fn read(text: &str) -> Result<Value, String> {
    let options: Options = options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}
