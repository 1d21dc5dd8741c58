//! Whether the certificate of this machine is revoked, as far as the authority's list says.

use sallyport_ca::UnixTime;
use sallyport_ca::crl::RevocationList;

use crate::{Error, Identity, Kind, Result, Server, Settings, est};

/// Since when the certificate is revoked or on hold; `None` where the list that it names, as the endpoint has it now, does not know it. An
/// error says why nobody can tell.
pub async fn revoked_since(settings: &Settings, identity: &Identity, now: UnixTime) -> Result<Option<UnixTime>> {
    let none =
        || Error::new(Kind::Unreachable, "the certificate names no revocation list", "ask the operator of the VPN");
    let address = identity.certificate.list_addresses().into_iter().next().ok_or_else(none)?;
    // The host may be a name of another time: what is asked is the endpoint, which has all of them.
    let path = address
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)))
        .ok_or_else(none)?;
    let server: Server = settings.server.parse()?;
    let der = est::list(&server, &identity.roots, path, now).await?;
    let authorities = [identity.chain.as_slice(), &identity.roots].concat();
    let list = RevocationList::verify(&der, &authorities)?;
    // Another part of the list would say nothing of this certificate.
    if !list.scope.is_empty() && !list.scope.ends_with(path) {
        return Err(Error::untrusted(
            format!("{server} sends another list than that of this certificate"),
            "tell the operator",
        ));
    }
    Ok(list.revoked.get(&identity.certificate.serial).copied())
}
