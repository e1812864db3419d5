//! "Everything that run 4711 got", and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use cambio::{
    id::{ExchangeId, LeaseId},
    lease::select::Selection,
    ledger::{Block, Event, LeaseState, Proposal, facts::Facts},
};
use serde_json::{Value, json};

use super::bench::{Bench, ORDERS};
use crate::ledger::log::{self, exchange, tamper};

fn everything() -> Selection {
    let block = Block { issuer: None, rule: None, claims: BTreeMap::new(), until: None };
    Selection { id: None, exchange: None, target: None, block, live: true }
}

fn by_claims<const N: usize>(claims: [(&str, Value); N]) -> Selection {
    let claims = claims.map(|(name, value)| (name.to_owned(), value)).into();
    Selection { block: Block { claims, ..everything().block }, ..everything() }
}

fn by_issuer(issuer: &str) -> Selection {
    Selection { block: Block { issuer: Some(issuer.into()), ..everything().block }, ..everything() }
}

fn by_rule(rule: &str) -> Selection {
    Selection { block: Block { rule: Some(rule.into()), ..everything().block }, ..everything() }
}

impl Bench {
    /// Which of the leases with these numbers are meant.
    #[track_caller]
    fn meant(&self, selection: &Selection) -> Vec<u64> {
        let found = selection.find(self.reader(), 99).unwrap();
        let number = |id: LeaseId| {
            (0..20).find(|number| self.intent(*number, ORDERS).id == id).expect("one of ours")
        };
        let mut numbers: Vec<u64> = found.iter().map(|found| number(found.lease.id)).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Opens a lease whose grant `change` has touched.
    async fn granted(&self, number: u64, target: &str, change: impl Fn(&mut Proposal)) {
        let lease = Some(self.intent(number, target));
        let mut proposal = Proposal { lease, ..log::grant(number) };
        change(&mut proposal);
        self.commit(proposal).await;
    }
}

fn facts(proposal: &mut Proposal) -> &mut Facts {
    proposal.facts.as_mut().unwrap()
}

/// 1 and 2: of GitHub, by `site/deploy`; 3: of GitLab, by two rules; 4: at another target; 5: GitHub's, through an actor.
async fn five() -> Bench {
    let bench = Bench::new();
    for number in [1, 2] {
        bench.granted(number, ORDERS, |_| {}).await;
    }
    bench
        .granted(3, ORDERS, |proposal| {
            let Event::Granted(granted) = &mut proposal.event else { panic!("no grant") };
            granted.issuer = "gitlab".into();
            granted.rules = vec!["orders/read".into(), "orders/all".into()];
            facts(proposal).issuer = "gitlab".to_owned();
        })
        .await;
    bench.granted(4, "fake/billing", |_| {}).await;
    bench
        .granted(5, ORDERS, |proposal| {
            let actor = json!({ "sub": "system:serviceaccount:ci:bot", "run_id": "99" });
            let facts = facts(proposal);
            facts.actor = Some(Arc::new(actor.as_object().unwrap().clone()));
            facts.actor_issuer = Some("cluster".to_owned());
        })
        .await;
    bench
}

#[tokio::test]
async fn leases_are_found_by_what_is_known_of_their_grant_line_by_line() {
    let bench = five().await;
    assert!(everything().is_everything());
    assert_eq!(bench.meant(&everything()), [1, 2, 3, 4, 5]);
    let id = Some(bench.intent(2, ORDERS).id);
    let cases = [
        (Selection { id, ..everything() }, vec![2]),
        (Selection { exchange: Some(exchange(3)), ..everything() }, vec![3]),
        (Selection { target: Some("fake/billing".into()), ..everything() }, vec![4]),
        (by_issuer("gitlab"), vec![3]),
        (by_issuer("cluster"), vec![5]),
        (by_issuer("nobody"), vec![]),
        (by_rule("site/deploy"), vec![1, 2, 4, 5]),
        (by_rule("orders/all"), vec![3]),
        (by_rule("orders"), vec![]),
        (by_claims([("run_id", json!(2))]), vec![2]),
        (by_claims([("run_id", json!("2"))]), vec![2]),
        (by_claims([("run_id", json!("99"))]), vec![5]),
        (by_claims([("sub", json!("system:serviceaccount:ci:bot"))]), vec![5]),
        (by_claims([("/kubernetes.io/namespace", json!("shop"))]), vec![1, 2, 3, 4, 5]),
        (by_claims([("groups", json!("ops")), ("run_id", json!(1))]), vec![1]),
        (by_claims([("groups", json!("ops")), ("run_id", json!(77))]), vec![]),
        (by_claims([("no_such_claim", json!(""))]), vec![]),
    ];
    for (selection, meant) in cases {
        assert!(!selection.is_everything(), "{selection:?}");
        assert_eq!(bench.meant(&selection), meant, "{selection:?}");
    }
    // Lines of two kinds must both hold, and for one and the same party.
    let both = Selection { target: Some(ORDERS.into()), ..by_rule("site/deploy") };
    assert_eq!(bench.meant(&both), [1, 2, 5]);
    let mut mixed = by_claims([("run_id", json!("99"))]);
    mixed.block.issuer = Some("github".into());
    assert_eq!(bench.meant(&mixed), Vec::<u64>::new(), "the actor's claim, the subject's issuer");
    mixed.block.issuer = Some("cluster".into());
    assert_eq!(bench.meant(&mixed), [5]);
}

#[tokio::test]
async fn a_selection_is_bounded_and_names_the_live_ones_unless_all_are_wanted() {
    let bench = five().await;
    let ended = bench.intent(1, ORDERS);
    let event = Event::Lease { id: ended.id, step: LeaseState::Revoked, by: None };
    bench.commit(Proposal::of(event)).await;
    assert_eq!(bench.meant(&everything()), [2, 3, 4, 5]);
    assert_eq!(bench.meant(&Selection { live: false, ..everything() }), [1, 2, 3, 4, 5]);
    let one = Selection { id: Some(ended.id), ..everything() };
    assert_eq!(bench.meant(&one), Vec::<u64>::new());
    assert_eq!(bench.meant(&Selection { live: false, ..one }), [1]);
    assert_eq!(everything().find(bench.reader(), 2).unwrap().len(), 2);
    let absent = Some(LeaseId::from_bytes([9; 16]));
    assert_eq!(bench.meant(&Selection { id: absent, ..everything() }), Vec::<u64>::new());
    let nobody = Some(ExchangeId::from_bytes([9; 16]));
    assert_eq!(bench.meant(&Selection { exchange: nobody, ..everything() }), Vec::<u64>::new());
}

/// INVARIANT(closed-by-absence): what can't be shown to be another's is meant. Rule and issuer stand in the entry itself.
#[tokio::test]
async fn b11_a_lease_whose_facts_were_erased_is_not_out_of_reach() {
    let bench = five().await;
    let index = bench.lease(&bench.intent(2, ORDERS)).index;
    bench.log.tamper(&format!("DELETE FROM facts WHERE idx = {index}"));
    assert_eq!(bench.meant(&by_claims([("run_id", json!(1))])), [1, 2]);
    assert_eq!(bench.meant(&by_issuer("github")), [1, 2, 4, 5]);
    assert_eq!(bench.meant(&by_issuer("gitlab")), [3]);
    assert_eq!(bench.meant(&by_rule("orders/all")), [3]);
}

#[tokio::test]
async fn a_damaged_entry_or_facts_are_an_error_and_not_a_miss() {
    for sql in [
        "UPDATE entry SET leaf = x'00' WHERE idx = 1",
        "UPDATE facts SET json = x'7b' WHERE idx = 1",
        "DELETE FROM entry WHERE idx = 1",
    ] {
        let bench = five().await;
        tamper(bench.path(), sql);
        let found = by_claims([("run_id", json!(1))]).find(bench.reader(), 99);
        assert!(found.is_err(), "{sql}: {found:?}");
        // One that is asked for by name does not need the others.
        let id = Some(bench.intent(1, ORDERS).id);
        assert_eq!(bench.meant(&Selection { id, ..everything() }), [1]);
    }
}
