//! What database clients read.

use super::revealed;
use crate::client::{ClientError, Credential, Issued, credential::Login};

/// `hostname:port:database:username:password`, with `\` before `:` and `\` in each; `*` where the login names none.
pub(super) fn pgpass(issued: &Issued) -> Result<String, ClientError> {
    let login = login(issued)?;
    let port = login.port.map(|port| port.to_string());
    let fields = [
        login.host.as_deref(),
        port.as_deref(),
        login.database.as_deref(),
        Some(login.user.as_str()),
        Some(revealed(&login.password)?),
    ];
    let mut line = Vec::new();
    for field in fields {
        let Some(field) = field else {
            line.push("*".to_owned());
            continue;
        };
        if field.chars().any(char::is_control) {
            return Err(ClientError::usage(
                "a value holds a control character, which `pgpass` can't spell",
            ));
        }
        line.push(field.replace('\\', "\\\\").replace(':', "\\:"));
    }
    Ok(format!("{}\n", line.join(":")))
}

pub(super) fn uri(issued: &Issued) -> Result<String, ClientError> {
    let login = login(issued)?;
    let uri = login.uri.as_ref().ok_or_else(|| super::misfit(super::Format::Uri, issued))?;
    Ok(format!("{}\n", revealed(uri)?))
}

fn login(issued: &Issued) -> Result<&Login, ClientError> {
    match &issued.credential {
        Credential::Login(login) => Ok(login),
        Credential::Token(_) | Credential::Aws(_) | Credential::Other(_) => {
            Err(super::misfit(super::Format::Uri, issued))
        }
    }
}
