//! The command line: whole outputs, exit codes, the sandbox issuer and `cambio dev`.

mod dev;
mod doctor;
mod keys;
mod sandbox;

/// Each file in `cli/` is a session: what is typed, all that is answered, and the exit code. After a wanted change,
/// `TRYCMD=overwrite cargo test --test it cli` writes the answers anew; read the difference.
#[test]
fn the_command_line_says_what_its_sessions_say() {
    trycmd::TestCases::new().case("tests/it/cli/*.trycmd");
}
