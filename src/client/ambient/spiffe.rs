//! The SPIFFE Workload API: an agent on this machine that looks at the process behind a connection, and hands it JWT-SVIDs. It is
//! gRPC without TLS and without a secret of ours (SPIFFE Workload Endpoint sections 3.1 and 5), so it is never asked over a network.

use std::{io, time::Duration};

use tokio::time::Instant;
use tonic::{Code, Status};

use super::{Means, Platform, Sign, Way, ask::PATIENCE, pods};
use crate::client::{ClientError, Waiting, said};
use endpoint::{ANSWER, Answer, Ask, Endpoint, Failure};

mod endpoint;

/// In a pod it comes after the file that was projected for the broker by name, and before what every pod has.
pub(super) const SPIFFE: Platform = Platform {
    name: "spiffe",
    title: "a SPIFFE workload",
    signs: &[Sign::SetWithout(SOCKET, pods::TOKEN)],
    way: Way::Spiffe,
    remedy: "run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it",
    shared: false,
};

const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
/// An operator who gives a workload several identities says with this `hint` which one is for the broker.
const HINT: &str = "cambio";
/// What to do where the agent knows the process and no identity for it.
const REGISTER: &str = "register the workload (`spire-server entry create -parentID <the agent's> -spiffeID spiffe://<trust domain>/<path> -selector …`; in Kubernetes a `ClusterSPIFFEID`): its selectors have to fit the process of `cambio`, which is the one that asks";
/// How long "no identity" may only mean "not yet": agents hear of new entries every few seconds (SPIRE: 5 s), and a pod is faster.
const NEWS: Duration = Duration::from_secs(15);
/// The most of an agent's words that are repeated.
const WORDS: usize = 300;

/// A JWT-SVID for the wanted audience.
pub(super) async fn fetch(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    let Some(socket) = means.machine.environment.find(SOCKET).map(str::trim) else {
        return Err(platform.missing(&format!("`{SOCKET}` is not set")));
    };
    let told = said::tamed(socket);
    let endpoint = Endpoint::parse(socket, means.machine)
        .map_err(|expected| ClientError::usage(format!("`{SOCKET}` is `{told}`, {expected}")))?;
    let whom = format!("{}: `{told}`", platform.title);
    let (mut denied, mut before) = (None, None);
    let answer = loop {
        let ask = Ask { audience: vec![means.audience.to_owned()], spiffe_id: String::new() };
        let patience = waiting.left().min(PATIENCE);
        let failure = match tokio::time::timeout(patience, endpoint.ask(ask)).await {
            Ok(Ok(answer)) => break answer,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Away("no answer in time".to_owned()),
        };
        // Cut off by our own deadline: what was said before it tells more.
        if waiting.left().is_zero()
            && let Some(before) = before
        {
            return Err(before);
        }
        let (now, error) = judged(failure, &whom, platform);
        if !now.again(&mut denied) || !waiting.rest(None, &error).await {
            return Err(error);
        }
        before = Some(error);
    };
    chosen(answer, &told)
        .map_err(|what| ClientError::unreachable(format!("{whom} answered {what}")))
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    End,
    Again,
    AgainForAWhile,
}

impl Now {
    /// Whether to ask again. `denied` is since when there is said to be no identity.
    fn again(self, denied: &mut Option<Instant>) -> bool {
        match self {
            Self::End => false,
            Self::Again => true,
            Self::AgainForAWhile => denied.get_or_insert_with(Instant::now).elapsed() < NEWS,
        }
    }
}

fn judged(failure: Failure, whom: &str, platform: &Platform) -> (Now, ClientError) {
    match failure {
        Failure::Away(what) => {
            let error = ClientError::unreachable(format!("{whom} does not answer: {what}"));
            (Now::Again, error.hint(platform.remedy))
        }
        Failure::Closed(error) => {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                "the user that this runs as must be allowed to write to the socket"
            } else {
                platform.remedy
            };
            (Now::End, ClientError::usage(format!("{whom}: {error}")).hint(hint))
        }
        Failure::TooLong => {
            let message = format!("{whom} answered more than the {ANSWER} bytes that are read");
            (Now::End, ClientError::unreachable(message))
        }
        Failure::Said(status) => answered(&status, whom),
    }
}

/// SPIFFE Workload Endpoint section 6 and its appendix A.
fn answered(status: &Status, whom: &str) -> (Now, ClientError) {
    let words: String = said::tamed(status.message()).chars().take(WORDS).collect();
    let code = status.code();
    let message = format!("{whom} answered {code:?}: {words}");
    match code {
        Code::PermissionDenied => {
            let message = format!("{whom} has no identity for this process: {words}");
            (Now::AgainForAWhile, ClientError::refused(message).hint(REGISTER))
        }
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted => {
            let hint = "the agent runs and can't answer: does it reach its server?";
            (Now::Again, ClientError::unreachable(message).hint(hint))
        }
        Code::InvalidArgument | Code::Unimplemented => {
            let hint = "is it the socket of a SPIFFE Workload API, with its JWT profile turned on?";
            (Now::End, ClientError::refused(message).hint(hint))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => (Now::End, ClientError::unreachable(message)),
    }
}

/// The place and the token: of the identity that is hinted for us, else of the first, which is the default one (section 8).
fn chosen(answer: Answer, socket: &str) -> Result<(String, String), &'static str> {
    let all = answer.svids.len();
    let hinted = answer.svids.iter().position(|svid| svid.hint == HINT);
    let svid = answer.svids.into_iter().nth(hinted.unwrap_or_default());
    let svid = svid.ok_or("with no identity")?;
    // Section 4.5: where a mandatory field has its default value, the message is nothing.
    if svid.token.is_empty() || svid.id.is_empty() {
        return Err("with an empty identity");
    }
    let place = match (all, hinted) {
        (1, _) => format!("`{socket}`"),
        (all, Some(_)) => format!("`{socket}`, the one of {all} identities whose hint is `{HINT}`"),
        (all, None) => format!("`{socket}`, the first of {all} identities"),
    };
    Ok((place, svid.token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_not_for_us_is_said_at_once() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::PermissionDenied));
        let (now, error) = judged(closed, "an agent", &SPIFFE);
        assert_eq!((now, error.message.as_str()), (Now::End, "an agent: permission denied"));
        assert!(error.hint.is_some_and(|hint| hint.contains("must be allowed")));
        let away = Failure::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(judged(away, "an agent", &SPIFFE).0, Now::Again);
    }

    #[tokio::test(start_paused = true)]
    async fn no_identity_means_not_yet_for_some_seconds_and_then_no() {
        let mut denied = None;
        assert!(Now::AgainForAWhile.again(&mut denied));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(Now::AgainForAWhile.again(&mut denied) && Now::Again.again(&mut denied));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!Now::AgainForAWhile.again(&mut denied) && !Now::End.again(&mut denied));
        assert!(Now::Again.again(&mut denied), "an agent that is away may come back");
    }
}
