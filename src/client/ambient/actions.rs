//! GitHub Actions, and Forgejo, which speaks like it: a URL that is asked with an audience.

use super::{
    Means, Platform, Sign, Way,
    ask::{Ask, safe_url_in},
};
use crate::client::{ClientError, Waiting};

pub(super) const GITHUB: Platform = Platform {
    name: "github",
    title: "GitHub Actions",
    signs: &[Sign::Is("GITHUB_ACTIONS", "true"), Sign::Set(URL)],
    way: Way::Actions,
    remedy: "write `permissions: { id-token: write, contents: read }` into the job; pull requests from forks get no token, whatever is written there",
    shared: false,
};

pub(super) const FORGEJO: Platform = Platform {
    name: "forgejo",
    title: "Forgejo Actions",
    signs: &[Sign::Is("FORGEJO_ACTIONS", "true"), Sign::Is("GITEA_ACTIONS", "true")],
    way: Way::Actions,
    remedy: "write `enable-openid-connect: true` into the workflow or the job (Forgejo 15 and runner 12.5, or later)",
    shared: false,
};

const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

pub(super) async fn fetch(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    let environment = &means.machine.environment;
    let (Some(url), Some(bearer)) = (environment.find(URL), environment.find(TOKEN)) else {
        return Err(platform.missing(&format!("`{URL}` and `{TOKEN}` are not both set")));
    };
    let mut url = safe_url_in(URL, url)?;
    // It has a query already.
    url.query_pairs_mut().append_pair("audience", means.audience);
    let token = Ask::get(url)
        .header("accept", "application/json")
        .secret("authorization", &format!("bearer {bearer}"), &format!("`{TOKEN}`"))?
        .member_of("value", platform, means, waiting)
        .await?;
    Ok((format!("`{URL}`"), token))
}
