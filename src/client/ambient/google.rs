//! Google's metadata server: Compute Engine, Cloud Run, Cloud Build, GKE without a projected token.

use url::Url;

use super::{Means, Platform, Sign, Way, ask::Ask};
use crate::client::{ClientError, Waiting};

pub(super) const GOOGLE: Platform = Platform {
    name: "google",
    title: "Google Cloud",
    signs: &[
        Sign::Set("GCE_METADATA_HOST"),
        Sign::Set("K_SERVICE"),
        Sign::Set("CLOUD_RUN_JOB"),
        Sign::Says("/sys/class/dmi/id/product_name", "Google"),
    ],
    way: Way::Google,
    remedy: "give the machine or the service a service account: the metadata server signs for that one",
    shared: true,
};

const FLAVOR: &str = "metadata-flavor";

pub(super) async fn fetch(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    // Google's own libraries take another host from here. Nothing secret is sent there.
    let host = means.machine.environment.find("GCE_METADATA_HOST");
    let host = host.unwrap_or("metadata.google.internal");
    let path = "/computeMetadata/v1/instance/service-accounts/default/identity";
    let mut url = Url::parse(&format!("http://{host}{path}"))
        .map_err(|error| ClientError::usage(format!("`GCE_METADATA_HOST`: {error}")))?;
    url.query_pairs_mut().append_pair("audience", means.audience).append_pair("format", "full");
    let answered = Ask::get(url).header(FLAVOR, "Google").of(platform, means, waiting).await?;
    // Whoever else answers under this name (a captive portal) does not say this.
    if answered.headers.get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
        return Err(ClientError::unreachable(format!(
            "`{host}` answered without `Metadata-Flavor: Google`: it is no metadata server"
        )));
    }
    let text = String::from_utf8_lossy(&answered.body.0).into_owned();
    Ok((format!("`{host}`"), text))
}
