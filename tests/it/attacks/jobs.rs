//! Jobs that act against the server or against other jobs of the same user.
