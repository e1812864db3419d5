//! A real PostgreSQL that takes our certificates for logins, by `psql`.
