//! `sallyport ca rollover`: another root in the place of one, step by step.

use clap::{Args, Subcommand};
use sallyport_proto::v1;
use sallyport_proto::v1::manage_root_request::Step;
use serde::Serialize;

use super::ca_root::manage;
use super::cert::Key;
use super::{Context, names, unix};
use crate::error::Result;
use crate::output::rfc3339;

/// What to do about another root.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
1. begin: the next root is made. Gateways trust both, the endpoint gives out both and the certificates with which they vouch for
   each other; a machine that renews learns of the next one (it believes it because its own root vouches for it).
2. status: who has been told since, and who has not.
3. activate: issuing authorities below the next root take over. Whoever shows a certificate shows the way from the root before, too.
4. finish: the root before is trusted no more, once nothing live is below it. The next root's key is in the cluster: export it and
   erase it (sallyport ca root).
abort goes back: before activate as if nothing had been, after it to the issuing authorities of before.")]
pub(crate) enum Command {
    /// Make the next root, beside the one in force. The private key of the one in force must be here.
    Begin(Begin),
    /// Show how far it is, and who has yet to learn of the next root.
    Status,
    /// Let the next root's issuing authorities issue.
    Activate(Force),
    /// Trust the root before no more.
    Finish(Force),
    /// Go back to the root before.
    Abort,
}

/// The next root.
#[derive(Debug, Args)]
pub(crate) struct Begin {
    /// Kind of its key; that of the root in force, unless said.
    #[arg(long, value_enum)]
    key: Option<Key>,
    /// Its common name; by itself it is numbered.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
}

/// A step.
#[derive(Debug, Args)]
pub(crate) struct Force {
    /// Also where certificates are in use that will be refused from then on.
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Waiting {
    name: String,
    profile: &'static str,
    not_after: String,
}

#[derive(Serialize)]
struct Status {
    under_way: bool,
    from: u64,
    to: u64,
    begun: String,
    activated: String,
    ready: u64,
    waiting: u64,
    still_below_the_root_before: u64,
    root_before_leads_on: bool,
    waiting_first: Vec<Waiting>,
}

impl Status {
    fn new(info: Option<v1::RolloverInfo>) -> Self {
        let under_way = info.is_some();
        let info = info.unwrap_or_default();
        let waiting_first = info.waiting_first.iter().map(|w| Waiting {
            name: w.name.clone(),
            profile: names::profile(w.profile()),
            not_after: rfc3339(unix(w.not_after_unix_ms)),
        });
        Self {
            under_way,
            from: info.from,
            to: info.to,
            begun: rfc3339(unix(info.begun_unix_ms)),
            activated: rfc3339(unix(info.activated_unix_ms)),
            ready: info.ready,
            waiting: info.waiting,
            still_below_the_root_before: info.below_from,
            root_before_leads_on: info.leads_on,
            waiting_first: waiting_first.collect(),
        }
    }

    fn text(&self) -> String {
        if !self.under_way {
            return "no change of roots is under way".into();
        }
        let mut text = format!(
            "from root {} to root {}, begun {}\nready         {} were told of both roots\nwaiting       {} have a certificate of before\n\
             below before  {} have their newest certificate below root {}",
            self.from, self.to, self.begun, self.ready, self.waiting, self.still_below_the_root_before, self.from
        );
        for w in &self.waiting_first {
            text += &format!("\n  {} ({}), until {}", w.name, w.profile, w.not_after);
        }
        if self.waiting > self.waiting_first.len() as u64 {
            text += &format!("\n  and {} more", self.waiting - self.waiting_first.len() as u64);
        }
        text += &match (self.activated.is_empty(), self.root_before_leads_on) {
            (true, true) => format!(
                "\nnext: sallyport ca rollover activate; who waits by then is led to root {} by root {}",
                self.to, self.from
            ),
            (true, false) => format!(
                "\nnext: wait until nobody waits, then sallyport ca rollover activate. Root {} has a path length of 1, as earlier \
                 versions made it: clients that look at it (OpenSSL, strongSwan) are not led to root {} by it, and must know that \
                 before it issues",
                self.from, self.to
            ),
            (false, _) => format!(
                "\nroot {} is in force since {}; next, when nothing live is below root {}: sallyport ca rollover finish",
                self.to, self.activated, self.from
            ),
        };
        text
    }
}

/// Runs the command.
pub(super) async fn run(command: Command, context: &mut Context) -> Result {
    let (step, done) = match command {
        Command::Begin(begin) => {
            let key_algorithm = begin.key.map_or(v1::KeyAlgorithm::Unspecified, Into::into).into();
            let begin = v1::BeginRollover { key_algorithm, common_name: begin.name };
            (Step::Begin(begin), "made the next root; gateways trust it, and machines learn of it as they renew\n")
        }
        Command::Status => (Step::Look(v1::LookAtRoot {}), ""),
        Command::Activate(Force { force }) => {
            (Step::Activate(v1::ActivateRollover { force }), "the next root's issuing authorities issue\n")
        }
        Command::Finish(Force { force }) => {
            let done = "the root before is trusted no more. The next one's private key is in the cluster: sallyport ca root export\n";
            (Step::Finish(v1::FinishRollover { force }), done)
        }
        Command::Abort => (Step::Abort(v1::AbortRollover {}), "the root before issues\n"),
    };
    let status = Status::new(manage(context, step).await?.rollover);
    let text = format!("{done}{}", status.text());
    context.printer.one(&status, &text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn what_is_next_depends_on_the_step_and_on_the_path_length_of_the_root_before() {
        let info = v1::RolloverInfo { from: 1, to: 2, begun_unix_ms: 1_000, waiting: 3, ..Default::default() };
        let text = |info: &v1::RolloverInfo| Status::new(Some(info.clone())).text();
        assert!(text(&info).contains("path length of 1"));
        assert!(text(&info).contains("and 3 more"));
        assert!(text(&v1::RolloverInfo { leads_on: true, ..info.clone() }).contains("is led to root 2 by root 1"));
        let active = v1::RolloverInfo { activated_unix_ms: 2_000, ..info };
        assert!(text(&active).contains("sallyport ca rollover finish"));
        assert!(Status::new(None).text().starts_with("no change of roots"));
    }

    #[test]
    fn what_the_controllers_name_as_remedy_exists() {
        for line in ["begin", "begin --key ecdsa-p384", "status", "activate --force", "finish --force", "abort"] {
            let words = ["sallyport", "ca", "rollover"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
