//! `cambio keys import`: what is said where an export does not come back.

use cambio::{app::Existing, edge::Power};

use crate::support::{
    cambio,
    serving::{serve, serve_existing},
    site::Site,
};

const PASSPHRASE: &str = "correct horse battery";

/// Exit code and stderr of an import from `stdin`.
fn import(site: &Site, passphrase: &str, stdin: &str) -> (Option<i32>, String) {
    site.write("passphrase", passphrase);
    let (config, secret) = (site.path("cambio.yaml"), site.path("passphrase"));
    let words = ["keys", "import", "--reason", "a new KEK", "--config", config.to_str().unwrap()];
    let words = [&words[..], &["--passphrase-file", secret.to_str().unwrap()]].concat();
    let done = cambio(&words, &[], stdin);
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

#[tokio::test]
async fn an_import_that_fails_says_what_is_wrong_with_the_export_and_what_to_do() {
    let serving = serve(Site::new()).await;
    let export = Power::ExportKeys { passphrase: PASSPHRASE.to_owned().into() };
    let exported = serving.power(export).await.unwrap();
    let exported = exported["jwe"].as_str().unwrap().to_owned();
    let (code, said) = import(&serving.site, PASSPHRASE, &exported);
    assert!(said.contains("another process has `"), "{said}");
    assert!(said.ends_with("hint: end the broker first\n"), "{said}");
    assert_eq!(code, Some(3));
    let site = serving.drain().await;

    let (code, said) = import(&site, PASSPHRASE, " \n");
    assert!(said.starts_with("error: stdin holds no export\n"), "{said}");
    assert_eq!(code, Some(2));
    for (passphrase, export, why) in [
        (
            "another passphrase",
            exported.as_str(),
            "the export does not open: another passphrase than it was made with, or a changed byte",
        ),
        (PASSPHRASE, "a.b", "the export does not open: a segment is not base64url"),
    ] {
        let (code, said) = import(&site, passphrase, export);
        assert!(said.starts_with(&format!("error: keys: {why}\n")), "{said}");
        assert_eq!(code, Some(2));
    }
    let (code, said) = import(&site, PASSPHRASE, &exported);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = import(&site, PASSPHRASE, &exported);
    let (before, after) = said.split_once(" is of epoch ").unwrap();
    assert_eq!(before, "error: keys: this export");
    let (epoch, after) = after.split_once(", the ring is at ").unwrap();
    let (stands, after) = after.split_once(": ").unwrap();
    assert_eq!(stands.parse::<u64>().unwrap(), epoch.parse::<u64>().unwrap() + 1);
    assert_eq!(after, "it is in already, or a key was rotated since; export again\n");
    assert_eq!(code, Some(2));
    serve_existing(site, Existing::Required).await.drain().await;
}
