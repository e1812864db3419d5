//! A restored older copy of the store (threat K07): nothing is issued until somebody has said why.

use std::{fs, path::Path};

use cambio::{
    app::{self, Existing, restore::restore_keys},
    edge::{Power, PowerError},
    ledger::{Operator, entry::Kind},
};

use crate::support::{
    broker::bytes_below,
    serving::{Serving, serve, serve_existing, try_serve},
    site::Site,
};

/// Puts the files of `copy` in the place of those of `data`.
fn restore(site: &Site, copy: &[(std::path::PathBuf, Vec<u8>)]) {
    for path in bytes_below(&site.path("data")).into_keys() {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path, mode).unwrap();
    }
}

fn gitlab(serving: &Serving) -> String {
    serving.site.gitlab_job().issued_at(Serving::now(), 300).sign()
}

#[tokio::test]
async fn k07_a_restored_older_store_issues_nothing_until_the_fork_is_recorded() {
    let serving = serve(Site::new()).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    let site = serving.drain().await;
    let backup: Vec<_> = bytes_below(&site.path("data")).into_iter().collect();
    let serving = serve_existing(site, Existing::Required).await;
    let spent = serving.job().sign();
    assert_eq!(serving.exchange(&spent).await.status, 200);
    let no_fork = serving.power(Power::Fork).await;
    assert!(matches!(no_fork, Err(PowerError::Conflict(_))), "{no_fork:?}");
    let site = serving.drain().await;

    restore(&site, &backup);
    // The rules have changed since the backup, too: that can't be recorded while issuing is held.
    site.edit("policies/orders.yaml", "id: again", "id: over-again");
    let serving = serve_existing(site, Existing::Required).await;
    let held = serving.check("ledger");
    assert!(held.starts_with("not ok: "), "{held}");
    assert_eq!(serving.operations("/readyz").await.status, 503);
    assert_eq!(serving.operations("/livez").await.status, 200);
    // Which of its keys were withdrawn in the history that it lacks, nobody knows.
    assert_eq!(serving.public("/jwks").await.status, 503);
    let before = serving.lines().len();
    for token in [spent.clone(), serving.job().sign(), gitlab(&serving)] {
        let answer = serving.exchange(&token).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, ""));
    }
    assert_eq!(
        serving.lines().len(),
        before,
        "nothing is written beside a history that may be the true one"
    );

    let forked = serving.power(Power::Fork).await.unwrap();
    assert!(serving.check("ledger").starts_with("ok: "));
    let published = serving.public("/jwks").await.json();
    for key in published["keys"].as_array().unwrap() {
        assert!(forked["keys"].as_array().unwrap().contains(&key["kid"]), "{forked}");
    }
    let lines = serving.lines();
    let fork = lines.iter().find(|line| line.kind == Kind::Forked).unwrap();
    assert_eq!(fork.event["reason"], "drill");
    assert_eq!(serving.exchange(&gitlab(&serving)).await.status, 200);
    // INVARIANT(replay-window): what was spent in the lost history is not good again.
    let (_, _, words) = serving.exchange(&spent).await.error();
    assert_eq!(words, "the subject token was already used for this");
    // What decides from here on is in the ledger, with its sources.
    let lines = serving.lines();
    let granted = lines.iter().rfind(|line| line.kind == Kind::Granted).unwrap();
    let policy = lines.iter().rfind(|line| line.kind == Kind::Policy).unwrap();
    assert_eq!(granted.text("policy"), policy.text("policy"));
    // And the anchor takes the new history up: the next start is an ordinary one.
    let site = serving.drain().await;
    let serving = serve_existing(site, Existing::Required).await;
    assert!(serving.check("ledger").starts_with("ok: "));
    assert_eq!(serving.exchange(&gitlab(&serving)).await.status, 200);
    serving.drain().await;
}

/// Who lost the KEK with its machine restores the store too: an export of before a withdrawal fits a store of before it.
#[tokio::test]
async fn k07_an_export_is_not_put_back_into_a_log_that_was_set_back() {
    let serving = serve(Site::new()).await;
    let passphrase = || "correct horse battery".to_owned().into();
    let exported = serving.power(Power::ExportKeys { passphrase: passphrase() }).await.unwrap();
    let exported = exported["jwe"].as_str().unwrap().to_owned();
    let site = serving.drain().await;
    let backup: Vec<_> = bytes_below(&site.path("data")).into_iter().collect();
    let serving = serve_existing(site, Existing::Required).await;
    let kid = serving.power(Power::ListKeys).await.unwrap()["keys"][0]["kid"].clone();
    let kid = kid.as_str().unwrap().to_owned();
    serving.power(Power::WithdrawKey { kid, force: true }).await.unwrap();
    let site = serving.drain().await;
    restore(&site, &backup);
    let ring = ring_of(&site.store());
    let by = Operator { who: "uid:0".to_owned(), reason: "drill".to_owned() };
    let told = restore_keys(&site.config(), &exported, passphrase(), by).await.unwrap_err();
    assert!(told.to_string().contains("are not put back"), "{told}");
    assert_eq!(ring_of(&site.store()), ring);
}

fn ring_of(store: &Path) -> (i64, String) {
    let store = rusqlite::Connection::open(store).unwrap();
    store
        .query_row("SELECT epoch, sealed FROM key_ring", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

#[tokio::test]
async fn k07_an_older_ring_under_the_newest_ledger_revives_no_withdrawn_key() {
    let site = serve(Site::new()).await.drain().await;
    let (epoch, sealed) = ring_of(&site.store());
    let serving = serve_existing(site, Existing::Required).await;
    let keys = serving.power(Power::ListKeys).await.unwrap();
    let active =
        keys["keys"].as_array().unwrap().iter().find(|key| key["phase"] == "active").unwrap();
    let kid = active["kid"].as_str().unwrap().to_owned();
    serving.power(Power::WithdrawKey { kid, force: true }).await.unwrap();
    let site = serving.drain().await;
    let newest = ring_of(&site.store()).0;
    assert!(newest > epoch);
    let store = rusqlite::Connection::open(site.store()).unwrap();
    store.execute("UPDATE key_ring SET epoch = ?1, sealed = ?2", (epoch, &sealed)).unwrap();
    drop(store);
    let refused = try_serve(&site, Existing::Required).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        format!(
            "keys: the stored key ring has epoch {epoch}, the ledger's newest key entry has epoch {newest}"
        )
    );
    // Nor does it under the newest epoch's number: epoch and ring are sealed together.
    let store = rusqlite::Connection::open(site.store()).unwrap();
    store.execute("UPDATE key_ring SET epoch = ?1", [newest]).unwrap();
    drop(store);
    let refused = try_serve(&site, Existing::Required).await.unwrap_err().to_string();
    assert!(refused.starts_with("keys: the key ring does not open"), "{refused}");
}

#[tokio::test]
async fn a_first_start_makes_a_store_once_and_does_nothing_where_there_is_one() {
    let site = Site::new();
    assert!(app::create(&site.config()).await.unwrap());
    let first = bytes_below(&site.path("data"));
    assert!(!app::create(&site.config()).await.unwrap());
    assert_eq!(bytes_below(&site.path("data")), first);
    let serving = serve_existing(site, Existing::Required).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
}

#[tokio::test]
async fn k07_a_store_that_is_lost_is_not_taken_for_a_new_one() {
    let serving = serve(Site::new()).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    let site = serving.drain().await;
    restore(&site, &[]);
    let refused = app::create(&site.config()).await.unwrap_err().to_string();
    assert!(refused.contains("the store is lost, not new"), "{refused}");
    assert_eq!(bytes_below(&site.path("data")).len(), 0, "nothing was made");
    // A volume that is not mounted: the link is there, and leads nowhere.
    std::fs::remove_file(site.path("anchor.note")).unwrap();
    std::os::unix::fs::symlink("gone/anchor.note", site.path("anchor.note")).unwrap();
    let refused = app::create(&site.config()).await.unwrap_err().to_string();
    assert!(refused.contains("the store is lost, not new"), "{refused}");
    assert_eq!(bytes_below(&site.path("data")).len(), 0, "nothing was made");
}

/// Died at any step of the making of a store: what is left is no store, and the next start makes one.
#[tokio::test]
async fn k09_a_store_that_was_half_made_is_made_anew() {
    let site = Site::new();
    for (name, text) in [("cambio.db.new", "half"), ("cambio.db.new-wal", "a log of it")] {
        let store = site.store();
        std::fs::create_dir_all(store.parent().unwrap()).unwrap();
        std::fs::write(store.with_file_name(name), text).unwrap();
    }
    assert!(app::create(&site.config()).await.unwrap());
    let left = bytes_below(&site.path("data"));
    assert!(left.iter().all(|(path, _)| !path.to_string_lossy().contains(".new")), "{left:?}");
    let serving = serve_existing(site, Existing::Required).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
}
