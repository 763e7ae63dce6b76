//! The authority, attacked and misused.
