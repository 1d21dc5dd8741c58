//! The command line: what there is, and the help that teaches it.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};

use crate::demo::wire::Role;
use crate::operator::{
    attempt, audit, backup, ca, cert, cluster, gateway, machine, operators, pool, psk, request, session, setting,
    status, token, user,
};
use crate::output::Format;
use crate::{config_command, daemon, decode, demo, enroll, profile, shell};

const AFTER_HELP: &str = "\
First steps:
  sallyport demo                                       see a VPN come up, without root
  sudo sallyport standalone                            controller and gateway for one site
  sudo sallyport pool add office --network 10.88.0.0/24
  sudo sallyport user add ada                          asks for the password
  sudo sallyport token create --machine laptop7.example.com        and what it prints, on that machine
  sudo sallyport session list                          who is connected
  sudo sallyport attempt list --failed                 who is not, and what to change

Exit codes:
  0  done
  1  tried and failed
  2  the command line is wrong
  3  the configuration file is wrong; nothing was started
  4  no controller answered, or it never ran here
  5  the controller refused: not found, already there, not permitted
  6  this machine cannot do it: a namespace, device or privilege is missing";

/// A VPN concentrator for the L2TP/IPsec clients that every system already has, with its own certificate authority.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Folder of the controller's data; its `operator` folder holds the identity that operator commands use.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "SALLYPORT_STATE",
        default_value = "/var/lib/sallyport",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) state: PathBuf,
    /// Controllers to talk to, HOST:PORT,... [default: what DIR/operator/controller says]
    #[arg(long, global = true, value_name = "ADDRESS", env = "SALLYPORT_CONTROLLER")]
    pub(crate) controller: Option<String>,
    /// Folder with cert.pem, key.pem and ca.pem of an operator [default: DIR/operator of --state]
    #[arg(long, global = true, value_name = "DIR", env = "SALLYPORT_IDENTITY", value_hint = ValueHint::DirPath)]
    pub(crate) identity: Option<PathBuf>,
    /// How to print results.
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Log more: -v debug, -vv trace. SALLYPORT_LOG takes a filter such as `info,sallyport_ike=debug`.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a controller and a gateway in one process: one site, or a trial.
    Standalone(daemon::standalone::Arguments),
    /// Run a controller.
    Controller(daemon::controller::Arguments),
    /// The controllers: how they are, who joins, who leaves, who leads.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Run a gateway that asks a controller elsewhere.
    Gateway(gateway::RunOrNoun),
    /// Users who may connect.
    #[command(subcommand)]
    User(user::Command),
    /// Pools of inside addresses.
    #[command(subcommand)]
    Pool(pool::Command),
    /// The pre-shared key of machines without a certificate; off unless set.
    #[command(subcommand)]
    Psk(psk::Command),
    /// Certificates of machines, gateways and operators.
    #[command(subcommand)]
    Cert(cert::Command),
    /// The root, and the issuing authorities below it.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Tokens with which machines get their first certificate.
    #[command(subcommand)]
    Token(token::Command),
    /// Machines that have a certificate or may get one.
    #[command(subcommand)]
    Machine(machine::Command),
    /// Machines that asked for a certificate and that nobody had announced.
    #[command(subcommand)]
    Request(request::Command),
    /// Get this machine's certificate, install it for its VPN software, and have it renewed.
    Enroll(Box<enroll::EnrollOrNoun>),
    /// Write files that make a connection on a Mac, on Windows or on another Linux machine.
    Profile(profile::Arguments),
    /// Who is connected.
    #[command(subcommand)]
    Session(session::Command),
    /// Who tried to connect, how it ended and what to change.
    #[command(subcommand)]
    Attempt(attempt::Command),
    /// What happened to certificates, keys and policy: a log that nobody can change unseen.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Operators, and what each may change.
    #[command(subcommand)]
    Operator(operators::Command),
    /// Settings that all gateways follow.
    #[command(subcommand)]
    Setting(setting::Command),
    /// Backups of the cluster: make, check, restore.
    #[command(subcommand)]
    Backup(backup::Command),
    /// The controller in a few numbers.
    Status(status::Arguments),
    /// The configuration file.
    #[command(subcommand)]
    Config(config_command::Command),
    /// Print the IKE, ESP, L2TP and PPP messages of a capture file.
    Decode(decode::Args),
    /// See a VPN come up: controller, gateway, client and inside host on this machine, without root.
    Demo(demo::Arguments),
    /// Print the completions of a shell.
    Completion(shell::Completion),
    /// Print the manual page, or write all of them into a folder.
    Man(shell::Man),
    /// A process of the demo.
    #[command(hide = true)]
    DemoHelper {
        /// Whom it plays.
        role: Role,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
            for inner in command.get_subcommands() {
                check(inner, &path);
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn no_argument_takes_a_password() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let secret = argument
                    .get_long()
                    .is_some_and(|l| (l.contains("password") || l.contains("psk")) && !l.ends_with("-file"));
                assert!(
                    !secret || !argument.get_action().takes_values(),
                    "{}: {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
