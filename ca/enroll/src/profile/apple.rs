//! A configuration profile of Apple's (`.mobileconfig`): roots, certificates in between, identity, and an L2TP connection that
//! authenticates the machine by it.
//!
//! macOS does that; the L2TP client of iOS knows a pre-shared key only, so there the profile brings the certificates.
//! The password of the identity is asked for when the profile is installed.

use sallyport_ca::{Certificate, Fingerprint, SecureRandom};
use zeroize::Zeroizing;

use super::xml::{Value, plist};
use super::{File, Profile};
use crate::install::Connection;
use crate::{Error, Identity, Result};

/// Reverse DNS names of payloads, without the last part.
const IDENTIFIER: &str = "com.sallyport.vpn";

pub(super) fn make(
    identity: &Identity,
    connection: &Connection,
    p12: &[u8],
    name: &str,
    rng: &dyn SecureRandom,
) -> Result<Profile> {
    let machine = identity.name();
    let mut content = Vec::new();
    let mut certificates = Vec::new();
    for (der, kind) in identity
        .roots
        .iter()
        .map(|der| (der, "com.apple.security.root"))
        .chain(identity.chain.iter().map(|der| (der, "com.apple.security.pkcs1")))
    {
        let title = Certificate::from_der(der).map_or_else(|_| "CA".to_owned(), |c| crate::folder::common_name(&c));
        certificates.push((der, kind, title, uuid(rng)?, Fingerprint::of(der).to_string()));
    }
    let identifiers: Vec<String> = certificates.iter().map(|c| format!("{IDENTIFIER}.ca.{}", c.4)).collect();
    for ((der, kind, title, uuid, _), identifier) in certificates.iter().zip(&identifiers) {
        let mut payload = head(kind, title, identifier, uuid);
        payload.push(("PayloadContent", Value::Data(der)));
        content.push(Value::Dict(payload));
    }

    let (own, vpn, whole) = (uuid(rng)?, uuid(rng)?, uuid(rng)?);
    let own_identifier = format!("{IDENTIFIER}.identity.{name}");
    let file = format!("{name}.p12");
    let mut payload = head("com.apple.security.pkcs12", &machine, &own_identifier, &own);
    payload.push(("PayloadCertificateFileName", Value::Text(&file)));
    payload.push(("PayloadContent", Value::Data(p12)));
    payload.push(("AllowAllAppsAccess", Value::No));
    payload.push(("KeyIsExtractable", Value::No));
    content.push(Value::Dict(payload));

    let title = format!("Sallyport {}", connection.gateway);
    let vpn_identifier = format!("{IDENTIFIER}.l2tp.{}", connection.gateway);
    let mut ppp = vec![
        ("CommRemoteAddress", Value::Text(&connection.gateway)),
        ("AuthenticationMethod", Value::Text("Password")),
    ];
    if let Some(user) = &connection.user {
        ppp.push(("AuthName", Value::Text(user)));
    }
    let ipsec =
        vec![("AuthenticationMethod", Value::Text("Certificate")), ("PayloadCertificateUUID", Value::Text(&own))];
    let mut payload = head("com.apple.vpn.managed", &title, &vpn_identifier, &vpn);
    payload.push(("UserDefinedName", Value::Text(&title)));
    payload.push(("VPNType", Value::Text("L2TP")));
    payload.push(("PPP", Value::Dict(ppp)));
    payload.push(("IPSec", Value::Dict(ipsec)));
    // Only what is for the inside network goes through the tunnel.
    payload.push(("IPv4", Value::Dict(vec![("OverridePrimary", Value::Number(0))])));
    content.push(Value::Dict(payload));

    let whole_identifier = format!("{IDENTIFIER}.{name}");
    let mut profile = head("Configuration", &title, &whole_identifier, &whole);
    profile.push(("PayloadScope", Value::Text("System")));
    profile.push(("PayloadContent", Value::List(content)));
    let text = plist(&Value::Dict(profile));
    let file = format!("{name}.mobileconfig");
    Ok(Profile {
        steps: vec![
            format!(
                "copy {file} to the Mac and open it, then System Settings, Privacy & Security, Profiles: install it"
            ),
            "give the password below when it asks for the one of the certificate".to_owned(),
            format!(
                "connect: System Settings, VPN, `{title}` (an iPhone takes the certificates, but its L2TP only a pre-shared key)"
            ),
        ],
        files: vec![File { name: file, public: false, content: Zeroizing::new(text.as_bytes().to_vec()) }],
        password: None,
    })
}

/// The keys that each payload has.
fn head<'a>(kind: &'a str, title: &'a str, identifier: &'a str, uuid: &'a str) -> Vec<(&'static str, Value<'a>)> {
    vec![
        ("PayloadType", Value::Text(kind)),
        ("PayloadVersion", Value::Number(1)),
        ("PayloadIdentifier", Value::Text(identifier)),
        ("PayloadUUID", Value::Text(uuid)),
        ("PayloadDisplayName", Value::Text(title)),
    ]
}

/// A random UUID (version 4 of RFC 9562).
fn uuid(rng: &dyn SecureRandom) -> Result<String> {
    let mut id = [0_u8; 16];
    rng.fill(&mut id).map_err(|_| Error::machine("the random source failed", ""))?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|b| format!("{b:02X}")).collect();
    Ok([0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default().to_owned()).join("-"))
}
