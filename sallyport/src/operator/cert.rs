//! `sallyport cert`: certificates of machines, gateways and operators.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use sallyport_proto::v1::{
    self, CertificateInfo, CertificateProfile, IssueCertificateRequest, IssueCertificateResponse, KeyAlgorithm,
    ListCertificatesRequest, ListProfilesRequest, ListRootsRequest, RevocationReason,
};
use serde::Serialize;

use super::identity_files::{self, Folder, Piece};
use super::operators::{self, May};
use super::{Connection, Context, PAGE, names, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::duration::parse_days;
use crate::error::{Error, Result};
use crate::output::{Column, Record, print, rfc3339};

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key and a certificate, and write both with the root into a folder.
    #[command(after_help = "\
A machine's folder holds key.pem (mode 0600), cert.pem, chain.pem (the issuing authority) and ca.pem (the root); an \
operator's has the issuing authority in cert.pem, too. \
A gateway's folder holds one pair for gRPC and one for each kind of key in IKE; point `[gateway] identity` to it. \
An operator's folder is what --identity takes. The controller keeps no copy of a key: what is lost is issued anew.

Examples:
  sallyport cert issue --machine laptop7.example.com --out laptop7
  sallyport cert issue --machine phone3.example.com --key ecdsa-p256 --validity 90d
  sallyport cert issue --gateway vpn.example.com --san 192.0.2.1 --out gw1
  sallyport cert issue --operator grace --out ~/.config/sallyport
  sallyport cert issue --user ada@example.com --out ada")]
    Issue(Issue),
    /// List the certificates, newest first; those that ended more than 400 days ago are only shown one by one.
    #[command(alias = "ls")]
    List {
        /// Only names that contain this.
        filter: Option<String>,
        /// Only of this kind.
        #[arg(long, value_enum)]
        profile: Option<Profile>,
        /// Leave out what is expired or revoked.
        #[arg(long)]
        live: bool,
    },
    /// Show one in full, also one that ended years ago.
    Show {
        /// Its serial number.
        serial: String,
    },
    /// Revoke certificates, for good or on hold; the sessions on them end at once, everywhere.
    #[command(after_help = "\
Of a machine or a holder, tokens that are out, approved requests and what the machine list says of a key or network open nothing
any more, either. A machine on hold gets no other certificate until it is released.

Examples:
  sallyport cert revoke --machine laptop7.example.com --reason key-compromise --wait
  sallyport cert revoke --holder 'Ada Lovelace' --reason affiliation-changed --note 'left on Friday'
  sallyport cert revoke --machine phone3.example.com --hold")]
    Revoke(super::revoke::Revoke),
    /// Make certificates good again that were put on hold.
    #[command(after_help = "\
Examples:
  sallyport cert release --machine phone3.example.com")]
    Release(super::revoke::Release),
    /// Renew the operator's certificate that is in use, with a new key; the one before ends by itself.
    #[command(after_help = "\
The folder that a controller wrote is renewed by that controller; this is for folders of `cert issue --operator`, such as from a timer.

Examples:
  sallyport --identity ~/.config/sallyport cert renew
  sallyport cert renew --force                                  also where it is not due yet")]
    Renew {
        /// Even if less than two thirds of its life are over.
        #[arg(long)]
        force: bool,
    },
    /// Print the root certificates (PEM), to be installed on machines.
    Root,
    /// Certificate profiles: how long, which keys, which names, who may enroll and how.
    #[command(subcommand)]
    Profile(super::cert_profile::Command),
}

/// A new certificate.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    subject: Subject,
    /// Kind of key [default: rsa-2048 for machines, ecdsa-p256 for operators, both for gateways]
    #[arg(long, value_enum)]
    key: Option<Key>,
    /// Further DNS name or IP address that stands in it; may be given several times.
    #[arg(long = "san", value_name = "NAME")]
    sans: Vec<String>,
    /// Folder to write to; it is made if it is not there [default: the name]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// How long it is valid, in days, such as 90d [default: what the profile says]
    #[arg(long, value_name = "TIME", value_parser = parse_days)]
    validity: Option<u32>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

/// Whose certificate.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Subject {
    /// Of a machine that connects; the name is a DNS name.
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Of a gateway; the name is its own and one that clients dial (--san names further ones).
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// Of an operator.
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Of a person, for services behind the VPN; the name is a mailbox or whatever they are called.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Key {
    /// What every native client takes.
    #[value(name = "rsa-2048")]
    Rsa2048,
    /// RSA, larger.
    #[value(name = "rsa-3072")]
    Rsa3072,
    /// RSA, larger still.
    #[value(name = "rsa-4096")]
    Rsa4096,
    /// Small and fast; Windows takes it, iOS profiles must say so.
    #[value(name = "ecdsa-p256")]
    EcdsaP256,
    /// ECDSA, larger.
    #[value(name = "ecdsa-p384")]
    EcdsaP384,
}

impl From<Key> for KeyAlgorithm {
    fn from(key: Key) -> Self {
        match key {
            Key::Rsa2048 => Self::Rsa2048,
            Key::Rsa3072 => Self::Rsa3072,
            Key::Rsa4096 => Self::Rsa4096,
            Key::EcdsaP256 => Self::EcdsaP256,
            Key::EcdsaP384 => Self::EcdsaP384,
        }
    }
}

/// A kind of certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Machines.
    Machine,
    /// Gateways, as clients see them.
    Gateway,
    /// Gateways, as controllers see them.
    GatewayLink,
    /// Operators.
    Operator,
    /// Controllers.
    Controller,
    /// Roots.
    Root,
    /// Issuing authorities below a root.
    Issuing,
    /// Controllers, as machines that enroll see them.
    Endpoint,
    /// People.
    User,
    /// Signers of OCSP answers.
    OcspSigner,
    /// The RA of SCEP.
    ScepRa,
}

impl From<Profile> for CertificateProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Machine => Self::Machine,
            Profile::Gateway => Self::Gateway,
            Profile::GatewayLink => Self::GatewayLink,
            Profile::Operator => Self::Operator,
            Profile::Controller => Self::Controller,
            Profile::Root => Self::Root,
            Profile::Issuing => Self::Issuing,
            Profile::Endpoint => Self::Endpoint,
            Profile::User => Self::User,
            Profile::OcspSigner => Self::OcspSigner,
            Profile::ScepRa => Self::ScepRa,
        }
    }
}

#[derive(Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) profile: &'static str,
    pub(super) key: &'static str,
    pub(super) state: &'static str,
    pub(super) sans: Vec<String>,
    pub(crate) serial: String,
    pub(super) issued: String,
    pub(super) not_before: String,
    pub(super) not_after: String,
    pub(super) revoked: String,
    pub(super) reason: &'static str,
    pub(super) revocation_reason: String,
    pub(super) fingerprint: String,
    /// It ended long ago: further names and texts are not kept, and of the fingerprint the first half.
    pub(super) compacted: bool,
}

impl From<CertificateInfo> for Row {
    fn from(info: CertificateInfo) -> Self {
        let state = match info {
            _ if info.revoked_unix_ms != 0 && info.revocation_code() == RevocationReason::CertificateHold => "on hold",
            _ if info.revoked_unix_ms != 0 => "revoked",
            _ if unix(info.not_after_unix_ms) < unix_now() => "expired",
            _ => "valid",
        };
        let reason = if info.revoked_unix_ms == 0 { "" } else { names::revocation_reason(info.revocation_code()) };
        Self {
            profile: names::profile(info.profile()),
            key: names::key_algorithm(info.key_algorithm()),
            state,
            name: info.name,
            sans: info.sans,
            serial: info.serial,
            issued: rfc3339(unix(info.issued_unix_ms)),
            not_before: rfc3339(unix(info.not_before_unix_ms)),
            not_after: rfc3339(unix(info.not_after_unix_ms)),
            revoked: rfc3339(unix(info.revoked_unix_ms)),
            reason,
            revocation_reason: info.revocation_reason,
            fingerprint: crate::hex::lower(&info.fingerprint),
            compacted: info.compacted,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("NAME"),
        Column::left("PROFILE"),
        Column::left("KEY"),
        Column::left("STATE"),
        Column::left("NOT AFTER"),
        Column::left("SERIAL"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.profile.into(),
            self.key.into(),
            self.state.into(),
            self.not_after.clone(),
            self.serial.clone(),
        ]
    }
}

#[derive(Serialize)]
struct Issued {
    certificates: Vec<Row>,
    files: Vec<PathBuf>,
    /// What an operator may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<May>,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    match command {
        Command::Issue(issue) => issue.run(global).await,
        Command::List { filter, profile, live } => {
            let mut context = Context::open(global).await?;
            let (name_contains, profile) = (filter.unwrap_or_default(), profile.map(CertificateProfile::from));
            let client = &mut context.connection.client;
            let infos = pages(async |page_token| {
                let request = ListCertificatesRequest {
                    page_size: PAGE,
                    page_token,
                    profile: profile.unwrap_or_default().into(),
                    name_contains: name_contains.clone(),
                    live_only: live,
                };
                let response = client.list_certificates(request).await.map_err(refused)?.into_inner();
                Ok((response.certificates, response.next_page_token))
            })
            .await?;
            let rows: Vec<Row> = infos.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no certificates; `sallyport cert issue --machine NAME` makes one")
        }
        Command::Show { serial } => super::cert_show::run(serial, global).await,
        Command::Revoke(revoke) => revoke.run(global).await,
        Command::Release(release) => release.run(global).await,
        Command::Renew { force } => super::renewal::run(force, global).await,
        Command::Profile(command) => super::cert_profile::run(command, global).await,
        Command::Root => {
            let mut context = Context::open(global).await?;
            let response = context.connection.client.list_roots(ListRootsRequest {}).await.map_err(refused)?;
            let pem: String =
                response.into_inner().roots.iter().map(|der| identity_files::certificate_pem(der)).collect();
            print(&pem)
        }
    }
}

impl Issue {
    async fn run(self, global: &Global) -> Result {
        let (profile, name) = self.subject.resolve()?;
        let out = self.out.unwrap_or_else(|| PathBuf::from(&name));
        let mut pieces = pieces(profile, self.key);
        let mut context = Context::open(global).await?;
        if self.key.is_none() {
            let client = &mut context.connection.client;
            let profiles = client.list_profiles(ListProfilesRequest {}).await.map_err(refused)?.into_inner().profiles;
            pieces = as_certified(pieces, &profiles);
        }
        let folder = Folder::prepare(&out, &pieces, self.force)?;
        let (mut files, mut certificates) = (Vec::new(), Vec::new());
        for piece in pieces {
            // A gateway's name towards controllers is its own alone.
            let sans = if piece.profile == CertificateProfile::GatewayLink { &[][..] } else { &self.sans };
            let request = IssueCertificateRequest {
                profile: piece.profile.into(),
                name: name.clone(),
                sans: sans.to_vec(),
                key_algorithm: piece.key.into(),
                validity_days: self.validity.unwrap_or(0),
                // The folder that this makes calls the controllers under that name.
                gateway: if piece.profile == CertificateProfile::Gateway { name.clone() } else { String::new() },
            };
            let mut response = issue(&mut context.connection, request).await?;
            certificates.push(Row::from(response.info.take().unwrap_or_default()));
            for file in folder.write(&piece, response)? {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        if matches!(profile, CertificateProfile::Gateway | CertificateProfile::Operator)
            && let Some(file) = folder.write_revoked(&context.connection.revoked)?
        {
            files.push(file);
        }
        if profile == CertificateProfile::Operator {
            files.push(folder.write_address(&context.connection.address)?);
        }
        let roles = match profile {
            CertificateProfile::Operator => operators::roles_of(&mut context.connection, &name).await,
            _ => None,
        };
        let issued = Issued { certificates, files, roles };
        context.printer.one(&issued, &issued.text(profile))
    }
}

impl Issued {
    fn text(&self, profile: CertificateProfile) -> String {
        let mut text = String::new();
        for row in &self.certificates {
            text += &format!(
                "issued {} certificate {}: {}, serial {}, valid until {}\n",
                row.profile, row.name, row.key, row.serial, row.not_after
            );
        }
        for file in &self.files {
            text += &format!("wrote {}\n", file.display());
        }
        if let (Some(roles), Some(row)) = (&self.roles, self.certificates.first()) {
            text += &roles.text(&row.name);
        }
        text + match profile {
            CertificateProfile::Machine | CertificateProfile::User => {
                "copy these files to the machine, then remove key.pem here: the controller kept no copy of it"
            }
            CertificateProfile::Gateway => "copy the folder to the gateway and name it there as `[gateway] identity`",
            _ => "use it with `--identity DIR`",
        }
    }
}

/// Has the controller make a key and a certificate.
pub(crate) async fn issue(
    connection: &mut Connection,
    request: IssueCertificateRequest,
) -> Result<IssueCertificateResponse> {
    Ok(connection.client.issue_certificate(request).await.map_err(refused)?.into_inner())
}

impl Subject {
    fn resolve(self) -> Result<(CertificateProfile, String)> {
        match self {
            Self { machine: Some(name), .. } => Ok((CertificateProfile::Machine, name)),
            Self { gateway: Some(name), .. } => Ok((CertificateProfile::Gateway, name)),
            Self { operator: Some(name), .. } => Ok((CertificateProfile::Operator, name)),
            Self { user: Some(name), .. } => Ok((CertificateProfile::User, name)),
            _ => Err(Error::usage("one of --machine, --gateway, --operator and --user is needed")),
        }
    }
}

/// What a folder is made of. A gateway answers clients with an RSA key and an ECDSA key, each in kind.
fn pieces(profile: CertificateProfile, key: Option<Key>) -> Vec<Piece> {
    let only = |key| vec![Piece { profile, key, files: ("key.pem", "cert.pem") }];
    match profile {
        CertificateProfile::Gateway => {
            let link = Piece {
                profile: CertificateProfile::GatewayLink,
                key: KeyAlgorithm::EcdsaP256,
                files: ("grpc.key", "grpc.pem"),
            };
            let ike = |key| {
                let files =
                    if is_rsa(key) { ("ike-rsa.key", "ike-rsa.pem") } else { ("ike-ecdsa.key", "ike-ecdsa.pem") };
                Piece { profile, key, files }
            };
            match key {
                Some(key) => vec![link, ike(key.into())],
                None => vec![link, ike(KeyAlgorithm::EcdsaP256), ike(KeyAlgorithm::Rsa2048)],
            }
        }
        CertificateProfile::Machine => only(key.map_or(KeyAlgorithm::Rsa2048, Into::into)),
        _ => only(key.map_or(KeyAlgorithm::EcdsaP256, Into::into)),
    }
}

/// Those pieces with kinds of key that their profiles certify: another one of the same sort where the usual one is not among them;
/// without any, the usual one, so that the controller says what is wrong.
fn as_certified(pieces: Vec<Piece>, profiles: &[v1::Profile]) -> Vec<Piece> {
    let certified = |piece: &Piece| {
        let name = names::profile(piece.profile);
        profiles.iter().find(|p| p.name == name).map(|p| p.keys().collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut fitting: Vec<Piece> = Vec::new();
    for piece in &pieces {
        let keys = certified(piece);
        let same_sort = |key: &&KeyAlgorithm| is_rsa(**key) == is_rsa(piece.key);
        if keys.contains(&piece.key) {
            fitting.push(*piece);
        } else if let Some(key) = keys.iter().find(same_sort) {
            fitting.push(Piece { key: *key, ..*piece });
        }
    }
    let complete = pieces.iter().all(|p| fitting.iter().any(|f| f.profile == p.profile));
    if complete { fitting } else { pieces }
}

const fn is_rsa(key: KeyAlgorithm) -> bool {
    matches!(key, KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_made_that_the_profile_does_not_certify_if_another_would_do() {
        let profile = |name: &str, keys: &[KeyAlgorithm]| v1::Profile {
            name: name.into(),
            keys: keys.iter().map(|key| (*key).into()).collect(),
            ..Default::default()
        };
        let p256 = KeyAlgorithm::EcdsaP256;
        let kinds = |gateway: &[KeyAlgorithm]| {
            let profiles = [profile("gateway", gateway), profile("gateway-link", &[p256])];
            let pieces = as_certified(pieces(CertificateProfile::Gateway, None), &profiles);
            pieces.iter().map(|p| p.key).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&[KeyAlgorithm::Rsa2048, p256]), [p256, p256, KeyAlgorithm::Rsa2048]);
        assert_eq!(kinds(&[p256]), [p256, p256], "and no pair for clients that want RSA");
        assert_eq!(kinds(&[KeyAlgorithm::Rsa4096]), [p256, KeyAlgorithm::Rsa4096]);
        let machine = pieces(CertificateProfile::Machine, None);
        let only = [profile("machine", &[p256])];
        assert_eq!(as_certified(machine, &only)[0].key, KeyAlgorithm::Rsa2048, "the controller says what to do");
    }

    #[test]
    fn a_gateway_has_a_pair_for_controllers_and_one_for_each_kind_of_client() {
        let names = |key| pieces(CertificateProfile::Gateway, key).iter().map(|p| p.files.1).collect::<Vec<_>>();
        assert_eq!(names(None), ["grpc.pem", "ike-ecdsa.pem", "ike-rsa.pem"]);
        assert_eq!(names(Some(Key::EcdsaP384)), ["grpc.pem", "ike-ecdsa.pem"]);
        assert_eq!(names(Some(Key::Rsa3072)), ["grpc.pem", "ike-rsa.pem"]);
        assert_eq!(pieces(CertificateProfile::Machine, None)[0].key, KeyAlgorithm::Rsa2048);
        assert_eq!(pieces(CertificateProfile::Operator, None)[0].key, KeyAlgorithm::EcdsaP256);
    }
}
