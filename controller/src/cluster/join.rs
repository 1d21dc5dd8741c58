//! The side of a node that joins a cluster, or comes back without its store.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use ring::rand::SystemRandom;
use sallyport_ca::seal::JoinKey;
use sallyport_ca::{KeyAlgorithm, KeyPair, pem};
use sallyport_proto::dial::{self, Channel};
use sallyport_proto::v1::joining_client::JoiningClient;
use sallyport_proto::{CONTROLLER_NAME, v1};
use tonic::transport::{Certificate, ClientTlsConfig};
use tonic::{Code, Status};

use super::links::{Links, endpoint, plain_endpoint};
use super::member::MemberFile;
use super::token::Token;
use super::{admit, is_loopback, trust};
use crate::app::Paths;
use crate::authority;
use crate::config::Config;
use crate::error::Error;
use crate::files;
use crate::seal::Sealer;
use crate::software::Software;

/// How long one member may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two rounds over all members.
const PAUSE: Duration = Duration::from_secs(1);
/// Rounds of a node that comes back: its group may be without a leader for a while.
const ROUNDS: usize = 60;

/// What a node says of itself.
pub(crate) struct Candidate<'a> {
    pub(crate) config: &'a Config,
    pub(crate) paths: &'a Paths,
    pub(crate) software: &'a Software,
    /// HOST:PORT where members reach it.
    pub(crate) address: String,
    pub(crate) learner: bool,
}

/// Files of a member's identity.
struct IdentityFiles {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

fn identity_files(paths: &Paths) -> IdentityFiles {
    let dir = paths.controller();
    IdentityFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), ca: dir.join("ca.pem") }
}

impl Candidate<'_> {
    fn name(&self) -> String {
        if self.config.name.is_empty() { files::host_name() } else { self.config.name.clone() }
    }

    /// Becomes a member of the cluster that the token is of. Afterwards the state folder holds all that a start needs.
    pub(crate) async fn join(&self, addresses: &[String], token: &Token) -> Result<(MemberFile, Sealer), Error> {
        files::private_dir(&self.paths.controller())?;
        let files = identity_files(self.paths);
        let rng = SystemRandom::new();
        // Made once: should the answer be lost, the same key with the same token gets the same answer again.
        let key = match files::read_private(&files.key)? {
            Some(text) => KeyPair::from_pem(&text).map_err(|e| bad_key(&files.key, &e.to_string()))?,
            None => {
                let key =
                    KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).map_err(|e| Error::Internal(e.to_string()))?;
                files::write_private(&files.key, key.pkcs8_pem().as_bytes())?;
                key
            }
        };
        let (join_key, wrap_key) = JoinKey::generate(&rng).map_err(|e| Error::Internal(e.to_string()))?;
        let mut request = v1::JoinRequest {
            token_id: token.id.to_vec(),
            token: Some(v1::Secret::new(token.secret.to_vec())),
            public_key: key.public_key().spki_der().to_vec(),
            proof: Vec::new(),
            wrap_key: wrap_key.to_vec(),
            name: self.name(),
            address: self.address.clone(),
            version: self.software.version.clone(),
            level: self.software.level,
            names: self.config.names.clone(),
            learner: self.learner,
        };
        request.proof = key.sign(&admit::proof_input(&request), &rng).map_err(|e| Error::Internal(e.to_string()))?;

        let mut said = String::new();
        for address in addresses {
            match self.ask(address, token, request.clone()).await {
                Ok(answer) => return self.settle(&files, answer, join_key),
                // Whoever answers with a reason is asked no further: another member would say the same.
                Err(Refused::ForGood(error)) => return Err(error),
                Err(Refused::Perhaps(text)) => {
                    said.push_str(&format!("\n  {address}: {text}"));
                }
            }
        }
        Err(Error::Refused(format!("no controller let this one join:{said}")))
    }

    async fn ask(&self, address: &str, token: &Token, request: v1::JoinRequest) -> Result<v1::JoinResponse, Refused> {
        let perhaps = |e: &dyn fmt::Display| Refused::Perhaps(e.to_string());
        // First the root, over a connection that is trusted with nothing.
        let channel = unverified(address).await.map_err(|e| perhaps(&e))?;
        let shown = JoiningClient::new(channel).show_root(v1::ShowRootRequest {}).await;
        let root = shown.map_err(|s| perhaps(&s.message()))?.into_inner().root;
        if digest::digest(&digest::SHA256, &root).as_ref() != token.root {
            return Err(Refused::ForGood(Error::Refused(format!(
                "{address} is a controller of another cluster than the token: its root has another fingerprint; use the address \
                 that `sallyport cluster token` printed"
            ))));
        }
        let root = pem::encode("CERTIFICATE", &root);
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root.as_bytes())).domain_name(CONTROLLER_NAME);
        let channel = endpoint(address)
            .and_then(|e| e.tls_config(tls).map_err(|e| Error::Internal(e.to_string())))
            .map_err(Refused::ForGood)?
            .timeout(PATIENCE)
            .connect()
            .await
            .map_err(|e| Refused::Perhaps(chain(&e)))?;
        match JoiningClient::new(channel).join(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(refusal(&status, &self.address)),
        }
    }

    /// Writes what the cluster gave; the member file is the last, and says that all is there.
    fn settle(
        &self,
        files: &IdentityFiles,
        answer: v1::JoinResponse,
        join_key: JoinKey,
    ) -> Result<(MemberFile, Sealer), Error> {
        let context = admit::wrap_context(&answer.cluster_id, answer.member_id);
        let seal_key = join_key
            .unwrap(&answer.wrapped_seal_key, &context)
            .map_err(|e| Error::Refused(format!("the cluster's answer does not open: {e}; try again")))?;
        let sealer = Sealer::adopt(self.paths.root(), &self.config.unseal, seal_key)?;
        let root = pem::encode("CERTIFICATE", &answer.root);
        files::write_private(&files.ca, root.as_bytes())?;
        trust::keep_list(self.paths, root.as_bytes(), &answer.revoked_controllers)?;
        let chain = authority::pem_of(std::iter::once(&answer.certificate).chain(&answer.issuers));
        files::write_private(&files.cert, chain.as_bytes())?;
        let member = member_file(answer);
        member.write(&self.paths.member())?;
        tracing::info!(id = member.id, "joined the cluster");
        Ok((member, sealer))
    }

    /// Comes back after the loss of the store: under a new id, because this node no longer knows how it voted.
    pub(crate) async fn rejoin(&self, old: &MemberFile, links: &Arc<Links>) -> Result<MemberFile, Error> {
        let others: Vec<&String> = old.members.iter().filter(|m| **m != self.address).collect();
        if others.is_empty() {
            return Err(Error::File {
                path: self.paths.raft().join("store"),
                cause: "the store is gone, and this was the only controller".into(),
                remedy: "put the store back, or restore a backup: sallyport backup restore FILE --state DIR".into(),
            });
        }
        tracing::warn!(id = old.id, "the store is gone: this node asks to come back as a new member");
        let mut said = String::new();
        for round in 0..ROUNDS {
            said.clear();
            for address in &others {
                let request = v1::RejoinRequest {
                    old_id: old.id,
                    name: self.name(),
                    address: self.address.clone(),
                    version: self.software.version.clone(),
                    level: self.software.level,
                };
                let mut client = links.peer(address)?;
                match tokio::time::timeout(PATIENCE, client.rejoin(request)).await {
                    Ok(Ok(answer)) => {
                        return self.resettle(links, answer.into_inner());
                    }
                    Ok(Err(status)) => match refusal(&status, &self.address) {
                        Refused::ForGood(error) => return Err(error),
                        Refused::Perhaps(text) => said.push_str(&format!("\n  {address}: {text}")),
                    },
                    Err(_) => said.push_str(&format!("\n  {address}: no answer")),
                }
            }
            if round + 1 < ROUNDS {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(Error::Refused(format!("the store is gone, and no controller takes this one back:{said}")))
    }

    /// The same for one that comes back, which has its certificate and the seal key.
    fn resettle(&self, links: &Links, answer: v1::JoinResponse) -> Result<MemberFile, Error> {
        let ca = files::read_public(&identity_files(self.paths).ca)?.unwrap_or_default();
        trust::keep_list(self.paths, &ca, &answer.revoked_controllers)?;
        links.trust().read_list(self.paths, &ca)?;
        let member = member_file(answer);
        member.write(&self.paths.member())?;
        Ok(member)
    }
}

fn member_file(answer: v1::JoinResponse) -> MemberFile {
    MemberFile {
        cluster: answer.cluster_id,
        begun_ms: answer.restored_unix_ms,
        id: answer.member_id,
        members: answer.members,
    }
}

/// Why a member did not take a node in.
enum Refused {
    /// Another may.
    Perhaps(String),
    /// None will.
    ForGood(Error),
}

fn refusal(status: &Status, own: &str) -> Refused {
    match status.code() {
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Unauthenticated => {
            let hint = if is_loopback(own) {
                format!(
                    " (this controller says that it is at {own}, which only this machine reaches: set controller.advertise)"
                )
            } else {
                String::new()
            };
            Refused::ForGood(Error::Refused(format!("the cluster refuses this controller: {}{hint}", status.message())))
        }
        _ => Refused::Perhaps(status.message().into()),
    }
}

fn bad_key(path: &std::path::Path, cause: &str) -> Error {
    Error::File { path: path.into(), cause: cause.into(), remedy: "delete it; joining makes another".into() }
}

/// An error with its sources: tonic's own says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(&format!(": {e}"));
        source = e.source();
    }
    text
}

/// A connection to whoever answers: nothing secret goes over it, and what comes over it is compared with the token.
async fn unverified(address: &str) -> Result<Channel, Error> {
    let endpoint = plain_endpoint(address)?.timeout(PATIENCE).connect_timeout(PATIENCE);
    let channel = dial::to_anybody(endpoint, address).map_err(|e| Error::Refused(e.to_string()))?;
    channel.connect().await.map_err(|e| Error::Refused(chain(&e)))?;
    Ok(channel)
}
