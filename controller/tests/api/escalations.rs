//! The escalations that are known of Active Directory Certificate Services (ESC1 to ESC16), each tried here on the real endpoint
//! and the real services. Each would succeed if the rule that stands in its way were not there.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sallyport_ca::seal::{SealKey, Sealed};
use sallyport_ca::verify::{CertPayload, IkeId, PeerRole, TrustStore, verify_peer};
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, Profile, Serial, Subject, SystemRandom, UnixTime};
use sallyport_controller::{Controller, Issued};
use sallyport_proto::v1;
use sallyport_proto::v1::operator_client::OperatorClient;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Channel;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::enrollment::{self, NAME, soon};
use crate::common::{self, Site, TestGateway, issue};

const MINE: &str = "laptop7.example.com";
const BOSS: &str = "boss.example.com";
const SIMPLE_ENROLL: &str = "/.well-known/est/simpleenroll";
const SIMPLE_REENROLL: &str = "/.well-known/est/simplereenroll";
/// Names of Microsoft, below 1.3.6.1.4.1.311: userPrincipalName, certificate request agent, application policies, what an enrollment
/// asks for by name and value, the security identifier.
const UPN: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
const REQUEST_AGENT: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 1];
const APPLICATION_POLICIES: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 21, 10];
const NAME_VALUE_PAIR: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 13, 2, 1];
const SECURITY_IDENTIFIER: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 25, 2];
/// certificatePolicies and subjectAltName.
const POLICIES: &[u64] = &[2, 5, 29, 32];
const ALT_NAME: &[u64] = &[2, 5, 29, 17];

/// A site with the endpoint, whose seal key the test knows: for what a thief of everything would have.
struct Estate {
    site: Site,
    seal: SealKey,
    operator: OperatorClient<Channel>,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// The certificate in it, the first of its list.
    fn certificate(&self) -> Vec<u8> {
        assert_eq!(self.status, 200, "{} {}", self.head, String::from_utf8_lossy(&self.body));
        sallyport_ca::est::parse_certificates(&self.body).expect("a list").swap_remove(0)
    }
}

/// How a machine shows a certificate of its own: the chain, and the key (PKCS #8).
type Shown<'a> = Option<(Vec<Vec<u8>>, &'a [u8])>;

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    fields: &str,
    csr: &[u8],
) -> std::io::Result<Answer> {
    let body = Base64::encode_string(csr);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Type: application/pkcs10\r\n{fields}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)? + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head, body: answer.split_off(end) })
}

impl Estate {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let seal = SealKey::generate(&SystemRandom::new()).expect("a key");
        // A bare seal key, as earlier versions had it, is taken over: so this test knows it.
        let path = dir.path().join("seal.key");
        std::fs::write(&path, seal.to_file().as_bytes()).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("closes");
        let running = Controller::start(enrollment::config(), dir.path()).await.expect("starts");
        let site = Site { dir, running };
        let operator = site.operator().await;
        Self { site, seal, operator }
    }

    async fn token(&mut self, name: &str) -> String {
        let request = v1::CreateEnrollTokenRequest { name: name.into(), ..Default::default() };
        let made = self.operator.create_enroll_token(request).await.expect("makes").into_inner();
        String::from_utf8(made.token.expect("a token").into_inner().to_vec()).expect("text")
    }

    async fn uses(&mut self) -> u32 {
        let listed = self.operator.list_enroll_tokens(v1::ListEnrollTokensRequest::default()).await.expect("lists");
        listed.into_inner().tokens.iter().map(|t| t.used).sum()
    }

    /// Over HTTPS, at the controller's own port.
    async fn post(&self, shown: &Shown<'_>, path: &str, fields: &str, csr: &[u8]) -> Answer {
        let [https, _] = self.site.running.enrollment_addresses().map(|address| address.expect("listens"));
        soon(async || {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(self.site.running.root_certificate())).expect("a root");
            let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots);
            let config = match shown {
                None => config.with_no_client_auth(),
                Some((chain, key)) => {
                    let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
                    let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
                    config.with_client_auth_cert(chain, key).expect("a pair")
                }
            };
            let stream = TcpStream::connect(https).await.expect("connects");
            let name = ServerName::try_from(NAME).expect("a name");
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
            exchange(stream, path, fields, csr).await.ok()
        })
        .await
    }

    /// Enrolls with a token.
    async fn enroll(&self, token: &str, csr: &[u8]) -> Answer {
        self.post(&None, SIMPLE_ENROLL, &basic(token), csr).await
    }

    /// What a gateway is told about whoever shows a certificate.
    async fn admit(
        &self,
        gateway: &mut TestGateway,
        serial: &str,
        fingerprint: &[u8],
        claims: &str,
    ) -> Result<String, String> {
        use v1::admit_peer_response::Decision;
        let request = v1::AdmitPeerRequest {
            member: Some(gateway.member),
            request_id: gateway.id(),
            certificate_serial: serial.into(),
            fingerprint: fingerprint.to_vec(),
            subject: format!("O=Sallyport, CN={claims}"),
            remote: "198.51.100.7:500".into(),
            claimed_identity: claims.into(),
            ..Default::default()
        };
        let answer = gateway.client.admit_peer(request).await.expect("an answer").into_inner();
        match answer.decision.expect("a decision") {
            Decision::Admitted(admitted) => Ok(admitted.name),
            Decision::Refused(refused) => Err(refused.cause),
        }
    }

    /// The issuing authority's key, as whoever has stolen everything has it.
    fn stolen(&self, chain: &[Vec<u8>]) -> Authority {
        let sealed = std::fs::read(self.site.dir.path().join("ca/issuing-1.key.sealed")).expect("the sealed key");
        Authority::open(&Sealed::from_bytes(sealed), &self.seal, &chain[0]).expect("opens")
    }

    /// Operators' calls with somebody else's certificate.
    async fn as_operator(&self, issued: &Issued) -> OperatorClient<Channel> {
        OperatorClient::new(self.site.channel(issued).await.expect("the chain is good"))
    }

    async fn end(self) {
        self.site.running.shutdown().await;
    }
}

fn basic(token: &str) -> String {
    format!("Authorization: Basic {}\r\n", Base64::encode_string(format!("me:{token}").as_bytes()))
}

/// A request as its author wants it, and its key.
fn request(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    request_with(change, Vec::new())
}

fn request_with(change: impl FnOnce(&mut CertificateParams), attributes: Vec<rcgen::Attribute>) -> Vec<u8> {
    request_of(&rcgen::KeyPair::generate().expect("a key"), change, attributes)
}

/// The same for a key that is there.
fn request_of(
    key: &rcgen::KeyPair,
    change: impl FnOnce(&mut CertificateParams),
    attributes: Vec<rcgen::Attribute>,
) -> Vec<u8> {
    let mut params = CertificateParams::new(vec![BOSS.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, BOSS);
    change(&mut params);
    let csr = params.serialize_request_with_attributes(key, attributes).expect("a request");
    csr.der().to_vec()
}

/// DER of an element.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    assert!(content.len() < 128);
    [&[tag, content.len() as u8][..], &content].concat()
}

fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, &[text.as_bytes()])
}

/// A machine's certificate for exactly this name, good for exactly what machines' are, and with nothing else in it.
fn is_plain(der: &[u8], name: &str) {
    let (rest, cert) = X509Certificate::from_der(der).expect("a certificate");
    assert!(rest.is_empty());
    let names: Vec<&str> = cert.subject().iter_common_name().map(|cn| cn.as_str().expect("text")).collect();
    assert_eq!(names, [name]);
    let mut found = 0;
    for extension in cert.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => assert_eq!(san.general_names, [GeneralName::DNSName(name)]),
            ParsedExtension::ExtendedKeyUsage(eku) => {
                let others: Vec<String> = eku.other.iter().map(|oid| oid.to_id_string()).collect();
                assert_eq!(others, ["1.3.6.1.5.5.8.2.2", "1.3.6.1.5.5.7.3.17"]);
                assert!(eku.client_auth && !eku.server_auth && !eku.any && !eku.code_signing && !eku.ocsp_signing);
            }
            ParsedExtension::BasicConstraints(constraints) => assert!(!constraints.ca),
            ParsedExtension::KeyUsage(usage) => assert!(!usage.key_cert_sign() && !usage.crl_sign()),
            ParsedExtension::AuthorityKeyIdentifier(_)
            | ParsedExtension::SubjectKeyIdentifier(_)
            | ParsedExtension::CRLDistributionPoints(_)
            | ParsedExtension::AuthorityInfoAccess(_) => continue,
            other => panic!("{} {other:?}", extension.oid),
        }
        found += 1;
    }
    assert_eq!(found, 4);
}

fn serial_and_fingerprint(der: &[u8]) -> (String, Vec<u8>) {
    let certificate = sallyport_ca::Certificate::from_der(der).expect("a certificate");
    (certificate.serial.to_string(), certificate.fingerprint.0.to_vec())
}

/// The requester chooses the subject: CT_FLAG_ENROLLEE_SUPPLIES_SUBJECT.
#[tokio::test(flavor = "multi_thread")]
async fn esc1_a_request_that_names_somebody_else_gets_its_own_name() {
    let mut estate = Estate::new().await;
    let mut gateway = estate.site.gateway("gw1").await;
    let token = estate.token(MINE).await;
    let csr = request(|params| {
        let upn = rcgen::string::Ia5String::try_from("boss@example.com").expect("a mailbox");
        params.subject_alt_names.push(SanType::OtherName((UPN.to_vec(), "boss@example.com".into())));
        params.subject_alt_names.push(SanType::Rfc822Name(upn));
        params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 1].into()));
        params.subject_alt_names.push(SanType::DnsName(NAME.try_into().expect("a name")));
    });
    let certificate = estate.enroll(&token, &csr).await.certificate();
    is_plain(&certificate, MINE);
    let (serial, fingerprint) = serial_and_fingerprint(&certificate);
    assert_eq!(estate.admit(&mut gateway, &serial, &fingerprint, BOSS).await.as_deref(), Ok(MINE));
    // Nor by a second request with the first certificate's proof: the name is bound to the token.
    assert_eq!(estate.enroll(&token, &request(|_| ())).await.status, 401);
    estate.end().await;
}

/// A template for any purpose, or with none named; and a subordinate authority.
#[tokio::test(flavor = "multi_thread")]
async fn esc2_no_certificate_is_good_for_any_purpose_or_makes_an_authority() {
    let mut estate = Estate::new().await;
    // The template itself: an operator writes usages and an authority into it, as far as the contract has words for that.
    let profiles =
        estate.operator.list_profiles(v1::ListProfilesRequest {}).await.expect("lists").into_inner().profiles;
    let machine = profiles.into_iter().find(|p| p.name == "machine").expect("there");
    let any = ["anyExtendedKeyUsage".into(), "2.5.29.37.0".into()];
    for usages in [any.to_vec(), [machine.extended_key_usages.as_slice(), &any].concat()] {
        let profile = Some(v1::Profile { extended_key_usages: usages, ..machine.clone() });
        let refused = estate.operator.set_profile(v1::SetProfileRequest { profile }).await.expect_err("fixed");
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains("fixed"), "{refused}");
    }
    // What was read can be written, with the usages that it came with.
    let same = v1::SetProfileRequest { profile: Some(machine.clone()) };
    let set = estate.operator.set_profile(same).await.expect("sets").into_inner().profile.expect("a profile");
    assert_eq!(set.extended_key_usages, machine.extended_key_usages);
    let token = estate.token(MINE).await;
    let csr = request(|params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any, ExtendedKeyUsagePurpose::ServerAuth];
    });
    is_plain(&estate.enroll(&token, &csr).await.certificate(), MINE);
    estate.end().await;
}

/// An enrollment agent: a certificate with which somebody enrolls in the name of others.
#[tokio::test(flavor = "multi_thread")]
async fn esc3_nobody_enrolls_on_behalf_of_another() {
    let mut estate = Estate::new().await;
    let token = estate.token(MINE).await;
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key");
    // The agent's usage is not to be had, nor that of the endpoint, with which one would be sent tokens.
    let agent = request(|params| {
        let cmc_ra = vec![1, 3, 6, 1, 5, 5, 7, 3, 28];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::Other(REQUEST_AGENT.to_vec()), ExtendedKeyUsagePurpose::Other(cmc_ra)];
    });
    is_plain(&estate.enroll(&token, &agent).await.certificate(), MINE);
    // A machine that renews, and names another, renews itself.
    let token = estate.token(MINE).await;
    let own = key.request(MINE, None, &SystemRandom::new()).expect("a request");
    let certificate = estate.enroll(&token, &own).await.certificate();
    let shown = Some((vec![certificate], key.pkcs8_der()));
    let renewed = estate.post(&shown, SIMPLE_REENROLL, "", &request(|_| ())).await;
    is_plain(&renewed.certificate(), MINE);
    // Those who serve others have certificates that enroll nobody.
    for profile in [Profile::Gateway, Profile::GatewayLink, Profile::Operator] {
        let issued = issue(&estate.site.running, profile, "gw1.example.com").await;
        let shown = Some((vec![issued.certificate.clone()], issued.private_key.as_slice()));
        for path in [SIMPLE_REENROLL, SIMPLE_ENROLL] {
            let answer = estate.post(&shown, path, "", &request(|_| ())).await;
            assert!([401, 403, 202].contains(&answer.status), "{profile} {path}: {}", answer.head);
            assert!(path == SIMPLE_ENROLL || answer.status != 202, "{profile}");
        }
    }
    assert_eq!(estate.post(&shown, "/.well-known/est/fullcmc", "", &own).await.status, 404, "CMC has such requests");
    estate.end().await;
}

/// Who may edit a template makes it his own.
#[tokio::test(flavor = "multi_thread")]
async fn esc4_profiles_are_edited_by_operators_only_and_by_none_unseen() {
    let mut estate = Estate::new().await;
    let profiles =
        estate.operator.list_profiles(v1::ListProfilesRequest {}).await.expect("lists").into_inner().profiles;
    let before = profiles.iter().find(|p| p.name == "machine").expect("there").clone();
    let wide = v1::Profile { validity_s: before.max_validity_s, server_keys: true, ..before.clone() };
    let set = v1::SetProfileRequest { profile: Some(wide.clone()) };
    let (gateway, link) = ("vpn9.example.com", "gw9.example.com");
    for (profile, name) in [(Profile::Machine, MINE), (Profile::Gateway, gateway), (Profile::GatewayLink, link)] {
        let issued = issue(&estate.site.running, profile, name).await;
        // An IKE certificate does not even open a connection.
        let Ok(channel) = estate.site.channel(&issued).await else { continue };
        let refused = OperatorClient::new(channel).set_profile(set.clone()).await.expect_err("is refused");
        assert_ne!(refused.code(), Code::Ok, "{profile}: {refused}");
    }
    let profiles =
        estate.operator.list_profiles(v1::ListProfilesRequest {}).await.expect("lists").into_inner().profiles;
    assert!(profiles.contains(&before), "{profiles:?}");
    // Of two who edit at a time, the second is told that what he looked at has changed.
    estate.operator.set_profile(set.clone()).await.expect("sets");
    assert_eq!(estate.operator.set_profile(set).await.expect_err("stale").code(), Code::Aborted);
    estate.end().await;
}

/// Who may change the authority's objects owns it.
#[tokio::test(flavor = "multi_thread")]
async fn esc5_authorities_settings_and_members_are_out_of_reach_for_whoever_is_no_operator() {
    let estate = Estate::new().await;
    let link = issue(&estate.site.running, Profile::GatewayLink, "gw1").await;
    let mut gateway = estate.as_operator(&link).await;
    let add =
        v1::AddIssuerRequest { key_algorithm: v1::KeyAlgorithm::EcdsaP384.into(), replace: true, ..Default::default() };
    let settings = v1::UpdateSettingsRequest { settings: Some(v1::Settings::default()) };
    let codes = [
        gateway.add_issuer(add).await.map(drop),
        gateway.retire_issuer(v1::RetireIssuerRequest { number: 1, compromised: true }).await.map(drop),
        gateway.update_settings(settings).await.map(drop),
        gateway.create_cluster_token(v1::CreateClusterTokenRequest::default()).await.map(drop),
        gateway
            .create_enroll_token(v1::CreateEnrollTokenRequest { name: BOSS.into(), ..Default::default() })
            .await
            .map(drop),
        gateway.create_backup(v1::CreateBackupRequest { public_key: vec![9; 32] }).await.map(drop),
    ];
    for code in codes {
        assert_eq!(code.expect_err("is refused").code(), Code::PermissionDenied);
    }
    // An operator changes the state by the services only, and never as if he were a controller.
    let olga = issue(&estate.site.running, Profile::Operator, "olga").await;
    for issued in [&link, &olga] {
        let channel = estate.site.channel(issued).await.expect("connects");
        let mut peer = v1::peer_client::PeerClient::new(channel);
        let refused =
            peer.propose(v1::ProposeRequest { target: 1, ..Default::default() }).await.expect_err("is refused");
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    estate.end().await;
}

/// EDITF_ATTRIBUTESUBJECTALTNAME2: names in an attribute of the request, or beside it.
#[tokio::test(flavor = "multi_thread")]
async fn esc6_names_in_attributes_headers_and_queries_are_not_heard() {
    let mut estate = Estate::new().await;
    let san = format!("dns={BOSS}&upn=boss@example.com");
    let pair = tlv(0x30, &[&utf8("SAN"), &utf8(&san)]);
    let attributes = vec![rcgen::Attribute { oid: NAME_VALUE_PAIR, values: tlv(0x31, &[&pair]) }];
    let token = estate.token(MINE).await;
    is_plain(&estate.enroll(&token, &request_with(|_| (), attributes)).await.certificate(), MINE);
    let token = estate.token(MINE).await;
    let fields = format!("{}san: {san}\r\nattributes: SAN:{san}\r\n", basic(&token));
    is_plain(&estate.post(&None, SIMPLE_ENROLL, &fields, &request(|_| ())).await.certificate(), MINE);
    let token = estate.token(MINE).await;
    let path = format!("{SIMPLE_ENROLL}?attrib=SAN:{san}&name={BOSS}");
    let answer = estate.post(&None, &path, &basic(&token), &request(|_| ())).await;
    is_plain(&answer.certificate(), MINE);
    // A label of the path chooses no other profile either.
    let token = estate.token(MINE).await;
    let answer = estate.post(&None, "/.well-known/est/operator/simpleenroll", &basic(&token), &request(|_| ())).await;
    is_plain(&answer.certificate(), MINE);
    estate.end().await;
}

/// ManageCA and ManageCertificates: who may approve a request that was refused or waits.
#[tokio::test(flavor = "multi_thread")]
async fn esc7_whoever_asks_cannot_approve_and_a_refusal_stays() {
    let mut estate = Estate::new().await;
    let (key, other) = (rcgen::KeyPair::generate().expect("a key"), rcgen::KeyPair::generate().expect("a key"));
    let csr = |key: &rcgen::KeyPair, name: &str| {
        let named = |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name"))];
        };
        request_of(key, named, Vec::new())
    };
    // Without a token, and it says so.
    let fields = basic("");
    let post = async |estate: &Estate, csr: Vec<u8>| estate.post(&None, SIMPLE_ENROLL, &fields, &csr).await.status;
    let ask = async |estate: &Estate| post(estate, csr(&key, BOSS)).await;
    assert_eq!(ask(&estate).await, 202);
    let waiting = estate.operator.list_requests(v1::ListRequestsRequest::default()).await.expect("lists").into_inner();
    let number = waiting.requests[0].number;
    let approve =
        v1::DecideRequestRequest { number, approve: true, name: BOSS.into(), sans: Vec::new(), holder: String::new() };
    let link = issue(&estate.site.running, Profile::GatewayLink, "gw1").await;
    let refused = estate.as_operator(&link).await.decide_request(approve.clone()).await.expect_err("is refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(ask(&estate).await, 202, "it waits as before");
    estate.operator.decide_request(v1::DecideRequestRequest { approve: false, ..approve }).await.expect("refuses");
    assert_eq!(ask(&estate).await, 403);
    // With another name on the same key, too: what was decided on is the key. Another key with the same name is another request.
    assert_eq!(post(&estate, csr(&key, MINE)).await, 403);
    assert_eq!(post(&estate, csr(&other, BOSS)).await, 202);
    estate.end().await;
}

/// A relay of NTLM to web enrollment over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn esc8_there_is_no_ntlm_and_no_enrollment_over_plain_http() {
    let mut estate = Estate::new().await;
    let token = estate.token(MINE).await;
    let csr = request(|_| ());
    let [_, http] = estate.site.running.enrollment_addresses().map(|address| address.expect("listens"));
    for path in [SIMPLE_ENROLL, "/.well-known/est/serverkeygen", "/certsrv/certfnsh.asp"] {
        let fields = basic(&token);
        let answer = soon(async || {
            let stream = TcpStream::connect(http).await.ok()?;
            exchange(stream, path, &fields, &csr).await.ok()
        })
        .await;
        assert!([403, 404].contains(&answer.status), "{path}: {}", answer.head);
    }
    for scheme in
        ["NTLM TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAKAGFKAAAADw==", "Negotiate YIIFzQYGKwYBBQUCoIIFwTCC"]
    {
        let answer = estate.post(&None, SIMPLE_ENROLL, &format!("Authorization: {scheme}\r\n"), &csr).await;
        assert!([400, 401].contains(&answer.status), "{scheme}: {}", answer.head);
        assert!(!answer.head.contains("ntlm") && !answer.head.contains("negotiate"), "{}", answer.head);
    }
    let answer = estate.enroll("spt1.bm9uZQ", &csr).await;
    assert_eq!(answer.status, 401);
    assert!(answer.head.contains("www-authenticate: basic realm="), "{}", answer.head);
    assert_eq!(estate.uses().await, 0, "the token is as good as before");
    is_plain(&estate.enroll(&token, &csr).await.certificate(), MINE);
    estate.end().await;
}

/// No security extension, or a weak mapping: the gateway takes the account from a name in the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn esc9_what_a_certificate_says_of_its_owner_counts_for_nothing_at_the_gateway() {
    let estate = Estate::new().await;
    let mut gateway = estate.site.gateway("gw1").await;
    let (boss, mine) = (
        issue(&estate.site.running, Profile::Machine, BOSS).await,
        issue(&estate.site.running, Profile::Machine, MINE).await,
    );
    let (record, other) = (&mine.record, &boss.record);
    for claims in [BOSS, "", "*", "boss.example.com\0.example.org"] {
        let admitted = estate.admit(&mut gateway, &record.serial, &record.fingerprint, claims).await;
        assert_eq!(admitted.as_deref(), Ok(MINE), "{claims:?}");
    }
    assert_eq!(estate.admit(&mut gateway, &other.serial, &other.fingerprint, MINE).await.as_deref(), Ok(BOSS));
    estate.end().await;
}

/// Weak mapping in the other direction: one field of a certificate is right, the rest is not.
#[tokio::test(flavor = "multi_thread")]
async fn esc10_a_serial_number_is_nobodys_without_the_whole_certificate() {
    let estate = Estate::new().await;
    let mut gateway = estate.site.gateway("gw1").await;
    let boss = issue(&estate.site.running, Profile::Machine, BOSS).await;
    let record = &boss.record;
    // Another certificate of the authority's stolen key, with the boss's serial number and name.
    let (key, rng) =
        (KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key"), SystemRandom::new());
    let subject = Subject::new(BOSS, Vec::new()).expect("a name");
    let serial: Serial = record.serial.parse().expect("a serial number");
    let now = UnixTime(record.issued_ms as i64 / 1_000);
    let stolen = estate.stolen(&boss.chain);
    let twin = stolen.issue(Profile::Machine, &subject, &key.public_key(), now, serial, &rng).expect("signs");
    let (serial, fingerprint) = serial_and_fingerprint(twin.der());
    assert_eq!(serial, record.serial);
    let cause = estate.admit(&mut gateway, &serial, &fingerprint, BOSS).await.expect_err("is refused");
    assert!(cause.contains("it is not the one that this authority issued under it"), "{cause}");
    assert_eq!(estate.admit(&mut gateway, &serial, &record.fingerprint, BOSS).await.as_deref(), Ok(BOSS));
    estate.end().await;
}

/// Enrollment over RPC without protection of the messages.
#[tokio::test(flavor = "multi_thread")]
async fn esc11_the_services_talk_to_nobody_in_the_clear_or_without_a_certificate() {
    let estate = Estate::new().await;
    let address = estate.site.running.grpc_address();
    let wanted = v1::IssueCertificateRequest {
        profile: v1::CertificateProfile::Machine.into(),
        name: BOSS.into(),
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        ..Default::default()
    };
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    if let Ok(channel) = plain.connect().await {
        OperatorClient::new(channel).issue_certificate(wanted.clone()).await.expect_err("in the clear");
    }
    let tls = common::tls(&estate.site.running.root_certificate(), None);
    if let Ok(channel) = common::connect(address, tls).await {
        let refused = OperatorClient::new(channel).issue_certificate(wanted).await.expect_err("by nobody");
        assert_ne!(refused.code(), Code::Ok);
    }
    let mut operator = estate.operator.clone();
    let request = v1::ListCertificatesRequest { name_contains: BOSS.into(), ..Default::default() };
    assert!(operator.list_certificates(request).await.expect("lists").into_inner().certificates.is_empty());
    estate.end().await;
}

/// Whoever has a shell on the authority's machine reads its key.
#[tokio::test(flavor = "multi_thread")]
async fn esc12_the_authoritys_files_alone_open_no_key() {
    let estate = Estate::new().await;
    let issued = issue(&estate.site.running, Profile::Machine, MINE).await;
    let sealed = std::fs::read(estate.site.dir.path().join("ca/issuing-1.key.sealed")).expect("the sealed key");
    let opened = KeyPair::from_pkcs8_der(&sealed).is_ok() || KeyPair::from_pem(&sealed).is_ok();
    assert!(!opened);
    let guessed = SealKey::generate(&SystemRandom::new()).expect("a key");
    assert!(Authority::open(&Sealed::from_bytes(sealed.clone()), &guessed, &issued.chain[0]).is_err());
    assert!(Authority::open(&Sealed::from_bytes(sealed), &estate.seal, &issued.chain[0]).is_ok(), "it is that key");
    estate.end().await;
}

/// A right that is granted by an identifier in the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn esc13_rights_are_in_the_records_and_end_at_once() {
    let mut estate = Estate::new().await;
    let token = estate.token(MINE).await;
    // certificatePolicies with a group's identifier.
    let policy = tlv(0x30, &[&tlv(0x30, &[&tlv(6, &[&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 21, 8, 1]])])]);
    let csr = request(|params| params.custom_extensions = vec![CustomExtension::from_oid_content(POLICIES, policy)]);
    is_plain(&estate.enroll(&token, &csr).await.certificate(), MINE);
    // The right of an operator is not in her certificate: it ends while her connection is open.
    let olga = issue(&estate.site.running, Profile::Operator, "olga").await;
    let mut client = estate.as_operator(&olga).await;
    client.get_status(v1::GetStatusRequest {}).await.expect("she may");
    let revoke = v1::RevokeCertificateRequest { serial: olga.record.serial.clone(), reason: "left".into() };
    estate.operator.revoke_certificate(revoke).await.expect("revokes");
    let refused = client.get_status(v1::GetStatusRequest {}).await.expect_err("she may no more");
    assert_eq!(refused.code(), Code::Unauthenticated);
    estate.end().await;
}

/// Explicit mapping by issuer and subject, which another certificate of the same authority has, too.
#[tokio::test(flavor = "multi_thread")]
async fn esc14_the_same_issuer_and_subject_are_not_the_same_machine() {
    let estate = Estate::new().await;
    let mut gateway = estate.site.gateway("gw1").await;
    let first = issue(&estate.site.running, Profile::Machine, BOSS).await;
    let second = issue(&estate.site.running, Profile::Machine, BOSS).await;
    assert_eq!(first.record.name, second.record.name);
    let revoke = v1::RevokeCertificateRequest { serial: first.record.serial.clone(), reason: "stolen".into() };
    estate.operator.clone().revoke_certificate(revoke).await.expect("revokes");
    for record in [&first.record, &second.record] {
        // Issuer and subject are those of a certificate that is good or was: neither lets in.
        let refused = estate.admit(&mut gateway, &record.serial, &record.fingerprint, BOSS).await;
        assert!(refused.expect_err("is refused").contains("revoked"), "both are the machine's");
    }
    let stolen = estate.stolen(&first.chain);
    let (rng, key) =
        (SystemRandom::new(), KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key"));
    let subject = Subject::new(BOSS, Vec::new()).expect("a name");
    let now = UnixTime(first.record.issued_ms as i64 / 1_000);
    let serial = Serial::generate(&rng).expect("random");
    let third = stolen.issue(Profile::Machine, &subject, &key.public_key(), now, serial, &rng).expect("signs");
    let (serial, fingerprint) = serial_and_fingerprint(third.der());
    let cause = estate.admit(&mut gateway, &serial, &fingerprint, BOSS).await.expect_err("is refused");
    assert!(cause.contains("holds no certificate"), "{cause}");
    estate.end().await;
}

/// EKUwu: application policies of the request, which outrank the template's usages.
#[tokio::test(flavor = "multi_thread")]
async fn esc15_application_policies_of_a_request_are_not_heard() {
    let mut estate = Estate::new().await;
    let token = estate.token(MINE).await;
    let policy = |oid: &[u8]| tlv(0x30, &[&tlv(6, &[oid])]);
    // Client authentication, and the enrollment agent's.
    let agent = [0x2b, 6, 1, 4, 1, 0x82, 0x37, 20, 2, 1];
    let policies = tlv(0x30, &[&policy(&[0x2b, 6, 1, 5, 5, 7, 3, 2]), &policy(&agent)]);
    let csr = request(|params| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(APPLICATION_POLICIES, policies)]
    });
    is_plain(&estate.enroll(&token, &csr).await.certificate(), MINE);
    estate.end().await;
}

/// The security extension is off for the whole authority, so that names count again.
#[tokio::test(flavor = "multi_thread")]
async fn esc16_no_extension_decides_who_somebody_is() {
    let mut estate = Estate::new().await;
    let mut gateway = estate.site.gateway("gw1").await;
    let token = estate.token(MINE).await;
    // The boss's security identifier, asked for; and a second extension with alternative names.
    let sid = tlv(0x30, &[&tlv(4, &[b"S-1-5-21-1-2-3-500"])]);
    let names = tlv(0x30, &[&tlv(0x82, &[BOSS.as_bytes()])]);
    let csr = request(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(SECURITY_IDENTIFIER, sid),
            CustomExtension::from_oid_content(ALT_NAME, names),
        ];
    });
    let certificate = estate.enroll(&token, &csr).await.certificate();
    is_plain(&certificate, MINE);
    let (serial, fingerprint) = serial_and_fingerprint(&certificate);
    assert_eq!(estate.admit(&mut gateway, &serial, &fingerprint, BOSS).await.as_deref(), Ok(MINE));
    // Usages that are good in IKE make no machine of a gateway: its record says what it is.
    let ike = issue(&estate.site.running, Profile::Gateway, BOSS).await;
    let cause =
        estate.admit(&mut gateway, &ike.record.serial, &ike.record.fingerprint, BOSS).await.expect_err("refused");
    assert!(cause.contains("not a machine's"), "{cause}");
    estate.end().await;
}

/// Not of that table, but of the same house: a token is tried until one fits.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_tokens_waits_longer_each_time() {
    let mut estate = Estate::new().await;
    estate.token(MINE).await;
    let csr = request(|_| ());
    let root = sallyport_ca::Fingerprint::of(&estate.site.running.root_certificate()).0;
    // The pause doubles with each wrong one: on a machine that is ever so slow it is longer than the way here.
    let mut answers = Vec::new();
    while !answers.contains(&429) && answers.len() < 12 {
        let guess = sallyport_ca::EnrollToken::generate(root, NAME, &SystemRandom::new()).expect("a guess");
        answers.push(estate.enroll(&guess.to_text(), &csr).await.status);
    }
    assert!(answers.len() > 1 && answers.ends_with(&[401, 429]), "{answers:?}");
    assert_eq!(estate.uses().await, 0);
    estate.end().await;
}

/// The issuing key itself is stolen, and mints what it likes.
#[tokio::test(flavor = "multi_thread")]
async fn golden_certificate_what_the_log_never_issued_opens_nothing() {
    let estate = Estate::new().await;
    let mut gateway = estate.site.gateway("gw1").await;
    let boss = issue(&estate.site.running, Profile::Machine, BOSS).await;
    let stolen = estate.stolen(&boss.chain);
    let rng = SystemRandom::new();
    let now = UnixTime(boss.record.issued_ms as i64 / 1_000);
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
    let mint = |profile: Profile| {
        let subject = Subject::new(BOSS, Vec::new()).expect("a name");
        let serial = Serial::generate(&rng).expect("random");
        stolen.issue(profile, &subject, &key.public_key(), now, serial, &rng).expect("signs")
    };
    let golden = mint(Profile::Machine);
    // It is perfect: whoever asks the chain alone lets it in.
    let mut trust = TrustStore::new();
    trust.add_anchor_der(&estate.site.running.root_certificate()).expect("an anchor");
    trust.add_intermediate_der(&boss.chain[0]).expect("an issuing authority");
    let received = [CertPayload { encoding: 4, data: golden.der() }];
    let id = IkeId { id_type: 2, data: BOSS.as_bytes() };
    verify_peer(&trust, &received, Some(id), PeerRole::Machine, now).expect("verifies");
    let (serial, fingerprint) = serial_and_fingerprint(golden.der());
    let cause = estate.admit(&mut gateway, &serial, &fingerprint, BOSS).await.expect_err("is refused");
    assert!(cause.contains("the log of this authority holds no certificate"), "{cause}");
    // It does not become a real one by a renewal.
    let shown = Some((vec![golden.der().to_vec(), boss.chain[0].clone()], key.pkcs8_der()));
    let answer = estate.post(&shown, SIMPLE_REENROLL, "", &request(|_| ())).await;
    assert_eq!(answer.status, 401, "{}", answer.head);
    // And those of operators, gateways and controllers open no service.
    for profile in [Profile::Operator, Profile::GatewayLink, Profile::Controller] {
        let golden = mint(profile);
        let shown = common::shown(golden.der(), &boss.chain);
        let tls = common::tls(&estate.site.running.root_certificate(), Some((&shown, key.pkcs8_der())));
        let channel = common::connect(estate.site.running.grpc_address(), tls).await.expect("the chain is good");
        let refused = OperatorClient::new(channel).get_status(v1::GetStatusRequest {}).await.expect_err("is refused");
        assert!([Code::Unauthenticated, Code::PermissionDenied].contains(&refused.code()), "{profile}: {refused}");
    }
    estate.end().await;
}
