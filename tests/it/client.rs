//! The client: finding the job's own token, the exchange, and the formats; against stand-ins that look at every byte, and once
//! against the real broker.

use std::{path::Path, time::Duration};

use cambio::{
    chance::SystemChance,
    client::{
        ClientError, Environment, Machine, Patience, Waiting,
        ambient::{self, Found, Wanted},
    },
    web::Reaching,
};

mod agent;
mod ambient_network;
mod ambient_signs;
mod ambient_spiffe;
mod endpoint;
mod exchange;
mod exec;
mod formats;
mod handover;
mod runner;

/// Tries a few times, within two seconds, without waiting long.
pub(crate) const IMPATIENT: Patience = Patience {
    total: Duration::from_secs(2),
    first: Duration::from_millis(2),
    most: Duration::from_millis(20),
};

/// The audience that is asked for.
pub(crate) const AUDIENCE: &str = "https://cambio.example";

/// Variables as a platform sets them.
pub(crate) fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::of(variables.iter().map(|(name, value)| (name.into(), value.into())))
}

/// What the client finds on a machine with these variables, whose files lie below `root`.
pub(crate) async fn find_below(
    root: &Path,
    variables: &[(&str, &str)],
    platform: Option<&str>,
) -> Result<Found, ClientError> {
    let machine = Machine::below(environment(variables), root.to_owned());
    let mut waiting = Waiting::begin(IMPATIENT, &SystemChance);
    let wanted = Wanted { audience: AUDIENCE, platform };
    ambient::find(wanted, &machine, Reaching::default(), &mut waiting).await
}

/// The same, on a machine without files.
pub(crate) async fn find(variables: &[(&str, &str)]) -> Result<Found, ClientError> {
    find_below(tempfile::tempdir().unwrap().path(), variables, None).await
}

/// Platform, place and token, as one comparable thing.
pub(crate) fn told(found: Result<Found, ClientError>) -> (String, String, String) {
    let found = found.unwrap();
    let token = found.token.reveal_text().unwrap().to_owned();
    (found.platform.name.to_owned(), found.place, token)
}

/// An error as the command line shows it.
pub(crate) fn words(error: &ClientError) -> String {
    match &error.hint {
        Some(hint) => format!("{:?}: {error}\n  hint: {hint}", error.fault),
        None => format!("{:?}: {error}", error.fault),
    }
}
