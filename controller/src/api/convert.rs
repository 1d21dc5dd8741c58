//! Between the contract's messages and the state's rows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sallyport_ca::{KeyAlgorithm, Profile};
use sallyport_crypto::proposal;
use sallyport_proto::v1;
use tonic::Status;

use crate::state::net::Net;
use crate::state::{
    CertificateRow, EndedCertificate, PoolRow, SettingsRow, State, UserRow, public_names, publication_name,
};

/// Entries of a page when nothing is asked for, and at most.
const PAGE: (usize, usize) = (100, 1_000);

/// Most proposals of IKE, and of ESP: more than there are.
const MAX_PROPOSALS: usize = 128;

/// Shortest time after which a gateway that hears of no revocations lets nobody in, seconds: a controller that starts anew takes some.
const SHORTEST_STALE_S: u32 = 30;

/// How many entries a page holds.
pub(super) fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE.0,
        n => n.min(PAGE.1),
    }
}

/// One page of `items`, and the token of the next: the key of its last item.
pub(super) fn page<T>(items: impl Iterator<Item = T>, size: u32, key: impl FnOnce(&T) -> String) -> (Vec<T>, String) {
    let size = page_size(size);
    let mut page: Vec<T> = items.take(size + 1).collect();
    let more = page.len() > size;
    page.truncate(size);
    let token = page.last().filter(|_| more).map(key).unwrap_or_default();
    (page, token)
}

/// A token that is a number; empty is none.
pub(super) fn number_token(token: &str, radix: u32) -> Result<Option<u64>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    u64::from_str_radix(token, radix)
        .map(Some)
        .map_err(|_| Status::invalid_argument("page_token is not one that this controller gave"))
}

/// An address that is not 0.0.0.0; that is how "none" is stored.
fn address_text(address: u32) -> String {
    if address == 0 { String::new() } else { Ipv4Addr::from(address).to_string() }
}

/// An IPv4 address; empty is none.
pub(super) fn address(text: &str, field: &str) -> Result<u32, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<Ipv4Addr>()
        .map(u32::from)
        .map_err(|_| Status::invalid_argument(format!("{field}: {text:?} is not an IPv4 address")))
}

/// IPv4 addresses, at most `max`.
pub(super) fn addresses(texts: &[String], field: &str, max: usize) -> Result<Vec<u32>, Status> {
    if texts.len() > max {
        return Err(Status::invalid_argument(format!("{field}: at most {max}")));
    }
    let some = |text: &String| match address(text, field)? {
        0 => Err(Status::invalid_argument(format!("{field}: an empty address"))),
        a => Ok(a),
    };
    texts.iter().map(some).collect()
}

/// Networks, at most `max`.
pub(super) fn networks(texts: &[String], field: &str, max: usize) -> Result<Vec<Net>, Status> {
    if texts.len() > max {
        return Err(Status::invalid_argument(format!("{field}: at most {max}")));
    }
    let net = |text: &String| text.parse().map_err(|e| Status::invalid_argument(format!("{field}: {e}")));
    texts.iter().map(net).collect()
}

/// The address in `192.0.2.1:4500`, `[2001:db8::1]:4500` or an address alone.
pub(super) fn source(remote: &str) -> Option<IpAddr> {
    remote.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| remote.parse()).ok()
}

/// A session id as text.
pub(super) fn session_text(id: u64) -> String {
    format!("{id:016x}")
}

/// A session id from text.
pub(super) fn session_id(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// A user without secrets.
pub(super) fn user(state: &State, key: &str, row: &UserRow) -> v1::User {
    v1::User {
        name: row.name.clone(),
        enabled: row.enabled,
        pool: row.pool.clone(),
        address: address_text(row.address),
        max_sessions: row.max_sessions,
        created_unix_ms: row.created_ms,
        password_set_unix_ms: row.password_set_ms,
        chap_md5_possible: row.credentials.as_ref().is_some_and(|c| !c.sealed_password.is_empty()),
        live_sessions: u32::try_from(state.sessions_of_user(key)).unwrap_or(u32::MAX),
        comment: row.comment.clone(),
    }
}

fn texts(addresses: &[u32]) -> Vec<String> {
    addresses.iter().map(|a| address_text(*a)).collect()
}

/// A pool with its use.
pub(super) fn pool_info(state: &State, name: &str, row: &PoolRow) -> v1::PoolInfo {
    let (size, used) = state.pool_use(name);
    v1::PoolInfo {
        name: name.to_owned(),
        networks: row.networks.iter().map(ToString::to_string).collect(),
        router: address_text(row.router),
        dns: texts(&row.dns),
        nbns: texts(&row.nbns),
        excluded: row.excluded.iter().map(ToString::to_string).collect(),
        size,
        used,
    }
}

/// A pool as gateways see it.
pub(super) fn pool(name: &str, row: &PoolRow) -> v1::Pool {
    v1::Pool {
        name: name.to_owned(),
        networks: row.networks.iter().map(ToString::to_string).collect(),
        router: address_text(row.router),
    }
}

/// A certificate record.
pub(super) fn certificate(row: &CertificateRow) -> v1::CertificateInfo {
    v1::CertificateInfo {
        serial: row.serial.clone(),
        profile: row.profile,
        name: row.name.clone(),
        sans: row.sans.clone(),
        not_before_unix_ms: row.not_before_ms,
        not_after_unix_ms: row.not_after_ms,
        fingerprint: row.fingerprint.clone(),
        revoked_unix_ms: row.revoked_ms,
        revocation_reason: row.revocation_reason.clone(),
        key_algorithm: row.key_algorithm,
        issued_unix_ms: row.issued_ms,
        issuer: row.issuer,
        revocation_code: i32::try_from(row.revocation_code).unwrap_or_default(),
        compacted: false,
    }
}

/// What is left of the record of a certificate that ended long ago.
pub(super) fn ended_certificate(serial: String, old: &EndedCertificate<'_>) -> v1::CertificateInfo {
    v1::CertificateInfo {
        serial,
        profile: old.profile.into(),
        name: old.name.to_owned(),
        not_after_unix_ms: old.not_after_ms,
        fingerprint: old.tag.to_vec(),
        revoked_unix_ms: old.revoked_ms,
        key_algorithm: old.key_algorithm.into(),
        issued_unix_ms: old.issued_ms,
        issuer: old.issuer,
        revocation_code: old.reason.code().into(),
        compacted: true,
        ..v1::CertificateInfo::default()
    }
}

/// The profile to issue from.
pub(super) fn profile(asked: v1::CertificateProfile) -> Result<Profile, Status> {
    use v1::CertificateProfile as P;
    match asked {
        P::Machine => Ok(Profile::Machine),
        P::Gateway => Ok(Profile::Gateway),
        P::GatewayLink => Ok(Profile::GatewayLink),
        P::Operator => Ok(Profile::Operator),
        P::User => Ok(Profile::User),
        P::Unspecified => {
            Err(Status::invalid_argument("profile: say machine, gateway, gateway-link, operator or user"))
        }
        P::Controller | P::Endpoint | P::Root | P::Issuing | P::OcspSigner | P::ScepRa => Err(
            Status::invalid_argument("profile: certificates of controllers and authorities are not issued by request"),
        ),
    }
}

/// The kind of key to make. Built-in clients of Windows, macOS and Android need RSA; the rest take the smaller kind.
pub(super) const fn key_algorithm(asked: v1::KeyAlgorithm, profile: Profile) -> KeyAlgorithm {
    match asked {
        v1::KeyAlgorithm::Unspecified => match profile {
            Profile::Machine | Profile::Gateway => KeyAlgorithm::Rsa2048,
            _ => KeyAlgorithm::EcdsaP256,
        },
        v1::KeyAlgorithm::EcdsaP256 => KeyAlgorithm::EcdsaP256,
        v1::KeyAlgorithm::EcdsaP384 => KeyAlgorithm::EcdsaP384,
        v1::KeyAlgorithm::Rsa2048 => KeyAlgorithm::Rsa2048,
        v1::KeyAlgorithm::Rsa3072 => KeyAlgorithm::Rsa3072,
        v1::KeyAlgorithm::Rsa4096 => KeyAlgorithm::Rsa4096,
    }
}

/// The settings as operators see them.
pub(super) fn settings(state: &State) -> v1::Settings {
    let row = state.settings();
    let psk = state.sealed_psk();
    v1::Settings {
        version: row.version,
        auth_methods: row.auth_methods,
        store_chap_secrets: row.store_chap_secrets,
        ike: Some(row.ike.unwrap_or_default()),
        ppp: Some(row.ppp.unwrap_or_default()),
        idle_timeout_s: row.idle_timeout_s,
        session_timeout_s: row.session_timeout_s,
        max_sessions_per_user: row.max_sessions_per_user,
        lockout_failures: row.lockout_failures,
        lockout_s: row.lockout_s,
        psk_set: psk.is_some(),
        psk_set_unix_ms: psk.map_or(0, |(_, at)| at),
        audit_keep: row.audit_keep,
        hold_upgrade: row.hold_upgrade,
        max_stale_s: row.max_stale_s,
        fail_closed: row.fail_closed,
        scep: row.scep,
        scep_single_des: row.scep_single_des,
        public_names: row.public_names,
        publication_name: row.publication_name,
        delta_crl: row.delta_crl,
    }
}

/// Settings to store, checked.
pub(super) fn settings_row(settings: v1::Settings) -> Result<SettingsRow, Status> {
    let bad = |text: &str| Err(Status::invalid_argument(text.to_owned()));
    if settings.auth_methods.is_empty() {
        return bad("auth_methods: allow at least one protocol");
    }
    for (i, method) in settings.auth_methods.iter().enumerate() {
        let known = v1::AuthMethod::try_from(*method).is_ok_and(|m| m != v1::AuthMethod::Unspecified);
        if !known || settings.auth_methods.iter().take(i).any(|m| m == method) {
            return bad("auth_methods: each of PAP, CHAP-MD5, MS-CHAPv2 at most once");
        }
    }
    let chap = settings.auth_methods.contains(&v1::AuthMethod::ChapMd5.into());
    if chap && !settings.store_chap_secrets {
        return bad(
            "auth_methods: CHAP-MD5 can only be checked against a kept password; set store_chap_secrets, too, and set the \
             passwords again",
        );
    }
    let publication_name = match settings.publication_name.as_str() {
        "" => String::new(),
        text => match publication_name(text) {
            Some(name) => name,
            None => return bad("publication_name: a host, or HOST:PORT, without http://"),
        },
    };
    let ike = settings.ike.unwrap_or_default();
    if ike.ike_proposals.len() > MAX_PROPOSALS || ike.esp_proposals.len() > MAX_PROPOSALS {
        return Err(Status::invalid_argument(format!("at most {MAX_PROPOSALS} proposals of each kind")));
    }
    let wrong = |field: &str, why: String| Status::invalid_argument(format!("{field}: {why}"));
    for text in &ike.ike_proposals {
        proposal::ike(text).map_err(|why| wrong("ike_proposals", why))?;
    }
    for text in &ike.esp_proposals {
        proposal::esp(text).map_err(|why| wrong("esp_proposals", why))?;
    }
    if ike.dpd_timeout_s != 0 && ike.dpd_timeout_s < ike.dpd_delay_s {
        return bad("dpd_timeout_s must not be less than dpd_delay_s");
    }
    if settings.max_stale_s != 0 && settings.max_stale_s < SHORTEST_STALE_S {
        return bad("max_stale_s: at least 30 seconds, or 0 for the default of 600");
    }
    let ppp = settings.ppp.unwrap_or_default();
    if ppp.mru != 0 && !(128..=1500).contains(&ppp.mru) {
        return bad("mru must be 128 to 1500 bytes");
    }
    if settings.lockout_s > 86_400 {
        return bad("lockout_s must be at most 86400");
    }
    let public_names = public_names(&settings.public_names).map_err(|why| wrong("public_names", why))?;
    Ok(SettingsRow {
        version: settings.version,
        auth_methods: settings.auth_methods,
        store_chap_secrets: settings.store_chap_secrets,
        ike: Some(ike),
        ppp: Some(ppp),
        idle_timeout_s: settings.idle_timeout_s,
        session_timeout_s: settings.session_timeout_s,
        max_sessions_per_user: settings.max_sessions_per_user,
        lockout_failures: settings.lockout_failures,
        lockout_s: settings.lockout_s,
        audit_keep: if settings.audit_keep == 0 { 10_000 } else { settings.audit_keep },
        hold_upgrade: settings.hold_upgrade,
        max_stale_s: settings.max_stale_s,
        fail_closed: settings.fail_closed,
        scep: settings.scep,
        scep_single_des: settings.scep_single_des,
        public_names,
        publication_name,
        delta_crl: settings.delta_crl,
    })
}
