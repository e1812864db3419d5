//! `docs/openapi.yaml` and the routes say the same.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, http::Request};
use cambio::edge::{
    self, admin,
    operations::{self, Operations},
};

use super::surface::{FakeExchanges, send, surface};

/// Path → (method, the line with its tags). The page is ours, and written so that this suffices.
fn listed() -> BTreeMap<String, (String, String)> {
    let page = include_str!("../../../docs/openapi.yaml");
    let (_, paths) = page.split_once("\npaths:\n").unwrap();
    let (paths, _) = paths.split_once("\ncomponents:\n").unwrap();
    let mut listed = BTreeMap::new();
    for block in format!("\n{paths}").split("\n  /").skip(1) {
        let (path, rest) = block.split_once(':').unwrap();
        let method = if rest.contains("post:") { "POST" } else { "GET" };
        let tags = rest.split_once("tags: [").unwrap().1.split_once(']').unwrap().0;
        listed.insert(format!("/{path}"), (method.to_owned(), tags.to_owned()));
    }
    listed
}

#[test]
fn the_admin_verbs_are_documented_with_their_reasons() {
    let documented: BTreeMap<String, bool> = listed()
        .into_iter()
        .filter_map(|(path, (method, tags))| {
            let verb = path.strip_prefix("/v1/")?.to_owned();
            assert_eq!((method.as_str(), tags.starts_with("admin")), ("POST", true), "{verb}");
            Some((verb, tags.contains("reason")))
        })
        .collect();
    let served = admin::verbs().map(|(verb, changes)| (verb.to_owned(), changes)).collect();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn every_documented_path_is_served_on_its_listener_and_no_other() {
    let surface = surface(&Arc::new(FakeExchanges::default()));
    let operations = operations::router(Operations {
        health: Arc::new(super::operations::FakeHealth(vec![])),
        metrics: surface.metrics.clone(),
        clock: surface.clock.clone(),
    });
    let public = edge::router(surface);
    for (path, (method, tags)) in listed() {
        let path = path.replace("{tile}", "0/000").replace("{target}", "x509/orders");
        for (name, router) in [("public", &public), ("operations", &operations)] {
            let request = Request::builder().method(method.as_str()).uri(&path);
            let answer = send(router, request.body(Body::empty()).unwrap()).await;
            let served = !matches!(answer.status.as_u16(), 404 | 405);
            assert_eq!(served, tags == name, "{method} {path} on {name}: {}", answer.status);
        }
    }
}
