//! The first certificate: by a token, by the list, or by an operator's approval.

use std::time::Duration;

use sallyport_ca::{Certificate, EnrollToken, Fingerprint, KeyAlgorithm, SecureRandom, UnixTime};

use crate::chain::{self, Issued};
use crate::est::{self, Proof, Reply};
use crate::folder::{Pending, common_name};
use crate::waiting::Waiting;
use crate::{Error, Folder, Identity, Kind, Result, Server, Settings, TokenPlace, tls};

/// What this crate takes from the process that uses it.
pub trait Surroundings: Sync {
    /// Civil time.
    fn now(&self) -> UnixTime;
    /// The random source.
    fn rng(&self) -> &dyn SecureRandom;
    /// Lets time pass.
    fn pause(&self, time: Duration) -> impl Future<Output = ()> + Send;
    /// Tells a person how far it is.
    fn progress(&self, progress: Progress);
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The server is of the authority that was named: the root's subject.
    Known(String),
    /// There is no token, so the key speaks for the machine: this is its SHA-256.
    Key(String),
    /// The request is in, and an operator has yet to approve it, or the server is busy; it is asked again after this time.
    Waiting {
        /// Until the next question.
        after: Duration,
        /// For how long it is asked at all.
        left: Duration,
        /// What the server says.
        text: String,
    },
}

/// What a first certificate is asked for with.
#[derive(Clone, Debug)]
pub struct Request {
    /// What lets the machine in, and by what it knows the authority.
    pub access: Access,
    /// Where to ask, if not where the token says.
    pub server: Option<Server>,
    /// The name that the certificate must have; if none is given, the authority's word counts.
    pub name: Option<String>,
    /// What the machine calls itself towards an operator who decides on it.
    pub claim: Option<String>,
    /// The kind of key.
    pub key: KeyAlgorithm,
    /// The token that it is made in, if not in a file.
    pub key_in: Option<TokenPlace>,
    /// The VPN's public name or address, if it is not the server's.
    pub gateway: Option<String>,
    /// How long to wait for an approval.
    pub wait: Duration,
    /// What is written down before the server is asked, so that another run can go on.
    pub waiting: Option<Waiting>,
}

/// What lets a machine in, and by what it knows the authority.
#[derive(Clone, Debug)]
pub enum Access {
    /// A token, which names the root.
    Token(EnrollToken),
    /// The list, which has the machine's key or network, or an operator who says yes to its key. The authority has one of these
    /// roots, by their SHA-256.
    Listed(Vec<Fingerprint>),
}

impl Access {
    fn roots(&self) -> Vec<Fingerprint> {
        match self {
            Self::Token(token) => vec![Fingerprint(token.root)],
            Self::Listed(roots) => roots.clone(),
        }
    }
}

fn server(request: &Request) -> Result<Server> {
    let named = |text: &str| Error::new(Kind::Usage, text, "pass the name that clients dial with --server");
    match (&request.server, &request.access) {
        (Some(server), _) => Ok(server.clone()),
        (None, Access::Token(token)) if !token.server.is_empty() => token.server.parse(),
        (None, Access::Token(_)) => Err(named("the token names no server")),
        (None, Access::Listed(_)) => Err(named("without a token the server has to be named")),
    }
}

/// Gets the first certificate, or a new one where the earlier one has lapsed. On any failure what was in force stays in force.
pub async fn enroll<S: Surroundings>(folder: &Folder, request: &Request, s: &S) -> Result<(Settings, Identity)> {
    let server = server(request)?;
    let strangers = est::strangers_authorities(&server, s.now()).await?;
    let roots = chain::pinned(&strangers, &request.access, &request.access.roots())?;
    let mut certificates = roots.iter().filter_map(|der| Certificate::from_der(der).ok());
    let Some(root) = certificates.find(|c| tls::in_force(c, s.now())) else {
        return Err(tls::refused(&expired(), &server, s.now()));
    };
    // Over a connection that the root vouches for, its name included; only then is anything said of this machine.
    let authorities = est::known_authorities(&server, &roots, s.now()).await?;
    s.progress(Progress::Known(root.subject.clone()));

    let called = request.name.as_deref().or(request.claim.as_deref()).unwrap_or("machine");
    let pending = folder.begin((request.key_in.as_ref(), request.key), called, s.rng())?;
    let key = Fingerprint::of(pending.key.public_key().spki_der()).to_string();
    let proof = match &request.access {
        Access::Token(token) => Proof::Token(token),
        Access::Listed(_) => {
            s.progress(Progress::Key(key.clone()));
            Proof::Key(&key)
        }
    };
    if let Some(waiting) = &request.waiting {
        folder.write_waiting(waiting)?;
    }
    let asking = Asking { folder, server: &server, roots: &roots, authorities: &authorities, wait: request.wait };
    let issued = obtain(&asking, &pending, &proof, s).await.inspect_err(|e| {
        // Who was told no has nothing to wait for. If the note cannot be removed, the next run is told no again.
        if e.kind == Kind::Refused {
            let _ = folder.clear_waiting();
        }
    })?;
    let name = common_name(&issued.leaf);
    if let Some(wanted) = &request.name
        && !wanted.eq_ignore_ascii_case(&name)
        && !issued.leaf.names_host(wanted)
    {
        return Err(Error::new(
            Kind::Usage,
            format!("the authority calls this machine {}, not {wanted}", crate::error::foreign(&name)),
            "run the command without --name to be that machine, or have the operator name it otherwise",
        ));
    }
    let before = folder.settings()?;
    let settings = Settings {
        server: server.to_string(),
        name,
        root: root.fingerprint.to_string(),
        key: request.key.to_string(),
        key_in: request.key_in.as_ref().map(TokenPlace::to_string),
        gateway: request.gateway.clone().unwrap_or_else(|| server.host.clone()),
        user: before.as_ref().and_then(|b| b.user.clone()),
        installed: before.map(|b| b.installed).unwrap_or_default(),
    };
    // Before the pair: from the moment that it is in force, the machine is enrolled.
    folder.write_settings(&settings)?;
    let identity = folder.complete(&issued, &chain::learn(&roots, &authorities, s.now()))?;
    Ok((settings, identity))
}

fn expired() -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Expired)
}

/// Whom to ask, and for how long.
pub(crate) struct Asking<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) server: &'a Server,
    pub(crate) roots: &'a [Vec<u8>],
    pub(crate) authorities: &'a [Vec<u8>],
    pub(crate) wait: Duration,
}

/// Asks until there is an answer or the time is over, and checks it.
pub(crate) async fn obtain<S: Surroundings>(
    asking: &Asking<'_>,
    pending: &Pending,
    proof: &Proof<'_>,
    s: &S,
) -> Result<Issued> {
    let mut left = asking.wait;
    loop {
        match est::enroll(asking.server, asking.roots, &pending.csr, proof, s.now()).await? {
            Reply::Certificates(list) => {
                return chain::check(&list, asking.authorities, asking.roots, &pending.key.public_key(), s.now());
            }
            Reply::Later { after, text, busy } => {
                if after > left {
                    return Err(over(asking, proof, after, &text, busy));
                }
                s.progress(Progress::Waiting { after, left, text });
                left -= after;
                // Other commands need the folder, too, and it may be minutes.
                asking.folder.let_go()?;
                s.pause(after).await;
                take_again(asking.folder, pending, s).await?;
            }
        }
    }
}

/// How often, and how far apart, the folder is asked for again: whoever has it is done soon, or waits himself and lets go of it.
const TAKES: (usize, Duration) = (60, Duration::from_secs(1));

async fn take_again<S: Surroundings>(folder: &Folder, pending: &Pending, s: &S) -> Result {
    let other = |what: &str| {
        Error::machine(
            format!("another process {what} {} meanwhile", folder.path().display()),
            "`sallyport enroll status` shows what came of it",
        )
    };
    for _ in 0..TAKES.0 {
        if folder.take_again()? {
            return if folder.still_waits(pending)? { Ok(()) } else { Err(other("has changed")) };
        }
        s.pause(TAKES.1).await;
    }
    Err(other("is at work in"))
}

fn over(asking: &Asking<'_>, proof: &Proof<'_>, after: Duration, text: &str, busy: bool) -> Error {
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    let again = format!("run the same command again in {} seconds or later: the request is kept", after.as_secs());
    if busy {
        return Error::new(Kind::Unreachable, format!("{} is busy{said}", asking.server), again);
    }
    let remedy = match proof {
        Proof::Key(key) => format!(
            "the operator says `sallyport request approve N --name NAME` to the request whose key has the SHA-256 {key}; {again}"
        ),
        Proof::Token(_) | Proof::Certificate(_) => format!("{again}; --wait waits for it"),
    };
    Error::new(Kind::Pending, format!("an operator has yet to approve this machine{said}"), remedy)
}
