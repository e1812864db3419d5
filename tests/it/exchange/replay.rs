//! INVARIANT(replay-window): a token buys a role of a target once, on every path that leads there.

use std::sync::Arc;

use cambio::subject::MAXIMUM_LEEWAY;
use tokio::task::JoinSet;

use crate::support::{
    broker::{Broker, form},
    site::ORDERS,
    token::NOW,
};

const SPENT: &str = "the subject token was already used for this";

fn spent() -> (u16, String, String) {
    (400, "invalid_request".to_owned(), SPENT.to_owned())
}

#[tokio::test]
async fn x03_a_token_buys_a_role_once_and_another_role_once_more() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    for role in ["read", "write"] {
        assert_eq!(broker.ask(&token, &format!("scope={role}")).await.status, 200, "{role}");
        let again = broker.ask(&token, &format!("scope={role}")).await;
        assert_eq!(again.error(), spent(), "{role}");
        assert_eq!(again.header("retry-after"), "");
    }
    // Another spelling of the request is the same exchange.
    let bearer = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={token}\
         &resource=urn:example:orders&scope=read"
    );
    let (status, code, words) = broker.post_token(&bearer).await.error();
    assert_eq!((status, code.as_str(), words.as_str()), (400, "invalid_grant", SPENT));
    let kinds: Vec<_> = broker.exchanges().await.iter().map(|line| line.kind.as_str()).collect();
    assert_eq!(kinds, ["granted", "refused", "granted", "refused", "refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x03_of_a_thousand_simultaneous_redemptions_exactly_one_is_granted() {
    let broker = Arc::new(Broker::start().await);
    let body = form(&broker.site.job().sign(), &format!("audience={ORDERS}&scope=read"));
    let mut redemptions = JoinSet::new();
    for _ in 0..1_000 {
        let (broker, body) = (Arc::clone(&broker), body.clone());
        redemptions.spawn(async move { broker.post_token(&body).await });
    }
    let (mut granted, mut refused) = (0, 0);
    while let Some(answer) = redemptions.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 200 {
            granted += 1;
        } else {
            assert_eq!(answer.error(), spent());
            refused += 1;
        }
    }
    assert_eq!((granted, refused), (1, 999));
    let entries = broker.exchanges().await;
    assert_eq!(entries.len(), 1_000, "every redemption has its entry");
    let granted = entries.iter().filter(|line| line.kind.as_str() == "granted").count();
    let told = entries.iter().filter(|line| line.text("reason") == "already_spent").count();
    assert_eq!((granted, told), (1, 999));
}

#[tokio::test]
async fn x03_a_spent_token_stays_spent_over_a_restart() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    assert_eq!(broker.exchange(&token).await.status, 200);
    let broker = broker.restart().await;
    assert_eq!(broker.exchange(&token).await.error(), spent());
    assert_eq!(broker.exchange(&broker.site.job().sign()).await.status, 200);
}

/// ECDSA signatures are malleable, and an issuer may sign one thing twice: what was signed is what is spent.
#[tokio::test]
async fn x03_another_signature_over_the_same_claims_is_the_same_token() {
    let broker = Broker::start().await;
    let token = broker.site.job();
    let (one, other) = (token.sign(), token.sign());
    assert_ne!(one, other);
    assert_eq!(broker.exchange(&one).await.status, 200);
    assert_eq!(broker.exchange(&other).await.error(), spent());
}

#[tokio::test]
async fn x04_a_token_without_jti_is_used_once_all_the_same() {
    let broker = Broker::start().await;
    let token = broker.site.job().without("jti").sign();
    assert_eq!(broker.exchange(&token).await.status, 200);
    assert_eq!(broker.exchange(&token).await.error(), spent());
}

#[tokio::test]
async fn reusable_tokens_are_used_again_where_rule_or_platform_says_so() {
    let broker = Broker::start().await;
    let by_rule = broker.site.job().claim("repository_id", "4242").sign();
    let by_platform = broker.site.gitlab_job().sign();
    for _ in 0..3 {
        assert_eq!(broker.exchange(&by_rule).await.status, 200);
        assert_eq!(broker.exchange(&by_platform).await.status, 200);
    }
    broker.pass(361);
    assert_eq!(broker.exchange(&by_platform).await.status, 400, "but not when it has ended");
}

#[tokio::test]
async fn a_denied_attempt_does_not_burn_the_token() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    assert_eq!(broker.ask(&token, "scope=admin").await.error().1, "invalid_scope");
    assert_eq!(broker.ask(&token, "").await.error().1, "invalid_target", "ambiguous");
    let elsewhere = form(&token, "audience=https://billing.example");
    assert_eq!(broker.post_token(&elsewhere).await.error().1, "invalid_target");
    let refresh = "requested_token_type=urn:ietf:params:oauth:token-type:id_token&scope=read";
    assert_eq!(broker.ask(&token, refresh).await.error().1, "invalid_request");
    assert_eq!(broker.exchange(&token).await.status, 200);
}

/// INVARIANT(replay-window): at no second at which a spent token still verifies is it good again.
#[tokio::test]
async fn replay_window_covers_every_second_at_which_the_token_still_verifies() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    assert_eq!(broker.exchange(&token).await.status, 200);
    let end = NOW + 300 + MAXIMUM_LEEWAY.as_secs();
    // Of the same age, and never used: remembering must not refuse what is still good.
    let mut unspent: Vec<_> = (0..9).map(|_| broker.site.job().sign()).collect();
    let mut last = String::new();
    for step in [200, 99, 1, 1, 58, 1, 1, 60, 2] {
        broker.pass(step);
        // Forgetting happens beside other commits.
        let now = broker.now().seconds();
        let other = broker.site.job().issued_at(now, 300).sign();
        assert_eq!(broker.exchange(&other).await.status, 200);
        let (status, _, words) = broker.exchange(&token).await.error();
        assert_eq!(status, 400, "at {now}");
        let expected = if now < end { SPENT } else { "the subject token was not accepted" };
        assert_eq!(words, expected, "at {} s from the end", now.abs_diff(end));
        let fresh = broker.exchange(&unspent.pop().unwrap()).await.status.as_u16();
        assert_eq!(
            fresh,
            if now < end { 200 } else { 400 },
            "at {} s from the end",
            now.abs_diff(end)
        );
        last = words;
    }
    assert_eq!(last, "the subject token was not accepted");
}
