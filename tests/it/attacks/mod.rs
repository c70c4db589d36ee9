//! Attacks: what a page in a browser, an unauthenticated client, an authenticated client, or a job can try against the server.
//!
//! Each row names what is tried and the module that tries it. An attack that failed from the start stays here, so that it keeps failing.
//!
//! | What is tried | Module |
//! | --- | --- |
//! | Names with invisible characters, and names that lead to other files | `values` |
//! | URLs of webhooks that lead into private networks, or hold line breaks | `values` |
//! | URLs of repositories that are options or commands, or hold secrets | `values` |

mod connections;
mod graphql;
mod jobs;
mod origins;
mod repositories;
mod values;
