//! The first certificate, by a token.

use std::time::Duration;

use sallyport_ca::{Certificate, EnrollToken, KeyAlgorithm, SecureRandom, UnixTime};

use crate::chain::{self, Issued};
use crate::est::{self, Proof, Reply};
use crate::folder::{Pending, common_name};
use crate::{Error, Folder, Identity, Kind, Result, Server, Settings, tls};

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
    /// The server is of the authority that the token names: the root's subject.
    Known(String),
    /// The request is in, and an operator has yet to approve it, or the server is busy; it is asked again after this time.
    Waiting {
        /// Until the next question.
        after: Duration,
        /// What the server says.
        text: String,
    },
}

/// What a first certificate is asked for with.
#[derive(Clone, Debug)]
pub struct Request {
    /// The token.
    pub token: EnrollToken,
    /// Where to ask, if not where the token says.
    pub server: Option<Server>,
    /// The name that the certificate must have; if none is given, the authority's word counts.
    pub name: Option<String>,
    /// The kind of key.
    pub key: KeyAlgorithm,
    /// The VPN's public name or address, if it is not the server's.
    pub gateway: Option<String>,
    /// How long to wait for an approval.
    pub wait: Duration,
}

/// Gets the first certificate, or a new one where the earlier one has lapsed. On any failure what was in force stays in force.
pub async fn enroll<S: Surroundings>(folder: &Folder, request: &Request, s: &S) -> Result<(Settings, Identity)> {
    let server = match &request.server {
        Some(server) => server.clone(),
        None if request.token.server.is_empty() => {
            return Err(Error::new(
                Kind::Usage,
                "the token names no server",
                "pass the name that clients dial with --server",
            ));
        }
        None => request.token.server.parse()?,
    };
    let strangers = est::strangers_authorities(&server, s.now()).await?;
    let root = chain::pinned(&strangers, &request.token.root)?;
    let certificate = Certificate::from_der(&root)?;
    if !tls::in_force(&certificate, s.now()) {
        return Err(tls::refused(&expired(), &server, s.now()));
    }
    let roots = vec![root];
    // Over a connection that the root vouches for, its name included; only then is the token said.
    let authorities = est::known_authorities(&server, &roots, s.now()).await?;
    s.progress(Progress::Known(certificate.subject.clone()));

    let pending = folder.begin(request.key, request.name.as_deref().unwrap_or("machine"), s.rng())?;
    let proof = Proof::Token(&request.token);
    let issued = obtain(
        &Asking { server: &server, roots: &roots, authorities: &authorities, wait: request.wait },
        &pending,
        &proof,
        s,
    )
    .await?;
    let name = common_name(&issued.leaf);
    if let Some(wanted) = &request.name
        && !wanted.eq_ignore_ascii_case(&name)
        && !issued.leaf.names_host(wanted)
    {
        return Err(Error::new(
            Kind::Usage,
            format!("the token is for {}, not for {wanted}", crate::error::foreign(&name)),
            "run the command without --name to be that machine, or get another token",
        ));
    }
    let identity = folder.complete(&issued, &chain::learn(&roots, &authorities, s.now()))?;
    let before = folder.settings()?;
    let settings = Settings {
        server: server.to_string(),
        name,
        root: request.token.root.iter().map(|b| format!("{b:02x}")).collect(),
        key: request.key.to_string(),
        gateway: request.gateway.clone().unwrap_or_else(|| server.host.clone()),
        user: before.as_ref().and_then(|b| b.user.clone()),
        installed: before.map(|b| b.installed).unwrap_or_default(),
    };
    folder.write_settings(&settings)?;
    Ok((settings, identity))
}

fn expired() -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Expired)
}

/// Whom to ask, and for how long.
pub(crate) struct Asking<'a> {
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
                    return Err(over(asking, after, &text, busy));
                }
                left -= after;
                s.progress(Progress::Waiting { after, text });
                s.pause(after).await;
            }
        }
    }
}

fn over(asking: &Asking<'_>, after: Duration, text: &str, busy: bool) -> Error {
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    let again = format!("run the same command again in {} seconds or later: the request is kept", after.as_secs());
    if busy {
        return Error::new(Kind::Unreachable, format!("{} is busy{said}", asking.server), again);
    }
    Error::new(
        Kind::Pending,
        format!("an operator has yet to approve this machine{said}"),
        format!("{again}; --wait waits for it"),
    )
}
