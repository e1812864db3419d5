//! Azure DevOps pipelines, App Service and its kin, virtual machines with a managed identity.

use url::{Host, Url};

use super::{
    Means, Platform, Sign, Way,
    ask::{Ask, safe_url_in},
};
use crate::client::{ClientError, Waiting};

pub(super) const DEVOPS: Platform = Platform {
    name: "azure-devops",
    title: "Azure DevOps",
    signs: &[Sign::Is("TF_BUILD", "True")],
    way: Way::AzureDevOps,
    remedy: "map the pipeline's token into the step: `env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) }`",
    shared: false,
};

pub(super) const APP_SERVICE: Platform = Platform {
    name: "azure-app-service",
    title: "Azure App Service, Functions or Container Apps",
    signs: &[Sign::Set("IDENTITY_HEADER")],
    way: Way::AppService,
    remedy: "assign a managed identity to the app, and name the App ID URI of an application that you registered for the broker with `--token-audience`",
    shared: false,
};

pub(super) const INSTANCE: Platform = Platform {
    name: "azure",
    title: "an Azure virtual machine",
    // What the firmware of every virtual machine of Azure says.
    signs: &[Sign::Says("/sys/class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77")],
    way: Way::AzureInstance,
    remedy: "assign a managed identity to the machine (with several, set `AZURE_CLIENT_ID`), and name the App ID URI of an application that you registered for the broker with `--token-audience`",
    shared: true,
};

/// Its audience is fixed (`api://AzureADTokenExchange`): what is asked for is not sent.
pub(super) async fn devops(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    const URI: &str = "SYSTEM_OIDCREQUESTURI";
    const TOKEN: &str = "SYSTEM_ACCESSTOKEN";
    let environment = &means.machine.environment;
    let Some(bearer) = environment.find(TOKEN) else {
        return Err(platform.missing(&format!("`{TOKEN}` is not set")));
    };
    let Some(uri) = environment.find(URI) else {
        return Err(platform.missing(&format!("`{URI}` is not set")));
    };
    let mut url = safe_url_in(URI, uri)?;
    url.query_pairs_mut().append_pair("api-version", "7.1");
    let token = Ask::post(url, String::new())
        .secret("authorization", &format!("Bearer {bearer}"), &format!("`{TOKEN}`"))?
        .member_of("oidcToken", platform, means, waiting)
        .await?;
    Ok((format!("`{URI}`"), token))
}

pub(super) async fn app_service(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    const ENDPOINT: &str = "IDENTITY_ENDPOINT";
    const HEADER: &str = "IDENTITY_HEADER";
    let environment = &means.machine.environment;
    let (Some(endpoint), Some(secret)) = (environment.find(ENDPOINT), environment.find(HEADER))
    else {
        return Err(platform.missing(&format!("`{ENDPOINT}` and `{HEADER}` are not both set")));
    };
    let mut url = beside_us(ENDPOINT, endpoint)?;
    url.query_pairs_mut()
        .append_pair("api-version", "2019-08-01")
        .append_pair("resource", means.audience);
    chosen_identity(&mut url, means);
    let token = Ask::get(url)
        .secret("x-identity-header", secret, &format!("`{HEADER}`"))?
        .member_of("access_token", platform, means, waiting)
        .await?;
    Ok((format!("`{ENDPOINT}`"), token))
}

pub(super) async fn instance(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    // Azure's own libraries take another host from here. Nothing secret is sent there.
    const HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
    let base = means.machine.environment.find(HOST).unwrap_or("http://169.254.169.254");
    let base = base.trim_end_matches('/');
    let mut url = Url::parse(&format!("{base}/metadata/identity/oauth2/token"))
        .map_err(|error| ClientError::usage(format!("`{HOST}`: {error}")))?;
    url.query_pairs_mut()
        .append_pair("api-version", "2018-02-01")
        .append_pair("resource", means.audience);
    chosen_identity(&mut url, means);
    let token = Ask::get(url)
        .header("metadata", "true")
        .member_of("access_token", platform, means, waiting)
        .await?;
    Ok((format!("`{base}`"), token))
}

/// Which of several user-assigned identities.
fn chosen_identity(url: &mut Url, means: &Means<'_>) {
    if let Some(id) = means.machine.environment.find("AZURE_CLIENT_ID") {
        url.query_pairs_mut().append_pair("client_id", id);
    }
}

/// The endpoint that App Service names is plain http on loopback or link-local: the secret header stays on this machine and its
/// host. Anywhere else it goes over https.
fn beside_us(name: &str, text: &str) -> Result<Url, ClientError> {
    let link_local = Url::parse(text).ok().filter(|url| {
        url.scheme() == "http"
            && matches!(url.host(), Some(Host::Ipv4(address)) if address.is_link_local())
    });
    match link_local {
        Some(url) => Ok(url),
        None => safe_url_in(name, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_header_stays_beside_us_or_goes_over_tls() {
        for good in [
            "http://127.0.0.1:41741/msi/token",
            "http://169.254.129.2:8081/msi",
            "https://a.example",
        ] {
            assert!(beside_us("IDENTITY_ENDPOINT", good).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1/msi", "http://a.example/", "http://169.254.1.1.evil.example/"]
        {
            assert!(beside_us("IDENTITY_ENDPOINT", bad).is_err(), "{bad}");
        }
    }
}
