//! A cloud that fails costs nobody but those who want something of it.

use super::{bench::Bench, stand_in::Mood};
use crate::support::broker::form;

const TARGETS: [&str; 3] = [
    "audience=google/prod&scope=deploy",
    "audience=azure/prod&scope=deploy",
    "audience=github/acme&scope=release",
];

const MOODS: [Mood; 3] =
    [Mood::Fails(500), Mood::Says("<html>"), Mood::Says(r#"{"access_token":7,"expires_in":1}"#)];

/// Google's first call makes no credential yet: what is lost there is lost for nobody.
#[tokio::test]
async fn v03_a_cloud_that_fails_before_the_call_that_counts_is_503_and_the_token_stays_good() {
    let bench = Bench::start().await;
    let target = TARGETS[0];
    let job = bench.job();
    for mood in MOODS {
        bench.clouds.is(mood);
        let answer = bench.broker.post_token(&form(&job, target)).await;
        let told = (answer.status.as_u16(), answer.error().1);
        assert_eq!(told, (503, "temporarily_unavailable".to_owned()), "{mood:?}");
        assert_eq!(answer.header("retry-after"), "2", "{mood:?}");
    }
    comes_back(&bench, target, &job).await;
    assert_eq!(bench.conclusions().await, ["void", "void", "void", "minted"]);
}

/// From when the call was sent that makes the credential there may be one, though nobody has it.
#[tokio::test]
async fn v03_a_cloud_that_fails_or_talks_garbage_is_503_and_a_token_that_counts_once_stays_spent() {
    let bench = Bench::start().await;
    for target in &TARGETS[1..] {
        let mut job = bench.job();
        for mood in MOODS {
            bench.clouds.is(mood);
            job = bench.job();
            let answer = bench.broker.post_token(&form(&job, target)).await;
            let told = (answer.status.as_u16(), answer.error().1);
            assert_eq!(told, (503, "temporarily_unavailable".to_owned()), "{target} {mood:?}");
            assert_eq!(answer.header("retry-after"), "", "{target} {mood:?}: nothing is promised");
        }
        comes_back(&bench, target, &bench.job()).await;
        let again = bench.broker.post_token(&form(&job, target)).await;
        assert_eq!(again.error().2, "the subject token was already used for this", "{target}");
    }
    let outcomes = bench.conclusions().await;
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "unknown").count(), 6, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "minted").count(), 2);
    // Those of Azure are told until they end; those of GitHub have leases, which do.
    let unknown = bench.broker.reader.unknown_outcomes().unwrap();
    let told: Vec<_> = unknown.iter().map(|it| (it.target.as_str(), it.count)).collect();
    assert_eq!(told, [("azure/prod", 3)]);
}

/// Three failures in a row, and nobody is asked for a while; then all is well.
async fn comes_back(bench: &Bench, target: &str, job: &str) {
    bench.clouds.is(Mood::Well);
    let asked = bench.clouds.asked();
    let closed = bench.broker.post_token(&form(job, target)).await;
    assert_eq!((closed.status.as_u16(), closed.header("retry-after")), (503, "1"), "{target}");
    assert_eq!(bench.clouds.asked(), asked);
    assert_eq!(bench.broker.exchange(&bench.job()).await.status, 200, "others are served");
    bench.broker.pass(2);
    let answer = bench.broker.post_token(&form(job, target)).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
}

#[tokio::test]
async fn v03_a_cloud_that_throttles_is_left_alone_for_as_long_as_it_says() {
    let bench = Bench::start().await;
    bench.clouds.is(Mood::Throttles("17"));
    for target in TARGETS {
        let answer = bench.ask(target).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "17"), "{target}");
    }
    bench.clouds.is(Mood::Throttles("never"));
    let answer = bench.ask(TARGETS[0]).await;
    assert_eq!(answer.header("retry-after"), "5", "what is no number is ours to choose");
}

#[tokio::test]
async fn v03_a_cloud_that_hangs_is_given_up_in_time_while_others_are_served() {
    let bench = Bench::start().await;
    bench.clouds.is(Mood::Hangs);
    let job = bench.job();
    let asked_for = form(&job, TARGETS[0]);
    let mut asked = Box::pin(bench.broker.post_token(&asked_for));
    for _ in 0..3 {
        let other = bench.job();
        tokio::select! {
            biased;
            answer = &mut asked => panic!("answered by nobody: {answer:?}"),
            answer = bench.broker.exchange(&other) => assert_eq!(answer.status, 200),
        }
    }
    let answer = tokio::time::timeout(cambio::mint::cloud::MINT_LIMIT, asked).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "2"));
    bench.clouds.is(Mood::Well);
    assert_eq!(bench.broker.post_token(&asked_for).await.status, 200, "the token is still good");
    assert_eq!(bench.conclusions().await, ["void", "minted"]);
}

#[tokio::test]
async fn what_is_issued_is_never_anothers() {
    let bench = Bench::start().await;
    let mut issued = std::collections::BTreeSet::new();
    for _ in 0..5 {
        for target in TARGETS {
            assert!(issued.insert(super::bench::token(&bench.ask(target).await)), "{target}");
        }
    }
}
