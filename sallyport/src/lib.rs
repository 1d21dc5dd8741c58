//! Sallyport: controller, gateway and the operator's tools in one binary, all but its `main`. `sallyport --help` says what there is.
//!
//! A library only so that it can be compiled beside other work: linking is all that is left for the binary. Nothing else uses it.

mod cli;
mod clock;
mod config;
mod config_command;
mod daemon;
mod decode;
mod demo;
mod duration;
mod enroll;
mod error;
mod hex;
mod logging;
mod operator;
mod output;
mod profile;
mod secret;
mod shell;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::{Error, Result};
use crate::operator::{
    attempt, audit, backup, ca, cert, cluster, gateway, machine, operators, pool, psk, request, session, setting,
    status, token, user,
};

/// Of the whole program. Blocks that are freed go back to the system within moments, which glibc's do not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    // Before anything that speaks TLS: a second provider in the build must not make the choice ambiguous.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn run(cli: Cli) -> Result {
    let global = cli.global;
    match cli.command {
        // These make namespaces, which the kernel allows to a process with one thread only: no runtime yet.
        Command::Demo(arguments) => demo::run(&arguments, &global),
        Command::DemoHelper { role } => demo::run_helper(role, &global),
        // These need no runtime.
        Command::Decode(arguments) => decode::run(&arguments, global.output),
        Command::Config(command) => config_command::run(command, &global),
        Command::Profile(arguments) => profile::run(&arguments, &global),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
        command => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(sallyport_controller::worker_threads())
            .enable_all()
            .build()
            .map_err(|e| Error::failed(format!("cannot start the runtime: {e}")))?
            .block_on(serve(command, &global)),
    }
}

async fn serve(command: Command, global: &cli::Global) -> Result {
    match command {
        Command::Standalone(arguments) => daemon::standalone::run(arguments, global).await,
        Command::Controller(arguments) => daemon::controller::run(arguments, global).await,
        Command::Gateway(arguments) => gateway::run(arguments, global).await,
        Command::User(command) => user::run(command, global).await,
        Command::Pool(command) => pool::run(command, global).await,
        Command::Psk(command) => psk::run(command, global).await,
        Command::Cert(command) => cert::run(command, global).await,
        Command::Ca(command) => ca::run(command, global).await,
        Command::Token(command) => token::run(command, global).await,
        Command::Machine(command) => machine::run(command, global).await,
        Command::Request(command) => request::run(command, global).await,
        Command::Session(command) => session::run(command, global).await,
        Command::Cluster(command) => cluster::run(command, global).await,
        Command::Attempt(command) => attempt::run(command, global).await,
        Command::Audit(command) => audit::run(command, global).await,
        Command::Operator(command) => operators::run(command, global).await,
        Command::Setting(command) => setting::run(command, global).await,
        Command::Enroll(arguments) => enroll::run(*arguments, global).await,
        Command::Backup(command) => backup::run(command, global).await,
        Command::Status(arguments) => status::run(arguments, global).await,
        // `run` took the others.
        Command::Demo(_)
        | Command::DemoHelper { .. }
        | Command::Decode(_)
        | Command::Config(_)
        | Command::Profile(_)
        | Command::Completion(_)
        | Command::Man(_) => Ok(()),
    }
}
