//! Attacks: what a page in a browser, an unauthenticated client, an authenticated client, or a job
//! can try against the server.
//!
//! Each row names what is tried and the module that tries it. An attack that failed from the start
//! stays here, so that it keeps failing.
//!
//! Tests of what a single module does against an attack, such as masking or the limits of
//! connections, are beside that module's other tests. No attack depends on the database, so they
//! run on SQLite only.
//!
//! | What is tried | Module |
//! | --- | --- |
//! | Names with invisible characters, and names that lead to other files | `values` |
//! | URLs of webhooks that lead into private networks, or hold line breaks | `values` |
//! | URLs of repositories that are options or commands, or hold secrets | `values` |
//! | 3,190 odd or fuzzed HTTP requests: methods, targets, versions, headers, chunks, media types, JSON, documents, variables, pipelining | `requests` |
//! | A job searches all of `/proc` (environment, arguments, memory, descriptors), traces processes, takes their descriptors (`pidfd_getfd`), and searches the data directory for the token | `secrets` |
//! | A process that a job left behind opens environment and memory of each process as it starts, keeps them open, and reads them later: for the token and the database's password | `secrets` |
//! | The same against `serve`, `demo`, `check`, supervisors and tasks while they run | `secrets` |
//! | A job uses a descriptor of the server | `jobs` |
//! | A job reads a variable of the server | `jobs` |
//! | A link in place of the directory of temporary directories has the server empty its target | `jobs` |
//! | A job removes its workspace's directory, or that of temporary directories | `jobs` |
//! | Sensitive values for which building or running a search takes long, or much memory | `values` |
//! | A document that stands for millions of selections: fragments that double, lists in lists | `graphql` |
//! | A document that is costly to parse: brackets, braces, a long string, 100,000 fields, aliases, directives | `graphql` |
//! | An introspection whose result is a power of the schema's size: types of fields of types | `graphql` |
//! | A job reads the memory, environment or descriptors of supervisors and the server, or traces them | `processes` |
//! | A job looks for values of ended jobs in the memory of an idle supervisor | `processes` |
//! | Properties become `LD_PRELOAD`, `LD_AUDIT`, `BASH_ENV`, `GIT_DIR` of the server's own processes | `processes` |
//! | A client without the token asks every path, with odd methods and tokens | `connections` |
//! | One WebSocket message tries many tokens | `connections` |
//! | A client without the token sends large messages, many small ones, endless fragments, large heads | `connections` |
//! | A client guesses tokens, also with forwarded headers that it makes up | `connections` |
//! | A client guesses tokens over 200 WebSockets at once | `connections` |
//! | A peer holds many idle connections, half requests, WebSockets that it does not initialise | `connections` |
//! | A client sends odd frames, messages and handshakes | `connections` |
//! | A page of another site has an Origin, or uses a Host, that looks like one that is allowed | `origins` |
//! | A page of another site sends a GET that has no Origin | `origins` |
//! | A page sends mutations as forms, as text, and over GET | `origins` |
//! | A browser keeps a log, or takes it for a page | `origins` |
//! | A job puts links, loops of links or FIFOs in every place of its workspace where the server reads, writes or removes | `repositories` |
//! | A job makes its repository lead to that of another workspace: gitfile, link, alternates, `commondir`, `core.worktree` | `repositories` |
//! | A job puts directories, empty or not, in place of files that the server writes | `repositories` |
//! | A job puts hard links to files outside of the workspace in place of files that the server writes | `repositories` |
//! | A job copies the repository of another workspace in place of its own | `repositories` |
//! | A job plants hooks and configuration that would run a program of its own | `repositories` |
//! | A job replaces what the server and a system task leave for each other | `repositories` |
//! | A job replaces the repository that servers share | `repositories` |
//! | A job nests 20,000 directories | unit tests of `confined::removal` |
//! | A job plants links, directories, FIFOs or text where the server looks when it starts | `trees` |

mod connections;
mod graphql;
mod jobs;
mod origins;
mod processes;
mod repositories;
mod requests;
mod secrets;
mod trees;
mod values;
