//! What is shipped is what the reader reads: example, JSON Schema, reference page.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use cambio::config::Config;

use super::lines;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a committed file with what generates it; with `CAMBIO_BLESS` set, writes it anew.
pub(super) fn is_what_we_generate(path: &str, generated: &str) {
    let path = root().join(path);
    if std::env::var_os("CAMBIO_BLESS").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "`{}` is stale: run this test with CAMBIO_BLESS=1 and commit what changes",
        path.display()
    );
}

#[test]
fn the_schema_for_editors_is_generated_from_what_we_read_with() {
    let schema = serde_json::to_string_pretty(&Config::schema()).unwrap();
    is_what_we_generate("deploy/cambio.schema.json", &format!("{schema}\n"));
}

#[test]
fn the_reference_page_is_generated_from_what_we_read_with() {
    is_what_we_generate("docs/configuration.md", &Config::reference());
}

/// The example in a directory where everything that it names is there.
fn installed() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let deploy = home.path().join("deploy");
    for directory in
        ["deploy/state", "deploy/anchor", "deploy/secrets", "deploy/policies", "deploy/pinned"]
    {
        fs::create_dir_all(home.path().join(directory)).unwrap();
    }
    for file in [
        "deploy/policies/orders.yaml",
        "deploy/policies/platform.yaml",
        "deploy/pinned/cluster-green.json",
    ] {
        fs::write(home.path().join(file), "x").unwrap();
    }
    for file in ["cluster-blue-ca.pem", "cluster-blue-token", "kek", "tls.crt", "tls.key"] {
        let path = deploy.join("secrets").join(file);
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let file = deploy.join("cambio.example.yaml");
    fs::copy(root().join("deploy/cambio.example.yaml"), &file).unwrap();
    (home, file)
}

#[test]
fn the_example_is_valid_and_nothing_is_said_of_it() {
    let (_home, file) = installed();
    let (config, warnings) = Config::read(&file).map_err(|problems| lines(&problems)).unwrap();
    assert_eq!(lines(&warnings), "");
    assert_eq!(config.issuers.len(), 4);
    assert_eq!(config.targets().unwrap().iter().count(), 2);
    let data = file.parent().unwrap().join("state");
    assert_eq!(config.data, data);
    assert_eq!(config.listen.admin_socket, data.join("admin.sock"));
}

/// The comments of the example say what the defaults are. Each is uncommented, and nothing may change.
#[test]
fn what_the_example_comments_out_is_the_default() {
    let text = fs::read_to_string(root().join("deploy/cambio.example.yaml")).unwrap();
    let mut said: Vec<String> = Vec::new();
    for line in text.lines() {
        said.push(match line.trim_start().strip_prefix("# ") {
            Some(setting) if is_setting(setting) => {
                let indent = line.len() - line.trim_start().len();
                format!("{}{setting}", " ".repeat(indent))
            }
            _ => line.to_owned(),
        });
    }
    let base = Path::new("/etc/cambio");
    let read = |text: &str| {
        let judged = Config::parse("cambio.example.yaml", text, base);
        format!("{:?}", judged.map_err(|problems| lines(&problems)).unwrap().0)
    };
    assert_eq!(read(&said.join("\n")), read(&text));
    let uncommented = said.iter().zip(text.lines()).filter(|(now, before)| now != before).count();
    assert_eq!(uncommented, 18, "{}", said.join("\n"));
}

/// `name: value` with a name of ours, and not one of the two that have no default.
fn is_setting(text: &str) -> bool {
    let text = text.trim_start();
    let Some((name, _)) = text.split_once(':') else { return false };
    let word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    word && !["guardrails", "proxies"].contains(&name) && !text.contains("$schema")
}
