//! `cambio doctor` as an operator runs it, right after the first start.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{serving::serve, site::Site};

/// Check, state and detail of each finding.
async fn findings(site: &Site) -> Vec<[String; 3]> {
    let mut doctor = tokio::process::Command::new(env!("CARGO_BIN_EXE_cambio"));
    doctor.args(["doctor", "--json", "--config"]).arg(site.path("cambio.yaml"));
    let output = doctor.output().await.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = told.as_array().unwrap().iter();
    rows.map(|row| ["check", "state", "detail"].map(|key| text(row, key))).collect()
}

#[tokio::test]
async fn a_fresh_broker_is_found_well_in_all() {
    let serving = serve(Site::new()).await;
    assert_eq!(serving.check("outcomes"), "ok: none is unknown", "looked at before anybody asks");
    let found = findings(&serving.site).await;
    let unwell: Vec<_> = found.iter().filter(|[_, state, _]| state != "ok").collect();
    assert_eq!(unwell, Vec::<&[String; 3]>::new());
    serving.drain().await;
}

#[tokio::test]
async fn what_is_unwise_is_told_once() {
    let site = Site::new();
    let text = std::fs::read_to_string(site.path("cambio.yaml")).unwrap();
    let text = text.replace("anchors: [{ file: anchor.note }]", "anchors: none");
    site.write("cambio.yaml", &text.replace("public: 127.0.0.1:0", "public: 0.0.0.0:0"));
    let serving = serve(site).await;
    let found = findings(&serving.site).await;
    let unwise: Vec<&str> =
        found.iter().filter(|[_, state, _]| state == "warning").map(|[_, _, it]| &**it).collect();
    assert_eq!(unwise.len(), 2, "{found:?}");
    for expected in ["the ledger has no anchor", "plain http on `0.0.0.0:0`"] {
        assert_eq!(unwise.iter().filter(|it| it.contains(expected)).count(), 1, "{unwise:?}");
    }
    assert!(!found.iter().any(|[check, state, _]| check == "configuration" && state == "ok"));
    let rows: BTreeSet<_> = found.iter().collect();
    assert_eq!(rows.len(), found.len());
    serving.drain().await;
}
