//! GraphQL documents that ask for too much.
