//! Attacks: what a page in a browser, an unauthenticated client, an authenticated client, or a job can try against the server.
//!
//! Each row names what is tried and the module that tries it. An attack that failed from the start stays here, so that it keeps failing.
//!
//! | What is tried | Module |
//! | --- | --- |

mod connections;
mod graphql;
mod jobs;
mod origins;
mod repositories;
mod values;
