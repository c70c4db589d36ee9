//! Connections, tokens and headers: clients without a token, and clients that hold connections.
