//! Parses the arguments, calls `cli`, and turns the result into an exit code.

use std::process::ExitCode;

use cambio::cli::{self, Arguments, Exit, Talk};
use clap::Parser as _;

fn main() -> ExitCode {
    // Usage errors end here, with code 2; `--help` with 0.
    let arguments = Arguments::parse();
    let mut talk = Talk::of_the_process(arguments.json);
    // What a process gives up it gives up thread by thread: so while there is one.
    if let Err(failure) = arguments.harden() {
        talk.say(&failure);
        return talk.finish(failure.exit()).into();
    }
    if let Some(exit) = cli::run_alone(&arguments, &mut talk) {
        return talk.finish(exit).into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            talk.say(format_args!("error: no runtime: {error}"));
            return Exit::Unreachable.into();
        }
    };
    let exit = runtime.block_on(cli::run(arguments, &mut talk));
    talk.finish(exit).into()
}
