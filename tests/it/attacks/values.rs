//! Values of arguments: names, URLs, properties and sensitive values.
