//! What went wrong at a server, by phase and by SQLSTATE class (PostgreSQL manual, appendix A).

use std::error::Error as _;

use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::DbError, error::SqlState};

use crate::mint::login::LoginError;

/// No connection could be had: whatever the reason, nothing was begun.
pub(super) fn of_pool(error: PoolError) -> LoginError {
    match error {
        PoolError::Backend(error) => of_connecting(&error),
        PoolError::Timeout(_) => LoginError::Unreachable("no answer within its time".to_owned()),
        other @ (PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_)) => LoginError::Unreachable(other.to_string()),
    }
}

/// As [`of_pool`]. A wrong password of ours counts here, too: it says nothing of any login.
pub(super) fn of_connecting(error: &Error) -> LoginError {
    LoginError::Unreachable(text(error))
}

/// Before `COMMIT` was sent: whatever was begun, the server undoes it, also when it only notices that we are gone.
pub(super) fn before_commit(error: &Error) -> LoginError {
    match error.as_db_error() {
        Some(said) if !is_server_trouble(said) => LoginError::Refused(text(error)),
        Some(_) => LoginError::Unreachable(text(error)),
        None => LoginError::Unreachable(format!(
            "before the commit, so that nothing is left: {}",
            text(error)
        )),
    }
}

/// Of `COMMIT` itself: only an answer that says so means that it did not happen.
pub(super) fn of_commit(error: &Error) -> LoginError {
    let undone = |said: &DbError| {
        ["23", "40", "42", "55"].iter().any(|class| said.code().code().starts_with(class))
    };
    if error.as_db_error().is_some_and(undone) {
        return LoginError::Refused(text(error));
    }
    LoginError::Lost(format!("the answer to the commit: {}", text(error)))
}

/// Of a statement that ends something, and stands for itself. `out_of_memory` is what the server says when a login owns more
/// than it has locks for: that is of this login, and must not look like a server that is down for all others (threat V03).
pub(super) fn of_ending(error: &Error) -> LoginError {
    match error.as_db_error() {
        Some(said) if is_server_trouble(said) && *said.code() != SqlState::OUT_OF_MEMORY => {
            LoginError::Unreachable(text(error))
        }
        Some(_) => LoginError::Refused(text(error)),
        None => LoginError::Lost(text(error)),
    }
}

/// The server is going, coming, full or ill: 08 connection, 53 resources, 57P operator, 58 system.
pub(super) fn is_server_trouble(said: &DbError) -> bool {
    ["08", "53", "57P", "58"].iter().any(|class| said.code().code().starts_with(class))
}

/// Whether the server said `state`.
pub(super) fn is(error: &Error, state: &SqlState) -> bool {
    error.code() == Some(state)
}

/// The causes, joined with colons. The server's message never holds a statement of ours.
pub(super) fn text(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !told.contains(&more) {
            told = format!("{told}: {more}");
        }
        cause = error.source();
    }
    told
}
