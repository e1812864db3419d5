//! Threat V03: an STS that hangs, fails, throttles or answers garbage is told truthfully, and hurts nobody else.

use cambio::{ledger::entry::Kind, mint::aws::MINT_LIMIT};

use super::{
    sessions::{ask, broker},
    stand_in::{Manner, StandIn},
};
use crate::support::{broker::form, serving::Serving};

pub(super) fn outcomes(broker: &Serving) -> Vec<String> {
    let lines = broker.lines();
    let concluded = lines.iter().filter(|line| line.kind == Kind::Concluded);
    concluded.map(|line| line.text("outcome").to_owned()).collect()
}

fn granted(broker: &Serving) -> usize {
    broker.lines().iter().filter(|line| line.kind == Kind::Granted).count()
}

#[tokio::test]
async fn v03_an_sts_that_throttles_or_cannot_reach_our_keys_is_busy_and_the_token_stays_unspent() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let token = broker.job().sign();
    for manner in [Manner::Throttles, Manner::CantReachIssuer] {
        sts.behaves(manner);
        let answer = broker.post_token(&form(&token, "audience=aws/prod&scope=deploy")).await;
        let words = "the target does not answer now".to_owned();
        assert_eq!(
            answer.error(),
            (503, "temporarily_unavailable".to_owned(), words),
            "{manner:?}"
        );
        assert_eq!(answer.header("retry-after"), "2", "{manner:?}");
    }
    assert_eq!(outcomes(&broker), ["void", "void"]);
    sts.behaves(Manner::Honest);
    let answer = broker.post_token(&form(&token, "audience=aws/prod&scope=deploy")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    drop(broker.drain().await);
}

#[tokio::test]
async fn v03_garbage_and_failures_are_unknown_and_a_token_that_counts_once_stays_spent() {
    for manner in [Manner::Garbage, Manner::Fails, Manner::Incomplete] {
        let sts = StandIn::start().await;
        let broker = broker(&sts).await;
        sts.behaves(manner);
        let token = broker.job().sign();
        let answer = broker.post_token(&form(&token, "audience=aws/prod&scope=deploy")).await;
        assert_eq!(answer.error().0, 503, "{manner:?}");
        assert_eq!(
            answer.header("retry-after"),
            "",
            "{manner:?}: it is spent, so nothing is promised"
        );
        assert_eq!(outcomes(&broker), ["unknown"], "{manner:?}");
        sts.behaves(Manner::Honest);
        let again = broker.post_token(&form(&token, "audience=aws/prod&scope=deploy")).await;
        assert_eq!(again.error().2, "the subject token was already used for this", "{manner:?}");
        assert_eq!(granted(&broker), 1, "nothing without an entry, and one entry for one try");
        drop(broker.drain().await);
    }
}

/// A session is there, and after it more than any answer of STS has: it is not read to its end.
#[tokio::test]
async fn v03_an_answer_that_is_longer_than_any_of_sts_is_not_read() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    sts.behaves(Manner::Padded);
    let answer = ask(&broker, "deploy").await;
    assert_eq!(answer.error().2, "the target did not answer");
    assert_eq!(outcomes(&broker), ["unknown"]);
    drop(broker.drain().await);
}

#[tokio::test]
async fn v03_while_one_target_hangs_the_others_answer_and_then_it_is_left_alone() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    sts.behaves(Manner::Hangs);
    let begun = tokio::time::Instant::now();
    // Six failures close the gate for eight seconds: long enough to find it closed.
    let hanging = futures_util::future::join_all((0..6).map(|_| ask(&broker, "deploy")));
    let others = async {
        for _ in 0..20 {
            let answer = broker.exchange(&broker.job().sign()).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        begun.elapsed()
    };
    let (hung, others) = tokio::join!(hanging, others);
    for answer in hung {
        assert_eq!(answer.error().2, "the target did not answer");
    }
    assert!(begun.elapsed() >= MINT_LIMIT, "it was waited for, up to the deadline");
    assert!(others < MINT_LIMIT, "the others did not wait for it");
    let closed = ask(&broker, "deploy").await;
    assert_eq!(closed.error().2, "the target does not answer now");
    assert_eq!(sts.asked(), 6, "nobody asks while the gate is closed");
    drop(broker.drain().await);
}

#[tokio::test]
async fn v03_an_sts_that_is_not_there_is_busy_because_nothing_was_sent() {
    let sts = StandIn::start().await;
    // Ours, and nobody listens: a port that is free now may be another test's in a moment.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nowhere = taken.local_addr().unwrap();
    let broker = super::sessions::changed(&sts, |config| {
        for target in &mut config.targets {
            if let cambio::config::TargetKind::Aws(aws) = &mut target.kind {
                aws.endpoint = Some(format!("http://{nowhere}/").parse().unwrap());
            }
        }
    })
    .await;
    let answer = ask(&broker, "deploy").await;
    assert_eq!(answer.error().2, "the target does not answer now");
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(outcomes(&broker), ["void"]);
    drop(broker.drain().await);
}
