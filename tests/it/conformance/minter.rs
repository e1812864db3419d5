//! The battery of `Minter`.

use std::{collections::BTreeSet, time::Duration};

use cambio::{
    mint::{Minter, Plan, jwt::JwtTarget},
    target::Expiry,
};
use serde_json::json;

use crate::{
    keys::minting::{Mint, grant, parts, text},
    support::token::NOW,
};

async fn holds(minter: &dyn Minter, mint: &Mint) {
    let subject = mint.subject().await;
    let Expiry::Exact { floor, ceiling } = minter.expiry() else {
        panic!("this battery is for targets of exact expiry")
    };
    for lifetime in [floor, Duration::from_secs(30), ceiling, ceiling * 2, Duration::MAX] {
        let mut grant = grant(0);
        grant.lifetime = lifetime;
        let prepared = minter.prepare(&grant, mint.behind(&subject)).unwrap();
        let lasts = prepared.expires_at.since(mint.bench.clock_now());
        assert!(lasts <= lifetime.min(ceiling), "duty 1: {lasts:?}");
        assert!(lasts >= floor, "duty 1: {lasts:?} is not nothing");
    }
    // Duty 2: a hundred preparations leave no trace.
    let before = (mint.ledger.head().size, mint.bench.journal.told());
    let mut names = BTreeSet::new();
    for _ in 0..100 {
        let prepared = minter.prepare(&grant(60), mint.behind(&subject)).unwrap();
        assert!(names.insert(prepared.credential), "each has its own name");
    }
    assert_eq!((mint.ledger.head().size, mint.bench.journal.told()), before, "duty 2");
    // Duty 3: `Recorded` is moved into `mint`, so that a second credential does not compile; and it is the prepared one.
    let prepared = minter.prepare(&grant(60), mint.behind(&subject)).unwrap();
    let (end, name) = (prepared.expires_at, prepared.credential.clone());
    let Plan::Jwt(plan) = &prepared.plan else { panic!("no JWT") };
    let input = plan.signing_input.clone();
    let recorded = mint.recorded(prepared).await;
    mint.bench.pass(5);
    let credential = minter.mint(recorded).await.unwrap();
    assert_eq!(credential.expires_at, end, "duty 3");
    assert!(text(&credential).starts_with(&format!("{input}.")), "duty 3: the recorded bytes");
    assert_eq!(parts(text(&credential)).1["jti"], name, "duty 3");
    assert_eq!(parts(text(&credential)).1["exp"], NOW + 60, "duty 3");
    // Duty 4.
    for claim in ["sub", "exp", "aud", "iss"] {
        let mut grant = grant(60);
        grant.claims.insert(claim.to_owned(), json!("chosen by a stranger"));
        assert!(minter.prepare(&grant, mint.behind(&subject)).is_err(), "duty 4: {claim}");
    }
}

#[tokio::test]
async fn never_outlive_a_jwt_is_what_was_prepared_and_lasts_no_longer() {
    let mint = Mint::new().await;
    let target = JwtTarget { ceiling: Duration::from_secs(300), ..Mint::target() };
    holds(&mint.minter(target), &mint).await;
}
