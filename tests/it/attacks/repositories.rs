//! Jobs that plant links, hooks and configuration in a repository.
