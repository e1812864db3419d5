//! How many instructions an exchange takes. That does not depend on who else uses the machine, so that a change of a few
//! percent shows where the clock shows noise. Needs `valgrind`; what the kernel does is not in it.

use std::{fs, path::Path};

use super::{
    Checks, Plan,
    fixture::{self, Issuer},
    load,
    server::{Launch, Role, Server},
};

/// How often each connection asks in the short run, and in the long one.
const EACH: [usize; 2] = [10, 60];

/// Each server twice, each time from its start to its end: the difference is what the additional exchanges took.
pub async fn measure(plan: &Plan, folder: &Path, issuer: &Issuer) -> usize {
    let connections = plan.connections.last().copied().unwrap_or(1);
    let request = issuer.request(fixture::last_repository(plan.rules));
    let mut checks = Checks::default();
    println!("server  instructions each, {connections} connections");
    for role in [Role::Bare, Role::Broker] {
        let mut totals = [0; 2];
        for (each, total) in EACH.into_iter().zip(&mut totals) {
            let file = folder.join(format!("{}.{each}.callgrind", role.name()));
            let server = Server::start(role, folder, Launch::Counted(&file));
            let seen = load::times(server.address, &request, connections, each).await;
            checks.seen(role, connections, &seen);
            server.stop();
            *total = total_of(&file);
        }
        let [short, long] = totals;
        let more = (EACH[1] - EACH[0]) * connections;
        println!("{:<6}  {:>17}", role.name(), (long - short) / more as u64);
    }
    checks.tell()
}

/// What the line `totals:` (or, in a file of one part, `summary:`) of callgrind's format says.
fn total_of(file: &Path) -> u64 {
    let text = fs::read_to_string(file).expect("valgrind's file");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.and_then(|number| number.trim().parse().ok()).expect("a total")
}
